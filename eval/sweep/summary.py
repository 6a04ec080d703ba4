"""`r1-mini compare SWEEP`: settings against the default, from the samples of their runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import optuna
import pandas as pd
from optuna.trial import FixedTrial, create_trial
from rich.console import Console

from eval.analysis.columns import Column, Columns, columns_of_runs
from eval.analysis.compare import differences, interval, score
from eval.report import page, plots, words
from eval.sweep.spec import OBJECTIVES, Range, Setting, Sweep, Training, overrides
from r1_mini.config.yaml_file import read_mapping
from r1_mini.errors import UserError
from r1_mini.pipeline.store import stage_metrics
from r1_mini.system.files import reading

TRIALS = "trials.json"
FEWEST_TRAININGS = 8
"""With fewer trainings than this, the importance of keys is unknown."""


def compare_sweep(folder: Path, out: Path | None, console: Console) -> None:
    """Write summary.json, comparison.csv and report.html of a sweep, and print its table and verdicts."""
    summary, curves = summarize(folder)
    short, names = words.shortened(summary)
    table = pd.DataFrame(words.sweep_table(short)).iloc[:, [0, 1, 3, 4]]  # fits into 80 columns
    page.show(
        f"{summary['sweep']}: {words.sweep_exam(summary)}; percent [95% interval]",
        list(table),
        [table.to_numpy()],
        [*(f"{rank}: {name}" for name, rank in names.items() if rank != name), *words.sweep_sentences(short)],
        console,
    )
    page.write(out or folder, summary, as_csv(summary), page.render_sweep(summary, curves), console)


def summarize(folder: Path) -> tuple[dict[str, Any], dict[str, list[plots.Rows]]]:
    """The summary of a sweep, and each setting's metrics of the stages after the base, seed by seed."""
    sweep = Sweep.model_validate(read_mapping(folder / "sweep.yaml"))
    with reading(folder / TRIALS):
        trainings = [Training(**entry) for entry in json.loads((folder / TRIALS).read_text(encoding="utf-8"))]
    default = sweep.default or trainings[0].setting
    finished = comparable(folder, trainings, default)
    runs = {name: [folder / training.folder for training in each] for name, each in finished.items()}
    columns = {name: columns_of_runs(each) for name, each in runs.items()}
    final = Columns({name: each.final.at(None) for name, each in columns.items()})
    metric, is_share, maximize = (
        OBJECTIVES[sweep.objective],
        sweep.objective != "mean_tokens",
        sweep.direction == "maximize",
    )
    first = final[default].samples[0]
    pairs = [(default, name) for name in final if name != default]
    scores = {name: column.scores(metric) for name, column in final.items()}
    against = {each.after: each for each in differences(scores, pairs, is_share)}
    more, less = ("better", "worse") if maximize else ("worse", "better")
    verdicts = {"shown": more, "worse": less, "not shown": "not told apart"}

    def figures(column: Column) -> dict[str, Any]:
        """Every figure of an exam; its score, and those of its seeds, are the objective."""
        scores_SP = column.scores(metric)
        means = zip(column.seeds, scores_SP.mean(axis=1).tolist(), strict=True)
        return {
            **asdict(score(column)),
            "score": asdict(interval(scores_SP, first.n, is_share)),
            "seeds": [{"seed": seed, "score": mean} for seed, mean in means],
        }

    def entry(name: str, training: Training) -> dict[str, Any]:
        """A setting in the summary."""
        changes = {key: value for key, value in training.changes.items() if key != sweep.seeds.key}
        start, difference = _start(columns[name]), against.get(name)
        return {
            **figures(final[name]),
            "name": name,
            "changes": changes,
            "overrides": overrides(changes),
            "recipe": str(folder / training.recipe),
            "against_default": difference and {"difference": asdict(difference), "word": verdicts[difference.verdict]},
            "cells_before": figures(start)["cells"] if start else [],
        }

    settings = [entry(name, seeds[0]) for name, seeds in finished.items()]
    settings.sort(key=lambda each: each["score"]["estimate"], reverse=maximize)
    means = [(each["changes"], seed["score"]) for each in settings for seed in each["seeds"]]
    summary = {
        "sweep": sweep.name,
        **sweep.model_dump(mode="json", include={"objective", "direction", "space"}),
        "is_share": is_share,
        "default": default,
        "seeds": final[default].seeds,
        "n_problems": len(first.questions),
        "n_samples": first.n,
        "split": first.settings["split"],
        "starts": [{**figures(start), "name": label} for label, start in _starts(columns, default).items()],
        "importances": importances(sweep.space, means, sweep.direction),
        "settings": settings,
        "unfinished": sorted({each.setting for each in trainings if each.state != "PRUNED"} - set(finished)),
        "pruned": sum(each.state == "PRUNED" for each in trainings),
        "failures": [asdict(each) for each in trainings if each.state == "FAIL"],
    }
    return summary, {name: [plots.of_rollouts(stage_metrics(run)) for run in each] for name, each in runs.items()}


def comparable(folder: Path, trainings: Sequence[Training], default: str) -> dict[str, list[Training]]:
    """The trainings of each finished setting, for the seeds that every one has; UserError if there are none."""
    done: dict[str, dict[int, Training]] = {}
    for training in trainings:
        if training.state == "COMPLETE":
            done.setdefault(training.setting, {})[training.seed] = training
    shared = sorted(set.intersection(*map(set, done.values()))) if default in done else []
    finished = {name: [seeds[seed] for seed in shared] for name, seeds in done.items()}
    away = [each.folder for seeds in finished.values() for each in seeds if not (folder / each.folder).is_dir()]
    what, fix = f"no seed is finished for all settings and the default, '{default}'", "run the sweep on"
    if away:
        what = f"{len(away)} finished trials ran on another machine, such as {away[0]}"
        fix = f"copy them into {folder / 'trials'}; if they were deleted, delete sweep.db too and repeat the sweep"
    if away or not shared:
        raise UserError(what, where=str(folder), fix=fix)
    return finished


def _start(columns: Columns) -> Column | None:
    """What a run's final checkpoint was trained from, on the exam proper: the first column, if that is another."""
    first = next(iter(columns))
    return columns[first].at(None) if first != columns.lineup.final else None


def _starts(columns: Mapping[str, Columns], default: str) -> dict[str, Column]:
    """What the default was trained from, free and forced, and the forced model of settings that stop at their base."""
    starts = {}
    for name, each in columns.items():
        for key in each:
            if key != each.lineup.final and (name == default or not _start(each)):
                label = each[key].label if name == default else f"{name}, forced"
                starts[label] = each[key].at(None)
    return starts


def importances(
    space: Mapping[str, Range], trainings: Sequence[tuple[Setting, float]], direction: Literal["maximize", "minimize"]
) -> dict[str, float]:
    """Share of each key in what tells the best quarter of the trainings from the rest, largest first; they sum to 1.

    PED-ANOVA (2304.10255), which takes keys that only some settings have. `trainings`: settings and their scores.
    Empty where there are not two keys, not FEWEST_TRAININGS, or no difference between them.
    """
    if len(space) < 2 or len(trainings) < FEWEST_TRAININGS or len({value for _, value in trainings}) < 2:
        return {}
    study = optuna.create_study(direction=direction)
    for setting, value in trainings:
        trial = FixedTrial({key: space[key].param(each) for key, each in setting.items()})
        for key in setting:
            space[key].suggest(trial, key)
        study.add_trial(create_trial(params=trial.params, distributions=trial.distributions, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def as_csv(summary: Mapping[str, Any]) -> str:
    """A line for each setting, with every figure of the summary that is no list."""
    table = pd.json_normalize(summary["settings"], sep=" ")
    for place, seed in enumerate(summary["seeds"]):
        table[f"seed {seed}"] = [setting["seeds"][place]["score"] for setting in summary["settings"]]
    lists = [name for name in table if isinstance(table[name][0], list)]
    return str(table.drop(columns=lists).to_csv(index=False, lineterminator="\n"))
