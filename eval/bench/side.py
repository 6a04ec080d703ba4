"""One side of a speed comparison: a process that does a step, says what it took, and waits for the next order.

Both sides of a pair have the same random weights, prompts, reward and settings. A random network would not end its
completions, so the chance of EOS is built into the weights, where every implementation of the model sees it.
"""

from __future__ import annotations

import importlib.util
import itertools
import signal
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import GRPOConfig, GRPOTrainer

from eval.bench.work import SIZES, Case, Group, Network, Profile, eos_logit
from r1_mini.completion import grade
from r1_mini.data.mix import ProblemSpec, draw
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.model.prompts import encode, prompts_for, stop_tokens
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.problem import Problem
from r1_mini.rollout.engine import SamplingParams, rollout
from r1_mini.system import environment as machine
from r1_mini.train.grpo import GrpoStage, Trainer
from r1_mini.train.trainer import arguments

PROBLEMS = ProblemSpec.model_validate({"family": "sum", "terms": [2, 6], "digits": 2, "largest": 99})
"""Those of the default recipe."""
LEARNING_RATE = 1e-6
"""So small that lengths stay as they are."""

_TRL_GENERATION: dict[str, dict[str, Any]] = {
    "trl": {},
    "trl-continuous-batching": {"use_transformers_continuous_batching": True},
    "trl-vllm": {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3},
}


def cannot_run(side: str) -> str | None:
    """Why this machine cannot run a side; None if it can."""
    if side in ("trl-continuous-batching", "trl-vllm") and not torch.cuda.is_available():
        return "needs CUDA"
    if side == "trl-vllm" and importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed"
    return None


def serve(case: Case, side: str, micro_batch: int, connection: Connection) -> None:
    """Be a side until the connection is closed: say `ready`, then do one step for every message.

    `micro_batch`: completions in one pass of TRL's update; ours takes the whole batch.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its sides
    with TemporaryDirectory(prefix="r1-mini-bench-") as folder:
        model, tokenizer = _model(case)
        stand = Stand(connection, network_of(model), model)
        if case.what == "rollout":
            _rollouts(case, side, model, tokenizer, stand)
        else:
            _steps(case, side, micro_batch, model, tokenizer, stand, Path(folder))


class Stand:
    """Where a side meets the parent: sends what the last step took and blocks until the next is wanted."""

    def __init__(self, connection: Connection, network: Network, model: PreTrainedModel) -> None:
        self.connection, self.network = connection, network
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.began: float | None = None
        self.rollout = 0.0
        self.groups: list[Group] = []

    def meet(self) -> None:
        """Between two steps. SystemExit when the parent has hung up."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        peak = {"peak_mib": machine.peak() / 2**20}
        if self.began is None:
            self.connection.send({"network": self.network, "parameters": self.parameters, **peak})
        else:
            seconds = {"seconds": time.perf_counter() - self.began, "rollout": self.rollout}
            self.connection.send({**seconds, "groups": self.groups, **peak})
        try:
            self.connection.recv()
        except EOFError:
            sys.exit()
        self.rollout = 0.0
        self.began = time.perf_counter()


def _rollouts(case: Case, side: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stand: Stand) -> None:
    """Rollouts alone: our engine's or `model.generate`'s, from token ids to token ids."""
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    questions = prompts_for(tokenizer, _problems(case))
    draw_completions = _ours if side == "ours" else _generate
    for step in itertools.count():
        stand.meet()
        asked = questions[step * case.prompts : (step + 1) * case.prompts]
        prompt_ids = encode(tokenizer, asked)
        lengths = draw_completions(case, model, tokenizer, prompt_ids, step)
        stand.rollout = time.perf_counter() - (stand.began or 0.0)
        stand.groups = [Group(len(ids), row, False) for ids, row in zip(prompt_ids, lengths, strict=True)]


def _ours(
    case: Case, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], seed: int
) -> list[list[int]]:
    """Lengths of our engine's completions, (P, G)."""
    params = SamplingParams(case.samples, case.profile.longest, seed=seed)
    done = rollout(model, prompts, params, stop=stop_tokens(model.generation_config, tokenizer))
    return [[len(completion.tokens) for completion in group] for group in done]


def _generate(
    case: Case, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], seed: int
) -> list[list[int]]:
    """Lengths of `model.generate`'s completions, (P, G)."""
    torch.manual_seed(seed)
    batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
    sequences = model.generate(
        **batch,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        num_return_sequences=case.samples,
        max_new_tokens=case.profile.longest,
    )
    rows = sequences[:, batch["input_ids"].shape[1] :].tolist()
    eos = tokenizer.eos_token_id
    lengths = [row.index(eos) + 1 if eos in row else len(row) for row in rows]
    return _in_groups(lengths, case.samples)


def _steps(
    case: Case,
    side: str,
    micro_batch: int,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stand: Stand,
    folder: Path,
) -> None:
    """GRPO steps of our trainer or of TRL's."""
    if side == "trl-vllm":  # which reads the weights from a folder
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        model = LlamaForCausalLM.from_pretrained(folder / "model")
    ours = side == "ours"
    fields = {
        "max_steps": case.steps + 1,  # the last is never done: the parent hangs up before
        "per_device_train_batch_size": case.batch if ours else micro_batch,
        "gradient_accumulation_steps": 1 if ours else case.batch // micro_batch,
        "num_generations": case.samples,
        "max_completion_length": case.profile.longest,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        **_TRL_GENERATION.get(side, {}),
    }
    trainer_class: Callable[..., GRPOTrainer] = Trainer if ours else GRPOTrainer
    prompts = prompts_for(tokenizer, _problems(case))
    sampling = SamplingParams(case.samples, case.profile.longest, seed=case.seed)
    trainer = trainer_class(
        model=model,
        args=GRPOConfig(**arguments(GrpoStage.DEFAULTS, fields, folder, case.seed)),
        train_dataset=Dataset.from_dict(
            {
                "prompt": prompts,
                "problem": range(len(prompts)),
                "silent": [index % case.prompts < case.silent for index in range(len(prompts))],
            }
        ),
        processing_class=tokenizer,
        reward_funcs=_reward(case, tokenizer, stand),
        **({"problems": _problems(case), "sampling": sampling} if ours else {}),
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_BetweenSteps(stand))
    trainer._generate = _timed(trainer._generate, stand)
    trainer.train()


class _BetweenSteps(TrainerCallback):
    """A step lasts from one beginning to the next: batch, rollouts, rewards, update and logs."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.stand.meet()


def _timed(generate: Callable[..., Any], stand: Stand) -> Callable[..., Any]:
    """The same method of either trainer, its time added up."""

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        done = generate(*args, **kwargs)
        stand.rollout += time.perf_counter() - started
        return done

    return timed


def _reward(case: Case, tokenizer: PreTrainedTokenizerBase, stand: Stand) -> Callable[..., list[float]]:
    """A checkpoint's accuracy; of random weights 0 or 1 by a hash of the completion, constant in silent groups.

    On the way, lengths are noted.
    """

    problems = _problems(case)

    def reward(
        prompts: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        problem: Sequence[int],
        silent: Sequence[bool],
        **columns: Any,
    ) -> list[float]:
        if case.checkpoint:
            rewards = [
                float(grade(problems[index], text, "stop").correct)
                for index, text in zip(problem, completions, strict=True)
            ]
        else:
            rewards = [
                0.0 if quiet else float(zlib.crc32(repr(list(ids)).encode()) & 1)
                for ids, quiet in zip(completion_ids, silent, strict=True)
            ]
        lengths = _in_groups([len(ids) for ids in completion_ids], case.samples)
        given = [len(ids) for ids in tokenizer(list(prompts[:: case.samples]))["input_ids"]]
        signals = [len(set(group)) > 1 for group in _in_groups(rewards, case.samples)]
        stand.groups = [Group(*group) for group in zip(given, lengths, signals, strict=True)]
        return rewards

    return reward


def _in_groups(values: list[Any], size: int) -> list[list[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def _problems(case: Case) -> list[Problem]:
    """A problem for each group of every step, and of one more."""
    return list(islice(draw((PROBLEMS,), "train", case.seed), (case.steps + 1) * case.prompts))


def _model(case: Case) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if case.checkpoint:
        return load_checkpoint(Path(case.checkpoint))
    tokenizer, size = make_tokenizer(), SIZES[case.size]
    model = make_model(
        tokenizer,
        hidden_size=size.hidden_size,
        layers=size.layers,
        heads=size.heads,
        intermediate_size=size.intermediate_size,
        seed=case.seed,
    )
    set_lengths(model, case.profile)
    return model, tokenizer


@torch.no_grad()
def set_lengths(model: LlamaForCausalLM, profile: Profile) -> None:
    """Make EOS one token in `profile.mean` whatever came before, padding impossible, all others about equally likely.

    Channel 0 of the residual stream is a large constant that no layer writes to. After the last norm it is the root of
    the width, so its column in the head is a bias, in a model that has none: not every engine knows a head's bias.
    """
    config, head = model.config, model.lm_head.weight
    eos, padding, width = config.eos_token_id, config.pad_token_id, config.hidden_size
    model.get_input_embeddings().weight[:, 0] = 100.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    head[:, 0] = 0.0
    head[[eos, padding]] = 0.0
    head[eos, 0] = eos_logit(profile.mean, config.vocab_size - 2) / width**0.5
    head[padding, 0] = -100.0


def network_of(model: PreTrainedModel) -> Network:
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    return Network(weights, model.config.num_hidden_layers, model.config.hidden_size)
