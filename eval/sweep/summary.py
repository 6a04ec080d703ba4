"""`r1-mini compare SWEEP`: settings against the default, from the samples of their runs.

Two things vary by chance: the training seed and the problems. Suffixes: S seeds, P problems, C cells (the problems of a
family and depth), R resamples.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import trim_mean

from eval.analysis import metrics, stats
from eval.analysis.columns import Column, Columns, columns_of_runs
from eval.analysis.compare import differences, interval, score
from eval.analysis.stats import Floats, Interval
from eval.report import page, plots, words
from eval.report.publish import show, write
from eval.sweep.spec import OBJECTIVES, Range, Setting, Sweep, Training, recipe_file
from r1_mini.config.yaml_file import read_mapping
from r1_mini.errors import UserError
from r1_mini.pipeline.store import stage_metrics

TRIALS = "trials.json"
FEWEST_TRAININGS = 8
"""With fewer trainings than this, the importance of keys is unknown."""


def compare_sweep(folder: Path, out: Path | None, console: Console) -> None:
    """Write summary.json, comparison.csv and report.html of a sweep, and print its table and verdicts."""
    summary, curves = summarize(folder)
    short, names = words.shortened(summary)
    rows = [[cells[place] for place in (0, 1, 4, 6)] for cells in words.sweep_table(short)]  # fit into 80 columns
    show(
        f"{summary['sweep']}: {words.sweep_exam(summary)}; percent [95% interval]",
        rows[0],
        [rows[1:]],
        [*(f"{rank}: {name}" for name, rank in names.items() if rank != name), *words.sweep_sentences(short)],
        console,
    )
    write(out or folder, summary, as_csv(summary), page.render_sweep(summary, curves), console)


def summarize(folder: Path) -> tuple[dict[str, Any], dict[str, list[plots.Rows]]]:
    """The summary of a sweep, and each setting's metrics of the stages after the base, seed by seed."""
    sweep = Sweep.model_validate(read_mapping(folder / "sweep.yaml"))
    trainings = read_trainings(folder)
    default = sweep.default or (trainings[0].setting.name if trainings else "")
    finished = comparable(folder, trainings, default)
    shared = list(finished[default])
    runs = {name: [folder / training.folder for training in seeds.values()] for name, seeds in finished.items()}
    columns = {name: columns_of_runs(each) for name, each in runs.items()}
    last = Columns({name: each.final for name, each in columns.items()})
    proper = {name: column.at(None) for name, column in last.items()}
    is_share, objective = sweep.objective != "mean_tokens", OBJECTIVES[sweep.objective]
    scores = {name: column.scores(objective) for name, column in proper.items()}
    first = proper[default].samples[0]
    kinds = [f"{question.family} {question.depth}" for question in first.questions]
    by_cell = {name: of_cells(each, np.array(kinds)) for name, each in scores.items()}
    found = differences(scores, [(default, name) for name in scores if name != default], is_share)
    against = {
        each.after: {
            "difference": asdict(each),
            "improvement": asdict(improvement(by_cell[each.after], by_cell[default])),
            "word": word(each, each.p_adjusted, sweep.direction == "maximize"),
        }
        for each in found
    }

    settings = [
        {
            "name": name,
            "changes": seeds[shared[0]].setting.changes,
            "overrides": seeds[shared[0]].setting.overrides(**{sweep.seeds.key: shared[0]}),
            "recipe": str(recipe_file(folder, seeds[shared[0]].setting.recipe)),
            "seeds": [
                {"seed": seed, "score": float(scores_P.mean())}
                for seed, scores_P in zip(shared, scores[name], strict=True)
            ],
            "score": asdict(interval(scores[name], first.n, is_share)),
            "interquartile_mean": asdict(interquartile_mean(by_cell[name])),
            "against_default": against.get(name),
            "cells_before": _figures(start)["cells"] if (start := _start(columns[name])) else [],
            "seconds": [seeds[seed].seconds for seed in shared],
            **_figures(last[name]),
        }
        for name, seeds in finished.items()
    ]
    settings.sort(key=lambda each: each["score"]["estimate"], reverse=sweep.direction == "maximize")
    means = [(each["changes"], seed["score"]) for each in settings for seed in each["seeds"]]
    summary = {
        "sweep": sweep.name,
        "objective": sweep.objective,
        "is_share": is_share,
        "direction": sweep.direction,
        "default": default,
        "seeds": shared,
        "n_problems": len(first.questions),
        "n_samples": first.n,
        "split": first.settings["split"],
        "starts": [
            {"name": label, **_figures(start), "score": asdict(interval(start.scores(objective), first.n, is_share))}
            for label, start in _starts(columns, default).items()
        ],
        "space": {key: {"log": values.log, "choices": bool(values.choices)} for key, values in sweep.space.items()},
        "importances": importances(sweep.space, means, sweep.direction),
        "settings": settings,
        "unfinished": sorted({each.setting.name for each in trainings if each.state != "PRUNED"} - set(finished)),
        "pruned": sum(each.state == "PRUNED" for each in trainings),
        "failures": [asdict(each) | {"setting": each.setting.name} for each in trainings if each.state == "FAIL"],
    }
    return summary, {name: [plots.of_rollouts(stage_metrics(run)) for run in each] for name, each in runs.items()}


def comparable(folder: Path, trainings: Sequence[Training], default: str) -> dict[str, dict[int, Training]]:
    """Setting -> seed -> training, for the seeds that every finished setting has.

    UserError if there is no such seed, the default has not finished, or a run lies on another machine.
    """
    done: dict[str, dict[int, Training]] = {}
    for training in trainings:
        if training.state == "COMPLETE":
            done.setdefault(training.setting.name, {})[training.seed] = training
    shared = sorted(set.intersection(*map(set, done.values()))) if default in done else []
    finished = {name: {seed: seeds[seed] for seed in shared} for name, seeds in done.items()}
    away = [
        each.folder for seeds in finished.values() for each in seeds.values() if not (folder / each.folder).is_dir()
    ]
    what, fix = f"no seed is finished for all settings and the default, '{default}'", "run the sweep on"
    if away:
        what = f"{len(away)} finished trials are not here, such as {away[0]}: they ran on another machine"
        fix = f"copy their folders into {folder / 'trials'}"
    if away or not shared:
        raise UserError(what, where=str(folder), fix=fix)
    return finished


def read_trainings(folder: Path) -> list[Training]:
    """The trainings of a sweep as it left them; none if it has not run."""
    path = folder / TRIALS
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [Training(**{**entry, "setting": Setting(**entry["setting"])}) for entry in entries]


def _start(columns: Columns) -> Column | None:
    """What a run's final checkpoint was trained from: the first column, if that is another."""
    first = next(iter(columns))
    return columns[first] if first != columns.lineup.final else None


def _starts(columns: Mapping[str, Columns], default: str) -> dict[str, Column]:
    """What the default was trained from, free and forced, and the forced model of settings that stop at their base."""
    own, starts = columns[default], dict[str, Column]()
    if _start(own):
        bases = [start.scores(metrics.pass_at_1) for each in columns.values() if (start := _start(each))]
        of = "" if all(np.array_equal(base, bases[0]) for base in bases) else f" of {default}"
        starts = {f"{column.label}{of}": column for key, column in own.items() if key != own.lineup.final}
    for name, each in columns.items():
        if not _start(each):
            forced = [column for key, column in each.items() if each.lineup.columns[key].voice]
            starts |= {f"{name}, forced": column for column in forced}
    return {label: column.at(None) for label, column in starts.items()}


def _figures(column: Column) -> dict[str, Any]:
    """What else an exam says of a setting, over all seeds."""
    found = score(column)
    return {
        "pass_at_1": found.pass_at_1,
        "pass_at_k": found.pass_at_k[-1].estimate,
        "maj_at_k": found.maj_at_k[-1].estimate,
        "mean_tokens": found.mean_tokens,
        "well_formed": found.well_formed,
        "entropy": found.entropy,
        "kl": found.kl,
        "voices": found.voices,
        "right_and_sound": found.chains["right_by_right"],
        "cells": [asdict(cell) for cell in found.cells if cell.axis is None],
    }


def word(gain: Interval, p_value: float, maximize: bool) -> str:
    """Whether a setting is better than the default, worse, or tied, which it also is if interval and test disagree."""
    if p_value >= 1 - stats.LEVEL or gain.low <= 0 <= gain.high:
        return "tied"
    return "better" if (gain.estimate > 0) == maximize else "worse"


def of_cells(scores_SP: Floats, kinds_P: NDArray[np.str_]) -> Floats:
    """Mean score of each seed in each cell, (S, C)."""
    return np.stack([scores_SP[:, kinds_P == kind].mean(axis=1) for kind in np.unique(kinds_P)], axis=1)


def interquartile_mean(scores_SC: Floats, seed: int = 0) -> Interval:
    """Mean of the middle half of all scores, with the percentile interval of a bootstrap stratified by cell.

    Agarwal et al. 2021, 2108.13264, section 4.3 and appendix A: within each cell the seeds are resampled by themselves.
    """
    means_R = np.array([trim_mean(sample, 0.25, axis=None) for sample in _resampled(scores_SC, seed)])
    return stats.interval_of(means_R, float(trim_mean(scores_SC, 0.25, axis=None)))


def improvement(new_SC: Floats, old_SC: Floats, seed: int = 0) -> Interval:
    """Chance that a new score beats an old one in a random cell, ties counting half (2108.13264, eq. 1)."""
    chances_R = _beats(_resampled(new_SC, seed), _resampled(old_SC, seed + 1))
    return stats.interval_of(chances_R, float(_beats(new_SC, old_SC)))


def _beats(new: Floats, old: Floats) -> Floats:
    """Share of the pairs of a new and an old seed, (..., S, C) each, in which the new is ahead; ties count half."""
    compared = np.sign(new[..., :, None, :] - old[..., None, :, :])
    return np.asarray((compared.mean(axis=(-3, -2, -1)) + 1) / 2)


def _resampled(scores_SC: Floats, seed: int, resamples: int = 2_000) -> Floats:
    """Scores with the seeds of each cell sampled anew, (R, S, C)."""
    n_seeds, n_cells = scores_SC.shape
    seeds_RSC = np.random.default_rng(seed).integers(n_seeds, size=(resamples, n_seeds, n_cells))
    return np.asarray(scores_SC[seeds_RSC, np.arange(n_cells)])


def importances(
    space: Mapping[str, Range],
    trainings: Sequence[tuple[Mapping[str, Any], float]],
    direction: Literal["maximize", "minimize"],
) -> dict[str, float]:
    """Share of each key in what tells the best quarter of the trainings from the rest, largest first; they sum to 1.

    PED-ANOVA (2304.10255), which takes keys that only some settings have. `trainings`: values of the recipe's keys, and
    the score. Empty where there are not two keys, not FEWEST_TRAININGS, or no difference between them.
    """
    if len(space) < 2 or len(trainings) < FEWEST_TRAININGS or len({value for _, value in trainings}) < 2:
        return {}
    study = optuna.create_study(direction=direction)
    for changes, value in trainings:
        study.enqueue_trial({key: space[key].param(changed) for key, changed in changes.items()})
        trial = study.ask()
        for key in changes:
            space[key].suggest(trial, key)
        study.tell(trial, value)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def as_csv(summary: Mapping[str, Any]) -> str:
    """A line for each setting, with every figure of the summary that is no list."""
    seeds = [{f"seed {seed['seed']}": seed["score"] for seed in setting["seeds"]} for setting in summary["settings"]]
    flat = [setting | own for setting, own in zip(summary["settings"], seeds, strict=True)]
    table = pd.json_normalize(flat, sep=" ").drop(columns=["overrides", "seeds", "cells", "cells_before", "seconds"])
    return str(table.to_csv(index=False, lineterminator="\n"))
