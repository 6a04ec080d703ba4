"""Charts as inline SVG whose colors are CSS variables of the page, so one drawing serves light and dark."""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from eval.metrics import VOICES
from eval.report.words import NAMES

# matplotlib knows no CSS, so it draws with stand-in colors that are replaced in its output.
INK, MUTED, GRID = "#010101", "#010102", "#010103"
SERIES = {name: f"#0102{number:02x}" for number, name in enumerate(("base", "forced", "rl", "a", "b", "c", "d"))}
CSS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    color: f"var(--{name})" for name, color in SERIES.items()
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
}
Rows = Sequence[Mapping[str, Any]]


def accuracy_by_depth(summary: Mapping[str, Any]) -> Markup:
    """pass@1 with its interval against the number of operations, one line per checkpoint."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("operations in the problem", share=True)
        for offset, (name, color) in zip(
            (-0.06, 0, 0.06), zip(NAMES, ("base", "forced", "rl"), strict=True), strict=True
        ):
            cells = summary[name]["by_depth"]
            depths = np.array([int(depth) for depth in cells])
            estimate, low, high = (
                np.array([cell[end] for cell in cells.values()]) for end in ("estimate", "low", "high")
            )
            axes.errorbar(
                depths + offset, estimate, yerr=np.maximum(0, [estimate - low, high - estimate]), label=NAMES[name],
                color=SERIES[color], marker="o", markersize=4, linewidth=1.6, elinewidth=1.2, capsize=2.5,
            )  # fmt: skip
        axes.set_xticks(depths)
        return _svg(figure, axes, "depth", "Accuracy by number of operations: base, base forced to work, after RL")


def curve(rows: Rows, series: Mapping[str, str], name: str, title: str, share: bool = False) -> Markup | None:
    """Metrics, {field: label}, against the step: each step faint, a moving average over a twentieth of the run on top.

    None if no row has any of the fields. A step without a value (no wrong completion to measure, say) leaves a gap.
    """
    present = {field: label for field, label in series.items() if any(row.get(field) is not None for row in rows)}
    if not present:
        return None
    steps = np.array([row["step"] for row in rows])
    with matplotlib.rc_context(STYLE):
        figure, axes = _axes("step", share)
        for color, (field, label) in zip(("a", "b", "c", "d"), present.items(), strict=False):
            values = np.array([np.nan if row.get(field) is None else row[field] for row in rows], dtype=float)
            axes.plot(steps, values, color=SERIES[color], linewidth=0.8, alpha=0.3)
            axes.plot(steps, smooth(values, max(1, len(values) // 20)), color=SERIES[color], linewidth=1.8, label=label)
        if not share:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return _svg(figure, axes, name, title)


def smooth(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Centered moving average over `width` values, (S,) -> (S,); shorter at the ends, and NaN counts as absent."""
    kernel = np.ones(width)
    present = np.isfinite(values)
    total, count = (
        np.convolve(v, kernel, mode="full") for v in (np.where(present, values, 0.0), present.astype(float))
    )
    start = (width - 1) // 2
    middle = slice(start, start + len(values))
    return np.where(present, total[middle] / np.maximum(count[middle], 1), np.nan)


def _axes(x_label: str, share: bool) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 3.0), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(x_label)
    if share:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure, axes


def _svg(figure: Figure, axes: Axes, name: str, title: str) -> Markup:
    """The figure as an `<svg>` that scales with the page; ids carry `name`, because a page has several charts."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=4, fontsize=9, handlelength=1.2, columnspacing=1.2
        )
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _opening(title), text, count=1, flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'?DejaVu Sans'?[^;\"]*", "system-ui, sans-serif", text)
    return Markup(re.sub("|".join(CSS), lambda match: CSS[match.group()], text))


def _opening(title: str) -> str:
    assert not set(title) & set('<>&"\\')
    return rf'<svg viewBox="\1" role="img" aria-label="{title}" xmlns:xlink="http://www.w3.org/1999/xlink">'


def training(curves: Mapping[str, Rows]) -> Iterable[tuple[str, Markup]]:
    """(caption, chart) of every training curve for which metrics were logged."""
    grpo, base = curves.get("grpo", []), curves.get("base", [])
    lengths = {"length": "all", "length_right": "right", "length_wrong": "wrong"}
    voices = {f"voice_{voice}": voice for voice in VOICES}
    without_signal = "Share of groups without signal, over RL steps"
    drawings = (
        (
            "reward",
            grpo,
            {"reward": "reward", "accuracy": "accuracy"},
            "Reward and accuracy of the rollouts, over RL steps",
        ),
        ("length", grpo, lengths, "Completion length in tokens, over RL steps"),
        ("voices", grpo, voices, "Share of each voice, over RL steps"),
        ("signal", grpo, {"without_signal": "without signal"}, without_signal),
        ("entropy", grpo, {"entropy": "entropy"}, "Entropy per token in nats, over RL steps"),
        ("loss", base, {"loss": "loss"}, "Next-token loss of the base stage, over its steps"),
    )
    for name, rows, series, title in drawings:
        drawing = curve(rows, series, name, title, share=name in ("voices", "signal"))
        if drawing is not None:
            yield title, drawing
