"""How the charts of all pages are drawn, as inline SVG, and the curves of a training. The charts of an exam are in
`exam_plots.py`, those of a sweep in `sweep_plots.py`.

One drawing serves light and dark pages: its ground is transparent, `PALETTE` reads on both, and the style sheet of the
page sets the color and the font of all text.
"""

import io
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from eval.exam.samples import VOICES

PALETTE = ("#85857d", "#bf7d12", "#0d9373", "#3d86cc", "#a663c4", "#cf6232", "#8f8420", "#d4558c")
"""Colors of columns and settings, by position; each has a contrast of 3 or more on the light and on the dark page."""
GRAY, AMBER, GREEN, BLUE = PALETTE[:4]
RED = "#c9423a"
STYLE = matplotlib.rc_context(
    dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), "#80808050")
    | dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor"), "black")
    | dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
    | {"axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.6, "hatch.linewidth": 0.7}
    | {"font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "r1_mini"}
)
Rows = Sequence[Mapping[str, Any]]
"""The lines of a stage's metrics.jsonl."""
REWARD = "Reward and accuracy of the rollouts"
TRAINING = (
    (REWARD, {"reward": "reward", "accuracy": "accuracy"}, False),
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
"""Training curves of several runs: title -> logged field."""
Dots = Sequence[tuple[str, Mapping[str, Any]]]
"""Label of a row -> name -> a share with its ends, `{estimate, low, high}`, or None."""


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


@STYLE
def lines(
    title: str,
    x_label: str,
    series: Sequence[Line],
    *,
    share: bool = False,
    log: bool = False,
    zoom: bool = False,
    levels: Iterable[tuple[str, str, float]] = (),
    mark: tuple[float, str] | None = None,
    at: Iterable[int] = (),
) -> Markup:
    """Curves, with a logarithmic x axis if `log`; dashed `levels` are (label, color, y), a `mark` is (x, what begins).

    `at` are steps of which the page shows one at a time: the id of the line at step 25 ends with `-at-25`.

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
    for label, color, level in levels:
        axes.axhline(level, color=color, linewidth=1.2, linestyle="--", label=plain(label))
    if mark:
        axes.axvline(mark[0], color=GRAY, linewidth=1.2, linestyle=":")
        axes.text(mark[0], 1.0, f"{mark[1]} ", ha="right", va="top", transform=axes.get_xaxis_transform())
    for step in at:
        axes.axvline(step, color=GRAY, linewidth=1.6, gid=f"-at-{step}")
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


@STYLE
def dots(title: str, rows: Dots, colors: Mapping[str, str], x_label: str = "share of problems") -> Markup:
    """A row for each label with a dot for each share, and its interval."""
    axes = bars(x_label, [label for label, _ in rows], width=5.2, legend=0.4)
    names = [name for name in colors if any(shares.get(name) for _, shares in rows)]
    lowest = 0.0
    for name in names:
        for place, (_, shares) in enumerate(rows):
            here = [other for other in names if shares.get(other)]
            if each := shares.get(name):
                y, lowest = place + 0.18 * (here.index(name) - (len(here) - 1) / 2), min(lowest, each["low"])
                axes.plot([each["low"], each["high"]], [y, y], color=colors[name], linewidth=1.6, alpha=0.6)
                axes.plot(each["estimate"], y, color=colors[name], marker="o", markersize=5)
        axes.plot([], [], color=colors[name], marker="o", linewidth=0, label=plain(name))
    axes.set_xlim(lowest - 0.03, None)
    return svg(axes, title)


def training(
    curves: Mapping[str, Rows], marks: Mapping[str, tuple[float, str]], at: Mapping[str, Iterable[int]]
) -> Iterator[tuple[str, Markup]]:
    """(title, chart) of all of `TRAINING` that the stages have logged; `curves` has the metrics of each stage.

    A step without a value leaves a gap. A field that fewer than half of the steps have is drawn as points. `marks` has
    for a stage the step at which its data changes, and what begins there, `at` the steps of `lines` for its reward.
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
                steps = at.get(stage, ()) if title == REWARD else ()
                yield caption, lines(caption, "step", series, share=share, mark=marks.get(stage), at=steps)


def of_rollouts(curves: Mapping[str, Rows]) -> Rows:
    """The metrics of the last stage that rewards rollouts; none if there is no such stage."""
    found = [rows for rows in curves.values() if any("accuracy" in row for row in rows)]
    return found[-1] if found else []


def logged(rows: Rows, field: str) -> pd.Series:
    """A field of a stage's metrics by step, NaN where it was not logged."""
    return pd.DataFrame(rows, columns=["step", field]).set_index("step")[field].astype(float)


def smooth(values: pd.Series) -> pd.Series:
    """Centered moving average over a twentieth of the steps; shorter at the ends, and NaN counts as absent."""
    return values.rolling(max(1, len(values) // 20), center=True, min_periods=1).mean().where(values.notna())


def learning(curves: Mapping[str, Sequence[Rows]], colors: Sequence[str] = PALETTE[1:]) -> Iterator[tuple[str, Markup]]:
    """(title, chart) of all of `LEARNING` that was logged; `curves` has for each setting the metrics of every seed.

    Lines are the mean over the seeds, smoothed; bands go from the lowest seed to the highest.
    """
    for title, field in LEARNING.items():
        series = []
        for color, (name, seeds) in zip(colors, curves.items(), strict=False):
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
