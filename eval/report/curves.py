"""The training curves: metrics of each stage against its step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from eval.exam.samples import VOICES
from eval.report.svg import COLORS, STYLE, axes_of, drawn

Rows = Sequence[Mapping[str, Any]]


def training(curves: Mapping[str, Rows]) -> Iterator[tuple[str, Markup]]:
    """(caption, chart) of every training curve for which metrics were logged."""
    grpo, base = of_reinforcement(curves), curves.get("base", [])
    rewards = {"reward": "reward", "accuracy": "accuracy"}
    lengths = {"length": "all", "length_right": "right", "length_wrong": "wrong"}
    voices = {f"voice_{voice}": voice for voice in VOICES}
    signal = {"without_signal": "without signal"}
    dev = {"dev_pass_at_1": "dev"}
    drawings = (
        ("reward", grpo, rewards, "Reward and accuracy of the rollouts, over RL steps"),
        ("dev", grpo, dev, "dev accuracy: pass@1 on problems that no stage trains on, over RL steps"),
        ("length", grpo, lengths, "Completion length in tokens, over RL steps"),
        ("voices", grpo, voices, "Share of each voice, over RL steps"),
        ("signal", grpo, signal, "Share of groups without signal, over RL steps"),
        ("entropy", grpo, {"entropy": "entropy"}, "Entropy per token in nats, over RL steps"),
        ("loss", base, {"loss": "loss"}, "Next-token loss of the base stage, over its steps"),
        ("base-dev", base, dev, "dev accuracy of the base stage: pass@1, over its steps"),
    )
    for name, rows, series, title in drawings:
        drawing = curve(rows, series, name, title, share=name in ("voices", "signal", "dev", "base-dev"))
        if drawing is not None:
            yield title, drawing


def of_reinforcement(curves: Mapping[str, Rows]) -> list[Mapping[str, Any]]:
    """The metrics of the stages that reward rollouts."""
    return [*curves.get("grpo", ()), *curves.get("rejection", ())]


def curve(rows: Rows, series: Mapping[str, str], name: str, title: str, share: bool = False) -> Markup | None:
    """Metrics, {field: label}, against the step: each step faint, a moving average over a twentieth of the run on top.

    None if no row has any of the fields. A step without a value (no wrong completion to measure, say) leaves a gap,
    but a metric that fewer than half of the rows have is drawn as points joined by a line.
    """
    present = {field: label for field, label in series.items() if any(row.get(field) is not None for row in rows)}
    if not present:
        return None
    steps = np.array([row["step"] for row in rows])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 3.0), layout="constrained")
        axes = axes_of(figure, "step", share)
        for letter, (field, label) in zip("abcd", present.items(), strict=False):
            values = np.array([np.nan if row.get(field) is None else row[field] for row in rows], dtype=float)
            there, color = np.isfinite(values), COLORS[letter]
            if 2 * there.sum() < len(values):
                axes.plot(
                    steps[there], values[there], color=color, linewidth=1.2, marker="o", markersize=4, label=label
                )
                continue
            axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
            axes.plot(steps, smooth(values, max(1, len(values) // 20)), color=color, linewidth=1.8, label=label)
        if not share:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        return drawn(figure, axes, name, title)


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
