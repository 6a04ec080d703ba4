"""The plan of a recipe: every stage and the exam, what usually goes wrong, and whether it all fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticCustomError

from r1_mini.config.trl_fields import check_trainer
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.start import start_of
from r1_mini.plan.dry_run import Size
from r1_mini.plan.exam import Exam
from r1_mini.plan.memory import Phase, Share, is_known, on_top_of_what_is_kept
from r1_mini.plan.prompts import lacks
from r1_mini.plan.setting import Part, Setting
from r1_mini.plan.stages import exam_part, grpo_part, optimizer_of, rejection_part, text_part
from r1_mini.system.environment import Device
from r1_mini.train.base import BaseStage
from r1_mini.train.grpo import GrpoStage
from r1_mini.train.rejection import RejectionStage
from r1_mini.train.sft import SftStage
from r1_mini.train.stage import StageSettings

MARGIN = 0.2
"""How far a plan may be from the peak of the real run: docs/MEMORY.md."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that usually goes wrong; a note is only for your information."""

    where: str
    text: str
    is_warning: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, and what it would take."""

    name: str
    model: str
    parameters: int
    device: Device
    share: Share
    parts: Sequence[Part]
    remarks: Sequence[Remark]

    @property
    def peak(self) -> Phase:
        """The phase that takes the most."""
        return max((phase for part in self.parts for phase in part.phases), key=lambda phase: phase.total)

    @property
    def needed(self) -> int:
        """Bytes of the device; processes share a CPU's memory, each has a GPU of its own."""
        return self.peak.total * (self.share.processes if self.device.is_cpu else 1)

    @property
    def fits(self) -> bool:
        return self.needed <= self.device.memory

    @property
    def disk(self) -> int:
        """Bytes on the disk at the fullest moment."""
        stays, most = 0, 0
        for part in self.parts:
            most = max(most, stays + part.disk + part.disk_meanwhile)
            stays += part.disk
        return most


def plan(recipe: Recipe, exam: Exam, dev: Mapping[int, Exam], device: Device, share: Share, framework: int) -> Plan:
    """`dev`: number of a stage -> its examination on dev; `framework`: bytes that the libraries take on a CPU.

    UserError for a model that is not there or that cannot be sampled, and for groups that do not divide.
    """
    start = start_of(recipe)
    libraries = Size(framework if device.is_cpu else 0)
    setting = Setting(recipe, start, exam.dtype, share, device.is_cpu, libraries, device.memory)
    parts = []
    for number, stage in enumerate(recipe.stages, start=1):
        name, setting = f"{number:02d}-{stage.kind}", setting.from_stage(stage)
        if isinstance(stage, GrpoStage):
            _check_groups(stage, number, share.processes)
            parts.append(grpo_part(name, stage, setting, dev.get(number)))
        elif isinstance(stage, RejectionStage):
            parts.append(rejection_part(name, stage, setting))
        else:
            assert isinstance(stage, BaseStage | SftStage)
            parts.append(text_part(name, stage, setting))
    parts.append(exam_part(exam, setting))
    if device.is_cpu:
        phases = iter(on_top_of_what_is_kept([phase for part in parts for phase in part.phases]))
        parts = [replace(part, phases=[next(phases) for _ in part.phases]) for part in parts]
    remarks = [*_remarks(recipe, exam, parts, setting)]
    made = Plan(recipe.name, start.where, setting.of_exam.parameters, device, share, parts, remarks)
    return replace(made, remarks=[*remarks, *_of_memory(made)])


def _check_groups(stage: GrpoStage, number: int, processes: int) -> None:
    """UserError where so many processes would refuse to start: each has whole groups."""
    try:
        check_trainer(stage.CONFIG, stage.trainer, stage.DEFAULTS, stage.FIXED, processes)
    except PydanticCustomError as error:
        where, context = f"--processes {processes}: stages.{number - 1}.trainer", error.context or {}
        raise UserError(context["what"], where=where, fix=context["fix"]) from None


def _remarks(recipe: Recipe, exam: Exam, parts: Sequence[Part], setting: Setting) -> Iterator[Remark]:
    for stage, part in zip(recipe.stages, parts, strict=False):
        yield from _of_stage(stage, part, setting)
    for part in parts:
        yield from _of_sampling(part, setting)
    model = setting.start
    for is_warning, text in lacks(model.tokenizer, model.generation):
        yield Remark("tokenizer", text, is_warning)
    if exam.split == "test":
        text = "asks the test split: for figures to report; to choose between settings, evaluate.split=dev"
        yield Remark(parts[-1].name, text, is_warning=False)


def _of_stage(stage: StageSettings, part: Part, setting: Setting) -> Iterator[Remark]:
    optimizer = optimizer_of(stage)
    if not is_known(optimizer):
        yield Remark(part.name, f"what optim={optimizer} keeps is not known; counted as AdamW's 8 bytes a parameter")


def _of_sampling(part: Part, setting: Setting) -> Iterator[Remark]:
    """Prompts and completions that do not fit."""
    longest, completion = max(part.lengths.prompts), part.completion
    window = getattr(setting.start.config.get_text_config(decoder=True), "max_position_embeddings", None)
    needed = longest + (completion or max(part.lengths.solutions, default=0))
    if window and needed > window:
        what = f"a prompt of {longest} tokens and a completion of {needed - longest} take {needed}"
        yield Remark(part.name, f"{what}, the model has room for {window}")
    if completion and part.lengths.solutions:
        share = part.lengths.share_longer(completion)
        if share:
            what = f"{100 * share:.0f} % of {len(part.lengths.solutions)} worked solutions do not fit"
            longest = max(part.lengths.solutions)
            yield Remark(part.name, f"{what} into {completion} tokens, the longest has {longest}: they will be cut")


def _of_memory(made: Plan) -> Iterator[Remark]:
    """What is close to the memory, or beyond it by itself."""
    for part in made.parts:
        for phase in part.phases:
            if phase.parts.get("logits", Size()).all > made.device.memory:
                fix = "lower `rows`" if "keys and values" in phase.parts else "lower the batch"
                yield Remark(part.name, f"the logits of the {phase.name} alone take more than the memory; {fix}")
    if made.fits and made.needed * (1 + MARGIN) > made.device.memory:
        yield Remark("memory", f"less than {MARGIN:.0%} of it are left: real runs have taken as much more than planned")
    if made.fits and made.needed > made.device.free:
        yield Remark("memory", "other programs have too much of it now")


def as_json(made: Plan) -> dict[str, Any]:
    """Everything in the plan as plain data; sizes in bytes."""
    return {
        "name": made.name,
        "model": made.model,
        "parameters": made.parameters,
        "device": {
            "kind": made.device.kind,
            "name": made.device.name,
            "memory": made.device.memory,
            "free": made.device.free,
        },
        "processes": made.share.processes,
        "sharding": made.share.sharding,
        "fits": made.fits,
        "needed": made.needed,
        "disk": made.disk,
        "parts": [_part_json(part) for part in made.parts],
        "remarks": [
            {"where": r.where, "kind": "warning" if r.is_warning else "note", "text": r.text} for r in made.remarks
        ],
    }


def _part_json(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "counts": dict(part.counts),
        "disk": part.disk,
        "disk_meanwhile": part.disk_meanwhile,
        "phases": [
            {"name": p.name, "total": p.total, "parts": {name: size.all for name, size in p.parts.items()}}
            for p in part.phases
        ],
        "longest_prompt": max(part.lengths.prompts),
        "longest_solution": max(part.lengths.solutions, default=None),
        "longest_completion": part.completion,
        "prompts": [{"text": s.text, "ids": list(s.ids), "tokens": list(s.tokens)} for s in part.prompts],
    }
