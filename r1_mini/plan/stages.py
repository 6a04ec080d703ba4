"""What each stage of a recipe and its exam would do: counts, tokens, disk, and the memory of a process by phase.

A phase is the moment of some work at which most memory is in use. docs/MEMORY.md has the formulas and their sources.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from statistics import mean
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from r1_mini.data.mix import draw
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.start import Start
from r1_mini.plan import Exam
from r1_mini.plan.dry_run import DryModel
from r1_mini.rollout.engine import PREFILL_TOKENS, SamplingParams
from r1_mini.rollout.likelihood import PART, PART_ELSEWHERE
from r1_mini.train.corpus import completion as solution_of
from r1_mini.train.stage import StageSettings, Work

PROBLEMS = 200
"""How many problems are sampled for the lengths of prompts and worked solutions."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text and its tokens."""

    text: str
    ids: Sequence[int]
    tokens: Sequence[str]


def first_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> list[Prompt]:
    """The first three, with tokens as the vocabulary writes them."""
    return [Prompt(str(tokenizer.decode(ids)), ids, tokenizer.convert_ids_to_tokens(ids)) for ids in prompts[:3]]


@dataclass(frozen=True, slots=True)
class Share:
    """How processes share the work, as accelerate's configuration says."""

    processes: int = 1
    sharding: Literal["none", "fsdp", "zero2", "zero3"] = "none"

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
    parameters: int
    """Numbers in the model, without an adapter."""
    phases: Mapping[str, dict[str, int]]
    """Phase -> what is in memory -> its size."""
    counts: Mapping[str, int]
    disk: int
    """What stays on the disk."""
    prompts: Sequence[Prompt]
    """The first prompts, or the first texts that it learns from."""
    longest_prompt: int
    longest_completion: int | None = None
    """None if nothing is sampled."""
    solutions: Sequence[int] = ()
    """Lengths of worked solutions with the stop token; empty for problems without steps."""
    disk_meanwhile: int = 0
    """What is on the disk besides while it runs."""
    untried: str = ""
    """An optimizer that the dry run could not run."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the parts of a plan share."""

    recipe: Recipe
    start: Start
    share: Share
    is_cpu: bool
    held: Mapping[str, int]
    """Memory that is never freed: the framework, and vLLM from the stage on that starts it."""

    def prompts(self, questions: Sequence[str]) -> list[list[int]]:
        """Token ids of the prompt of each question."""
        return encode(self.start.tokenizer, [prompt_for(self.start.tokenizer, question) for question in questions])


def stage_part(name: str, stage: StageSettings, setting: Setting, dev: Exam | None) -> Part:
    """A stage, by the work that it announces. `dev`: its exam while it trains."""
    fields, share, start, recipe = stage.fields, setting.share, setting.start, setting.recipe
    work = stage.work(share.processes, share.gathers)
    problems = list(islice(draw(recipe.problems_of(stage), stage.split, recipe.seed_of(stage)), PROBLEMS))
    prompts = setting.prompts([problem.question for problem in problems])
    wording = next((each.wording for each in recipe.stages if hasattr(each, "wording")), "list")
    texts = [solution_of(each, "worked", wording, Random(0)) for each in problems if each.steps]
    solutions = [[*ids, start.tokenizer.eos_token_id] for ids in (encode(start.tokenizer, texts) if texts else [])]
    lengths, solved = [len(ids) for ids in prompts], [len(ids) for ids in solutions]

    dtype = (stage.trainer.get("model_init_kwargs") or {}).get("dtype", "float32")
    dtype = start.saved if dtype == "auto" else getattr(torch, dtype)
    checkpointing = bool(fields["gradient_checkpointing"] or fields.get("activation_checkpointing"))
    bf16 = bool(fields["bf16"] or fields["fp16"])
    dry = DryModel(start.config, dtype, getattr(stage, "peft", None), checkpointing=checkpointing, bf16=bf16)
    optim = fields["optim"] if getattr(stage, "optimizer", "adamw") == "adamw" else "muon"
    optim = str(getattr(optim, "value", optim))
    states, temporaries, tried = dry.optimizer(optim)
    again = work.batching == "in backward" or work.accumulation > 1
    activations = dry.update(*largest_pass(work, lengths, solved, setting.is_cpu), again=again)
    ddp = dry.gradients if share.sharding == "none" and share.processes > 1 else 0  # buckets of gradients
    weights, gradients = share.of("weights", dry.weights), share.of("gradients", dry.gradients)
    held = {**setting.held, "weights": weights, "reference": work.reference * weights}
    training = {"optimizer": share.of("optimizer", states), "copies of processes": share.gathers * dry.gathered() + ddp}
    step = held | training | {"gradients": gradients}
    phases = {"update": step | {"activations": activations}, "optimizer": step | {"temporaries": temporaries}}

    counts = {"steps, at most" if work.rounds > 1 else "steps": work.rounds * work.steps}
    saved, limit = math.ceil(work.steps / fields["save_steps"]), fields["save_total_limit"]
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
        own = {} if fields.get("use_vllm") else sampling(dry, work.sampling, work.in_flight, max(lengths))
        phases["sampling"] = held | own
        completions = work.prompts * work.sampling.n
        counts |= {"rollouts": work.rollouts, "prompts": work.prompts, "completions": completions}
        counts["tokens, at most"] = completions * work.sampling.max_tokens
    if dev is not None:
        phases["exam on dev"] = exam_part(dev, setting).phases["sampling"] | held
        meanwhile += dry.weights
    shown = prompts if stage.reinforces else [p + s for p, s in zip(prompts, solutions, strict=True)]
    first, longest, untried = first_prompts(start.tokenizer, shown), max(lengths), "" if tried else optim
    completion = work.sampling.max_tokens if work.sampling else None
    return Part(
        name, dry.parameters, phases, counts, dry.weights, first, longest, completion, solved, meanwhile, untried
    )


def largest_pass(work: Work, prompts: Sequence[int], solutions: Sequence[int], is_cpu: bool) -> tuple[int, int]:
    """Rows and width of the tokens whose activations are in memory at once.

    Completions that are not padded are taken to be as long as the mean worked solution, or as long as they may be where
    the problems have no solutions. All else is as long as the longest: texts to read come in batches of like lengths.
    """
    longest = work.sampling.max_tokens if work.sampling else max(solutions)
    width = max(prompts) + longest
    if work.batching == "in backward":
        return max(1, min(work.micro_batch, (PART["cpu"] if is_cpu else PART_ELSEWHERE) // width)), width
    if work.batching == "padded" or work.sampling is None:
        return work.micro_batch, width
    text = mean(prompts) + (min(longest, mean(solutions)) if solutions else longest)
    width = max(prompts) + min(longest, max(solutions, default=longest))
    return math.ceil(work.micro_batch * text / width), width


def sampling(dry: DryModel, params: SamplingParams, rows: int, prompt: int) -> dict[str, int]:
    """What sampling `rows` completions at once needs besides the weights; the longest prompt has `prompt` tokens."""
    config = dry.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    channels = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    keys = rows * (prompt + params.max_tokens) * heads * channels * dry.dtype.itemsize  # of one layer
    prefill = dry.forward(max(1, min(rows, PREFILL_TOKENS // prompt)), prompt)
    return {
        "keys and values": 2 * config.num_hidden_layers * keys,
        "activations": max(prefill, dry.forward(rows, 1), keys),  # keys are copied when rows branch
        "logits": dry.choice(rows, params.temperature, params.top_p),
    }


def exam_part(exam: Exam, setting: Setting) -> Part:
    """The exam of every column. The reinforced model is compared with its start, and both are in memory."""
    dry, params = DryModel(setting.start.config, getattr(torch, exam.dtype)), exam.sampling
    prompts, number = setting.prompts(exam.questions), len(exam.questions)
    longest = max(map(len, prompts))
    compares = any(stage.reinforces for stage in setting.recipe.stages)
    phase = {**setting.held, "weights": dry.weights, "reference": compares * dry.weights}
    phase |= sampling(dry, params, min(params.rows, number * params.n), longest)
    columns = len(setting.recipe.evaluate.columns) or 2 + compares
    completions = columns * number * (params.n + exam.greedy)
    counts = {"checkpoints": columns, "problems": number, "completions": completions}
    counts["tokens, at most"] = completions * params.max_tokens
    name, disk, first = f"exam {exam.suite}", completions * exam.line, first_prompts(setting.start.tokenizer, prompts)
    return Part(name, dry.parameters, {"sampling": phase}, counts, disk, first, longest, params.max_tokens)
