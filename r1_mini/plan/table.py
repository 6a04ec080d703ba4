"""A plan on the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from r1_mini.plan.plan import Plan
from r1_mini.plan.stages import Part


def show(plan: Plan, console: Console) -> None:
    """Print every part with its memory, counts and first prompts; then the remarks; last whether it fits."""
    console.print(f"{plan.name}: {plan.parameters:,} parameters, {escape(plan.model)}", soft_wrap=True)
    for part in plan.parts:
        console.print("", memory_table(part), sep="\n")
        lines = [", ".join(f"{number:,} {what}" for what, number in part.counts.items())]
        lines += [f"prompts of at most {part.longest_prompt} tokens"]
        if part.solutions:
            lines[1] += f", worked solutions of at most {max(part.solutions)}"
        if part.longest_completion:
            lines[1] += f", completions of at most {part.longest_completion}"
        lines += [f"{size(part.disk)} stay on the disk, {size(part.disk_meanwhile)} more while it runs"]
        console.print(*lines, sep="\n", soft_wrap=True, highlight=False)
        for prompt in part.prompts:  # the text as Python writes it, and each token with its id
            tokens = (f"{repr(token)[1:-1]}·{number}" for token, number in zip(prompt.tokens, prompt.ids, strict=True))
            console.print(Text(repr(prompt.text)), Text("  " + " ".join(tokens), style="dim"), sep="\n", soft_wrap=True)
    console.print()
    for remark in plan.remarks:
        kind = "[yellow]warning[/yellow]" if remark.kind == "warning" else "note"
        console.print(f"{kind} {escape(remark.where)}: {escape(remark.text)}", soft_wrap=True, highlight=False)
    console.print(verdict(plan), soft_wrap=True, highlight=False, markup=False)


def verdict(plan: Plan) -> str:
    """Say in one line whether the plan fits."""
    several = f" in each of {plan.share.processes} processes" if plan.share.processes > 1 else ""
    need = f"{size(plan.needed)} (the {plan.peak[1]}{several})"
    has = f"{size(plan.device.memory)} of {plan.device.name}, {size(plan.device.free)} of it free now"
    return f"{'fits' if plan.fits else 'does not fit'}: {need}; there are {has}; on the disk {size(plan.disk)}"


def size(number: int) -> str:
    """Bytes in MiB, from 1,024 of them on in GiB."""
    return f"{number / 2**30:,.2f} GiB" if number >= 2**30 else f"{number / 2**20:,.1f} MiB"


def memory_table(part: Part) -> Table:
    """A column for each phase and a row for each part of memory, in MiB."""
    table = Table(title=f"{part.name}: memory, MiB", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for phase in part.phases:
        table.add_column(phase, justify="right")
    for name in dict.fromkeys(name for sizes in part.phases.values() for name, number in sizes.items() if number):
        numbers = (sizes.get(name, 0) for sizes in part.phases.values())
        table.add_row(name, *(f"{number / 2**20:,.1f}" if number else "" for number in numbers))
    table.add_row("sum", *(f"{sum(sizes.values()) / 2**20:,.1f}" for sizes in part.phases.values()), style="bold")
    return table
