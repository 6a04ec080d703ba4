"""The charts of an exam: pass@k, what the gain is made of, and how true the chains are."""

from __future__ import annotations

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from eval.report.svg import COLORS, INK, STYLE, axes_of, drawn, variables
from eval.report.words import Summary, chains_of, signed

FILL = {"right": "right", "wrong": "luck", "without": "none", "unchecked": "d"}
"""Color by the chain; a wrong answer is hatched."""
MOST_STEPS = 12  # later first wrong steps share a bar


def pass_at_k(summary: Summary, field: str, title: str) -> Markup | None:
    """pass@k or maj@k against k on a log2 axis, with its band, one line per column; None if there is only k = 1."""
    if summary["n_samples"] == 1:
        return None
    colors = variables(summary["scores"])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.2), layout="constrained")
        axes = axes_of(figure, "k, samples per problem", share=True)
        axes.set_xscale("log", base=2)
        for column, score in summary["scores"].items():
            k, estimate, low, high = (
                np.array([point[end] for point in score[field]]) for end in ("k", "estimate", "low", "high")
            )
            color = COLORS[colors[column]]
            axes.fill_between(k, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(k, estimate, color=color, marker="o", markersize=3.5, label=_plain(summary["names"][column]))
        axes.set_xticks(k, [str(number) for number in k], minor=False)
        axes.set_xticks([], minor=True)
        lowest = min(point["low"] for score in summary["scores"].values() for point in score[field])
        axes.set_ylim(bottom=max(-0.02, 0.1 * int(10 * lowest) - 0.02))
        return drawn(figure, axes, field.replace("_", "-"), title, columns=3)


def gain_parts(summary: Summary) -> Markup | None:
    """From one column's pass@1 to the other's, part by part, with the interval of each part."""
    gain = summary["gain"]
    if gain is None:
        return None
    ends = {
        side: (summary["names"][gain[side]], summary["scores"][gain[side]]["pass_at_1"]) for side in ("before", "after")
    }
    colors = variables(summary["scores"])
    names = [ends["before"][0], *(part["name"] for part in gain["parts"]), ends["after"][0]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 0.38 * len(names) + 0.7), layout="constrained")
        axes = axes_of(figure, "pass@1")
        axes.grid(axis="y", visible=False)
        for row, side in ((0, "before"), (len(names) - 1, "after")):
            axes.barh(row, ends[side][1], color=COLORS[colors[gain[side]]], height=0.62)
            axes.annotate(
                f"{100 * ends[side][1]:.1f}%", (ends[side][1], row), (4, 0), textcoords="offset points", va="center"
            )
        reached, furthest = ends["before"][1], max(value for _, value in ends.values())
        for row, part in enumerate(gain["parts"], start=1):
            start, reached = reached, reached + part["estimate"]
            low, high = start + part["low"], start + part["high"]
            axes.barh(
                row,
                part["estimate"],
                left=start,
                color=COLORS["b" if part["estimate"] >= 0 else "wrong"],
                alpha=0.7,
                height=0.62,
            )
            axes.plot([low, high], [row, row], color=INK, linewidth=1.2, marker="|", markersize=6)
            axes.plot([start, start], [row - 1, row], color=INK, linewidth=0.6, linestyle=":")
            right = max(start, reached, high)
            furthest = max(furthest, right)
            axes.annotate(signed(part["estimate"]), (right, row), (6, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(names)), [_plain(name) for name in names])
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, furthest * 1.16)
        axes.set_xticks([tick for tick in np.linspace(0, 1, 6) if tick <= furthest * 1.05])
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        return drawn(figure, axes, "gain", "The parts that the difference in pass@1 is the sum of")


def chain_truth(summary: Summary) -> Markup:
    """Shares of completions by answer and chain, one stacked bar per column."""
    scores = summary["scores"]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 0.38 * len(scores) + 1.3), layout="constrained")
        axes = axes_of(figure, "share of completions")
        axes.grid(axis="y", visible=False)
        left = np.zeros(len(scores))
        for key, label in chains_of(summary).items():
            answer, chain = key.split("_")[0], key.split("_")[-1]
            width = np.array([score["chains"][key] for score in scores.values()])
            color, hatch = COLORS[FILL[chain]], "////" if answer == "wrong" else None
            fill = "none" if hatch else color
            axes.barh(
                range(len(scores)),
                width,
                left=left,
                facecolor=fill,
                edgecolor=color,
                hatch=hatch,
                height=0.62,
                label=label,
            )
            left += width
        axes.set_yticks(range(len(scores)), [_plain(summary["names"][column]) for column in scores])
        axes.tick_params(axis="y", labelcolor=INK, length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        return drawn(figure, axes, "chains", "Share of completions by answer and chain", columns=3)


def first_wrong_step(summary: Summary) -> Markup | None:
    """Of the chains with a wrong step, where the first one is; None if no chain has one."""
    found = {
        column: {int(step): share for step, share in score["first_wrong_step"].items()}
        for column, score in summary["scores"].items()
        if score["first_wrong_step"]
    }
    if not found:
        return None
    colors = variables(summary["scores"])
    deepest = max(max(shares) for shares in found.values())
    most = min(MOST_STEPS, deepest)
    width = 0.8 / len(found)
    highest = 0.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.0), layout="constrained")
        axes = axes_of(figure, "first wrong step", share=True)
        axes.grid(axis="x", visible=False)
        for place, (column, shares) in enumerate(found.items()):
            bars = [shares.get(step, 0.0) for step in range(1, most)]
            bars.append(sum(share for step, share in shares.items() if step >= most))
            highest = max(highest, *bars)
            at = np.arange(1, most + 1) + (place - (len(found) - 1) / 2) * width
            axes.bar(at, bars, width * 0.9, color=COLORS[colors[column]], label=_plain(summary["names"][column]))
        axes.set_xticks(range(1, most + 1), [*map(str, range(1, most)), f"{most}{'+' if deepest > most else ''}"])
        axes.set_ylim(0, 1.1 * highest)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        return drawn(figure, axes, "first-wrong", "Where the first wrong step is", columns=3)


def _plain(label: str) -> str:
    """A label of the user's as matplotlib should draw it: no mathematics, no hiding by a leading underscore."""
    return label.replace("$", r"\$").lstrip("_") or " "
