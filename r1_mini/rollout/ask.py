"""`r1-mini sample`: a question, the steps that a checkpoint writes, and whether each of them is right."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from r1_mini.data.mix import problems_of, sources_of, tasks
from r1_mini.data.own import Asked, Own
from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.model.templates import PromptStyle
from r1_mini.problems import families
from r1_mini.problems.arithmetic import evaluate, numbers, operations, parse
from r1_mini.problems.families.base import SENTENCE
from r1_mini.problems.problem import Problem
from r1_mini.problems.wording import arithmetic_in, canonical_text
from r1_mini.rollout.fallback import why_not_engine
from r1_mini.rollout.generate import Sample, generate
from r1_mini.rollout.params import SamplingParams
from r1_mini.system.terminal import Terminal

_MARKS = {"right": ("✓", "green"), "wrong": ("✗", "red"), "retracted": ("↶", "yellow")}
_SIGNS = str.maketrans("×·÷−–", "**/--")


def ask(checkpoint: Path, question: str | None, params: SamplingParams, prompt: PromptStyle) -> None:
    """Print the answer to `question`; without one, ask for questions until an empty line or the end of input."""
    console = Terminal()
    with console.status("loading"):
        model, tokenizer = load_checkpoint(checkpoint, prompt=prompt)
        recipe = checkpoint.resolve().parent / "recipe.yaml"
        taught, rows = problems_of(recipe)
        own = [task for task, _ in tasks(sources_of(recipe))]
        in_sentences = any(each.formula and each.question == SENTENCE.format(each.formula) for each in taught)

    def answer(question: str) -> None:
        problem = asked(question, rows, own)
        if in_sentences and problem.question == problem.formula:
            problem = replace(problem, question=SENTENCE.format(problem.formula))
        ((sample,),) = generate(model, tokenizer, [problem], params)
        _show(console, problem, sample)
        if unknown := outside(problem, taught):
            console.print(Text(f"  outside of what this run trains on: {unknown}", style="dim"))

    if question is not None:
        answer(question)
        if why := why_not_engine(model):
            console.print(Text(f"  {why}", style="dim"))
        return
    with contextlib.suppress(EOFError):
        while line := console.input("[bold]question[/] (an empty line ends): ").strip():
            try:
                answer(line)
            except UserError as error:
                console.print(str(error), style="red")


def asked(question: str, rows: Mapping[str, Problem], own: Sequence[Own] = ()) -> Problem:
    """The problem that people mean by `12 + 7 = ?`, `3 × 4` or `What is 12+7?`, or a row of a table, by its key.

    A task of the user's own that can solve it comes first. If it is none of these, the answer is empty: nobody here
    knows the right one.
    """
    question = question.strip()
    for task in own:
        with contextlib.suppress(UserError):
            return task.problem(Asked(question, 0))
    with contextlib.suppress(ValueError):
        return families.solve(question.translate(_SIGNS).rstrip(" =?"))
    if row := rows.get(canonical_text(question)):
        return replace(row, question=question)
    sums, alone = arithmetic_in(question)
    for found in sums if alone else ():
        if sorted(filter(str.isdigit, found)) == sorted(filter(str.isdigit, question)):  # else 1,5+2 would be 5+2
            with contextlib.suppress(ValueError):
                return families.solve(found)
    return Problem(family="the question", question=question, answer="", difficulty={}, key=question)


def outside(problem: Problem, taught: Sequence[Problem]) -> str:
    """What a question is not like of all that was taught; empty if it is like that, or if nothing is known."""
    formulas = [parse(each.formula) for each in taught if each.formula]
    if taught and not problem.formula:
        return "" if any(each.formula != each.question for each in taught) else "arithmetic alone"
    if not formulas or not problem.formula:
        return ""
    tree = parse(problem.formula)
    signs = {sign for each in taught for sign in each.formula or "" if sign in "+-*/"}
    for sign in "+-*/":
        if sign in problem.formula and sign not in signs:
            return f"no {sign}"
    for what, size in (("operations", operations), ("numbers", lambda each: max(numbers(each)))):
        if size(tree) > (largest := max(map(size, formulas))):
            return f"{what} up to {largest}"
    if min(numbers(tree)) < (smallest := min(min(numbers(each)) for each in formulas)):
        return f"numbers from {smallest} on"
    least, most = min(map(evaluate, formulas)), max(map(evaluate, formulas))
    return "" if least <= evaluate(tree) <= most else f"results from {least} to {most}"


def _show(console: Console, problem: Problem, sample: Sample) -> None:
    graded = sample.graded
    console.print(Text(problem.question, style="bold"))
    if graded.thinking is None or problem.formula is None:
        console.print(Text(f"  {sample.text}"))
    for step in graded.steps or ():
        mark, color = _MARKS[step.verdict]
        reason = f"  ({step.reason})" if step.reason else ""
        console.print(Text.assemble(f"  {mark} ", (step.text, color), (reason, "dim")))
    if graded.steps and graded.chain == "wrong" and graded.first_wrong is None:
        console.print(Text("  ✗ the steps end before one number is left", style="red"))
    result, color = "wrong" if problem.judge == "countdown" else f"wrong, it is {problem.answer}", "red"
    if not problem.answer:
        result, color = "no reference answer", "yellow"
    elif graded.correct:
        result, color = "right", "green"
    ending = "" if sample.finish == "stop" else "; truncated at the longest completion"
    answer = f"answer {text}" if (text := (graded.answer or "").strip()) else "no answer"
    voice = "no" if graded.voice == "none" else graded.voice
    console.print(Text.assemble("  ", f"{answer}: ", (result, color), f" ({voice} voice{ending})"))
