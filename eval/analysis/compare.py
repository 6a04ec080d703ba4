"""Columns of samples to a summary: every number of the exam, computed from the samples alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.analysis import metrics, stats
from eval.analysis.columns import BASE, FORCED, RL, Column
from eval.analysis.gain import gain_parts, sharpened_or_new
from eval.exam.samples import Samples, at_axis, axes_of
from r1_mini.errors import UserError

Floats = NDArray[np.float64]


def summarize(columns: Mapping[str, Column], suite: str) -> dict[str, Any]:
    """The summary of an exam: scores of each column, differences with their verdicts, and where the first comes from.

    The headline is on the problems without an axis; the axes are reported beside it. Differences: of every column to
    the first, or of a run also RL against the forced base; their p-values are Holm-adjusted together.
    """
    proper = {name: _at(column, None) for name, column in columns.items()}
    first = next(iter(proper.values())).samples[0]
    pairs = _pairs(list(columns))
    compared = [_difference(proper[before], proper[after]) for before, after in pairs]
    adjusted = stats.holm([p_value for _, p_value, _ in compared]) if compared else []
    comparisons = [
        {
            "before": before,
            "after": after,
            **asdict(gain),
            "p_value": p_value,
            "p_adjusted": p_adjusted,
            "detectable": detectable,
            "verdict": stats.verdict(gain, p_adjusted),
        }
        for (before, after), (gain, p_value, detectable), p_adjusted in zip(pairs, compared, adjusted, strict=True)
    ]
    summary: dict[str, Any] = {
        "suite": suite,
        "families": sorted({question.family for question in first.questions}),
        "split": first.settings["split"],
        "n_problems": len(first.questions),
        "n_samples": first.n,
        "decoding": {field: first.settings[field] for field in ("temperature", "top_p", "max_tokens", "seed")},
        "names": {name: column.label for name, column in columns.items()},
        "scores": {name: _score(column, proper[name]) for name, column in columns.items()},
        "comparisons": comparisons,
        "gain": None,
        "sharpened": None,
    }
    if pairs:
        before, after = pairs[0]
        old, new = proper[before], proper[after]
        summary["gain"] = {"before": before, "after": after, "parts": gain_parts(old.pooled, new.pooled)}
        summary["sharpened"] = {"before": before, "after": after, **sharpened_or_new(old.samples, new.samples)}
    return summary


def of_a_run(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The short figures of a run: base, forced base, RL, their paired difference and its verdict."""
    found = {f"{c['before']} {c['after']}": c for c in summary["comparisons"]}
    difference = found.get(f"{BASE} {RL}")
    short: dict[str, Any] = {
        name: {key: score[key] for key in ("pass_at_1", "pass_at_1_interval", "mean_tokens")}
        for name, score in summary["scores"].items()
    }
    if difference:
        short["paired_difference"] = {key: difference[key] for key in ("estimate", "low", "high", "p_value")}
        short["verdict"] = difference["verdict"]
    return short


def as_csv(summary: Mapping[str, Any]) -> str:
    """One row per column and figure: `candidate,figure,estimate,low,high`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["candidate", "figure", "estimate", "low", "high"])
    for name, score in summary["scores"].items():
        label = summary["names"][name]
        for figure in ("pass_at_k", "maj_at_k"):
            for point in score[figure]:
                writer.writerow([label, f"{figure.split('_')[0]}@{point['k']}", *_ends(point)])
        if score["greedy"]:
            writer.writerow([label, "greedy", *_ends(score["greedy"])])
        for figure in ("mean_tokens", "tokens_right", "tokens_wrong", "entropy", "kl", "well_formed", "truncated"):
            writer.writerow([label, figure, score[figure], "", ""])
        for group in ("voices", "chains"):
            for figure, value in score[group].items():
                writer.writerow([label, f"{group[:-1]} {figure}", value, "", ""])
        for cell in score["cells"]:
            depth = f"depth {cell['depth']}" if cell["depth"] else None
            writer.writerow([label, " ".join(filter(None, (cell["family"], depth, cell["axis"]))), *_ends(cell)])
    for found in summary["comparisons"]:
        pair = f"{summary['names'][found['after']]} - {summary['names'][found['before']]}"
        writer.writerow([pair, "difference in pass@1", *_ends(found)])
    return out.getvalue()


def _ends(interval: Mapping[str, float]) -> list[float]:
    return [interval["estimate"], interval["low"], interval["high"]]


def _pairs(names: list[str]) -> list[tuple[str, str]]:
    """(before, after) of every difference, the headline first."""
    if BASE in names and RL in names:
        return [pair for pair in ((BASE, RL), (FORCED, RL), (BASE, FORCED)) if set(pair) <= set(names)]
    return [(names[0], name) for name in names[1:]]


def _at(column: Column, axis: str | None) -> Column:
    """The column on one axis."""
    return Column(
        column.label,
        column.seeds,
        tuple(at_axis(samples, axis) for samples in column.samples),
        tuple(at_axis(samples, axis) for samples in column.greedy),
    )


def _score(column: Column, proper: Column) -> dict[str, Any]:
    """Every figure of one column, on the exam proper but for cells and axes."""
    pooled = proper.pooled
    whole = _accuracy(proper)
    ks = metrics.powers(pooled.n // len(proper.seeds))
    return {
        "seeds": [
            {"seed": seed, "pass_at_1": float(metrics.pass_at_1(samples).mean())}
            for seed, samples in zip(proper.seeds, proper.samples, strict=True)
        ],
        "pass_at_1": whole["estimate"],
        "pass_at_1_interval": {"low": whole["low"], "high": whole["high"]},
        "pass_at_k": [_curve_point(proper, k, metrics.pass_at_k) for k in ks],
        "maj_at_k": [_curve_point(proper, k, metrics.maj_at_k) for k in ks],
        "greedy": _accuracy(Column("", proper.seeds, proper.greedy, ())) if proper.greedy else None,
        "mean_tokens": float(metrics.tokens(pooled).mean()),
        "tokens_right": metrics.mean_tokens_where(pooled, correct=True),
        "tokens_wrong": metrics.mean_tokens_where(pooled, correct=False),
        "entropy": metrics.entropy(pooled),
        "kl": metrics.kl(pooled),
        "well_formed": float(metrics.well_formed(pooled).mean()),
        "truncated": float(metrics.truncated(pooled).mean()),
        "voices": metrics.voice_shares(pooled),
        "chains": metrics.chain_truth(pooled),
        "first_wrong_step": {str(step): share for step, share in metrics.first_wrong_steps(pooled).items()},
        "cells": _cells(column),
        "axes": {axis: _accuracy(_at(column, axis)) for axis in axes_of(column.samples[0])},
    }


def _cells(column: Column) -> list[dict[str, Any]]:
    """Accuracy of each family, axis and depth, in the order of the suite."""
    first = column.samples[0]
    kinds = [(question.family, question.axis, question.depth) for question in first.questions]
    cells = []
    for family, axis, depth in sorted(
        dict.fromkeys(kinds), key=lambda kind: (kind[1] is not None, kind[1] or "", kind[0], kind[2])
    ):
        keep_P = np.array([kind == (family, axis, depth) for kind in kinds], dtype=bool)
        part = Column("", column.seeds, tuple(samples.where(keep_P) for samples in column.samples), ())
        cells.append({"family": family, "axis": axis, "depth": depth, **_accuracy(part)})
    return cells


def _accuracy(column: Column) -> dict[str, Any]:
    """pass@1 with its interval."""
    means_SP = np.stack([metrics.pass_at_1(samples) for samples in column.samples])
    return {**asdict(interval(means_SP, column.samples[0].n)), "n_problems": means_SP.shape[1]}


def interval(means_SP: Floats, n_samples: int) -> stats.Interval:
    """Of one seed Wilson's with problems as clusters, of several the hierarchical bootstrap over seeds and problems."""
    n_seeds, n_problems = means_SP.shape
    if n_seeds == 1 or not means_SP.std():  # all right or all wrong: no spread to resample, yet no certainty
        return stats.clustered_proportion(means_SP[0], n_samples * n_problems)
    if n_problems == 1:
        return stats.wilson(float(means_SP.sum()), n_seeds)
    return stats.hierarchical(means_SP, within=(0.0, 1.0))


def _curve_point(column: Column, k: int, metric: Callable[[Samples, int], Floats]) -> dict[str, float]:
    """A score at k with its interval over problems, and over seeds if there are several."""
    means_SP = np.stack([metric(samples, k) for samples in column.samples])
    return {"k": k, **asdict(interval(means_SP, column.samples[0].n))}


def _difference(before: Column, after: Column) -> tuple[stats.Interval, float, float]:
    """Paired difference in pass@1 (after - before): interval, p-value, and the smallest one that could be shown."""
    sides = [np.stack([metrics.pass_at_1(samples) for samples in column.samples]) for column in (before, after)]
    old_SP, new_SP = sides
    if old_SP.shape[1] < 2:
        raise UserError("one problem is no exam", where=after.label, fix="ask more, see --limit")
    if len(old_SP) == 1:
        gain, p_value = stats.paired_difference(old_SP[0], new_SP[0]), stats.permutation_p(old_SP[0], new_SP[0])
    else:
        gain, p_value = stats.hierarchical(new_SP - old_SP), stats.seeds_p(new_SP - old_SP)
    return gain, p_value, stats.detectable(old_SP, new_SP)
