"""The charts of the pages, as inline SVG.

One drawing serves light and dark pages: its ground is transparent, `PALETTE` reads on both, and the style sheet of the
page sets the color and the font of all text.
"""

import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike, NDArray

from eval.analysis.compare import Comparison, Score
from eval.exam.samples import VOICES
from eval.report.words import CHAINS, Sweep, chains_of, percent, signed

PALETTE = ("#85857d", "#bf7d12", "#0d9373", "#3d86cc", "#a663c4", "#cf6232", "#8f8420", "#d4558c")
"""Colors of columns and settings, by position; each has a contrast of 3 or more on the light and on the dark page."""
GRAY, AMBER, GREEN, BLUE = PALETTE[:4]
RED = "#c9423a"
OF_CHAIN = {"right": GREEN, "wrong": AMBER, "without": GRAY, "unchecked": BLUE}
MOST_STEPS = 12  # first wrong steps after it are not shown
STYLE = matplotlib.rc_context(
    dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), "#80808050")
    | dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "black")
    | dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
    | {"axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.6, "hatch.linewidth": 0.7}
    | {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "r1_mini"}
)
Rows = Sequence[Mapping[str, Any]]
"""The lines of a stage's metrics.jsonl."""
TRAINING = (
    ("Reward and accuracy of the rollouts", {"reward": "reward", "accuracy": "accuracy"}, False),
    ("dev accuracy: pass@1 on problems that no stage trains on", {"dev_pass_at_1": "dev"}, True),
    ("Completion length in tokens", {"length": "all", "length_right": "right", "length_wrong": "wrong"}, False),
    ("Share of each voice", {f"voice_{voice}": voice for voice in VOICES}, True),
    ("Share of zero-variance groups", {"zero_variance": "zero-variance"}, True),
    ("Entropy per token in nats", {"entropy": "entropy"}, False),
    ("Next-token loss", {"loss": "loss"}, False),
)
"""Training curves: title, logged field -> label, whether the fields are shares. The last is for supervised stages."""


@dataclass(frozen=True)
class Line:
    """A curve of a chart: K points, with a band or the raw values behind it."""

    label: str
    color: str
    x: ArrayLike  # (K,)
    y: ArrayLike  # (K,)
    band: tuple[ArrayLike, ArrayLike] | None = None  # low and high ends, (K,) each
    raw: ArrayLike | None = None  # (K,), drawn faint
    style: str = "-"
    marker: str = ""


def columns(summary: Comparison) -> list[tuple[str, str, Score]]:
    """(label, color, score) of each column."""
    return list(zip(summary.names.values(), cycle(PALETTE), summary.scores.values(), strict=False))


@STYLE
def lines(
    title: str,
    x_label: str,
    series: Sequence[Line],
    *,
    share: bool = False,
    ticks: Mapping[int, str] | None = None,
    log: int = 0,
    zoom: bool = False,
) -> Markup:
    """Curves, with `ticks` at these x values if they are given, and a logarithmic x axis if `log`, its base, is not 0.

    The y axis begins at 0, and that of a `share` ends at 100 %; with `zoom` it fits the curves.
    """
    axes = _axes(x_label, (4.8, 3.0))
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for line in series:
        if line.band is not None:
            axes.fill_between(line.x, *line.band, color=line.color, alpha=0.18, linewidth=0)
        if line.raw is not None:
            axes.plot(line.x, line.raw, color=line.color, linewidth=0.8, alpha=0.3)
        label = _plain(line.label) if line.label else "_"
        axes.plot(line.x, line.y, ls=line.style, color=line.color, lw=1.6, marker=line.marker, ms=3.5, label=label)
    if log:
        axes.set_xscale("log", base=log)
    if ticks is not None:
        axes.set_xticks(list(ticks), map(_plain, ticks.values()))
        axes.set_xticks([], minor=True)
    elif not log:
        whole = all(np.all(np.mod(line.x, 1) == 0) for line in series)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if not zoom:
        axes.set_ylim(*(-0.02, 1.02) if share else (0.0, None))
    return _svg(axes, title)


def at_k(summary: Comparison, field: str, title: str) -> Markup:
    """pass@k or maj@k against k, with its interval, one line per column."""
    series, ticks = [], {}
    for label, color, score in columns(summary):
        k, mean, low, high = zip(*((point.k, *point.ends) for point in getattr(score, field)), strict=True)
        series.append(Line(label, color, k, mean, (low, high), marker="o"))
        ticks = {number: str(number) for number in k}
    return lines(title, "k, samples per problem", series, share=True, ticks=ticks, log=2, zoom=True)


@STYLE
def gain_parts(summary: Comparison) -> Markup:
    """A waterfall from one column's pass@1 to the other's: each part of the gain with its interval."""
    assert summary.gain is not None
    parts, found = summary.gain.parts, dict(zip(summary.names, columns(summary), strict=True))
    (before, old_color, old), (after, new_color, new) = found[summary.gain.before], found[summary.gain.after]
    names = [before, *(part.name for part in parts), after]
    axes = _bar_axes("pass@1", names, width=5.2)
    edge, reached = [old.pass_at_1, new.pass_at_1], old.pass_at_1
    for place, color, value in ((0, old_color, old.pass_at_1), (len(names) - 1, new_color, new.pass_at_1)):
        axes.barh(place, value, color=color, height=0.62)
        _note(axes, value, place, percent(value))
    for place, part in enumerate(parts, start=1):
        tint = BLUE if part.estimate >= 0 else RED
        low, high = reached + part.low, reached + part.high
        axes.barh(place, part.estimate, left=reached, color=tint, alpha=0.45, height=0.62)
        axes.plot([low, high], [place, place], color=tint, linewidth=1.4, marker="|", markersize=7)
        axes.plot([reached, reached], [place - 1, place], color=GRAY, linewidth=0.7, linestyle=":")
        edge.append(max(reached, reached + part.estimate, high))
        _note(axes, edge[-1], place, signed(part.estimate))
        reached += part.estimate
    axes.set_xlim(0, max(edge) * 1.16)
    axes.set_xticks([tick for tick in np.linspace(0, 1, 6) if tick <= max(edge) * 1.05])
    return _svg(axes, "The parts that the difference in pass@1 is the sum of")


@STYLE
def chain_truth(summary: Comparison) -> Markup:
    """Shares of completions by answer and chain, one stacked bar per column; wrong answers are hatched."""
    scores = summary.scores
    axes = _bar_axes("share of completions", [summary.names[column] for column in scores], width=5.2, legend=0.55)
    left = np.zeros(len(scores))
    for kind in chains_of(summary):
        answer, color = kind.split("_")[0], OF_CHAIN[kind.split("_")[-1]]
        width = np.array([score.chains[kind] for score in scores.values()])
        bars = axes.barh(range(len(scores)), width, left=left, height=0.62, color=color, label=CHAINS[kind])
        if answer == "wrong":
            for bar in bars:
                bar.set(facecolor="none", edgecolor=color, hatch="////")
        left += width
    axes.set_xlim(0, 1)
    return _svg(axes, "Share of completions by answer and chain")


def first_wrong_step(summary: Comparison) -> Markup | None:
    """Where the first wrong step of a chain is, as shares of the chains that have one; None if no chain has one."""
    deepest = max((int(step) for score in summary.scores.values() for step in score.first_wrong_step), default=0)
    steps = range(1, min(MOST_STEPS, deepest) + 1)
    series = [
        Line(label, color, steps, [score.first_wrong_step.get(str(step), 0.0) for step in steps], marker="o")
        for label, color, score in columns(summary)
        if score.first_wrong_step
    ]
    if not series:
        return None
    ticks = {step: str(step) for step in steps}
    return lines("Where the first wrong step is", "first wrong step", series, share=True, ticks=ticks)


def training(curves: Mapping[str, Rows]) -> Iterator[tuple[str, Markup]]:
    """(title, chart) of all of `TRAINING` that the stages have logged; `curves` has the metrics of each stage.

    A step without a value leaves a gap. A field that fewer than half of the steps have is drawn as points.
    """
    for stage, rows in curves.items():
        for title, labels, share in TRAINING[:-1] if of_rollouts({stage: rows}) else (TRAINING[1], TRAINING[-1]):
            series = []
            for (field, label), color in zip(labels.items(), (GREEN, BLUE, AMBER, GRAY), strict=False):
                steps, values = _series(rows, field)
                there = np.isfinite(values)
                if 2 * there.sum() >= max(1, len(values)):  # a short stage may have logged nothing
                    series.append(Line(label, color, steps, smooth(values, max(1, len(values) // 20)), raw=values))
                elif there.any():
                    series.append(Line(label, color, steps[there], values[there], marker="o"))
            if series:
                caption = f"{title}, over the steps of {stage}"
                yield caption, lines(caption, "step", series, share=share)


def of_rollouts(curves: Mapping[str, Rows]) -> list[Mapping[str, Any]]:
    """The metrics of the stages that reward rollouts."""
    return [row for rows in curves.values() if any("accuracy" in row for row in rows) for row in rows]


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Centered moving average over `width` values, (S,) -> (S,); shorter at the ends, and NaN counts as absent."""
    present = np.isfinite(values)
    total, count = (np.convolve(v, np.ones(width)) for v in (np.where(present, values, 0.0), present.astype(float)))
    middle = slice((width - 1) // 2, (width - 1) // 2 + len(values))
    return np.where(present, total[middle] / np.maximum(count[middle], 1), np.nan)


@STYLE
def sweep_points(summary: Sweep) -> Markup:
    """A row for each setting of a sweep: the score of every seed, and the mean with its interval."""
    settings = summary["settings"]
    objective = summary["objective"].replace("_at_", "@")
    axes = _bar_axes(objective, [setting["name"] for setting in settings], width=5.6, legend=0.3)
    for place, setting in enumerate(settings):
        score, color = setting["score"], GREEN if setting["name"] == summary["default"] else BLUE
        seeds = [each["score"] for each in setting["seeds"]]
        axes.plot([score["low"], score["high"]], [place, place], color=color, linewidth=5, alpha=0.3)
        axes.plot(score["estimate"], place, color=color, marker="|", markersize=14, markeredgewidth=2)
        axes.plot(seeds, [place] * len(seeds), color=color, marker="o", markersize=4, linewidth=0)
    for start, style in zip(summary["starts"], ("--", ":"), strict=False):
        line = start["score"]["estimate"]
        axes.axvline(line, color=GRAY, linewidth=1.2, linestyle=style, label=_plain(start["name"]))
    if not summary["is_share"]:
        axes.xaxis.set_major_formatter("{x:g}")
    return _svg(axes, "Score of each setting, seed by seed")


def sweep_depths(summary: Sweep) -> Markup:
    """pass@1 of each setting against the number of operations, dashed for what it started from.

    Settings that started from one base share one gray line.
    """
    settings = summary["settings"][: len(PALETTE) - 1]
    starts = [_by_depth(setting["cells_before"]) for setting in settings]
    series: list[Line] = []
    for place, (color, setting) in enumerate(zip(PALETTE[1:], settings, strict=False)):
        depths, shares = _by_depth(setting["cells"])
        series.append(Line(setting["name"], color, depths, shares, marker="o"))
        if starts[place] not in starts[:place]:
            shared = starts.count(starts[place]) > 1
            series.append(Line("", GRAY if shared else color, *starts[place], style="--"))
    ticks = {depth: str(depth or "?") for depth in depths}
    return lines("Accuracy by number of operations", "operations", series, share=True, ticks=ticks)


def sweep_slice(summary: Sweep, key: str) -> Markup:
    """The score of every training against its value of one key of the space, whatever the other keys are."""
    settings = [each for each in summary["settings"] if key in each["changes"]]
    kind, names = summary["space"][key], list(dict.fromkeys(str(each["changes"][key]) for each in settings))
    series = []
    for setting in settings:
        value, scores = setting["changes"][key], [each["score"] for each in setting["seeds"]]
        color = GREEN if setting["name"] == summary["default"] else BLUE
        x = [names.index(str(value)) if kind["choices"] else value] * len(scores)
        series.append(Line("", color, x, scores, style="none", marker="o"))
    ticks = dict(enumerate(names)) if kind["choices"] else None
    label, log, share = key.rsplit(".", 1)[-1], 10 * kind["log"], summary["is_share"]
    return lines(f"Score by {key}", label, series, share=share, ticks=ticks, log=log, zoom=True)


def sweep_learning(curves: Mapping[str, Sequence[Rows]], field: str, title: str) -> Markup | None:
    """A metric against the step for each setting: the mean over seeds, smoothed, and a band from lowest to highest."""
    series = []
    for color, (name, seeds) in zip(PALETTE[1:], curves.items(), strict=False):
        logged = [_series([row for row in rows if row.get(field) is not None], field) for rows in seeds]
        length = min((len(values) for _, values in logged), default=0)
        if length:
            values_SK = np.stack([smooth(values, max(1, len(values) // 20))[:length] for _, values in logged])
            band = (values_SK.min(axis=0), values_SK.max(axis=0))
            series.append(Line(name, color, logged[0][0][:length], values_SK.mean(axis=0), band))
    return lines(title, "step", series, share=field == "accuracy") if series else None


def _series(rows: Rows, field: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(steps, values) of a logged field, NaN where it has none."""
    values = [np.nan if row.get(field) is None else row[field] for row in rows]
    return np.array([row["step"] for row in rows], dtype=float), np.array(values, dtype=float)


def _by_depth(cells: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[float]]:
    """(depths, scores) of the first family."""
    same = [cell for cell in cells if cell["family"] == cells[0]["family"]]
    return [cell["depth"] for cell in same], [cell["estimate"] for cell in same]


def _axes(x_label: str, size: tuple[float, float]) -> Axes:
    axes = Figure(figsize=size, layout="constrained").add_subplot()
    axes.set_xlabel(x_label)
    return axes


def _bar_axes(x_label: str, names: Sequence[str], width: float, legend: float = 0.0) -> Axes:
    """Axes of shares with a named row for each horizontal bar, the first on top; `legend` is its height in inches."""
    axes = _axes(x_label, (width, 0.34 * len(names) + 0.7 + legend))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(names)), map(_plain, names))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    return axes


def _note(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (6, 0), textcoords="offset points", va="center")


def _plain(label: str) -> str:
    """A user's label as matplotlib should draw it: no formula after `$`, not hidden by a leading underscore."""
    return label.replace("$", r"\$").lstrip("_") or " "


def _svg(axes: Axes, title: str) -> Markup:
    """The drawing, with its title for screen readers. Ids begin with a hash of the title: a page has many drawings."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        columns = max(1, min(4, 48 // max(map(len, labels))))
        figure.legend(handles, labels, loc="outside upper left", fontsize=9, handlelength=1.2, ncols=columns)
    out, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>c{zlib.crc32(title.encode()):08x}-", out.getvalue())
    return Markup('<div role="img" aria-label="{}">{}</div>').format(title, Markup(svg[svg.index("<svg") :]))
