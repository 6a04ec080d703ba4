"""The charts of an exam: what changed for each problem, size of problem, number of samples and step of a chain."""

from bisect import bisect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from eval.analysis.compare import Comparison, Score
from eval.analysis.stats import Floats
from eval.exam.samples import Samples
from eval.report.plots import (
    AMBER,
    BLUE,
    GRAY,
    GREEN,
    PALETTE,
    RED,
    STYLE,
    Line,
    Rows,
    bars,
    dots,
    learning,
    lines,
    logged,
    of_rollouts,
    plain,
    smooth,
    svg,
)
from eval.report.story import ladder
from eval.report.words import CHAINS, chains_of, in_hundred, is_outside, percent, signed, verdict
from r1_mini.problems.arithmetic import numbers, operations, parse
from r1_mini.problems.problem import Problem
from r1_mini.text import short

OF_CHAIN = {"by_right": GREEN, "by_wrong": AMBER, "without": GRAY, "unchecked": BLUE}
FILL = LinearSegmentedColormap.from_list("fill", ["#3d86cc00", "#3d86ccb0"])
"""Of the cells of maps: from nothing to blue, through which both pages show."""
ENDS = (10, 20, 40, 60, 80, 100, 200, 500, 1000, 10_000, 100_000)
"""Ends of the ranges of numbers of a map."""
LEVELS = 8
"""Most steps of a side of the map of problems; more samples than this share a step."""
REPEATED = 5
"""Problems for each answer, from which on a blind guess knows all answers."""
MOST_REASONS = 6
"""With more rungs than this, what one has more stands beside its label, and not why."""


def columns(summary: Comparison) -> list[tuple[str, str, Score]]:
    """(label, color, score) of each column."""
    return list(zip(summary.names.values(), cycle(PALETTE), summary.scores.values(), strict=False))


def first_screen(summary: Comparison) -> Markup:
    """The ladder, or the axes of an exam that is mostly outside of training."""
    return outside(summary) if is_outside(summary) else rungs(summary)


@STYLE
def rungs(summary: Comparison) -> Markup:
    """A bar with its interval for each rung of the ladder, and what it has more than the one it is measured against."""
    steps = ladder(summary)
    is_long = len(steps) > MOST_REASONS
    height = 2 if is_long else 3  # lines of text for each rung
    figure = Figure(figsize=(4.1, 0.2 * (height * len(steps) - (not is_long))))  # a line is 0.2 inches high
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, 1.12), ylim=(height * len(steps) - 1.5 + is_long, -0.5))
    axes.set_axis_off()
    told = []
    for line, rung, (_, color, _) in zip(range(0, height * len(steps), height), steps, columns(summary), strict=True):
        value, low, high = rung.score.pass_at_1_interval.ends
        reached = value - rung.gain if rung.tested else 0.0
        axes.text(0, line, plain(rung.label), va="center", weight="bold")
        if rung.tested and is_long:
            axes.text(1.12, line, f"{signed(rung.gain)}, {verdict(rung.tested)}", va="center", ha="right")
        elif rung.tested:
            axes.text(0.02, line - 1, plain(short(f"{signed(rung.gain)}: {rung.reason}", 54)), va="center")
        axes.barh(line + 1, value, color=color, alpha=0.25, height=0.8)
        gained = color if value >= reached else RED
        axes.barh(line + 1, value - reached, left=reached, color=gained, alpha=0.5, height=0.8)
        axes.plot([low, high], [line + 1] * 2, color=color, linewidth=1.6, marker="|", markersize=9)
        axes.text(max(reached, high) + 0.02, line + 1, in_hundred(value), va="center")
        told.append(f"{rung.label} {in_hundred(value)}" + f" ({signed(rung.gain)}: {rung.reason})" * bool(rung.tested))
    return svg(axes, f"Right answers in percent: {'; '.join(told)}")


def outside(summary: Comparison) -> Markup:
    """pass@1 of each column on each axis outside of training, and on the exam proper."""
    found = columns(summary)
    rows = [("inside of training", {label: asdict(score.pass_at_1_interval) for label, _, score in found})]
    for axis in found[0][2].axes:
        rows.append((axis, {label: asdict(score.axes[axis]) for label, _, score in found}))
    colors = {label: color for label, color, _ in found}
    return dots("Right answers outside of training", rows, colors, "share of samples")


def progress(summary: Comparison, curves: Mapping[str, Rows]) -> Iterator[tuple[str, Markup]]:
    """(caption, chart) of what RL reached as it went: pass@1 on dev, or of its rollouts, where no dev was asked.

    Dashed: what it started from, free and forced, as the exam has it.
    """
    one = summary.comparisons[0] if summary.comparisons else None
    rows = curves.get(one.after, ()) if one else ()
    rows = rows if any("accuracy" in row for row in rows) else of_rollouts(curves)
    if one is None or not rows:
        return
    starts = [one.before, *(key for key, free in summary.forced.items() if free == one.before)]
    named = zip(summary.names, columns(summary), strict=True)
    levels = [(label, color, score.pass_at_1) for key, (label, color, score) in named if key in starts]
    on_dev, reached = logged(rows, "dev_pass_at_1").dropna(), logged(rows, "accuracy")
    if len(on_dev) > 1:
        caption, curve = "on dev, which no stage trains on", Line("dev", GREEN, on_dev)
    else:
        caption, curve = "on training problems", Line("rollouts", GREEN, smooth(reached), raw=reached, marker="")
    caption = f"Right answers during RL, {caption}. Dashed: what it started from, in the exam."
    yield caption, lines(caption, "step of RL", [curve], share=True, levels=levels)


def curves_of_runs(summary: Comparison, seeds: Mapping[str, Sequence[Rows]]) -> Iterator[tuple[str, Markup]]:
    """(caption, chart) of the runs that are compared, their curves over each other, in the colors of their columns."""
    named = dict(zip(summary.names, columns(summary), strict=True))
    found = {named[key][0]: rows for key, rows in seeds.items()}
    for title, chart in learning(found, [named[key][1] for key in seeds]):
        yield f"{title}, over RL steps: mean of the seeds, band from the lowest to the highest.", chart


def at_k(summary: Comparison, field: str) -> Markup:
    """pass@k against k, a power of 2, with its interval, one line per column, and that of a blind guess.

    The guess chooses among the answers that the exam's problems have, if these repeat often enough to be all.
    """
    series = []
    for label, color, score in columns(summary):
        curve = pd.DataFrame(map(asdict, getattr(score, field))).astype({"k": str}).set_index("k")
        series.append(Line(label, color, curve["estimate"], curve[["low", "high"]]))
    if 1 < summary.n_answers <= summary.n_problems / REPEATED:
        guess = pd.Series({k: 1 - (1 - 1 / summary.n_answers) ** int(k) for k in series[0].y.index})
        series.append(Line(f"a blind guess among {summary.n_answers} answers", GRAY, guess, style=":", marker=""))
    return lines("pass@k", "k, samples per problem", series, share=True, zoom=True)


@STYLE
def gain_parts(summary: Comparison) -> Markup:
    """A waterfall from one column's pass@1 to the other's: each part of the gain with its interval.

    Parts of less than half a point share one bar, without an interval.
    """
    assert summary.gain is not None
    found = dict(zip(summary.names, columns(summary), strict=True))
    (before, old_color, old), (after, new_color, new) = found[summary.gain.before], found[summary.gain.after]
    small = [part for part in summary.gain.parts if abs(part.estimate) < 0.005]
    small = small if len(small) > 1 else []
    parts = [(part.name, *part.ends) for part in summary.gain.parts if part not in small]
    if small:
        rest = sum(part.estimate for part in small)
        parts.append((f"{len(small)} other parts", rest, rest, rest))
    axes = bars("pass@1", [before, *(name for name, *_ in parts), after], width=5.2)
    ends, reached = [], old.pass_at_1
    for place, color, value in ((0, old_color, old.pass_at_1), (len(parts) + 1, new_color, new.pass_at_1)):
        axes.barh(place, value, color=color, height=0.62)
        ends.append((value, place, percent(value)))
    for place, (_, estimate, low, high) in enumerate(parts, start=1):
        color = BLUE if estimate >= 0 else RED
        axes.barh(place, estimate, left=reached, color=color, alpha=0.45, height=0.62)
        if low < high:
            line = [reached + low, reached + high]
            axes.plot(line, [place, place], color=color, linewidth=1.4, marker="|", markersize=7)
        axes.plot([reached, reached], [place - 1, place], color=GRAY, linewidth=0.7, linestyle=":")
        ends.append((max(reached, reached + high), place, signed(estimate)))
        reached += estimate
    for end, place, text in ends:
        axes.annotate(text, (end, place), (6, 0), textcoords="offset points", va="center")
    most = max(end for end, _, _ in ends)
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, most)
    axes.set_xlim(0, 1.16 * most)  # room for the text
    axes.set_xticks([tick for tick in ticks if tick <= min(1.0, 1.05 * most)])
    return svg(axes, "The parts that the difference in pass@1 is the sum of")


def moves(summary: Comparison, samples: Mapping[str, Samples]) -> Iterator[tuple[str, Markup]]:
    """(caption, chart) for the headline's two columns, and with the first one forced: of how many problems how large a
    share of the samples was right in one, and is in the other."""
    for one in summary.comparisons[:1]:
        for key in (one.before, *(key for key, free in summary.forced.items() if free == one.before)):
            if key not in (summary.cooled, one.after):
                old, new = (samples[column].at(None).correct_PN for column in (key, one.after))
                caption = (
                    f"Each problem: how often {summary.names[key]} solves it, and how often {summary.names[one.after]}."
                )
                yield caption, _moves(caption, old.mean(axis=1), new.mean(axis=1), min(LEVELS, new.shape[1]))


@STYLE
def _moves(title: str, old_P: Floats, new_P: Floats, levels: int) -> Markup:
    """A map of problems, by one share from left to right, and the other from below to above."""
    places = [np.rint(share * levels).clip(share > 0, levels - (share < 1)).astype(int) for share in (new_P, old_P)]
    counts = np.zeros((levels + 1, levels + 1), dtype=int)  # the ends are exactly none and all
    np.add.at(counts, tuple(places), 1)
    figure = Figure(figsize=(4.2, 3.6), layout="constrained")
    axes = figure.add_subplot(xlabel="right in the first, share of samples", ylabel="right in the second")
    _cells(axes, np.sqrt(counts / counts.max()), np.where(counts, counts, "").astype(str))
    axes.plot([-0.5, levels + 0.5], [-0.5, levels + 0.5], color=GRAY, linewidth=0.8, linestyle=":")  # no change
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, levels / 2, levels], ["none", "half", "all"])
    more, less = int((new_P > old_P).sum()), int((new_P < old_P).sum())
    return svg(axes, f"{title} More often: {more} problems, less often: {less}.")


def _cells(axes: Axes, shades: Floats, texts: np.ndarray[Any, Any]) -> None:
    """A map of cells that have a text, the fuller the nearer their shade is to 1."""
    axes.grid(visible=False)
    for row, place in zip(*np.nonzero(texts != ""), strict=True):
        look = {"facecolor": FILL(shades[row, place]), "linewidth": 0}
        axes.add_patch(Rectangle((place - 0.48, row - 0.48), 0.96, 0.96, **look))
        axes.text(place, row, texts[row, place], ha="center", va="center", fontsize=8)
    axes.set(xlim=(-0.5, shades.shape[1] - 0.5), ylim=(-0.5, shades.shape[0] - 0.5))


def sizes(
    summary: Comparison, samples: Mapping[str, Samples], taught: Sequence[Problem]
) -> Iterator[tuple[str, Markup]]:
    """(label, chart) of each free column and each forced one: pass@1 by the number of operations and the size of the
    numbers, all axes together. A frame surrounds what the stages of the run train on.

    Nothing of problems that are not arithmetic.
    """
    places = [_size(row["formula"]) for row in next(iter(samples.values())).first]
    if not all(places):
        return
    trained = {place for each in taught if (place := _size(each.formula))}
    for key, label in summary.names.items():
        if key != summary.cooled:
            frame = pd.DataFrame(places, columns=["depth", "range"])
            frame["right"] = samples[key].correct_PN.mean(axis=1)
            yield label, _sizes(f"pass@1 of {label} by size of problem", frame, trained)


def _size(formula: str | None) -> tuple[int, int] | None:
    """Operations of a formula, and the range of `ENDS` in which its largest number lies."""
    tree = parse(formula) if formula else None
    return None if tree is None else (operations(tree), bisect(ENDS, max(numbers(tree))))


@STYLE
def _sizes(title: str, frame: pd.DataFrame, trained: Collection[tuple[int, int]]) -> Markup:
    """Mean of `right` in percent by depth, from left to right, and range, from below to above."""
    depths, ranges = (
        range(min(values), max(values) + 1)
        for values in ([*frame["depth"], *(d for d, _ in trained)], [*frame["range"], *(r for _, r in trained)])
    )
    mean = frame.groupby(["range", "depth"])["right"].mean().unstack().reindex(index=ranges, columns=depths)
    figure = Figure(figsize=(4.2, 0.7 + 0.28 * len(ranges)), layout="constrained")
    axes = figure.add_subplot(xlabel="operations")
    texts = mean.map(lambda share: "" if share != share else f"{100 * share:.0f}").to_numpy(dtype=str)
    _cells(axes, mean.to_numpy(), texts)
    for depth, place in trained:
        column, row = depth - depths[0], place - ranges[0]
        for other, line in {
            (depth - 1, place): ((column - 0.5,) * 2, (row - 0.5, row + 0.5)),
            (depth + 1, place): ((column + 0.5,) * 2, (row - 0.5, row + 0.5)),
            (depth, place - 1): ((column - 0.5, column + 0.5), (row - 0.5,) * 2),
            (depth, place + 1): ((column - 0.5, column + 0.5), (row + 0.5,) * 2),
        }.items():
            if other not in trained:
                axes.plot(*line, color=AMBER, linewidth=1.6)
    axes.set_xticks(range(len(depths)), map(str, depths))
    lows = (0, *ENDS)
    axes.set_yticks(
        range(len(ranges)),
        [f"{lows[place]:,}–{ENDS[place] - 1:,}" if place < len(ENDS) else f"{lows[place]:,}–" for place in ranges],
    )
    return svg(axes, title)


def slips(summary: Comparison, samples: Mapping[str, Samples]) -> Markup | None:
    """The share of all completions whose first wrong step is the first, second, … one; None where none is wrong."""
    slips = {key: each.at(None).slip_PN for key, each in samples.items()}
    most = max(int(each.max(initial=0)) for each in slips.values())
    if not most:
        return None
    series = []
    for key, (label, color, _) in zip(summary.names, columns(summary), strict=True):
        shares = [float((slips[key] == step).mean()) for step in range(1, most + 1)]
        series.append(Line(label, color, pd.Series(shares, range(1, most + 1))))
    return lines("Share of all completions by their first wrong step", "step", series, share=True, zoom=True)


@STYLE
def chain_truth(summary: Comparison) -> Markup:
    """Shares of completions by answer and chain, one stacked bar per column; wrong answers are hatched."""
    axes = bars("share of completions", list(summary.names.values()), width=5.2, legend=0.55)
    shares = pd.DataFrame([score.chains for score in summary.scores.values()])[chains_of(summary)]
    left = shares.cumsum(axis=1) - shares
    for kind, widths in shares.items():
        answer, _, chain = kind.partition("_")
        color = OF_CHAIN[chain]
        look: dict[str, Any] = (
            {"color": color} if answer == "right" else {"facecolor": "none", "edgecolor": color, "hatch": "////"}
        )
        axes.barh(shares.index, widths, left=left[kind], height=0.62, label=CHAINS[kind], **look)
    axes.set_xlim(0, 1)
    return svg(axes, "Share of completions by answer and chain")
