"""One side of a speed comparison: a process that does a step when it is told to, and reports what the step took.

Both sides of a pair have the same weights, prompts, reward and settings. A random network would not end its
completions, so the chance of EOS is built into the weights, where every implementation of the model sees it.
"""

import contextlib
import itertools
import math
import os
import signal
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from datasets import Dataset
from transformers import (
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from r1_mini.completion import grade
from r1_mini.data.mix import draw
from r1_mini.data.source import FamilySource
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.model.prompts import encode, prompts_for, stop_tokens
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.problem import Problem
from r1_mini.rollout.engine import SamplingParams, rollout
from r1_mini.system import environment
from r1_mini.train.grpo import GrpoStage, Trainer
from r1_mini.train.logps import narrow_tiles
from r1_mini.train.trainer import arguments

PROBLEMS = FamilySource.model_validate({"family": "sum", "terms": [2, 6], "digits": 2, "largest": 99})
"""Those of the default recipe."""
SIZES: dict[str, dict[str, int]] = {
    "0.3M": {"hidden_size": 96, "layers": 3, "heads": 6},
    "5M": {"hidden_size": 256, "layers": 6, "heads": 8, "intermediate_size": 736},
    "30M": {"hidden_size": 512, "layers": 10, "heads": 8, "intermediate_size": 1280},
}


class Rival(NamedTuple):
    """What ours is compared with. `fields`: those of its GRPOConfig."""

    what: Literal["step", "rollout"]
    title: str
    needs_cuda: bool = False
    fields: Mapping[str, Any] = MappingProxyType({})


RIVALS = {
    "trl": Rival("step", "TRL"),
    "generate": Rival("rollout", "model.generate"),
    "trl-continuous-batching": Rival(
        "step", "TRL, continuous batching", True, {"use_transformers_continuous_batching": True}
    ),
    "trl-vllm": Rival(
        "step", "TRL, vLLM", True, {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3}
    ),
}


@dataclass(frozen=True, slots=True)
class Case:
    """What both sides do: one GRPO step, or the rollouts alone."""

    what: Literal["step", "rollout"]
    size: str
    mean: float | None
    """Mean of the completions' geometric lengths in tokens, EOS included; None: as they come from a checkpoint."""
    longest: int
    """Tokens after which a completion is truncated."""
    prompts: int
    samples: int
    zero_variance: float
    """Share of the groups whose reward is constant."""
    steps: int
    """Most steps that will be done: there are prompts for so many."""
    checkpoint: str | None = None
    """Folder of the weights, instead of random ones of the size; `size` is then its name."""

    @property
    def batch(self) -> int:
        return self.prompts * self.samples

    def in_groups(self, values: Sequence[Any]) -> list[list[Any]]:
        """Values of a batch, (P, G)."""
        return [list(values[start : start + self.samples]) for start in range(0, self.batch, self.samples)]

    def problems(self) -> list[Problem]:
        """A problem for each group of every step, and of one more."""
        return list(itertools.islice(draw((PROBLEMS,), "train", 0), (self.steps + 1) * self.prompts))


class Group(NamedTuple):
    """Lengths in tokens of a prompt and its completions, and whether their rewards differ."""

    prompt: int
    completions: Sequence[int]
    varies: bool


def serve(case: Case, side: str, micro_batch: int, connection: Connection, log: Path) -> None:
    """Do a step for every message, and report it, until the connection is closed; what is printed goes to the log.

    `micro_batch`: completions in one pass of TRL's update; our trainer takes the whole batch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its sides
    with log.open("a", encoding="utf-8") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    model, tokenizer = make_side(case)
    clock = Clock(case, model, connection)
    with TemporaryDirectory(prefix="r1-mini-bench-") as folder:
        if case.what == "rollout":
            _rollouts(case, side, model, tokenizer, clock)
        else:
            _steps(case, side, micro_batch, model, tokenizer, clock, Path(folder))


class Clock(TrainerCallback):
    """Reports a step to the parent, and waits until the parent wants the next one.

    A step of a trainer lasts from one beginning to the next: batch, rollouts, rewards, update and logs.
    """

    def __init__(self, case: Case, model: PreTrainedModel, connection: Connection) -> None:
        self.case, self.model, self.connection = case, model, connection
        self.began = self.rollout = 0.0
        self.groups: list[Group] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds, updates = time.perf_counter() - self.began, self.case.what == "step"
        report: dict[str, Any] = {"peak_mib": environment.peak() / 2**20}
        if self.groups:
            lengths = [length for group in self.groups for length in group.completions]
            report |= {
                "seconds": seconds,
                "seconds_rollout": self.rollout,
                "seconds_update": seconds - self.rollout if updates else None,
                "tokens": sum(lengths),
                "length_mean": fmean(lengths),
                "length_max": max(lengths),
                "zero_variance": fmean(not group.varies for group in self.groups) if updates else None,
                "flops": step_flops(weights_of(self.model), self.model.config, self.groups, updates),
            }
        self.connection.send(report)
        try:
            self.connection.recv()
        except EOFError:
            sys.exit()
        self.rollout, self.began = 0.0, time.perf_counter()

    def timed(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time added to that of the rollouts."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            done = generate(*args, **kwargs)
            self.rollout += time.perf_counter() - started
            return done

        return timed


def _rollouts(case: Case, side: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, clock: Clock) -> None:
    """Rollouts alone: our engine's or `model.generate`'s, from token ids to token ids."""
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    prompt_ids = encode(tokenizer, prompts_for(tokenizer, case.problems()))
    stop = stop_tokens(model.generation_config, tokenizer)

    def ours(prompts: list[list[int]], step: int) -> list[list[int]]:
        done = rollout(model, prompts, SamplingParams(case.samples, case.longest, seed=step), stop=stop)
        return [[len(completion.tokens) for completion in group] for group in done]

    def generate(prompts: list[list[int]], step: int) -> list[list[int]]:
        torch.manual_seed(step)
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
        options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        ids = model.generate(**batch, **options, num_return_sequences=case.samples, max_new_tokens=case.longest)
        completions, eos = ids[:, batch["input_ids"].shape[1] :].tolist(), tokenizer.eos_token_id
        lengths = [[*tokens, eos].index(eos) + (eos in tokens) for tokens in completions]
        return case.in_groups(lengths)

    sample = clock.timed(ours if side == "ours" else generate)
    for step in itertools.count():
        clock.on_step_begin()
        prompts = prompt_ids[step * case.prompts : (step + 1) * case.prompts]
        clock.groups = [Group(len(ids), row, False) for ids, row in zip(prompts, sample(prompts, step), strict=True)]


def _steps(
    case: Case,
    side: str,
    micro_batch: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    clock: Clock,
    folder: Path,
) -> None:
    """GRPO steps of our trainer or of TRL's."""
    if side == "trl-vllm":  # which reads the weights from a folder
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        model = LlamaForCausalLM.from_pretrained(folder / "model")
    ours, problems = side == "ours", case.problems()
    fields = {
        "max_steps": case.steps + 1,  # the last is never done: the parent hangs up before
        "per_device_train_batch_size": case.batch if ours else micro_batch,
        "gradient_accumulation_steps": 1 if ours else case.batch // micro_batch,
        "num_generations": case.samples,
        "max_completion_length": case.longest,
        "learning_rate": 1e-6,  # so small that lengths stay as they are
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        **({} if ours else RIVALS[side].fields),
    }
    prompts = prompts_for(tokenizer, problems)
    trainer_class: Callable[..., GRPOTrainer] = Trainer if ours else GRPOTrainer
    trainer = trainer_class(
        model=model,
        args=GRPOConfig(**arguments(GrpoStage.DEFAULTS, fields, folder, 0)),
        train_dataset=Dataset.from_dict({"prompt": prompts, "problem": range(len(prompts))}),
        processing_class=tokenizer,
        reward_funcs=_reward(case, problems, [len(ids) for ids in encode(tokenizer, prompts)], clock),
        **({"problems": problems, "sampling": SamplingParams(case.samples, case.longest)} if ours else {}),
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(clock)
    trainer._generate = clock.timed(trainer._generate)
    with narrow_tiles(model.config.vocab_size) if ours else contextlib.nullcontext():
        trainer.train()


def _reward(case: Case, problems: Sequence[Problem], widths: Sequence[int], clock: Clock) -> Callable[..., list[float]]:
    """A checkpoint's accuracy. Of random weights 0 or 1 by a hash of the completion; constant in the first groups.

    The clock gets the lengths of the batch. `widths`: tokens of each prompt.
    """
    constant = round(case.zero_variance * case.prompts)

    def reward(
        completions: Sequence[str], completion_ids: Sequence[Sequence[int]], problem: Sequence[int], **_: Any
    ) -> list[float]:
        if case.checkpoint:
            graded = [grade(problems[index], text, "stop") for index, text in zip(problem, completions, strict=True)]
            rewards = [float(each.correct) for each in graded]
        else:
            rewards = [
                float(index % case.prompts >= constant and zlib.crc32(repr(list(ids)).encode()) & 1)
                for index, ids in zip(problem, completion_ids, strict=True)
            ]
        lengths = case.in_groups([len(ids) for ids in completion_ids])
        varies = [len(set(group)) > 1 for group in case.in_groups(rewards)]
        given = [widths[index] for index in problem[:: case.samples]]
        clock.groups = [Group(*group) for group in zip(given, lengths, varies, strict=True)]
        return rewards

    return reward


def make_side(case: Case) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The checkpoint, or random weights of the size whose completions have the lengths of the case."""
    if case.checkpoint:
        return load_checkpoint(Path(case.checkpoint))
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, seed=0, **SIZES[case.size])
    set_lengths(model, case.mean or 1.0)
    return model, tokenizer


@torch.no_grad()
def set_lengths(model: LlamaForCausalLM, mean: float) -> None:
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


def weights_of(model: PreTrainedModel) -> int:
    """Parameters in matrix products: no input embedding and no norms."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))


def step_flops(weights: int, config: PretrainedConfig, groups: Sequence[Group], updates: bool = True) -> float:
    """Arithmetic of a step, FLOP: what has to be done when nothing is done twice or on padding.

    Sampling: 2 FLOP per weight for every sampled token and, once per group, every prompt token. Update: 6 per weight
    (forward 2, backward 4) for every token of the rows whose group's rewards vary. Attention, per token and layer:
    4 * mean context * width in a forward pass, three times that in the update.
    """

    def cost(tokens: int, context: float) -> float:
        return tokens * (2.0 * weights + 4.0 * context * attention)

    attention, total = int(config.hidden_size * config.num_hidden_layers), 0.0
    for prompt, completions, varies in groups:
        total += cost(prompt, prompt / 2) + sum(cost(length, prompt + length / 2) for length in completions)
        if updates and varies:
            total += 3 * sum(cost(prompt + length, (prompt + length) / 2) for length in completions)
    return total
