"""A speed comparison on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from eval.bench.work import RIVALS


def heading(result: Mapping[str, Any]) -> str:
    """What the numbers below are."""
    return (
        f"{result['torch_threads']} threads; a matrix product runs at {result['gflops']:,.0f} GFLOP/s, and the limit "
        f"is the time of a step's arithmetic at that rate, each token once. Random weights: all tokens about equally "
        f"likely; in {result['without_signal']:.0%} of the groups the reward is constant, else 0 or 1 by a hash of "
        "the completion. "
        "Checkpoints: the default recipe's problems, accuracy as the reward. "
        f"Medians of {result['pairs']} steps of each side, in "
        "turn; how many times as fast is the median over pairs of steps, with the smallest and the largest."
    )


def comparison(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Three lines for each row: ours, theirs, and how they compare."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("", max_width=34)
    for name in ("seconds", "roll-\nout", "update", "tokens\n/ s", "tokens\n(max)", "peak\nMiB", "times\nlimit"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        rival = RIVALS[row["against"]].title
        passes = f", {row['micro_batch']} a pass" if row["micro_batch"] else ""
        gain = row["speedup"]
        table.add_row(f"[bold]{row['what']} {row['size']} {row['profile']}, {row['prompts']} x {row['samples']}[/bold]")
        for name, side in zip(("ours", rival + passes), row["sides"].values(), strict=True):
            table.add_row(f"  {name}", *_figures(side))
        table.add_row(
            f"  [bold]{gain['median']:.1f}[/bold] times as fast \\[{gain['min']:.1f}, {gain['max']:.1f}]",
            end_section=True,
        )
    return table


def growth(points: Sequence[Mapping[str, Any]]) -> Table:
    """How the time of our step grows; the last three columns would be constant if it grew as the work does."""
    title = "our step 0.3M short, one thing changed"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in ("batch", "seconds", "tokens", "µs / token", "ms / GFLOP", "times limit"):
        table.add_column(name, justify="right", no_wrap=True)
    for axis, on_axis in groupby(points, key=lambda point: point["axis"]):
        for point in on_axis:
            timings = point["timings"]
            tokens = median(timing["tokens"] for timing in timings)
            per_gflop = median(timing["seconds"] / timing["flops"] for timing in timings) * 1e12
            table.add_row(
                f"{axis} {point['value']}",
                f"{point['prompts']} x {point['samples']}",
                _seconds(point["seconds"]),
                f"{tokens:,.0f}",
                f"{point['seconds_per_token'] * 1e6:.1f}",
                f"{per_gflop:.1f}",
                f"{point['times_limit']:.1f}",
            )
        table.add_section()
    return table


def _figures(side: Mapping[str, Any]) -> Iterator[str]:
    yield from (_seconds(side.get(key)) for key in ("seconds", "seconds_rollout", "seconds_update"))
    yield f"{side['tokens_per_second']:,.0f}"
    yield f"{side['length_mean']:.0f} ({side['length_max']})"
    yield f"{side['peak_mib']:,.0f}"
    yield f"{side['times_limit']:.1f}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"
