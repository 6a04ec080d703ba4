"""A plan on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from r1_mini.plan.plan import Plan
from r1_mini.plan.prompts import Shown
from r1_mini.plan.setting import Part


def show(made: Plan, console: Console) -> None:
    """Every part with its memory, counts and first prompts; then what to look at, and the verdict in one line."""
    console.print(f"{made.name}: {made.parameters:,} parameters, {escape(made.model)}", soft_wrap=True)
    for part in made.parts:
        console.print()
        console.print(_memory(part))
        _counts(part, console)
        for prompt in part.prompts:
            _prompt(prompt, console)
    console.print()
    for remark in made.remarks:
        kind = "[yellow]warning[/yellow]" if remark.is_warning else "note"
        console.print(f"{kind} {escape(remark.where)}: {escape(remark.text)}", soft_wrap=True, highlight=False)
    console.print(verdict(made), soft_wrap=True, highlight=False)


def verdict(made: Plan) -> str:
    """Whether it fits, in one line."""
    device, peak = made.device, made.peak
    part = next(part.name for part in made.parts if any(phase is peak for phase in part.phases))
    several = f" in each of {made.share.processes} processes" if made.share.processes > 1 else ""
    has = f"{size(device.memory)} of {device.name}, {size(device.free)} of it free now"
    word = "fits" if made.fits else "does not fit"
    need = f"{size(made.needed)} at most (the {peak.name} of {part}{several})"
    return f"{word}: {need}; there are {escape(has)}; on the disk {size(made.disk)}"


def size(number: int) -> str:
    """Bytes in MiB, from 1024 of them on in GiB."""
    return f"{number / 2**30:,.2f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"


def _memory(part: Part) -> Table:
    """A column for each phase, a row for each part of memory; MiB."""
    table = Table(title=f"{part.name}: memory, MiB", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for phase in part.phases:
        table.add_column(phase.name, justify="right")
    for name in dict.fromkeys(name for phase in part.phases for name in phase.parts):
        sizes = (phase.parts.get(name) for phase in part.phases)
        table.add_row(name, *("" if each is None else f"{each.all / 2**20:,.1f}" for each in sizes))
    table.add_row("sum", *(f"{phase.total / 2**20:,.1f}" for phase in part.phases), style="bold")
    return table


def _counts(part: Part, console: Console) -> None:
    counts = ", ".join(f"{number:,} {what}" for what, number in part.counts.items())
    disk = f"{size(part.disk)} stay on the disk"
    if part.disk_meanwhile:
        disk += f", {size(part.disk_meanwhile)} more while it runs"
    lengths = f"prompts of at most {max(part.lengths.prompts)} tokens"
    if part.lengths.solutions:
        lengths += f", worked solutions of at most {max(part.lengths.solutions)}"
    lengths += f" ({len(part.lengths.prompts):,} looked at)"
    if part.completion:
        lengths += f", completions of at most {part.completion}"
    for line in (counts, lengths, disk):
        console.print(line, soft_wrap=True, highlight=False)


def _prompt(shown: Shown, console: Console) -> None:
    """The text as Python writes it; below it each token with its id."""
    console.print(Text(repr(shown.text)), soft_wrap=True)
    pieces = (f"{repr(token)[1:-1]}·{number}" for token, number in zip(shown.tokens, shown.ids, strict=True))
    console.print(Text("  " + " ".join(pieces), style="dim"), soft_wrap=True)
