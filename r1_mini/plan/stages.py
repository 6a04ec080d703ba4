"""What each stage of a recipe and its exam would do: counts, tokens, disk, and the memory of a process by phase.

A phase is the moment of some work at which most memory is in use. docs/MEMORY.md has the formulas and their sources.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from statistics import mean
from typing import Any, Literal

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.data.mix import draw
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.start import start_of
from r1_mini.plan.dry_run import DryModel
from r1_mini.plan.timing import MOST_PARAMETERS, Clock
from r1_mini.problems.problem import Problem
from r1_mini.rollout.params import SamplingParams
from r1_mini.rollout.tuning import tuned
from r1_mini.system.environment import Device
from r1_mini.train.corpus import completion as solution_of
from r1_mini.train.sft import SolutionStage
from r1_mini.train.stage import Sharding, StageSettings, Work

POOL = 200
"""Problems that are sampled for the lengths of prompts and worked solutions."""


@dataclass(frozen=True, slots=True)
class Exam:
    """What a plan needs to know of an exam; the command line hands it over, since r1_mini does not import eval."""

    suite: str
    questions: tuple[str, ...]
    sampling: SamplingParams
    greedy: bool  # whether each question is also answered once at temperature 0
    dtype: str
    line: int  # bytes of a typical line of samples.jsonl
    shows: tuple[bool, str]  # whether it has too few problems, and how small a difference they show
    columns: int = 3  # checkpoints to examine, forced ones among them
    more: int = 0  # completions by which a temperature is chosen, and those of pass@k at a large k


@dataclass(frozen=True, slots=True)
class Share:
    """How processes share the work, as accelerate's configuration says."""

    processes: int = 1
    sharding: Sharding = "none"

    def of(self, what: Literal["weights", "gradients", "optimizer"], size: int) -> int:
        """What one process holds of it."""
        divided = {"none": (), "zero2": ("gradients", "optimizer")}.get(self.sharding, (what,))
        return -(-size // self.processes) if what in divided else size

    @property
    def gathers(self) -> bool:
        """Whether weights are sharded, and gathered to compute with them."""
        return self.sharding in ("fsdp", "zero3") and self.processes > 1


@dataclass(frozen=True, slots=True)
class Part:
    """One stage, or the exam. Lengths are in tokens, sizes in bytes."""

    name: str
    parameters: int  # numbers in the model, without an adapter
    phases: Mapping[str, dict[str, int]]  # phase -> what is in memory -> its size
    counts: Mapping[str, int]
    longest: Mapping[str, int]  # of the prompts, of worked solutions with the stop token, of what is sampled
    prompts: Sequence[tuple[str, str]]  # the first three, or texts that it learns from, and their tokens with their ids
    disk: int  # what stays there
    disk_meanwhile: int = 0  # what is there besides while it runs
    seconds: float | None = None  # about how long it takes on this machine; None where that is not estimated


class Planner:
    """Plans the parts of a recipe in order. `held` is memory never freed; `start`, where the last one starts.

    `written`: mean tokens of what it writes. `timed`: steps are done here and now, to estimate the time.
    """

    def __init__(self, recipe: Recipe, device: Device, share: Share, framework: int, timed: bool = False) -> None:
        self.recipe, self.device, self.share, self.start = recipe, device, share, start_of(recipe)
        self.held = {"framework": framework if device.is_cpu else 0}
        self.timed, self.written = timed, 0
        self.clocks: dict[str, Clock] = {}
        self.models: dict[str, DryModel] = {}
        self.warnings: list[str] = []

    def clock(self, dry: DryModel) -> Clock | None:
        """A clock for models of the shape of `start`; None where no time is estimated."""
        if not self.timed or dry.parameters > MOST_PARAMETERS:
            return None
        shape = self.start.config.to_json_string()
        if shape not in self.clocks:
            self.clocks[shape] = Clock(self.start.config)
        return self.clocks[shape]

    def dry(
        self, config: PretrainedConfig, dtype: torch.dtype, peft: dict[str, Any] | None = None, recompute: bool = False
    ) -> DryModel:
        """The model on fake tensors, made once for all stages that are equal in this."""
        shape = repr(({**config.to_dict(), "dtype": dtype}, peft, recompute))
        if shape not in self.models:
            self.models[shape] = DryModel(config, dtype, peft, recompute)
        return self.models[shape]

    def stage(self, name: str, stage: StageSettings, dev: Exam | None) -> Part:
        """A stage, by the work that it announces. `dev`: its exam while it trains."""
        self.start = start_of(self.recipe, name)
        fields, share, tokenizer = stage.fields, self.share, self.start.tokenizer
        work = stage.work(share.processes, share.sharding if share.processes > 1 else "none")
        drawn = draw(self.recipe.foreseen(self.recipe.problems_of(stage)), stage.split, self.recipe.seed_of(stage))
        problems = list(islice(drawn, POOL))
        prompts = self._prompts([problem.question for problem in problems])
        solutions = worked(self.recipe, problems, tokenizer)
        lengths, solved = [len(ids) for ids in prompts], [len(ids) for ids in solutions]
        longest = {"prompts": max(lengths)} | ({"worked solutions": max(solved)} if solved else {})
        longest |= {"completions": work.sampling.max_tokens} if work.sampling else {}
        most = longest.get("completions", max(solved, default=0))
        if longer := sum(length > most for length in solved):
            what = f"{longer} of {len(solved)} worked solutions do not fit into {most} tokens"
            self.warnings.append(f"{name}: {what}, the longest has {max(solved)}: they would be truncated")

        if fields.get("use_vllm") and fields["vllm_mode"] == "colocate":  # it stays until the run ends
            self.held["vLLM"] = round(fields["vllm_gpu_memory_utilization"] * self.device.memory)
        dtype = (stage.trainer.get("model_init_kwargs") or {}).get("dtype", "float32")
        dtype = self.start.saved if dtype == "auto" else getattr(torch, dtype)
        recompute = bool(fields["gradient_checkpointing"] or fields.get("activation_checkpointing"))
        dry = self.dry(self.start.config, dtype, getattr(stage, "peft", None), recompute)
        optim = fields["optim"] if getattr(stage, "optimizer", "adamw") == "adamw" else "muon"
        states, temporaries, tried = dry.optimizer(optim)
        if not tried:
            self.warnings.append(f"{name}: optim={optim} does not run here; its memory is counted as Adam's")
        half = bool(fields["bf16"] or fields["fp16"])
        again = work.batching == "in backward" or work.accumulation > 1
        tokens = largest_pass(work, lengths, solved, self.device.kind)
        activations = dry.update(*tokens, again=again, bf16=half) if work.steps else 0
        read = [start_of(self.recipe, self.recipe.find(name)) for _, name, is_data in stage.reads if not is_data]
        teachers = [self.dry(each.config, dtype) for each in read]
        activations += sum(each.forward(*tokens) for each in teachers)
        ddp = dry.gradients if share.sharding == "none" and share.processes > 1 else 0  # buckets of gradients
        weights, gradients = share.of("weights", dry.weights), share.of("gradients", dry.gradients)
        reference = sum(each.weights for each in teachers) or work.reference * weights
        twin = half and work.rollouts > work.rounds and share.sharding == "none" and not fields.get("use_vllm")
        held = {**self.held, "weights": weights, "reference": reference, "16-bit copies": dry.twin() if twin else 0}
        copies = share.gathers * dry.gathered() + ddp
        training = {"optimizer": share.of("optimizer", states), "copies of processes": copies}
        step = held | training | {"gradients": gradients}
        phases = {"update": step | {"activations": activations}, "optimizer": step | {"temporaries": temporaries}}
        phases = phases if stage.trains else {}
        counts = {"steps, at most" if work.rounds > 1 else "steps": work.rounds * work.steps}
        saved, limit = math.ceil(work.steps / fields["save_steps"]) if work.steps else 0, fields["save_total_limit"]
        meanwhile = (saved if limit is None else min(saved, limit + 1)) * (dry.weights + states)
        if work.rounds > 1:  # the checkpoints of each round stay
            meanwhile = work.rounds * (meanwhile + dry.weights)
        if work.sampling is None:
            counts |= {"texts": work.texts, "tokens, about": round(work.texts * (mean(lengths) + mean(solved)))}
        else:
            if work.rollouts > work.rounds:  # it samples while it trains
                held |= training
            if share.gathers and share.sharding == "zero3" and fields.get("ds3_gather_for_generation"):
                held["copies of processes"] = dry.weights
            own = (
                {}
                if fields.get("use_vllm")
                else sampling(dry, work.sampling, work.in_flight, max(lengths), self.device.kind, twin)
            )
            phases["sampling"] = held | own
            completions = work.prompts * work.sampling.n
            counts |= {"rollouts": work.rollouts, "prompts": work.prompts, "completions": completions}
            counts["tokens, at most"] = completions * work.sampling.max_tokens
        most = work.sampling.max_tokens if work.sampling else max(solved)
        written = mean(solved) if solved else self.written or most  # as long as what was learned before
        self.written = round(min(most, written))
        clock = self.clock(dry)
        seconds = clock.stage(work, round(mean(lengths)), self.written) if clock else None
        if dev is not None:
            part = self.exam(replace(dev, columns=1))
            phases["exam on dev"] = part.phases["sampling"] | held
            meanwhile += dry.weights
            if seconds is not None and part.seconds is not None:
                seconds += part.seconds * math.ceil(work.steps / vars(stage)["dev"].every)
        shown = prompts if stage.reinforces else [p + s for p, s in zip(prompts, solutions, strict=True)]
        stays = stage.trains * dry.weights
        return Part(name, dry.parameters, phases, counts, longest, self._first(shown), stays, meanwhile, seconds)

    def exam(self, exam: Exam) -> Part:
        """The exam of every column. The reinforced model is compared with its start, and both are in memory."""
        dry, params = self.dry(self.start.config, getattr(torch, exam.dtype)), exam.sampling
        prompts, number, name = self._prompts(exam.questions), len(exam.questions), f"exam {exam.suite}"
        longest = {"prompts": max(map(len, prompts)), "completions": params.max_tokens}
        compares = any(stage.reinforces and stage.trains for stage in self.recipe.stages)
        phase = {**self.held, "weights": dry.weights, "reference": compares * dry.weights}
        phase |= sampling(dry, params, min(params.rows, number * params.n), longest["prompts"], self.device.kind)
        completions = exam.columns * number * (params.n + exam.greedy) + exam.more
        counts = {"checkpoints": exam.columns, "problems": number, "completions": completions}
        counts["tokens, at most"] = completions * params.max_tokens
        disk, clock = completions * exam.line, self.clock(dry)
        length = min(self.written, params.max_tokens)
        asked = round(mean(map(len, prompts)))
        seconds = clock.sampling(completions, params, params.rows, asked, length) if clock else None
        shown = self._first(prompts)
        return Part(name, dry.parameters, {"sampling": phase}, counts, longest, shown, disk, seconds=seconds)

    def _prompts(self, questions: Sequence[str]) -> list[list[int]]:
        return encode(self.start.tokenizer, [prompt_for(self.start.tokenizer, question) for question in questions])

    def _first(self, prompts: Sequence[Sequence[int]]) -> list[tuple[str, str]]:
        """The first three as text, and their tokens as the vocabulary writes them, with their ids."""
        tokenizer, found = self.start.tokenizer, []
        for ids in prompts[:3]:
            tokens = zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True)
            written = " ".join(f"{repr(token)[1:-1]}·{number}" for token, number in tokens)
            found.append((str(tokenizer.decode(ids)), written))
        return found


def worked(recipe: Recipe, problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of the worked solutions, as the recipe's stages read them, with the stop token; of those that exist."""
    taught = [stage for stage in recipe.stages if isinstance(stage, SolutionStage)]
    manner = (taught[0].wording, Random(0), taught[0].languages.model_dump()) if taught else ("list", Random(0))
    texts = [solution_of(each, "worked", *manner) for each in problems if each.steps or each.solution]
    return [[*ids, tokenizer.eos_token_id] for ids in (encode(tokenizer, texts) if texts else [])]


def largest_pass(work: Work, prompts: Sequence[int], solutions: Sequence[int], kind: str) -> tuple[int, int]:
    """Rows and width of the tokens whose activations are in memory at once, on this kind of device.

    Completions that are not padded are taken to be as long as the mean worked solution, or as long as they may be where
    the problems have no solutions. All else is as long as the longest: texts to read come in batches of like lengths.
    """
    longest = work.sampling.max_tokens if work.sampling else max(solutions)
    width = max(prompts) + longest
    if work.batching == "in backward":
        return max(1, min(work.micro_batch, tuned(kind).part // width)), width
    if work.batching == "padded" or work.sampling is None:
        return work.micro_batch, width
    text = mean(prompts) + (min(longest, mean(solutions)) if solutions else longest)
    width = max(prompts) + min(longest, max(solutions, default=longest))
    return math.ceil(work.micro_batch * text / width), width


def sampling(
    dry: DryModel, params: SamplingParams, rows: int, prompt: int, kind: str, half: bool = False
) -> dict[str, int]:
    """What sampling `rows` completions at once needs besides the weights; the longest prompt has `prompt` tokens.

    `kind`: of the device. `half`: keys and values have 16 bits, whatever the weights have.
    """
    config = dry.config
    every = getattr(config, "num_attention_heads", None) or 1  # without attention: more than its states take
    heads = getattr(config, "num_key_value_heads", None) or every
    channels = getattr(config, "head_dim", None) or config.hidden_size // every
    keys = rows * (prompt + params.max_tokens) * heads * channels * (2 if half else dry.dtype.itemsize)  # of one layer
    prefill = dry.forward(max(1, min(rows, tuned(kind).prefill // prompt)), prompt)
    return {
        "keys and values": 2 * config.num_hidden_layers * keys,
        "activations": max(prefill, dry.forward(rows, 1), keys),  # keys are copied when rows branch
        "logits": dry.choice(rows, params.temperature, params.top_p, kind),
    }
