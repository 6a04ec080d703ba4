"""`r1-mini bench`: our GRPO step and our rollouts, timed in turn with stock TRL's and `model.generate`.

Each side is a process of its own, with the same weights, prompts, reward and settings. The sides take turns, a step
each, so that whatever else the machine does affects both: a gain is the median over pairs of neighboring steps. A
random network would not end its completions, so the chance of EOS is built into the weights.
"""

import contextlib
import importlib.util
import itertools
import math
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import transformers
from datasets import Dataset
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import Timer
from trl import GRPOConfig, GRPOTrainer

from r1_mini.completion import grade
from r1_mini.data.mix import draw
from r1_mini.data.source import FamilySource
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint
from r1_mini.model.prompts import encode, prompts_for, stop_tokens
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.generate import require_readable
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import environment
from r1_mini.system.files import write_json_atomic
from r1_mini.train.callbacks import progress_bar
from r1_mini.train.grpo import GrpoStage, Trainer
from r1_mini.train.logps import narrow_tiles
from r1_mini.train.stage import arguments

PROBLEMS = FamilySource.model_validate({"family": "sum", "terms": [2, 6], "digits": 2, "largest": 99})  # of r1_zero
SIZES: dict[str, dict[str, int]] = {
    "0.3M": {"hidden_size": 96, "layers": 3, "heads": 6},
    "5M": {"hidden_size": 256, "layers": 6, "heads": 8, "intermediate_size": 736},
    "30M": {"hidden_size": 512, "layers": 10, "heads": 8, "intermediate_size": 1280},
    "135M": {"hidden_size": 576, "layers": 32, "heads": 9, "intermediate_size": 1728},
}
RIVALS: dict[str, dict[str, Any]] = {
    "TRL": {},
    "model.generate": {},
    "TRL, continuous batching": {"use_transformers_continuous_batching": True},
    "TRL, vLLM": {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3},
}
"""What ours is compared with -> fields of its GRPOConfig, which need CUDA."""
GENERATE = "model.generate"


@dataclass(frozen=True, slots=True)
class Case:
    """What both sides do: one GRPO step, or the rollouts alone."""

    what: Literal["step", "rollout"]
    size: str
    profile: str
    mean: float | None  # of the completions' geometric lengths, tokens with EOS; None: as a checkpoint writes them
    longest: int  # tokens after which a completion is truncated
    prompts: int
    samples: int
    zero_variance: float  # share of the groups whose reward is constant
    steps: int  # most steps that will be done: there are prompts for so many
    preface: int = 0  # tokens before each problem, such as instructions take
    checkpoint: str | None = None  # folder of the weights, instead of random ones of the size

    @property
    def batch(self) -> int:
        return self.prompts * self.samples


class Groups(NamedTuple):
    """Lengths in tokens of the prompts and completions of a step, and which groups' rewards differ."""

    prompts_P: NDArray[np.int_]
    lengths_PG: NDArray[np.int_]
    varies_P: NDArray[np.bool_]


def serve(case: Case, name: str, micro_batch: int, connection: Connection, log: Path) -> None:
    """Do a step for every message, and report it, until the connection is closed; what is printed goes to the log."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its sides
    with log.open("a", encoding="utf-8") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    side = Side(case, name, connection)
    if case.what == "rollout":
        side.rollouts()
    else:
        with TemporaryDirectory(prefix="r1-mini-bench-") as folder:
            side.steps(micro_batch, Path(folder))


class Side(transformers.TrainerCallback):
    """Reports each step to the parent, from one beginning to the next, and waits until it wants another."""

    def __init__(self, case: Case, name: str, connection: Connection) -> None:
        self.case, self.name, self.connection = case, name, connection
        self.began = self.rollout = 0.0
        self.groups: Groups | None = None
        if case.checkpoint:
            self.model, self.tokenizer = load_checkpoint(Path(case.checkpoint))
        else:
            self.tokenizer = make_tokenizer()
            self.model = make_model(self.tokenizer, seed=0, **SIZES[case.size])
            set_lengths(self.model, case.mean or 1.0)
        count = (case.steps + 1) * case.prompts  # the last step only begins
        self.problems = list(itertools.islice(draw((PROBLEMS,), "train", 0), count))
        self.prompts = [" " * case.preface + prompt for prompt in prompts_for(self.tokenizer, self.problems)]
        self.prompt_ids = encode(self.tokenizer, self.prompts)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if environment.kind() != "cpu":
            torch.accelerator.synchronize()
        if self.groups:
            seconds = time.perf_counter() - self.began
            report = {"seconds": seconds, "seconds_rollout": self.rollout, "seconds_update": seconds - self.rollout}
            report |= {"tokens": int(self.groups.lengths_PG.sum()), "flops": step_flops(self.model, self.groups)}
            report |= {"zero_variance": 1 - float(self.groups.varies_P.mean())}
            self.connection.send({**report, "peak_mib": environment.peak() / 2**20})
        try:
            self.connection.recv()
        except EOFError:
            sys.exit()
        self.rollout, self.began = 0.0, time.perf_counter()

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Adds the time of what it decorates to that of the rollouts."""
        started = time.perf_counter()
        yield
        self.rollout += time.perf_counter() - started

    def rollouts(self) -> None:
        """Rollouts alone: our engine's or `model.generate`'s, from token ids to token ids."""
        case, model, tokenizer, eos = self.case, self.model, self.tokenizer, self.tokenizer.eos_token_id
        model.to(environment.kind()).eval()
        stop = stop_tokens(model.generation_config, tokenizer)

        def ours(prompts: list[list[int]], step: int) -> NDArray[np.int_]:
            done = rollout(model, prompts, SamplingParams(case.samples, case.longest, seed=step), stop=stop)
            return np.array([[len(completion.tokens) for completion in group] for group in done])

        def generate(prompts: list[list[int]], step: int) -> NDArray[np.int_]:
            torch.manual_seed(step)
            batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
            options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
            ids = model.generate(**batch, **options, num_return_sequences=case.samples, max_new_tokens=case.longest)
            completions = ids[:, batch["input_ids"].shape[1] :].tolist()
            lengths = [[*tokens, eos].index(eos) + (eos in tokens) for tokens in completions]
            return np.reshape(lengths, (case.prompts, case.samples))

        sample = self._timed()(generate if self.name == GENERATE else ours)
        for step in itertools.count():
            self.on_step_begin()
            prompts = self.prompt_ids[step * case.prompts : (step + 1) * case.prompts]
            nothing = np.zeros(case.prompts, dtype=bool)  # is updated
            self.groups = Groups(np.array(list(map(len, prompts))), sample(prompts, step), nothing)

    def steps(self, micro_batch: int, folder: Path) -> None:
        """GRPO steps of our trainer or of TRL's."""
        case, ours = self.case, self.name == "ours"
        fields = {
            "max_steps": case.steps + 1,  # the last is never done: the parent hangs up before
            "per_device_train_batch_size": case.batch if ours else micro_batch,
            "gradient_accumulation_steps": 1 if ours else case.batch // micro_batch,
            "num_generations": case.samples,
            "max_completion_length": case.longest,
            "learning_rate": 1e-6,  # so small that lengths stay as they are
            "lr_scheduler_type": "constant",
            "save_strategy": "no",
            **({} if ours else RIVALS[self.name]),
        }
        if "use_vllm" in fields:  # it reads the weights from a folder
            self.model.save_pretrained(folder / "model")
            self.tokenizer.save_pretrained(folder / "model")
            self.model = transformers.LlamaForCausalLM.from_pretrained(folder / "model")
        trainer_class: Callable[..., GRPOTrainer] = Trainer if ours else GRPOTrainer
        own = {"problems": self.problems, "sampling": SamplingParams(case.samples, case.longest)} if ours else {}
        trainer = trainer_class(
            model=self.model,
            args=GRPOConfig(**arguments(GrpoStage.DEFAULTS, fields, folder, 0)),
            train_dataset=Dataset.from_dict({"prompt": self.prompts, "problem": range(len(self.prompts))}),
            processing_class=self.tokenizer,
            reward_funcs=self._rewards,
            **own,
        )
        for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(self)
        trainer._generate = self._timed()(trainer._generate)
        with narrow_tiles(self.model.config.vocab_size) if ours else contextlib.nullcontext():
            trainer.train()

    def _rewards(
        self, completions: Sequence[str], completion_ids: Sequence[Sequence[int]], problem: Sequence[int], **_: Any
    ) -> list[float]:
        """A checkpoint's accuracy; of random weights a hash of the completion, and constant in the first groups."""
        case, rewards = self.case, []
        constant = round(case.zero_variance * case.prompts)
        for index, text, ids in zip(problem, completions, completion_ids, strict=True):
            by_hash = index % case.prompts >= constant and zlib.crc32(repr(list(ids)).encode()) & 1
            rewards.append(float(grade(self.problems[index], text, "stop").correct if case.checkpoint else by_hash))
        lengths, given = ([len(ids) for ids in each] for each in (completion_ids, self.prompt_ids))
        shape = (case.prompts, case.samples)
        varies_P = np.ptp(np.reshape(rewards, shape), axis=1) > 0
        self.groups = Groups(np.array(given)[problem[:: case.samples]], np.reshape(lengths, shape), varies_P)
        return rewards


@torch.no_grad()
def set_lengths(model: transformers.LlamaForCausalLM, mean: float) -> None:
    """Make EOS one token in `mean` whatever came before, padding impossible, all others about equally likely.

    A chance of 1 / mean is odds of 1 to mean - 1, shared by the other tokens, whose logits are about 0. Channel 0 of
    the residual stream is a large constant that no layer writes to. After the last norm it is the root of the width, so
    its column in the head is a bias, in a model that has none: not every engine knows a head's bias.
    """
    config, head = model.config, model.lm_head.weight
    eos, padding, width = config.eos_token_id, config.pad_token_id, config.hidden_size
    model.get_input_embeddings().weight[:, 0] = 100.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    head[:, 0] = 0.0
    head[[eos, padding]] = 0.0
    head[eos, 0] = math.log((config.vocab_size - 2) / (mean - 1)) / width**0.5
    head[padding, 0] = -100.0


def step_flops(model: transformers.PreTrainedModel, groups: Groups) -> float:
    """Arithmetic of a step, FLOP: what has to be done when nothing is done twice or on padding.

    Sampling: 2 FLOP per weight for every sampled token and, once per group, every prompt token. Update: 6 per weight
    (forward 2, backward 4) for every token of the rows whose group's rewards vary. Attention, per token and layer:
    4 * mean context * width in a forward pass, three times that in the update. Weights: those of matrix products.
    """
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    channels = model.config.hidden_size * model.config.num_hidden_layers

    def cost(tokens: NDArray[np.int_], context: NDArray[np.float64]) -> float:
        return float((tokens * (2.0 * weights + 4.0 * channels * context)).sum())

    prompts_P, lengths_PG, varies_P = groups
    rows_PG = prompts_P[:, None] + lengths_PG
    sampling = cost(prompts_P, prompts_P / 2) + cost(lengths_PG, rows_PG - lengths_PG / 2)
    return sampling + 3 * cost(rows_PG[varies_P], rows_PG[varies_P] / 2)


PROFILES: dict[str, tuple[float, int, int]] = {"short": (30, 80, 0), "long": (60, 512, 0), "prompt": (20, 54, 75)}
"""Mean and longest length of the completions, and the preface of a prompt, tokens: with 75 a prompt has about 100."""
BATCHES = {
    "0.3M": {"short": (32, 16), "long": (16, 16), "prompt": (32, 8)},
    "5M": {"short": (16, 8), "long": (8, 8), "prompt": (16, 8)},
    "30M": {"short": (8, 8), "long": (4, 8), "prompt": (8, 8)},
    "135M": {"short": (2, 8), "long": (2, 8), "prompt": (2, 8)},
}
"""Prompts and samples of a step, so that all together take about ten minutes on two cores."""
_CONTEXT = get_context("forkserver")


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

    Without a size all but the largest are timed, without a profile short and long completions; with nothing but
    checkpoints these alone.
    """
    cases = []
    for path in map(find_checkpoint, checkpoints):  # on the default recipe's problems, with lengths as they come
        name = "/".join(path.resolve().parts[-2:])
        case = Case("step", name, "recipe", None, 80, 32, 16, 0.0, pairs + 1, checkpoint=str(path))
        model, tokenizer = load_checkpoint(path)
        asked = list(itertools.islice(draw((PROBLEMS,), "train", 0), case.prompts))
        require_readable(model.config, tokenizer, asked, case.longest, str(path))
        cases.append(case)
    for size in sizes or (() if checkpoints and not profiles else ("0.3M", "5M", "30M")):
        cases += [case_of(size, profile, zero_variance, pairs + 1) for profile in profiles or ("short", "long")]
    missing = {"TRL, vLLM": "vLLM is not installed"} if importlib.util.find_spec("vllm") is None else {}
    if environment.kind() != "cuda":
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
        "machine": environment.machine(),
        "versions": environment.versions(),
        "commit": environment.commit(),
        "device": environment.device().name,
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
        f"{result['torch_threads']} threads; the limit: a step's arithmetic, each token once, at the rate of a matrix "
        f"product, {result['gflops']:,.0f} GFLOP/s. Random weights: the reward is constant in {zero_variance:.0%} of "
        f"the groups. Medians of {pairs} steps of each side and of their ratios, pair by pair [smallest, largest]."
    )
    console.print(comparison(result["rows"]))
    for rival, reason in missing.items():
        console.print(f"{rival}: not measured, {reason}")
    console.print(f"every timing: {out}", soft_wrap=True)


def case_of(size: str, profile: str, zero_variance: float, steps: int) -> Case:
    """A step of random weights with its usual batch."""
    mean, longest, preface = PROFILES[profile]
    return Case("step", size, profile, mean, longest, *BATCHES[size][profile], zero_variance, steps, preface)


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
    left, right = torch.randn(2, 1024, 1024, device=environment.kind())
    product = "float((left @ right)[0, 0])"  # waits for a GPU
    timer = Timer(product, globals={"left": left, "right": right}, num_threads=torch.get_num_threads())
    return 2 * 1024**3 / timer.blocked_autorange(min_run_time=1.0).median


@contextlib.contextmanager
def started(case: Case, side: str, micro_batch: int, log: Path) -> Iterator[Callable[[], dict[str, Any]]]:
    """A side's process, as a function that lets it do a step and returns what that took."""
    _CONTEXT.set_forkserver_preload([__name__])  # importing TRL takes seconds
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
            raise RuntimeError(f"{side}, {case.what}: exit code {process.exitcode}; see {log}") from None

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
        "speedup": speedup(seconds["ours"], seconds[rival]) if rival else None,  # of each pair of steps
        "timings": frame.to_dict("records"),
    }


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as long theirs takes, pair by pair."""
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
