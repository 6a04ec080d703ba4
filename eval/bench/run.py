"""`r1-mini bench`: our GRPO step and our rollouts, timed in turn with stock TRL's and `model.generate`.

Each side is a process of its own. The sides take turns, a step each, so that whatever else the machine does affects
both: a gain is the median over pairs of neighboring steps.
"""

import contextlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import Timer

from eval.bench.side import GENERATE, RIVALS, SIZES, Case, serve
from r1_mini.model.checkpoint import find_checkpoint
from r1_mini.system.environment import commit, machine, versions
from r1_mini.system.files import write_json_atomic
from r1_mini.train.callbacks import progress_bar

PROFILES: dict[str, tuple[float, int]] = {"short": (30, 80), "long": (60, 512)}
"""Mean and longest length of the completions, tokens."""
BATCHES = {"0.3M": {"short": (32, 16), "long": (16, 16)}, "5M": {"short": (16, 8), "long": (8, 8)}} | {
    "30M": {"short": (8, 8), "long": (4, 8)}
}
"""Prompts and samples of a step, so that all together take about ten minutes on two cores."""
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["eval.bench.side"])  # importing TRL takes seconds


def bench(
    sizes: Sequence[str],
    profiles: Sequence[str],
    checkpoints: Sequence[Path],
    pairs: int,
    out: Path,
    zero_variance: float,
    scaling: bool,
    console: Console,
) -> None:
    """Time each size with each profile, and each checkpoint; print the table, write every timing to the file `out`.

    Without a size all are timed, without a profile both, with nothing but checkpoints these alone. RuntimeError if a
    side dies; the log next to `out` has its output.
    """
    cases = []
    for path in map(find_checkpoint, checkpoints):  # on the default recipe's problems, with lengths as they come
        name = "/".join(path.resolve().parts[-2:])
        cases.append(Case("step", name, "recipe", None, 80, 32, 16, 0.0, pairs + 1, str(path)))
    for size in sizes or (() if checkpoints and not profiles else SIZES):
        cases += [case_of(size, profile, zero_variance, pairs + 1) for profile in profiles or PROFILES]
    missing = {"TRL, vLLM": "vLLM is not installed"} if importlib.util.find_spec("vllm") is None else {}
    if not torch.cuda.is_available():
        missing = {rival: "needs CUDA" for rival, fields in RIVALS.items() if fields}
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for case, rival in itertools.product(cases, [rival for rival in RIVALS if rival not in missing]):
        rows.append((replace(case, what="rollout" if rival == GENERATE else "step"), rival))
    if scaling:
        rows += [(case, "") for case in growing(case_of("0.3M", "short", zero_variance, pairs + 1))]
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
        "not_measured": missing,
        "rows": [],
    }
    with progress_bar(console) as progress:
        bar = progress.add_task("bench", total=len(rows), note="")
        for case, rival in rows:
            progress.update(bar, note=f"{case.what} {case.size} {case.profile}")
            result["rows"].append(compare(case, rival, rate, out.with_name(f"{out.name}.log")))
            write_json_atomic(out, result)
            progress.advance(bar)
    console.print(
        f"{result['torch_threads']} threads; the limit: the time of a step's arithmetic, each token once, at the rate "
        f"of a matrix product, {result['gflops']:,.0f} GFLOP/s. Random weights: the reward is constant in "
        f"{zero_variance:.0%} of the groups, else 0 or 1 by a hash of the completion. Checkpoints: accuracy. "
        f"Medians of {pairs} steps of each side, in turn, and of the ratio in each pair [smallest, largest].",
        markup=False,
    )
    console.print(comparison(result["rows"]))
    for rival, reason in missing.items():
        console.print(f"{rival}: not measured, {reason}")
    console.print(f"every timing: {out}", soft_wrap=True)


def case_of(size: str, profile: str, zero_variance: float, steps: int) -> Case:
    """A step of random weights with its usual batch."""
    return Case("step", size, profile, *PROFILES[profile], *BATCHES[size][profile], zero_variance, steps)


def growing(base: Case) -> list[Case]:
    """`base` with one thing changed, which its profile names. The longest completion grows with the mean."""
    return [
        *(replace(base, profile=f"group of {n}", samples=n) for n in (4, 8, 16, 32)),
        *(replace(base, profile=f"{n} prompts", prompts=n) for n in (8, 16, 32, 64)),
        *(replace(base, profile=f"mean length {n}", mean=n, longest=n * 80 // 30) for n in (15, 30, 60)),
        *(replace(base, profile=f"{size} parameters", size=size, prompts=8, samples=8) for size in SIZES),
    ]


def matrix_rate() -> float:
    """FLOP per second of the product of two fp32 matrices of 1024 x 1024, with torch's threads."""
    left, right = torch.randn(2, 1024, 1024, device="cuda" if torch.cuda.is_available() else "cpu")
    product = "float((left @ right)[0, 0])"  # waits for a GPU
    timer = Timer(product, globals={"left": left, "right": right}, num_threads=torch.get_num_threads())
    return 2 * 1024**3 / timer.blocked_autorange(min_run_time=1.0).median


@contextlib.contextmanager
def started(case: Case, side: str, micro_batch: int, log: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """A side's process, as a function that lets it do a step and returns what that took."""
    connection, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=serve, args=(case, side, micro_batch, theirs, log), daemon=True)
    process.start()
    theirs.close()

    def step() -> dict[str, Any]:
        try:
            connection.send("step")
            return dict(connection.recv())
        except (EOFError, ConnectionError):
            process.join(10)
            what = f"{side} ({case.what}, {case.size}) ended with exit code {process.exitcode}"
            raise RuntimeError(f"{what}; see {log}") from None

    try:
        yield step
    finally:
        connection.close()
        process.join(10)
        process.terminate()


def micro_batches(batch: int) -> list[int]:
    """Sizes of micro-batch to try, completions: those of 32, 64, 128 and 256 that divide the batch, and the batch."""
    return [*(size for size in (32, 64, 128, 256) if size < batch and batch % size == 0), batch]


def compare(case: Case, rival: str, rate: float, log: Path) -> dict[str, Any]:
    """A row of the result: the rival's micro-batch is chosen, then the sides take turns. "": our side alone.

    Larger micro-batches are tried while that pays. `times_limit`: a step's seconds against its arithmetic at `rate`.
    """
    sizes = micro_batches(case.batch) if rival and case.what == "step" else []
    tried: dict[int, float] = {}
    for size in sizes if len(sizes) > 1 else []:
        with started(case, rival, size, log) as step:
            tried[size] = step()["seconds_update"]  # the first step has the same completions for all sizes
        if tried[size] > min(tried.values()):
            break
    best = min(tried, key=lambda size: tried[size], default=case.batch)
    with contextlib.ExitStack() as stack:
        names = {"ours": case.batch} | ({rival: best} if rival else {})
        sides = {name: stack.enter_context(started(case, name, size, log)) for name, size in names.items()}
        timings = [{"side": name, **step()} for _ in range(case.steps) for name, step in sides.items()]
    frame = pd.DataFrame(timings[len(sides) :])  # the first step warms up
    frame["times_limit"] = frame["seconds"] * rate / frame["flops"]
    frame["tokens_per_second"] = frame["tokens"] / frame["seconds"]
    by_side = frame.groupby("side", sort=False)
    seconds = by_side["seconds"].agg(list)
    return {
        **asdict(case),
        "against": rival,
        "micro_batch": best if case.what == "step" else None,
        "micro_batches_seconds_update": tried,
        "sides": by_side.median().assign(peak_mib=by_side["peak_mib"].max()).to_dict("index"),
        "speedup": speedup(seconds["ours"], seconds[rival]) if rival else None,
        "timings": frame.to_dict("records"),
    }


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as long theirs takes, pair by pair: median, smallest and largest."""
    return dict(pd.Series(np.divide(theirs, ours)).agg(["median", "min", "max"]))


def comparison(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Three lines for each row: ours, theirs, and how they compare."""
    table = Table("", box=box.SIMPLE_HEAD, pad_edge=False, padding=0)
    for name in ("seconds", "roll-\nout", "update", "tokens\n/ s", "peak\nMiB", "times\nlimit"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        passes = f", {row['micro_batch']} a pass" if row["micro_batch"] else ""
        table.add_row(f"[bold]{row['what']} {row['size']} {row['profile']}, {row['prompts']} x {row['samples']}[/bold]")
        for name, side in row["sides"].items():
            seconds = (side[key] for key in ("seconds", "seconds_rollout", "seconds_update"))
            table.add_row(
                "  ours" if name == "ours" else f"  {name}{passes}",
                *(f"{each:.3f}" if each < 1 else f"{each:.2f}" for each in seconds),
                *(f"{side[key]:,.0f}" for key in ("tokens_per_second", "peak_mib")),
                f"{side['times_limit']:.1f}",
            )
        if row["speedup"]:
            table.add_row("  [bold]{median:.1f}[/bold] times as fast \\[{min:.1f}, {max:.1f}]".format(**row["speedup"]))
        table.add_section()
    return table
