"""The page of a sweep: verdict, table, each setting's points, learning curves, the command of the best."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from eval.report import sweep_words
from eval.report.curves import smooth
from eval.report.svg import COLORS, INK, LETTERS, STYLE, axes_of, drawn

Curves = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
FIELDS = {
    "accuracy": "Accuracy of the rollouts",
    "length": "Completion length, tokens",
    "entropy": "Entropy, nats per token",
    "kl": "KL to the reference",
}


def render(summary: Mapping[str, Any], curves: Curves) -> str:
    """The page as one HTML text that works offline; all text but our own drawings is escaped."""
    environment = Environment(
        loader=PackageLoader("eval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    best = summary["settings"][0]
    summary, names = sweep_words.shortened(summary)
    curves = {short: curves[name] for name, short in names.items()}  # one order, one color
    html: str = environment.get_template("sweep.html.jinja").render(
        summary=summary,
        exam=sweep_words.exam(summary),
        headline=sweep_words.verdict(summary),
        headings=sweep_words.headings(summary),
        rows=sweep_words.rows(summary),
        names={short: name for name, short in names.items() if short != name},
        sentences=sweep_words.sentences(summary)[1:],
        points=points(summary),
        depths=depths(summary),
        slices=slices(summary),
        importances=sweep_words.importances(summary),
        curves=[(title, chart) for field, title in FIELDS.items() if (chart := learning(curves, field, title))],
        command=shlex.join(
            ["r1-mini", "run", best["recipe"], *best["overrides"][:-1]]  # without the seed
        ),
        style=Markup(files("eval.report").joinpath("page.css").read_text("utf-8")),
    )
    return html.encode("utf-8", errors="backslashreplace").decode("utf-8")


def points(summary: Mapping[str, Any]) -> Markup:
    """A row for each setting: the score of every seed, and the mean with its interval."""
    settings = list(reversed(summary["settings"]))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.6 + 0.36 * len(settings)), layout="constrained")
        axes = axes_of(figure, summary["objective"].replace("_at_", "@"))
        for place, setting in enumerate(settings):
            score, color = setting["score"], COLORS["a" if setting["name"] == summary["default"] else "b"]
            axes.plot([score["low"], score["high"]], [place, place], color=color, linewidth=5, alpha=0.3)
            axes.plot(score["estimate"], place, color=color, marker="|", markersize=14, markeredgewidth=2)
            seeds = [each["score"] for each in setting["seeds"]]
            axes.plot(seeds, [place] * len(seeds), color=color, marker="o", markersize=4, linewidth=0)
        axes.set_yticks(range(len(settings)), [_plain(setting["name"]) for setting in settings], color=INK)
        for start, style in zip(summary["starts"], ("--", ":"), strict=False):
            line = start["score"]["estimate"]
            axes.axvline(line, color=INK, linewidth=0.8, linestyle=style, label=_plain(start["name"]))
        if summary["is_share"]:
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        return drawn(figure, axes, "points", "Score of each setting, seed by seed")


def depths(summary: Mapping[str, Any]) -> Markup:
    """pass@1 against the number of operations: a line for each setting, dashed for what it started from.

    Settings that started from one base have one dashed line.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = axes_of(figure, "operations", share=True)
        settings = summary["settings"][: len(LETTERS)]
        starts = [_line_of(setting["cells_before"]) for setting in settings]
        for place, (setting, start) in enumerate(zip(settings, starts, strict=True)):
            x, y = _line_of(setting["cells"])
            color = COLORS[LETTERS[place]]
            axes.plot(x, y, color=color, marker="o", markersize=3.5, label=_plain(setting["name"]))
            if start not in starts[:place]:
                shared = starts.count(start) > 1
                axes.plot(*start, color=INK if shared else color, linewidth=1.0, linestyle="--")
        axes.set_xticks(x, [str(depth or "?") for depth in x])
        return drawn(figure, axes, "depths", "Accuracy by number of operations", columns=3)


def _line_of(cells: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    """(depths, scores) of the first family."""
    same = [cell for cell in cells if cell["family"] == cells[0]["family"]]
    return [cell["depth"] for cell in same], [cell["estimate"] for cell in same]


def slices(summary: Mapping[str, Any]) -> list[tuple[str, Markup]]:
    """(key, chart): the score of every training against its value of a key of the space, other keys as they come."""
    return [(key, _slice(summary, key, place)) for place, key in enumerate(summary["space"])]


def _slice(summary: Mapping[str, Any], key: str, place: int) -> Markup:
    kind, settings = summary["space"][key], [each for each in summary["settings"] if key in each["changes"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.0), layout="constrained")
        axes = axes_of(figure, key.rsplit(".", 1)[-1])
        names = list(dict.fromkeys(str(each["changes"][key]) for each in settings)) if kind["choices"] else []
        for setting in settings:
            value = setting["changes"][key]
            x = names.index(str(value)) if names else value
            scores = [each["score"] for each in setting["seeds"]]
            color = COLORS["a" if setting["name"] == summary["default"] else "b"]
            axes.plot([x] * len(scores), scores, color=color, marker="o", markersize=4, linewidth=0, alpha=0.7)
        if names:
            axes.set_xticks(range(len(names)), [_plain(name) for name in names])
            axes.set_xlim(-0.5, len(names) - 0.5)
        elif kind["log"]:
            axes.set_xscale("log")
        if summary["is_share"]:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        return drawn(figure, axes, f"slice-{place}", f"Score by {key}")


def learning(curves: Curves, field: str, title: str) -> Markup | None:
    """A metric of training against the step: mean over seeds, smoothed, with a band from lowest to highest seed."""
    drawn_lines = 0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        axes = axes_of(figure, "step", share=field == "accuracy")
        for place, (name, seeds) in enumerate(list(curves.items())[: len(LETTERS)]):
            lines = [_line(rows, field) for rows in seeds]
            if not lines or any(line is None for line in lines):
                continue
            length = min(len(line[1]) for line in lines if line is not None)
            steps = next(line[0] for line in lines if line is not None)[:length]
            values_SK = np.stack([line[1][:length] for line in lines if line is not None])
            color = COLORS[LETTERS[place]]
            axes.fill_between(steps, values_SK.min(axis=0), values_SK.max(axis=0), color=color, alpha=0.18, linewidth=0)
            axes.plot(steps, values_SK.mean(axis=0), color=color, linewidth=1.6, label=_plain(name))
            drawn_lines += 1
        if not drawn_lines:
            return None
        if field != "accuracy":
            axes.set_ylim(bottom=0)
        return drawn(figure, axes, f"curve-{field}", f"{title}, over RL steps", columns=3)


def _line(rows: Sequence[Mapping[str, Any]], field: str) -> tuple[Any, Any] | None:
    """(steps, smoothed values) where the metric was logged; None if it never was."""
    there = [(row["step"], row[field]) for row in rows if row.get(field) is not None]
    if not there:
        return None
    steps, values = np.array(there, dtype=float).T
    return steps, smooth(values, max(1, len(values) // 20))


def _plain(name: str) -> str:
    """A name for matplotlib, to which $ begins a formula."""
    return name.replace("$", r"\$")
