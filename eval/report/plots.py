"""The charts of the pages, as inline SVG.

One drawing serves light and dark pages: its ground is transparent, `PALETTE` reads on both, and the style sheet of the
page sets the color and the font of all text.
"""

import io
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from eval.analysis.compare import Comparison, Score
from eval.exam.samples import VOICES
from eval.report.words import CHAINS, Sweep, chains_of, in_hundred, ladder, percent, signed

PALETTE = ("#85857d", "#bf7d12", "#0d9373", "#3d86cc", "#a663c4", "#cf6232", "#8f8420", "#d4558c")
"""Colors of columns and settings, by position; each has a contrast of 3 or more on the light and on the dark page."""
GRAY, AMBER, GREEN, BLUE = PALETTE[:4]
RED = "#c9423a"
OF_CHAIN = {"by_right": GREEN, "by_wrong": AMBER, "without": GRAY, "unchecked": BLUE}
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
    ("Loss", {"loss": "loss"}, False),
)
"""Training curves: title, logged field -> label, whether the fields are shares. The last is for supervised stages."""
MANY = 4
"""Of more stages than this, only what they are trained for is drawn."""
LEARNING = {
    "Accuracy of the rollouts": "accuracy",
    "Completion length in tokens": "length",
    "Entropy, nats per token": "entropy",
    "KL to the reference": "kl",
}
"""Training curves of a sweep: title -> logged field."""


@dataclass(frozen=True)
class Line:
    """A curve of a chart; its index is the x axis, numbers or, at equal distances, texts."""

    label: str
    color: str
    y: pd.Series
    band: pd.DataFrame | None = None  # filled from its lowest to its highest column
    raw: pd.Series | None = None  # drawn faint
    style: str = "-"
    marker: str = "o"


def columns(summary: Comparison) -> list[tuple[str, str, Score]]:
    """(label, color, score) of each column."""
    return list(zip(summary.names.values(), cycle(PALETTE), summary.scores.values(), strict=False))


@STYLE
def lines(
    title: str, x_label: str, series: Sequence[Line], *, share: bool = False, log: bool = False, zoom: bool = False
) -> Markup:
    """Curves, with a logarithmic x axis if `log`.

    The y axis begins at 0, and that of a `share` ends at 100 %; with `zoom` it fits the curves.
    """
    axes = Figure(figsize=(4.8, 3.0), layout="constrained").add_subplot(xlabel=x_label)
    if share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for line in series:
        x, color = line.y.index, line.color
        if line.band is not None:
            axes.fill_between(x, line.band.min(axis=1), line.band.max(axis=1), color=color, alpha=0.18, linewidth=0)
        if line.raw is not None:
            axes.plot(x, line.raw, color=color, linewidth=0.8, alpha=0.3)
        label = plain(line.label) if line.label else "_"
        axes.plot(x, line.y, ls=line.style, color=color, lw=1.6, marker=line.marker, ms=3.5, label=label)
    if log:
        axes.set_xscale("log")
    elif all(pd.api.types.is_numeric_dtype(line.y.index) for line in series):
        whole = all(np.all(np.mod(line.y.index, 1) == 0) for line in series)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole))
    if not zoom:
        axes.set_ylim(*(-0.02, 1.02) if share else (0.0, None))
    return svg(axes, title)


def bars(x_label: str, names: Sequence[str], width: float, legend: float = 0.0) -> Axes:
    """Axes of shares with a named row for each horizontal bar, the first on top; `legend` is its height in inches."""
    figure = Figure(figsize=(width, 0.34 * len(names) + 0.7 + legend), layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylim=(len(names) - 0.5, -0.5))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="y", visible=False)
    axes.set_yticks(range(len(names)), [plain(fill(name, 20)) for name in names])
    axes.tick_params(axis="y", length=0)
    return axes


def at_k(summary: Comparison, field: str, title: str) -> Markup:
    """pass@k or maj@k against k, with its interval, one line per column."""
    series = []
    for label, color, score in columns(summary):
        curve = pd.DataFrame(map(asdict, getattr(score, field))).astype({"k": str}).set_index("k")
        series.append(Line(label, color, curve["estimate"], curve[["low", "high"]]))
    return lines(title, "k, samples per problem", series, share=True, zoom=True)


@STYLE
def steps_to_after(summary: Comparison) -> Markup:
    """A bar with its interval for each rung of the ladder; between them, what each has more than the one before it."""
    rungs, colors = ladder(summary), dict(zip(summary.names, cycle(PALETTE), strict=False))
    figure = Figure(figsize=(4.1, 0.2 * (3 * len(rungs) - 1)))  # a line is 0.2 inches high
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0), xlim=(0, 1.12), ylim=(3 * len(rungs) - 1.5, -0.5))
    axes.set_axis_off()
    reached = 0.0
    for line, rung in zip(range(0, 3 * len(rungs), 3), rungs, strict=True):
        color, (value, low, high) = colors[rung.key], rung.score.pass_at_1_interval.ends
        if rung.reason:
            axes.text(0.02, line - 1, f"{signed(rung.gain)}: {rung.reason}", va="center")
        axes.text(0, line, plain(rung.label), va="center", weight="bold")
        axes.barh(line + 1, value, color=color, alpha=0.25, height=0.8)
        gained = color if value >= reached else RED
        axes.barh(line + 1, value - reached, left=reached, color=gained, alpha=0.5, height=0.8)
        axes.plot([low, high], [line + 1] * 2, color=color, linewidth=1.6, marker="|", markersize=9)
        axes.text(max(reached, high) + 0.02, line + 1, in_hundred(value), va="center")
        reached = value
    return svg(axes, "Right answers in percent, step by step from before to after")


@STYLE
def gain_parts(summary: Comparison) -> Markup:
    """A waterfall from one column's pass@1 to the other's: each part of the gain with its interval."""
    assert summary.gain is not None
    parts, found = summary.gain.parts, dict(zip(summary.names, columns(summary), strict=True))
    (before, old_color, old), (after, new_color, new) = found[summary.gain.before], found[summary.gain.after]
    axes = bars("pass@1", [before, *(part.name for part in parts), after], width=5.2)
    ends, reached = [], old.pass_at_1
    for place, color, value in ((0, old_color, old.pass_at_1), (len(parts) + 1, new_color, new.pass_at_1)):
        axes.barh(place, value, color=color, height=0.62)
        ends.append((value, place, percent(value)))
    for place, part in enumerate(parts, start=1):
        color, low, high = BLUE if part.estimate >= 0 else RED, reached + part.low, reached + part.high
        axes.barh(place, part.estimate, left=reached, color=color, alpha=0.45, height=0.62)
        axes.plot([low, high], [place, place], color=color, linewidth=1.4, marker="|", markersize=7)
        axes.plot([reached, reached], [place - 1, place], color=GRAY, linewidth=0.7, linestyle=":")
        ends.append((max(reached, high), place, signed(part.estimate)))
        reached += part.estimate
    for end, place, text in ends:
        axes.annotate(text, (end, place), (6, 0), textcoords="offset points", va="center")
    most = max(end for end, _, _ in ends)
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, most)
    axes.set_xlim(0, 1.16 * most)  # room for the text
    axes.set_xticks([tick for tick in ticks if tick <= min(1.0, 1.05 * most)])
    return svg(axes, "The parts that the difference in pass@1 is the sum of")


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


def training(curves: Mapping[str, Rows]) -> Iterator[tuple[str, Markup]]:
    """(title, chart) of all of `TRAINING` that the stages have logged; `curves` has the metrics of each stage.

    A step without a value leaves a gap. A field that fewer than half of the steps have is drawn as points.
    """
    for stage, rows in curves.items():
        charts = TRAINING[:-1] if of_rollouts({stage: rows}) else (TRAINING[-1], TRAINING[1])
        for title, labels, share in charts[:1] if len(curves) > MANY else charts:
            series = []
            for (field, label), color in zip(labels.items(), (GREEN, BLUE, AMBER, GRAY), strict=False):
                values = logged(rows, field)
                if values.count() >= max(1, len(values) / 2):
                    series.append(Line(label, color, smooth(values), raw=values, marker=""))
                elif values.count():
                    series.append(Line(label, color, values.dropna()))
            if series:
                caption = f"{title}, over the steps of {stage}"
                yield caption, lines(caption, "step", series, share=share)


def of_rollouts(curves: Mapping[str, Rows]) -> list[Mapping[str, Any]]:
    """The metrics of the stages that reward rollouts."""
    return [row for rows in curves.values() if any("accuracy" in row for row in rows) for row in rows]


def logged(rows: Rows, field: str) -> pd.Series:
    """A field of a stage's metrics by step, NaN where it was not logged."""
    return pd.DataFrame(rows, columns=["step", field]).set_index("step")[field].astype(float)


def smooth(values: pd.Series) -> pd.Series:
    """Centered moving average over a twentieth of the steps; shorter at the ends, and NaN counts as absent."""
    return values.rolling(max(1, len(values) // 20), center=True, min_periods=1).mean().where(values.notna())


@STYLE
def sweep_points(summary: Sweep) -> Markup:
    """A row for each setting of a sweep: the score of every seed, and the mean with its interval."""
    settings = summary["settings"]
    objective = summary["objective"].replace("_at_", "@")
    axes = bars(objective, [setting["name"] for setting in settings], width=5.6, legend=0.3)
    for place, setting in enumerate(settings):
        score, color = setting["score"], PALETTE[1:][place] if place < len(PALETTE) - 1 else GRAY  # those of the curves
        seeds = [each["score"] for each in setting["seeds"]]
        axes.plot([score["low"], score["high"]], [place, place], color=color, linewidth=5, alpha=0.3)
        axes.plot(score["estimate"], place, color=color, marker="|", markersize=14, markeredgewidth=2)
        axes.plot(seeds, [place] * len(seeds), color=color, marker="o", markersize=4, linewidth=0)
    for start, style in zip(summary["starts"], ("--", ":"), strict=False):
        line = start["score"]["estimate"]
        axes.axvline(line, color=GRAY, linewidth=1.2, linestyle=style, label=plain(start["name"]))
    if not summary["is_share"]:
        axes.xaxis.set_major_formatter("{x:g}")
    return svg(axes, "Score of each setting, seed by seed")


def sweep_depths(summary: Sweep) -> Markup:
    """pass@1 of each setting against the number of operations, dashed for what it started from.

    Settings that started from one base share one gray line.
    """
    settings = summary["settings"][: len(PALETTE) - 1]
    starts = [each["cells_before"] for each in settings]
    series: list[Line] = []
    for place, (color, setting) in enumerate(zip(PALETTE[1:], settings, strict=False)):
        series.append(Line(setting["name"], color, _by_depth(setting["cells"])))
        if starts[place] and starts[place] not in starts[:place]:
            color = GRAY if starts.count(starts[place]) > 1 else color
            series.append(Line("", color, _by_depth(starts[place]), style="--", marker=""))
    return lines("Accuracy by number of operations", "operations", series, share=True)


def _by_depth(cells: Sequence[Mapping[str, Any]]) -> pd.Series:
    """Scores of the first family by depth."""
    family = [each for each in cells if each["family"] == cells[0]["family"]]
    return pd.Series({str(each["depth"] or "?"): each["estimate"] for each in family})


def sweep_slice(summary: Sweep, key: str) -> Markup:
    """The score of every training against its value of one key of the space, whatever the other keys are."""
    series, kind = [], summary["space"][key]
    for setting in summary["settings"]:
        if key in setting["changes"]:
            value, scores = setting["changes"][key], [each["score"] for each in setting["seeds"]]
            color = GREEN if setting["name"] == summary["default"] else BLUE
            x = [plain(str(value)) if kind["choices"] else value] * len(scores)
            series.append(Line("", color, pd.Series(scores, x), style="none"))
    label, share = key.rsplit(".", 1)[-1], summary["is_share"]
    return lines(f"Score by {key}", label, series, share=share, log=kind["log"], zoom=True)


def sweep_learning(curves: Mapping[str, Sequence[Rows]]) -> Iterator[tuple[str, Markup]]:
    """(title, chart) of all of `LEARNING` that was logged; `curves` has for each setting the metrics of every seed.

    Lines are the mean over the seeds, smoothed; bands go from the lowest seed to the highest.
    """
    for title, field in LEARNING.items():
        series = []
        for color, (name, seeds) in zip(PALETTE[1:], curves.items(), strict=False):
            by_seed = pd.concat([smooth(logged(rows, field).dropna()) for rows in seeds], axis=1, join="inner")
            if len(by_seed):
                series.append(Line(name, color, by_seed.mean(axis=1), by_seed, marker=""))
        if series:
            yield title, lines(title, "step", series, share=field == "accuracy")


def plain(label: str) -> str:
    """A user's label as matplotlib should draw it: no formula after `$`, not hidden by a leading underscore."""
    return label.replace("$", r"\$").lstrip("_") or " "


def svg(axes: Axes, title: str) -> Markup:
    """The drawing, with its title for screen readers. Ids begin with a hash of the title: a page has many drawings."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        columns = max(1, min(4, 48 // max(map(len, labels))))
        figure.set_figheight(figure.get_figheight() + 0.18 * max(0, (len(handles) - 1) // columns - 2))
        figure.legend(handles, labels, loc="outside upper left", fontsize=9, handlelength=1.2, ncols=columns)
    out, nothing = io.StringIO(), dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings(action="ignore"):  # of a label that is long, or has signs that the font lacks
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>c{zlib.crc32(title.encode()):08x}-", out.getvalue())
    return Markup('<div role="img" aria-label="{}">{}</div>').format(title, Markup(svg[svg.index("<svg") :]))
