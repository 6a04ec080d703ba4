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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import transformers
from datasets import Dataset
from numpy.typing import NDArray
from trl import GRPOConfig, GRPOTrainer

from r1_mini.completion import grade
from r1_mini.data.mix import draw
from r1_mini.data.source import FamilySource
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.model.prompts import encode, prompts_for, stop_tokens
from r1_mini.model.tokenizer import make_tokenizer
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


class Groups(NamedTuple):
    """Lengths in tokens of the prompts and completions of a step, and which groups' rewards differ."""

    prompts_P: NDArray[np.int_]
    lengths_PG: NDArray[np.int_]
    varies_P: NDArray[np.bool_]


def serve(case: Case, name: str, micro_batch: int, connection: Connection, log: Path) -> None:
    """Do a step for every message, and report it, until the connection is closed; what is printed goes to the log.

    `micro_batch`: completions in one pass of TRL's update; our trainer takes the whole batch.
    """
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
    """Does steps and reports each to the parent, and waits until the parent wants the next one.

    A step of a trainer lasts from one beginning to the next: batch, rollouts, rewards, update and logs.
    """

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
        self.prompts = prompts_for(self.tokenizer, self.problems)
        self.prompt_ids = encode(self.tokenizer, self.prompts)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self.groups:
            seconds = time.perf_counter() - self.began
            report = {
                "seconds": seconds,
                "seconds_rollout": self.rollout,
                "seconds_update": seconds - self.rollout,
                "tokens": int(self.groups.lengths_PG.sum()),
                "zero_variance": 1 - float(self.groups.varies_P.mean()),
                "flops": step_flops(weights_of(self.model), self.model.config, self.groups),
                "peak_mib": environment.peak() / 2**20,
            }
            self.connection.send(report)
        try:
            self.connection.recv()
        except EOFError:
            sys.exit()
        self.rollout, self.began = 0.0, time.perf_counter()

    def _timed(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time added to that of the rollouts."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            done = generate(*args, **kwargs)
            self.rollout += time.perf_counter() - started
            return done

        return timed

    def rollouts(self) -> None:
        """Rollouts alone: our engine's or `model.generate`'s, from token ids to token ids."""
        case, model, tokenizer, eos = self.case, self.model, self.tokenizer, self.tokenizer.eos_token_id
        model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
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

        sample = self._timed(generate if self.name == GENERATE else ours)
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
        sampling = SamplingParams(case.samples, case.longest)
        trainer_class: Callable[..., GRPOTrainer] = Trainer if ours else GRPOTrainer
        trainer = trainer_class(
            model=self.model,
            args=GRPOConfig(**arguments(GrpoStage.DEFAULTS, fields, folder, 0)),
            train_dataset=Dataset.from_dict({"prompt": self.prompts, "problem": range(len(self.prompts))}),
            processing_class=self.tokenizer,
            reward_funcs=self._rewards,
            **({"problems": self.problems, "sampling": sampling} if ours else {}),
        )
        for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(self)
        trainer._generate = self._timed(trainer._generate)
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


def weights_of(model: transformers.PreTrainedModel) -> int:
    """Parameters in matrix products: no input embedding and no norms."""
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))


def step_flops(weights: int, config: transformers.PretrainedConfig, groups: Groups) -> float:
    """Arithmetic of a step, FLOP: what has to be done when nothing is done twice or on padding.

    Sampling: 2 FLOP per weight for every sampled token and, once per group, every prompt token. Update: 6 per weight
    (forward 2, backward 4) for every token of the rows whose group's rewards vary. Attention, per token and layer:
    4 * mean context * width in a forward pass, three times that in the update.
    """

    def cost(tokens: NDArray[np.int_], context: NDArray[np.float64]) -> float:
        attention = 4.0 * config.hidden_size * config.num_hidden_layers * context
        return float((tokens * (2.0 * weights + attention)).sum())

    prompts_P, lengths_PG, varies_P = groups
    rows_PG = prompts_P[:, None] + lengths_PG
    sampling = cost(prompts_P, prompts_P / 2) + cost(lengths_PG, rows_PG - lengths_PG / 2)
    return sampling + 3 * cost(rows_PG[varies_P], rows_PG[varies_P] / 2)
