"""The plan of a recipe: every stage and the exam, what usually goes wrong, and whether it fits."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from os.path import commonprefix
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from r1_mini.completion import TAGS
from r1_mini.config.trl_fields import check_trainer
from r1_mini.errors import UserError
from r1_mini.model.templates import template_fault
from r1_mini.pipeline.recipe import Recipe
from r1_mini.plan.stages import Exam, Part, Planner, Share
from r1_mini.system.environment import Device

MARGIN = 0.2  # how much more than planned a run has taken on a CPU: docs/MEMORY.md
SHRINKS = ("activations", "keys and values", "logits")  # parts of memory that depend on how much is done at once
MOST_TOKENS = 300  # characters of a prompt's tokens that are shown; `--json` has them all


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe would do, and the memory and disk that it would take, in bytes."""

    name: str
    model: str
    parameters: int
    device: Device
    share: Share
    parts: Sequence[Part]
    warnings: Sequence[str] = ()  # what usually goes wrong
    notes: Sequence[str] = ()

    @property
    def peak(self) -> tuple[int, str]:
        """Memory of the fullest phase in one process, and its name."""
        phases = ((phase, part) for part in self.parts for phase in part.phases)
        return max((sum(part.phases[phase].values()), f"{phase} of {part.name}") for phase, part in phases)

    @property
    def needed(self) -> int:
        """Memory of the device; processes share that of a CPU and have a GPU each."""
        return self.peak[0] * (self.share.processes if self.device.is_cpu else 1)

    @property
    def fits(self) -> bool:
        return self.needed <= self.device.memory

    @property
    def disk(self) -> int:
        """What is on the disk at the fullest moment."""
        stays = accumulate(part.disk for part in self.parts)
        return max(size + part.disk_meanwhile for size, part in zip(stays, self.parts, strict=True))

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {**asdict(self), "fits": self.fits, "needed": self.needed, "disk": self.disk}


def plan(recipe: Recipe, exam: Exam, dev: Mapping[int, Exam], device: Device, share: Share, framework: int) -> Plan:
    """`dev`: number of a stage -> its exam while it trains. `framework`: what the libraries take on a CPU, bytes."""
    planner, parts = Planner(recipe, device, share, framework), []
    for number, (name, stage) in enumerate(recipe.nodes.items(), start=1):
        try:
            check_trainer(stage.CONFIG, stage.trainer, stage.DEFAULTS, stage.FIXED, share.processes)
        except ValueError as error:  # so many processes would refuse to start
            where = f"--processes {share.processes}: {name}.trainer"
            raise UserError(str(error), where=where, fix="change one of them") from None
        parts.append(planner.stage(name, stage, dev.get(number)))
    parts.append(planner.exam(exam))
    start, tokenizer = planner.start, planner.start.tokenizer
    whole = Plan(recipe.name, start.where, parts[0].parameters, device, share, parts)
    warnings, notes = list(dict.fromkeys(planner.warnings)), []
    warnings += filter(None, [template_fault(tokenizer, start.generation)])
    if split := [tag for tag in TAGS if len(tokenizer(tag, add_special_tokens=False)["input_ids"]) > 1]:
        what = "more than one token each, as usual for a model that was not trained on them"
        notes.append(f"tokenizer: {', '.join(split)}: {what}")
    (warnings if exam.shows[0] else notes).append(f"exam {exam.suite}: {exam.shows[1]}")
    if device.is_cpu:
        what = f"on a CPU, libraries and the allocator add up to {MARGIN:.0%} to what is planned (docs/MEMORY.md)"
        tight = whole.fits and whole.needed * (1 + MARGIN) > device.memory
        (warnings if tight else notes).append(f"memory: {what}{', and so much is not left' * tight}")
    if whole.fits and whole.needed > device.free:
        warnings.append("memory: other programs have too much of it now")
    return replace(whole, warnings=warnings, notes=notes)


def show(plan: Plan, console: Console) -> None:
    """Print every part with its memory, counts and first prompts; then warnings and notes; last whether it fits."""
    first = next((prompt for part in plan.parts for prompt in part.prompts), ("", ""))
    console.print(f"{plan.name}: {plan.parameters:,} parameters, {plan.model}", soft_wrap=True)
    for part in plan.parts:
        counts = ", ".join(f"{number:,} {what}" for what, number in part.counts.items())
        (prompts, length), *others = part.longest.items()
        lengths = ", ".join([f"{prompts} of at most {length} tokens", *(f"{k} of at most {n}" for k, n in others)])
        disk = f"{_size(part.disk)} stay on the disk, {_size(part.disk_meanwhile)} more while it runs"
        console.print("", _memory(part), sep="\n")
        console.print(counts, lengths, disk, sep="\n", soft_wrap=True)
        for text, tokens in part.prompts:
            text, tokens = _rest(text, first[0]), _rest(tokens, first[1])
            tokens = tokens if len(tokens) <= MOST_TOKENS else f"{tokens[:MOST_TOKENS].rpartition(' ')[0]} …"
            console.print(Text(repr(text)), Text(f"  {tokens}", style="dim"), sep="\n", soft_wrap=True)
    console.print()
    for kind, remarks in ((Text("warning", "yellow"), plan.warnings), (Text("note"), plan.notes)):
        for remark in remarks:
            console.print(kind, remark, soft_wrap=True)
    several = f" in each of {plan.share.processes} processes" if plan.share.processes > 1 else ""
    need = f"{_size(plan.needed)} (the {plan.peak[1]}{several})"
    has = f"{_size(plan.device.memory)} of {plan.device.name}, {_size(plan.device.free)} of it free now"
    verdict = f"{'fits' if plan.fits else 'does not fit'}: {need}; there are {has}; on the disk {_size(plan.disk)}"
    verdict += "" if plan.fits else f"; {fix_of(plan)}"
    console.print(verdict, soft_wrap=True)


def fix_of(plan: Plan) -> str:
    """What makes the fullest phase smaller."""
    phase, _, name = plan.peak[1].partition(" of ")
    place, part = next((place, part) for place, part in enumerate(plan.parts) if part.name == name)
    stays = sum(size for what, size in part.phases[phase].items() if what not in SHRINKS)
    if stays * plan.needed > plan.peak[0] * plan.device.memory:  # of all processes of a CPU
        return "train an adapter (peft), or divide the model (--sharding)"
    path = "evaluate" if name.startswith("exam ") else f"stages.{place}" if name[:2].isdigit() else name
    if phase == "update":
        return f"set {path}.trainer.gradient_checkpointing=true, or accumulate more batches, each smaller"
    return f"lower {path}.{'dev.limit' if phase == 'exam on dev' else 'rows'}"


def _rest(text: str, first: str) -> str:
    """A text without the long beginning that it shares with the first one."""
    shared = commonprefix([text, first]).rpartition(" ")[0]  # noqa: RUF071  (no paths)
    return f"…{text.removeprefix(shared)}" if len(shared) > 80 and text != first else text


def _size(number: int) -> str:
    return f"{number / 2**30:,.2f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"


def _memory(part: Part) -> Table:
    """A column for each phase and a row for each part of memory, in MiB."""
    columns = (Column(phase, justify="right") for phase in part.phases)
    table = Table("", *columns, title=f"{part.name}: memory, MiB", title_justify="left", box=None, pad_edge=False)
    for name in dict.fromkeys(name for sizes in part.phases.values() for name, number in sizes.items() if number):
        numbers = (sizes.get(name, 0) for sizes in part.phases.values())
        table.add_row(name, *(f"{number / 2**20:,.1f}" if number else "" for number in numbers))
    table.add_row("sum", *(f"{sum(sizes.values()) / 2**20:,.1f}" for sizes in part.phases.values()), style="bold")
    return table
