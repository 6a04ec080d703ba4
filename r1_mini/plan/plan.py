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
from r1_mini.model.tokenizer import WORDS
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
    shows: str = ""  # how small a difference the exam can show
    by_character: bool = False  # tokens of prompts are characters and tags, which need not be shown
    fix: str = ""  # what would make it fit
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

    @property
    def seconds(self) -> float | None:
        """About how long it takes here; None if that is not known of every part."""
        known = [part.seconds for part in self.parts if part.seconds is not None]
        return sum(known) if len(known) == len(self.parts) else None

    def as_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        sums = {"fits": self.fits, "needed": self.needed, "disk": self.disk, "seconds": self.seconds}
        return {**asdict(self), **sums}


def plan(
    recipe: Recipe,
    exam: Exam,
    dev: Mapping[int, Exam],
    device: Device,
    share: Share,
    framework: int,
    timed: bool = False,
) -> Plan:
    """`dev`: number of a stage -> its exam while it trains. `framework`: what the libraries take on a CPU, bytes.

    `timed`: steps are done here, to estimate the time of one process.
    """
    planner, parts = Planner(recipe, device, share, framework, timed and device.is_cpu and share.processes == 1), []
    for number, (name, stage) in enumerate(recipe.nodes.items(), start=1):
        try:
            check_trainer(stage.CONFIG, stage.trainer, stage.DEFAULTS, stage.FIXED, share.processes)
        except ValueError as error:  # so many processes would refuse to start
            where = f"--processes {share.processes}: {name}.trainer"
            raise UserError(str(error), where=where, fix="change one of them") from None
        parts.append(planner.stage(name, stage, dev.get(number)))
    parts.append(planner.exam(exam))
    start, tokenizer = planner.start, planner.start.tokenizer
    whole = Plan(recipe.name, start.where, parts[0].parameters, device, share, parts, exam.shows[1].partition(", ")[0])
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
    fix = "" if whole.fits else smaller(planner, whole, exam, dev) or fix_of(whole)
    by_character = tokenizer.get_vocab().keys() >= set(WORDS)
    return replace(whole, by_character=by_character, fix=fix, warnings=warnings, notes=notes)


def show(plan: Plan, console: Console) -> None:
    """Print whether it fits, warnings, every part with its memory, counts and first prompts, and notes."""
    first = next((prompt for part in plan.parts for prompt in part.prompts), ("", ""))
    several = f" in each of {plan.share.processes} processes" if plan.share.processes > 1 else ""
    needs = f"{plan.needed / 2**30:,.1f} of {plan.device.memory / 2**30:,.1f} GiB"
    takes = f"{needs}, {_about(plan.seconds)}{_size(plan.disk)} on the disk; {plan.shows}"
    console.print(f"fits: {takes}" if plan.fits else f"does not fit: {needs}; {plan.fix}", soft_wrap=True)
    for warning in plan.warnings:
        console.print(Text("warning", "yellow"), warning, soft_wrap=True)
    has = f"{_size(plan.device.memory)} of {plan.device.name}, {_size(plan.device.free)} of it free now"
    console.print(f"\n{plan.name}: {plan.parameters:,} parameters, {plan.model}", soft_wrap=True)
    console.print(f"{_size(plan.needed)} (the {plan.peak[1]}{several}); there are {has}", soft_wrap=True)
    for part in plan.parts:
        counts = ", ".join(f"{number:,} {what}" for what, number in part.counts.items())
        (prompts, length), *others = part.longest.items()
        lengths = ", ".join([f"{prompts} of at most {length} tokens", *(f"{k} of at most {n}" for k, n in others)])
        disk = f"{_size(part.disk)} stay on the disk, {_size(part.disk_meanwhile)} more while it runs"
        console.print("", _memory(part), sep="\n")
        console.print(counts, lengths, _about(part.seconds) + disk, sep="\n", soft_wrap=True)
        for text, tokens in part.prompts:
            console.print(Text(repr(_rest(text, first[0]))), soft_wrap=True)
            tokens = _rest(tokens, first[1])
            tokens = tokens if len(tokens) <= MOST_TOKENS else f"{tokens[:MOST_TOKENS].rpartition(' ')[0]} …"
            if not plan.by_character:
                console.print(Text(f"  {tokens}", style="dim"), soft_wrap=True)
    console.print()
    for note in plan.notes:
        console.print("note", note, soft_wrap=True)


def smaller(planner: Planner, plan: Plan, exam: Exam, dev: Mapping[int, Exam]) -> str:
    """Settings with which it would fit, found by halving what the fullest phase does at once; empty if there are none.

    An optimizer step reads as many texts as before.
    """
    stages, changes, start = dict(planner.recipe.nodes), dict[str, int](), planner.start
    while not plan.fits:
        phase, place, path = fullest(plan)
        name = plan.parts[place].name
        stage = stages.get(name)
        if phase == "sampling":
            now = {"rows": (vars(stage)["rows"] if stage else exam.sampling.rows) // 2}
            stage = stage and stage.model_copy(update=now)
            exam = exam if stage else replace(exam, sampling=replace(exam.sampling, rows=now["rows"]))
        elif phase == "update" and stage:
            batch, odd = divmod(stage.fields["per_device_train_batch_size"], 2)
            fewer = {"per_device_train_batch_size": 0 if odd else batch}
            fewer["gradient_accumulation_steps"] = 2 * stage.fields["gradient_accumulation_steps"]
            stage = stage.model_copy(update={"trainer": {**stage.trainer, **fewer}})
            now = {f"trainer.{key}": value for key, value in fewer.items()}
        else:
            return ""
        if 0 in now.values():
            return ""
        changes |= {f"{path}.{key}": value for key, value in now.items()}
        if stage:
            stages[name] = stage
        planner.start = start
        part = planner.stage(name, stage, dev.get(place + 1)) if stage else planner.exam(exam)
        plan = replace(plan, parts=[*plan.parts[:place], part, *plan.parts[place + 1 :]])
    return f"{' '.join(f'{key}={value}' for key, value in changes.items())} would fit"


def fullest(plan: Plan) -> tuple[str, int, str]:
    """The fullest phase, the place of its part in the plan, and the path of that in the recipe."""
    phase, _, name = plan.peak[1].partition(" of ")
    place = next(place for place, part in enumerate(plan.parts) if part.name == name)
    return phase, place, "evaluate" if name.startswith("exam ") else f"stages.{place}" if name[:2].isdigit() else name


def fix_of(plan: Plan) -> str:
    """What else makes the fullest phase smaller."""
    phase, place, path = fullest(plan)
    stays = sum(size for what, size in plan.parts[place].phases[phase].items() if what not in SHRINKS)
    if stays * plan.needed > plan.peak[0] * plan.device.memory:  # of all processes of a CPU
        return "train an adapter (peft), or divide the model (--sharding)"
    if phase == "update":
        return f"set {path}.trainer.gradient_checkpointing=true, or shorten its texts"
    return f"lower {path}.{'dev.limit' if phase == 'exam on dev' else 'rows'}"


def _about(seconds: float | None) -> str:
    """`about 4 minutes, `; empty if that is not known."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"about {max(5, 5 * round(seconds / 5))} seconds, "
    number, unit = (seconds / 60, "minutes") if seconds < 90 * 60 else (seconds / 3600, "hours")
    return f"about {number:.0f} {unit}, "


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
