"""`r1-mini compare SWEEP`: settings against the default, from the samples of their trials."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.analysis import metrics, stats
from eval.analysis.columns import BASE, FORCED, LABELS, RL, Column, checked, columns_of_runs
from eval.analysis.compare import interval
from eval.exam.samples import VOICES, Samples, at_axis
from eval.report import page, plots, words
from eval.sweep.importance import importances
from eval.sweep.objective import OBJECTIVES, Score
from eval.sweep.spec import Sweep
from eval.sweep.study import TRIALS, recipe_file
from eval.sweep.verdicts import interquartile_mean, of_cells, verdicts
from r1_mini.config.yaml_file import read_mapping
from r1_mini.errors import UserError
from r1_mini.pipeline.store import stage_metrics
from r1_mini.system.files import write_json_atomic, write_text_atomic

SWEEP = "sweep.yaml"


def compare_sweep(folder: Path, out: Path | None, console: Console) -> None:
    """Write summary.json, comparison.csv and report.html of a sweep, and print its table and verdicts."""
    summary, curves = summarize(folder)
    target = out or folder
    target.mkdir(parents=True, exist_ok=True)
    write_json_atomic(target / "summary.json", summary)
    write_text_atomic(target / "comparison.csv", as_csv(summary))
    write_text_atomic(target / "report.html", page.render_sweep(summary, curves))
    show(summary, console)
    console.print(f"the page: {target / 'report.html'}", soft_wrap=True)


def summarize(folder: Path) -> tuple[dict[str, Any], dict[str, list[plots.Rows]]]:
    """The summary of a sweep, and each setting's metrics of the stages after the base, seed by seed.

    Settings are compared over the seeds that they and the default have finished. UserError if the default has no
    finished trial, no seed is finished for all settings, or the run of a trial lies on another machine.
    """
    sweep, trials = _read(folder)
    done: dict[str, dict[int, dict[str, Any]]] = {}
    for trial in trials:
        done.setdefault(trial["setting"], {})
        if trial["state"] == "COMPLETE":
            done[trial["setting"]][trial["seed"]] = trial
    default = sweep.default or next(iter(done), "")
    finished = {name: seeds for name, seeds in done.items() if seeds}
    if default not in finished:
        raise UserError(f"the setting '{default}' has no finished trial", where=str(folder), fix="run the sweep on")
    shared = sorted(set.intersection(*(set(seeds) for seeds in finished.values())))
    if not shared:
        raise UserError("no seed is finished for every setting", where=str(folder), fix="run the sweep on")
    runs = {name: [folder / "trials" / seeds[seed]["folder"] for seed in shared] for name, seeds in finished.items()}
    away = [run.name for each in runs.values() for run in each if not run.is_dir()]
    if away:
        what = f"{len(away)} finished trials are not here, {away[0]} for one: they ran on another machine"
        raise UserError(what, where=str(folder), fix=f"copy their folders into {folder / 'trials'}, then compare")
    columns = {name: columns_of_runs(each) for name, each in runs.items()}
    last = checked({name: each[RL if RL in each else BASE] for name, each in columns.items()})
    score, is_share = OBJECTIVES[sweep.objective]
    scores = {name: _scores(column, score) for name, column in last.items()}
    first = _proper(next(iter(last.values())))[0]
    cells = _cells(first)
    maximize = sweep.direction == "maximize"
    bounds = (-1.0, 1.0) if is_share else (-math.inf, math.inf)
    found = verdicts(scores, cells, default, maximize, bounds)
    changes = {name: _changes(sweep, finished[name][shared[0]]["overrides"]) for name in last}
    settings = [
        {
            "name": name,
            "changes": changes[name],
            "overrides": finished[name][shared[0]]["overrides"],
            "recipe": str(recipe_file(folder, finished[name][shared[0]]["recipe"])),
            "seeds": [
                {"seed": seed, "score": float(row.mean())} for seed, row in zip(shared, scores[name], strict=True)
            ],
            "score": asdict(_interval(scores[name], first.n, is_share)),
            "interquartile_mean": asdict(interquartile_mean(of_cells(scores[name], cells))),
            "against_default": asdict(found[name]) if name in found else None,
            "cells": _by_cell(last[name], cells),
            "cells_before": _by_cell(columns[name][BASE], cells) if RL in columns[name] else [],
            "seconds": [finished[name][seed]["seconds"] for seed in shared],
            **_figures(last[name]),
        }
        for name in last
    ]
    settings.sort(key=lambda each: each["score"]["estimate"], reverse=maximize)
    means = [(changes[name], float(row.mean())) for name in last for row in scores[name] if sweep.space]
    failed = [trial for trial in trials if trial["state"] == "FAIL"]
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
            {
                "name": label,
                **_figures(start),
                "score": asdict(_interval(_scores(start, score), first.n, is_share)),
            }
            for label, start in _starts(columns, default, score).items()
        ],
        "space": {key: {"log": spread.log, "choices": bool(spread.choices)} for key, spread in sweep.space.items()},
        "importances": importances(sweep.space, means, maximize),
        "settings": settings,
        "unfinished": sorted({t["setting"] for t in trials if t["state"] != "PRUNED"} - set(finished)),
        "pruned": sum(trial["state"] == "PRUNED" for trial in trials),
        "failures": [{key: trial[key] for key in ("setting", "seed", "reason")} for trial in failed],
    }
    return summary, {name: [plots.of_rollouts(stage_metrics(run)) for run in each] for name, each in runs.items()}


def _starts(columns: Mapping[str, Mapping[str, Column]], default: str, score: Score) -> dict[str, Column]:
    """What RL started from: the default's base, free and forced; and the forced model of settings without RL."""
    starts = {}
    if RL in columns[default]:
        bases = [_scores(each[BASE], score) for each in columns.values() if RL in each]
        of = "" if all(np.array_equal(base, bases[0]) for base in bases) else f" of {default}"
        starts = {f"{LABELS[key]}{of}": columns[default][key] for key in (BASE, FORCED) if key in columns[default]}
    stopped = {name: each for name, each in columns.items() if RL not in each and FORCED in each}
    return starts | {f"{name}, forced": each[FORCED] for name, each in stopped.items()}


def _read(folder: Path) -> tuple[Sweep, list[dict[str, Any]]]:
    sweep = Sweep.model_validate(read_mapping(folder / SWEEP))
    try:
        return sweep, list(json.loads((folder / TRIALS).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError("no trials.json yet", where=str(folder), fix="run r1-mini sweep to its end") from None


def _changes(sweep: Sweep, overrides: Sequence[str]) -> dict[str, Any]:
    """What a setting sets in its recipe, without the seed."""
    pairs = [text.split("=", 1) for text in overrides]
    return {key: json.loads(value) for key, value in pairs if key != sweep.seeds.key}


def _proper(column: Column) -> list[Samples]:
    return [at_axis(samples, None) for samples in column.samples]


def _scores(column: Column, score: Score) -> NDArray[np.float64]:
    """(S, P)."""
    return np.stack([np.asarray(score(samples), dtype=float) for samples in _proper(column)])


def _cells(samples: Samples) -> NDArray[np.int64]:
    """The number of the family and depth of each problem, (P,)."""
    kinds = [(question.family, question.depth) for question in samples.questions]
    order = {kind: number for number, kind in enumerate(sorted(set(kinds)))}
    return np.array([order[kind] for kind in kinds])


def _by_cell(column: Column, cells_P: NDArray[np.int64]) -> list[dict[str, Any]]:
    """pass@1 of each family and depth, with its interval."""
    questions = _proper(column)[0].questions
    passed, n_samples = _scores(column, metrics.pass_at_1), column.samples[0].n
    found = []
    for cell in np.unique(cells_P):
        question = questions[int(np.argmax(cells_P == cell))]
        found.append(
            {
                "family": question.family,
                "depth": question.depth,
                **asdict(interval(passed[:, cells_P == cell], n_samples)),
            }
        )
    return found


def _interval(scores_SP: NDArray[np.float64], n_samples: int, is_share: bool) -> stats.Interval:
    """Of a share within 0 and 1, as in every exam; other scores have no such bounds."""
    return interval(scores_SP, n_samples) if is_share else stats.hierarchical(scores_SP)


def _figures(column: Column) -> dict[str, Any]:
    """What else an exam says of a setting, over all seeds."""
    pooled = at_axis(column.pooled, None)
    samples = _proper(column)
    chains = metrics.chain_truth(pooled)
    return {
        "pass_at_1": float(metrics.pass_at_1(pooled).mean()),
        "pass_at_k": float(np.mean([metrics.pass_at_k(each, each.n).mean() for each in samples])),
        "maj_at_k": float(np.mean([metrics.maj_at_k(each, each.n).mean() for each in samples])),
        "mean_tokens": float(metrics.tokens(pooled).mean()),
        "well_formed": float(metrics.well_formed(pooled).mean()),
        "entropy": metrics.entropy(pooled),
        "kl": metrics.kl(pooled),
        "voices": metrics.voice_shares(pooled),
        "right_and_sound": chains["right_by_right"],
    }


def as_csv(summary: Mapping[str, Any]) -> str:
    """One row a setting."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = ("pass_at_1", "pass_at_k", "maj_at_k", "mean_tokens", "entropy", "kl", "well_formed", "right_and_sound")
    seeds = [f"seed {seed}" for seed in summary["seeds"]]
    heads = ["setting", summary["objective"], "low", "high", "interquartile mean", "low", "high", *seeds]
    writer.writerow(
        [*heads, "difference", "low", "high", "p adjusted", "chance of improvement", "verdict", *figures, *VOICES]
    )
    for setting in summary["settings"]:
        against = setting["against_default"]
        row = [setting["name"], *_ends(setting["score"]), *_ends(setting["interquartile_mean"])]
        row += [each["score"] for each in setting["seeds"]]
        row += (
            [*_ends(against["difference"]), against["p_adjusted"], against["improvement"]["estimate"], against["word"]]
            if against
            else [""] * 5 + ["default"]
        )
        voices = (setting["voices"][voice] for voice in VOICES)
        writer.writerow([*row, *(setting[figure] for figure in figures), *voices])
    return out.getvalue()


def _ends(interval: Mapping[str, float]) -> list[float]:
    return [interval["estimate"], interval["low"], interval["high"]]


def show(summary: Mapping[str, Any], console: Console) -> None:
    """The table and the verdict, for the terminal."""
    summary, names = words.shortened(summary)
    console.print(f"{summary['sweep']}: {words.sweep_exam(summary)}; percent [95% interval]", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    shown = (0, 1, 4, 6)  # what 80 columns have room for; the page has all
    for place in shown:
        table.add_column(
            Text(words.sweep_headings(summary)[place]), justify="right" if place else "left", no_wrap=bool(place)
        )
    for row in words.sweep_rows(summary):
        table.add_row(*(Text(row[place]) for place in shown))
    console.print(table)
    for name, short in names.items():
        if short != name:
            console.print(f"{short}: {name}", highlight=False, markup=False)
    for sentence in words.sweep_sentences(summary):
        console.print(sentence, highlight=False, markup=False)
