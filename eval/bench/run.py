"""`r1-mini bench`: our GRPO step and our rollouts, timed in turn with stock TRL's and `model.generate`.

Each side is a process of its own. They take turns, a step each, so that whatever else the machine does meets both: a
gain is the median over pairs of neighboring steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from rich.console import Console

from eval.bench.process import Side, start_server
from eval.bench.side import cannot_run
from eval.bench.table import comparison, growth, heading
from eval.bench.work import (
    PROFILES,
    RIVALS,
    SIZES,
    Case,
    Network,
    case_of,
    case_of_checkpoint,
    growing,
    micro_batches,
    speedup,
    step_flops,
)
from r1_mini.errors import UserError
from r1_mini.pipeline.store import find_checkpoint
from r1_mini.system.environment import commit, machine, versions
from r1_mini.system.files import write_json_atomic
from r1_mini.train.callbacks import progress_bar

SCALING_STEPS = 3
"""Steps of each point of the scaling tables, after one that warms up."""


def bench(
    sizes: Sequence[str],
    profiles: Sequence[str],
    checkpoints: Sequence[Path],
    pairs: int,
    out: Path,
    without_signal: float,
    scaling: bool,
    console: Console,
    prompts: int | None = None,
    samples: int | None = None,
) -> None:
    """Time each size with each profile, and each checkpoint; print the table, write every timing to the file `out`.

    Without a size all are timed, without a profile both, with nothing but checkpoints these alone.

    `prompts` and `samples`: another batch than the sizes' own. SideEnded if a side dies; its words are in the log
    beside `out`.
    """
    for option, chosen, known in (("--size", sizes, SIZES), ("--profile", profiles, PROFILES)):
        for name in chosen:
            if name not in known:
                raise UserError(f"there is no '{name}'", where=option, fix=f"choose {', '.join(known)}")
    if out.is_dir():
        raise UserError("is a folder", where=str(out), fix="give --out the path of a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_name(f"{out.name}.log")
    rivals = {rival: settings for rival, settings in RIVALS.items() if not cannot_run(rival)}
    rows = [
        (rival, "recipe", case_of_checkpoint(settings.what, checkpoint, pairs + 1, prompts, samples))
        for checkpoint in map(find_checkpoint, checkpoints)
        for rival, settings in rivals.items()
    ]
    all_sizes = () if checkpoints and not profiles else SIZES
    rows += [
        (rival, profile, case_of(settings.what, size, profile, without_signal, pairs + 1, prompts, samples))
        for size in sizes or all_sizes
        for profile in profiles or PROFILES
        for rival, settings in rivals.items()
    ]
    start_server(log)
    with console.status("measuring the matrix product"):
        rate = matrix_rate()
    base = case_of("step", "0.3M", "short", without_signal, SCALING_STEPS + 1, prompts, samples)
    points = [(axis, *point) for axis, axis_points in growing(base).items() for point in axis_points] if scaling else []
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch_threads": torch.get_num_threads(),
        "gflops": rate / 1e9,
        "pairs": pairs,
        "without_signal": without_signal,
        "not_measured": {rival: reason for rival in RIVALS if (reason := cannot_run(rival))},
        "rows": [],
        "scaling": [],
    }
    with progress_bar(console) as progress:
        total = sum(_orders(case) for _, _, case in rows) + sum(case.steps for _, _, case in points)
        bar = progress.add_task("bench", total=total, note="")
        advance = partial(progress.advance, bar)
        for rival, profile, case in rows:
            progress.update(bar, note=f"{case.what} {case.size} {profile}")
            row = {"against": rival, "what": case.what, "size": case.size, "profile": profile}
            result["rows"].append(row | _compare(case, rival, rate, log, advance))
            write_json_atomic(out, result)
        for axis, value, case in points:
            progress.update(bar, note=f"{axis} {value}")
            result["scaling"].append({"axis": axis, "value": value, **_grow(case, rate, log, advance)})
            write_json_atomic(out, result)
    console.print(heading(result))
    console.print(comparison(result["rows"]))
    for rival, reason in result["not_measured"].items():
        console.print(f"{RIVALS[rival].title}: not measured, {reason}")
    if points:
        console.print(growth(result["scaling"]))
    console.print(f"every timing: {out}", soft_wrap=True)


def matrix_rate(seconds: float = 1.0) -> float:
    """FLOP per second of the product of two fp32 matrices of 1024 x 1024, with torch's threads."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = torch.randn(2, 1024, 1024, device=device)
    products, flops = 0, 2 * 1024**3
    float((left @ right)[0, 0])
    started = time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        float((left @ right)[0, 0])  # waits for a GPU
        products += 1
    return products * flops / spent


def _orders(case: Case) -> int:
    """Steps that a comparison takes: the sweep's, and those of both sides."""
    return 2 * case.steps + (len(micro_batches(case.batch)) if case.what == "step" else 0)


def _sweep(case: Case, rival: str, log: Path, advance: Callable[[], None]) -> dict[int, float]:
    """Micro-batch -> seconds of the rival's update on the same completions; larger ones are tried while that pays."""
    sweep: dict[int, float] = {}
    sizes = micro_batches(case.batch)
    for size in sizes:
        latest = list(sweep.values())[-1:]
        if len(sizes) > 1 and (not latest or latest[0] == min(sweep.values())):
            with Side(case, rival, size, log) as side:
                taken = side.step()  # the first draws the same completions whatever the micro-batch
            sweep[size] = taken["seconds"] - taken["rollout"]
        advance()
    return sweep


def _compare(case: Case, rival: str, rate: float, log: Path, advance: Callable[[], None]) -> dict[str, Any]:
    """A row of the result: the rival's micro-batch is chosen, then the sides take turns."""
    sweep = _sweep(case, rival, log, advance) if case.what == "step" else {}
    best = min(sweep, key=lambda size: sweep[size]) if sweep else case.batch
    with Side(case, "ours", case.batch, log) as ours, Side(case, rival, best, log) as theirs:
        sides = {"ours": ours, rival: theirs}
        steps: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for _ in range(case.steps):
            for name, side in sides.items():
                steps[name].append(side.step())
                advance()
    done = {
        name: summary(side.first, steps[name][1:], case, rate) for name, side in sides.items()
    }  # the first warms up
    times, per_token = (
        [[timing[key] for timing in done[name]["timings"]] for name in sides]
        for key in ("seconds", "seconds_per_token")
    )
    return {
        "prompts": case.prompts,
        "samples": case.samples,
        "lengths": None if case.checkpoint else asdict(case.profile),
        "parameters": ours.first["parameters"],
        "network": asdict(ours.first["network"]),
        "micro_batch": best if case.what == "step" else None,
        "sweep_seconds_update": sweep,
        "sides": done,
        "speedup": speedup(*times),
        "speedup_per_token": speedup(*per_token),
    }


def summary(first: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], case: Case, rate: float) -> dict[str, Any]:
    """What the steps of one side took: seconds, tokens, MiB. `limit`: seconds of the arithmetic at `rate`, FLOP/s."""
    network: Network = first["network"]
    has_update = case.what == "step"
    timings = []
    for step in steps:
        lengths = [length for group in step["groups"] for length in group.completions]
        flops, seconds = step_flops(network, step["groups"], update=has_update), step["seconds"]
        timings.append(
            {
                "seconds": seconds,
                "seconds_rollout": step["rollout"],
                "seconds_update": seconds - step["rollout"] if has_update else None,
                "seconds_per_token": seconds / sum(lengths),
                "tokens": sum(lengths),
                "length_mean": fmean(lengths),
                "length_max": max(lengths),
                "groups_without_signal": fmean(not group.signal for group in step["groups"]) if has_update else None,
                "flops": flops,
                "limit": flops / rate,
                "times_limit": seconds * rate / flops,
            }
        )
    typical = ("seconds", "seconds_rollout", "seconds_update", "seconds_per_token", "limit", "times_limit")
    return {
        **{key: median(timing[key] for timing in timings) for key in typical if timings[0][key] is not None},
        "tokens_per_second": sum(timing["tokens"] for timing in timings) / sum(timing["seconds"] for timing in timings),
        "length_mean": fmean(timing["length_mean"] for timing in timings),
        "length_max": max(timing["length_max"] for timing in timings),
        "peak_mib": steps[-1]["peak_mib"],
        "baseline_mib": first["peak_mib"],
        "timings": timings,
    }


def _grow(case: Case, rate: float, log: Path, advance: Callable[[], None]) -> dict[str, Any]:
    """Our step alone, for one point of a scaling axis."""
    steps = []
    with Side(case, "ours", case.batch, log) as side:
        for _ in range(case.steps):
            steps.append(side.step())
            advance()
    done = summary(side.first, steps[1:], case, rate)
    return {"prompts": case.prompts, "samples": case.samples, "parameters": side.first["parameters"], **done}
