"""`r1-mini bench`: our GRPO step and our rollouts, timed in turn with stock TRL's and `model.generate`.

Each side is a process of its own. The sides take turns, a step each, so that whatever else the machine does affects
both: a gain is the median over pairs of neighboring steps.
"""

import contextlib
import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any, Self

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from eval.bench.side import RIVALS, SIZES, Case, serve
from r1_mini.model.checkpoint import find_checkpoint
from r1_mini.system.environment import commit, machine, versions
from r1_mini.system.files import write_json_atomic
from r1_mini.train.callbacks import progress_bar

PROFILES: dict[str, tuple[float, int]] = {"short": (30, 80), "long": (60, 512)}
"""Mean and longest length of the completions, tokens."""
BATCHES = {
    ("0.3M", "short"): (32, 16),
    ("0.3M", "long"): (16, 16),
    ("5M", "short"): (16, 8),
    ("5M", "long"): (8, 8),
    ("30M", "short"): (8, 8),
    ("30M", "long"): (4, 8),
}
"""Prompts and samples of a step, so that all together take about ten minutes on two cores."""
SCALING_STEPS = 3
"""Steps of each point of the scaling table, after one that warms up."""
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["eval.bench.side"])  # importing TRL takes seconds


class Side:
    """A process that does a step when it is told to. `baseline`: its peak memory before the first step, MiB."""

    def __init__(self, case: Case, name: str, micro_batch: int, log: Path) -> None:
        self.what, self.log = f"{name} ({case.what}, {case.size})", log
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=serve, args=(case, name, micro_batch, theirs, log), daemon=True)
        self.process.start()
        theirs.close()

    def __enter__(self) -> Self:
        self.baseline = self._report()["peak_mib"]
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.process.join(10)
        self.process.terminate()

    def step(self) -> dict[str, Any]:
        """Do a step; what it took."""
        with contextlib.suppress(ConnectionError):  # if the side has ended, there is no report
            self.connection.send("step")
        return self._report()

    def _report(self) -> dict[str, Any]:
        with contextlib.suppress(EOFError, ConnectionError):
            return dict(self.connection.recv())
        self.process.join(10)
        raise RuntimeError(f"{self.what} ended with exit code {self.process.exitcode}; see {self.log}")


def bench(
    sizes: Sequence[str],
    profiles: Sequence[str],
    checkpoints: Sequence[Path],
    pairs: int,
    out: Path,
    zero_variance: float,
    scaling: bool,
    console: Console,
    prompts: int | None = None,
    samples: int | None = None,
) -> None:
    """Time each size with each profile, and each checkpoint; print the table, write every timing to the file `out`.

    Without a size all are timed, without a profile both, with nothing but checkpoints these alone. `prompts` and
    `samples`: another batch than the sizes' own. RuntimeError if a side dies; the log next to `out` has its output.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_name(f"{out.name}.log")
    cases = [("recipe", case_of_checkpoint(find_checkpoint(path), pairs + 1, prompts, samples)) for path in checkpoints]
    cases += [
        (profile, case_of(size, profile, zero_variance, pairs + 1, prompts, samples))
        for size in sizes or (() if checkpoints and not profiles else SIZES)
        for profile in profiles or PROFILES
    ]
    rivals = [rival for rival in RIVALS if not cannot_run(rival)]
    rows = [(name, replace(case, what=RIVALS[rival].what), rival) for name, case in cases for rival in rivals]
    if scaling:
        points = growing(case_of("0.3M", "short", zero_variance, SCALING_STEPS + 1, prompts, samples))
        rows += [(name, case, "") for name, case in points]
    with console.status("measuring the matrix product"):
        rate = matrix_rate()
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch_threads": torch.get_num_threads(),
        "gflops": rate / 1e9,
        "pairs": pairs,
        "zero_variance": zero_variance,
        "not_measured": {RIVALS[rival].title: cannot_run(rival) for rival in RIVALS if rival not in rivals},
        "rows": [],
    }
    with progress_bar(console) as progress:
        bar = progress.add_task("bench", total=len(rows), note="")
        for name, case, rival in rows:
            progress.update(bar, note=f"{case.what} {case.size} {name}")
            result["rows"].append({"profile": name, **compare(case, rival, rate, log)})
            write_json_atomic(out, result)
            progress.advance(bar)
    console.print(heading(result))
    console.print(comparison(result["rows"]))
    for title, reason in result["not_measured"].items():
        console.print(f"{title}: not measured, {reason}")
    console.print(f"every timing: {out}", soft_wrap=True)


def cannot_run(rival: str) -> str | None:
    """Why this machine cannot run a rival; None if it can."""
    if RIVALS[rival].needs_cuda and not torch.cuda.is_available():
        return "needs CUDA"
    return "vLLM is not installed" if rival == "trl-vllm" and importlib.util.find_spec("vllm") is None else None


def case_of(
    size: str, profile: str, zero_variance: float, steps: int, prompts: int | None = None, samples: int | None = None
) -> Case:
    """A step of random weights with its usual batch, or another."""
    many, each = BATCHES[size, profile]
    return Case("step", size, *PROFILES[profile], prompts or many, samples or each, zero_variance, steps)


def case_of_checkpoint(checkpoint: Path, steps: int, prompts: int | None, samples: int | None) -> Case:
    """A step of a checkpoint on the default recipe's problems, with lengths and rewards as they come."""
    name = "/".join(checkpoint.resolve().parts[-2:])
    return Case("step", name, None, 80, prompts or 32, samples or 16, 0.0, steps, str(checkpoint))


def growing(base: Case) -> list[tuple[str, Case]]:
    """`base` with one thing changed, by name. The longest completion grows with the mean."""
    return [
        *((f"group of {n}", replace(base, samples=n)) for n in (4, 8, 16, 32)),
        *((f"{n} prompts", replace(base, prompts=n)) for n in (8, 16, 32, 64)),
        *((f"mean length {n}", replace(base, mean=n, longest=n * 80 // 30)) for n in (15, 30, 60)),
        *((f"{size} parameters", replace(base, size=size, prompts=8, samples=8)) for size in SIZES),
    ]


def matrix_rate(seconds: float = 1.0) -> float:
    """FLOP per second of the product of two fp32 matrices of 1024 x 1024, with torch's threads."""
    left, right = torch.randn(2, 1024, 1024, device="cuda" if torch.cuda.is_available() else "cpu")
    float((left @ right)[0, 0])
    products, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        float((left @ right)[0, 0])  # waits for a GPU
        products += 1
    return products * 2 * 1024**3 / spent


def micro_batches(batch: int) -> list[int]:
    """Sizes of micro-batch to try, completions: those of 32, 64, 128 and 256 that divide the batch, and the batch."""
    return [*(size for size in (32, 64, 128, 256) if size < batch and batch % size == 0), batch]


def best_micro_batch(case: Case, rival: str, log: Path) -> tuple[int, dict[int, float]]:
    """The rival's fastest micro-batch, and the seconds of each tried one; larger ones are tried while that pays."""
    tried: dict[int, float] = {}
    for size in micro_batches(case.batch):
        with Side(case, rival, size, log) as side:
            tried[size] = side.step()["seconds_update"]  # the first step has the same completions for all sizes
        if tried[size] > min(tried.values()):
            break
    return min(tried, key=lambda size: tried[size]), tried


def compare(case: Case, rival: str, rate: float, log: Path) -> dict[str, Any]:
    """A row of the result: the rival's micro-batch is chosen, then the sides take turns. "": our side alone."""
    tries = rival and case.what == "step" and len(micro_batches(case.batch)) > 1
    best, tried = best_micro_batch(case, rival, log) if tries else (case.batch, {})
    with contextlib.ExitStack() as stack:
        names = {"ours": case.batch} | ({rival: best} if rival else {})
        sides = {name: stack.enter_context(Side(case, name, size, log)) for name, size in names.items()}
        steps = [{name: side.step() for name, side in sides.items()} for _ in range(case.steps)][1:]  # without warm-up
    seconds = [[step[name]["seconds"] for step in steps] for name in sides]
    return {
        **asdict(case),
        "against": rival,
        "micro_batch": best if case.what == "step" else None,
        "micro_batches_seconds_update": tried,
        "sides": {name: summary(side, [step[name] for step in steps], rate) for name, side in sides.items()},
        "speedup": speedup(*seconds) if rival else None,
    }


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as long theirs takes, pair by pair: median, smallest and largest."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}


def summary(side: Side, timings: Sequence[Mapping[str, Any]], rate: float) -> dict[str, Any]:
    """What the steps of a side took: medians, and every timing. `times_limit`: against the arithmetic at `rate`."""
    timings = [{**each, "times_limit": each["seconds"] * rate / each["flops"]} for each in timings]
    typical = ("seconds", "seconds_rollout", "seconds_update", "times_limit")
    return {
        **{key: median(each[key] for each in timings) for key in typical if timings[0][key] is not None},
        "tokens_per_second": sum(each["tokens"] for each in timings) / sum(each["seconds"] for each in timings),
        "length_mean": fmean(each["length_mean"] for each in timings),
        "length_max": max(each["length_max"] for each in timings),
        "peak_mib": timings[-1]["peak_mib"],
        "baseline_mib": side.baseline,
        "timings": timings,
    }


def heading(result: Mapping[str, Any]) -> str:
    """What the numbers of the table are."""
    return (
        f"{result['torch_threads']} threads; the limit: the time of a step's arithmetic, each token once, at the rate "
        f"of a matrix product, {result['gflops']:,.0f} GFLOP/s. Random weights: the reward is constant in "
        f"{result['zero_variance']:.0%} of the groups, else 0 or 1 by a hash of the completion. Checkpoints: accuracy. "
        f"Medians of {result['pairs']} steps of each side, in turn, and of the ratio in each pair [smallest, largest]."
    )


def comparison(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Three lines for each row: ours, theirs, and how they compare."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("", max_width=34)
    for name in ("seconds", "roll-\nout", "update", "tokens\n/ s", "tokens\n(max)", "peak\nMiB", "times\nlimit"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        passes = f", {row['micro_batch']} a pass" if row["micro_batch"] else ""
        table.add_row(f"[bold]{row['what']} {row['size']} {row['profile']}, {row['prompts']} x {row['samples']}[/bold]")
        for name, side in row["sides"].items():
            table.add_row(
                "  ours" if name == "ours" else f"  {RIVALS[name].title}{passes}",
                *(_seconds(side.get(key)) for key in ("seconds", "seconds_rollout", "seconds_update")),
                f"{side['tokens_per_second']:,.0f}",
                f"{side['length_mean']:.0f} ({side['length_max']})",
                f"{side['peak_mib']:,.0f}",
                f"{side['times_limit']:.1f}",
            )
        if row["speedup"]:
            table.add_row("  [bold]{median:.1f}[/bold] times as fast \\[{min:.1f}, {max:.1f}]".format(**row["speedup"]))
        table.add_section()
    return table


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"
