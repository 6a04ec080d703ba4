"""What each stage of a recipe and its exam would do: steps, tokens, disk, and the phases of its memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from r1_mini.completion import FORCED
from r1_mini.data.source import Source
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.plan.dry_run import DryModel, Size
from r1_mini.plan.exam import Exam
from r1_mini.plan.lengths import Lengths, drawn_lengths, some_problems
from r1_mini.plan.memory import (
    COPIES,
    FLOAT,
    KEPT,
    Phase,
    Sampling,
    Training,
    Update,
    phase,
    sampling,
    training,
    update,
    weights_of,
)
from r1_mini.plan.prompts import Shown, shown, shown_prompts
from r1_mini.plan.setting import Part, Setting
from r1_mini.rollout.likelihood import LOGITS, TOKENS
from r1_mini.train.base import BaseStage
from r1_mini.train.corpus import WINDOW, tokenized
from r1_mini.train.grpo import GrpoStage, samples_as_asked
from r1_mini.train.logps import PART, PART_ELSEWHERE
from r1_mini.train.packing import pack
from r1_mini.train.rejection import RejectionStage
from r1_mini.train.sft import SftStage
from r1_mini.train.stage import StageSettings

_REFERENCE = 8
"""Bytes of a reference to an object, and of one of Arrow's integers."""
_LIST = 56
"""Bytes of an empty list."""


def text_part(name: str, stage: BaseStage | SftStage, setting: Setting) -> Part:
    """The base and the SFT stage: their corpus, packed batches, the optimizer."""
    fields = stage.fields
    sources, seed = setting.recipe.problems_of(stage), setting.recipe.seed_of(stage)
    dry, tokenizer = setting.dry(stage), setting.start.tokenizer
    batch = fields["per_device_train_batch_size"]
    per_step = batch * fields["gradient_accumulation_steps"] * setting.share.processes
    examples = fields["max_steps"] * per_step
    if isinstance(stage, BaseStage):
        texts = stage.texts(sources, examples, seed)
    else:
        texts = stage.texts(sources, tokenizer, seed)
    window = tokenized(texts, tokenizer, min(examples, WINDOW * batch), batch, seed)
    rows = window.to_list()
    packed = [pack(rows[i : i + batch], tokenizer.pad_token_id)["input_ids"].shape for i in range(0, len(rows), batch)]
    height, width = max(packed, key=math.prod)
    mean = sum(len(row["input_ids"]) for row in rows) / len(rows)
    arrow, lists = corpus_bytes(examples, mean)
    trained = training(dry, optimizer_of(stage), setting.share)
    passes = update(
        dry,
        Update(
            height,
            width,
            masked=True,
            again=fields["gradient_accumulation_steps"] > 1,
            narrow=False,
            bf16=_half(fields),
            checkpointing=_checkpoints_activations(fields),
        ),
        setting.cpu,
    )
    corpus = {"corpus": arrow if setting.cpu else Size()}
    made = {"corpus": arrow + lists if setting.cpu else Size()}
    phases = [
        phase("corpus", setting.standing, {"weights": weights_of(dry)}, made),
        *_step_phases(setting, trained, passes, corpus),
    ]
    saved, meanwhile = _checkpoints(fields, dry, trained, fields["max_steps"])
    counts = {"steps": fields["max_steps"], "examples": examples, "tokens, about": round(mean * examples)}
    return Part(
        name,
        phases,
        counts,
        saved,
        meanwhile,
        [shown(tokenizer, row["input_ids"]) for row in rows[:3]],
        drawn_lengths(tokenizer, some_problems(sources, "base", seed), stage.wording),
    )


def corpus_bytes(examples: int, tokens: float) -> tuple[Size, Size]:
    """Examples of so many tokens in the mean, `input_ids` and `labels`: in Arrow, and before that in Python's lists."""
    values = round(2 * examples * tokens * _REFERENCE)
    lists = values + 2 * examples * (_LIST + _REFERENCE)
    return Size(values), Size(lists, lists)


def grpo_part(name: str, stage: GrpoStage, setting: Setting, dev: Exam | None) -> Part:
    """The GRPO stage: rollouts, the update by parts of tokens, examinations on dev."""
    fields = stage.fields
    sources, seed = setting.recipe.problems_of(stage), setting.recipe.seed_of(stage)
    dry, processes = setting.dry(stage), setting.share.processes
    per_step, group = fields["per_device_train_batch_size"], fields["num_generations"]
    accumulated = fields["gradient_accumulation_steps"]
    batch, served = _rollout(fields, processes)
    generations = math.ceil(fields["max_steps"] * accumulated / served)
    lengths = _lengths(setting, sources, seed)
    prompt, completion = max(lengths.prompts), fields["max_completion_length"]
    width, local = prompt + completion, batch // processes
    offers = not setting.share.gathers and samples_as_asked(fields)
    waits = (
        processes == 1
        and offers
        and accumulated % served == 0
        and fields["beta"] == 0
        and not fields["entropy_coef"]
        and fields["top_entropy_quantile"] == 1.0
    )
    part = PART["cpu"] if setting.cpu else PART_ELSEWHERE
    rows = max(1, min(per_step, part // width)) if waits else per_step
    passes = update(
        dry,
        Update(
            rows,
            width,
            masked=processes > 1,  # TRL's own pass, padded
            again=waits or accumulated > 1,
            narrow=processes == 1,
            bf16=_half(fields),
            checkpointing=_checkpoints_activations(fields),
        ),
        setting.cpu,
    )
    trained = training(dry, optimizer_of(stage), setting.share)
    reference = {
        "reference": setting.share.of("weights", weights_of(dry)) if fields["beta"] and not dry.adapted else Size()
    }
    how = Sampling(
        min(max(stage.rows, group), local) if offers else local,
        prompt, completion, fields["temperature"], fields["top_p"],
    )  # fmt: skip
    drawing = {} if fields["use_vllm"] else sampling(dry, how, setting.cpu)
    whole = setting.share.gathers and setting.share.sharding == "zero3" and fields["ds3_gather_for_generation"]
    gathered = {COPIES: weights_of(dry)} if whole else {}
    phases = [
        *_step_phases(setting, trained, passes, reference),
        phase("sampling", setting.standing, trained.standing, reference, drawing, gathered),
    ]
    saved, meanwhile = _checkpoints(fields, dry, trained, fields["max_steps"])
    if dev is not None:
        phases.append(
            phase("exam on dev", setting.standing, trained.standing, reference, _exam_sampling(setting, dev, None))
        )
        meanwhile += saved
    prompts = generations * batch // group
    counts = {
        "steps": fields["max_steps"],
        "rollouts": generations,
        "prompts": prompts,
        "completions": prompts * group,
        "tokens, at most": prompts * group * completion,
    }
    return Part(name, phases, counts, saved, meanwhile, _first_prompts(setting, sources, seed), lengths, completion)


def _rollout(fields: Mapping[str, Any], processes: int) -> tuple[int, int]:
    """Completions that are drawn at once, by all processes, and the micro-steps that they serve (trl.GRPOConfig)."""
    per_step = fields["per_device_train_batch_size"] * processes
    batch = fields["generation_batch_size"]
    if batch is None:
        batch = per_step * (fields["steps_per_generation"] or fields["gradient_accumulation_steps"])
    return batch, batch // per_step * fields["num_iterations"]


def rejection_part(name: str, stage: RejectionStage, setting: Setting) -> Part:
    """Expert iteration: rounds of rollouts and of training on what was right."""
    fields = stage.fields
    sources, seed = setting.recipe.problems_of(stage), setting.recipe.seed_of(stage)
    dry, lengths = setting.dry(stage), _lengths(setting, sources, seed)
    completions = stage.prompts * stage.samples
    prompt = max(lengths.prompts)
    longest = min(stage.max_tokens, max(lengths.solutions, default=stage.max_tokens))
    mean = sum(lengths.prompts) / len(lengths.prompts)
    mean += sum(lengths.solutions) / len(lengths.solutions) if lengths.solutions else stage.max_tokens
    batch = min(fields["per_device_train_batch_size"], completions)
    accumulated = fields["gradient_accumulation_steps"]
    passes = update(
        dry,
        Update(
            math.ceil(batch * mean / (prompt + longest)),
            prompt + longest,
            masked=True,
            again=accumulated > 1,
            narrow=False,
            bf16=_half(fields),
            checkpointing=_checkpoints_activations(fields),
        ),
        setting.cpu,
    )
    trained = training(dry, optimizer_of(stage), setting.share)
    how = Sampling(min(max(stage.rows, stage.samples), completions), prompt, stage.max_tokens)
    arrow, lists = corpus_bytes(completions, mean)
    kept = {"corpus": arrow + lists if setting.cpu else Size()}
    phases = [
        phase("sampling", setting.standing, {"weights": weights_of(dry)}, sampling(dry, how, setting.cpu)),
        *_step_phases(setting, trained, passes, kept),
    ]
    per_step = batch * accumulated * setting.share.processes
    steps = math.ceil(fields["num_train_epochs"] * completions / per_step)
    saved, meanwhile = _checkpoints(fields, dry, trained, steps)
    counts = {
        "rounds": stage.rounds,
        "steps, at most": stage.rounds * steps,
        "prompts": stage.rounds * stage.prompts,
        "completions": stage.rounds * completions,
        "tokens, at most": stage.rounds * completions * stage.max_tokens,
    }
    prompts = _first_prompts(setting, sources, seed)
    return Part(name, phases, counts, saved, stage.rounds * (saved + meanwhile), prompts, lengths, stage.max_tokens)


def exam_part(exam: Exam, setting: Setting) -> Part:
    """The exam of the first and the last checkpoint: the first as it is and made to work, the last beside the first."""
    dry, tokenizer = setting.of_exam, setting.start.tokenizer
    compares = any(isinstance(stage, GrpoStage | RejectionStage) for stage in setting.recipe.stages)
    weights, drawing = weights_of(dry), _exam_sampling(setting, exam, "worked")
    phases = [phase("sampling", setting.standing, {"weights": weights}, drawing)]
    prompts = [prompt_for(tokenizer, question) for question in sorted(exam.questions, key=len)]
    lengths = Lengths(tuple(map(len, encode(tokenizer, prompts))), ())
    if compares:
        reference = {"weights": weights, "reference": weights}
        phases[0] = phase("sampling", setting.standing, reference, drawing)
        if exam.temperature == 1 and exam.top_p == 1:
            width = max(lengths.prompts) + exam.max_tokens
            most = min(TOKENS, max(1, LOGITS // dry.vocabulary))
            rows = max(1, min(exam.rows, len(prompts) * exam.samples, most // width))
            logits = FLOAT * rows * width * dry.vocabulary  # of the softmax, beside those of the model
            copies = 1 + (dry.dtype.itemsize < FLOAT)
            likelihood = {"activations": dry.forward(rows, width, masked=True), "logits": Size(copies * logits)}
            phases.append(phase("likelihood by the first", setting.standing, reference, likelihood))
    candidates = 2 + compares
    completions = candidates * len(prompts) * (exam.samples + exam.greedy)
    counts = {
        "checkpoints": candidates,
        "problems": len(prompts),
        "completions": completions,
        "tokens, at most": completions * exam.max_tokens,
    }
    disk = completions * exam.line
    return Part(
        f"exam {exam.suite}", phases, counts, disk, 0, shown_prompts(tokenizer, prompts), lengths, exam.max_tokens
    )


def _exam_sampling(setting: Setting, exam: Exam, voice: str | None) -> dict[str, Size]:
    tokenizer = setting.start.tokenizer
    prompts = encode(tokenizer, [prompt_for(tokenizer, question) for question in exam.questions])
    prefix = len(tokenizer("".join(FORCED[voice][0]), add_special_tokens=False)["input_ids"])
    rows = min(exam.rows, len(prompts) * exam.samples)
    how = Sampling(rows, max(map(len, prompts)) + prefix, exam.max_tokens, exam.temperature, exam.top_p)
    return sampling(setting.of_exam, how, setting.cpu)


def _step_phases(
    setting: Setting, trained: Training, passes: Mapping[str, Size], beside: Mapping[str, Size]
) -> list[Phase]:
    """The update and the optimizer's step, whose blocks are too large for the holes that activations leave."""
    passes = {**passes, "gradients": trained.gradients}
    step = {"gradients": trained.gradients, "temporaries": trained.temporaries}
    if setting.cpu and trained.temporaries.all:
        left = passes["activations"].heap + passes["logits"].heap
        step[KEPT] = Size(left, left)
    return [
        phase("update", setting.standing, trained.standing, passes, beside),
        phase("optimizer", setting.standing, trained.standing, step, beside),
    ]


def _checkpoints(fields: Mapping[str, Any], dry: DryModel, trained: Training, steps: int) -> tuple[int, int]:
    """Bytes of the finished checkpoint, and of those for resuming: what is kept, and the next before one goes."""
    weights = weights_of(dry).all
    made, limit = math.ceil(steps / fields["save_steps"]), fields["save_total_limit"]
    kept = min(made, made if limit is None else limit + 1)
    return weights, kept * (weights + trained.states.all)


def _lengths(setting: Setting, sources: Sequence[Source], seed: int) -> Lengths:
    return drawn_lengths(setting.start.tokenizer, some_problems(sources, "train", seed), setting.wording)


def _first_prompts(setting: Setting, sources: Sequence[Source], seed: int) -> list[Shown]:
    tokenizer = setting.start.tokenizer
    problems = islice(some_problems(sources, "train", seed), 3)
    return shown_prompts(tokenizer, [prompt_for(tokenizer, problem.question) for problem in problems])


def optimizer_of(stage: StageSettings) -> str:
    """`muon`, or transformers' name of the stage's optimizer."""
    if isinstance(stage, BaseStage) and stage.optimizer == "muon":
        return "muon"
    optim = stage.fields["optim"]
    return str(getattr(optim, "value", optim))


def _checkpoints_activations(fields: Mapping[str, Any]) -> bool:
    """Both of transformers' names for it."""
    return bool(fields["gradient_checkpointing"] or fields.get("activation_checkpointing"))


def _half(fields: Mapping[str, Any]) -> bool:
    return bool(fields["bf16"] or fields["fp16"])
