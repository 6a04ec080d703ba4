"""`r1-mini sample`: a question, the steps that a checkpoint writes, and whether each of them is right."""

import contextlib
from pathlib import Path

from rich.console import Console
from rich.text import Text

from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.model.templates import PromptStyle
from r1_mini.problems import families
from r1_mini.problems.problem import Problem
from r1_mini.rollout.engine import SamplingParams
from r1_mini.rollout.generate import Sample, generate
from r1_mini.system.logs import silent
from r1_mini.system.terminal import Terminal

_MARKS = {"right": ("✓", "green"), "wrong": ("✗", "red"), "retracted": ("↶", "yellow")}


def ask(checkpoint: Path, question: str | None, params: SamplingParams, prompt: PromptStyle) -> None:
    """Print the answer to `question`; without one, ask for questions until an empty line or the end of input."""
    console = Terminal()
    with silent(), console.status("loading"):
        model, tokenizer = load_checkpoint(checkpoint, prompt=prompt)

    def answer(question: str) -> None:
        try:
            problem = families.solve(question.strip().removesuffix("?").rstrip(" ="))
        except ValueError:  # no family knows how to solve it
            problem = Problem(family="free", question=question, answer="", difficulty={}, key=question)
        ((sample,),) = generate(model, tokenizer, [problem], params)
        _show(console, problem, sample)

    if question is not None:
        answer(question)
        return
    with contextlib.suppress(EOFError):
        while line := console.input("[bold]question[/] (an empty line ends): ").strip():
            try:
                answer(line)
            except UserError as error:
                console.print(str(error), style="red", markup=False)


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
    answer = "no answer" if graded.answer is None else f"answer {graded.answer.strip()}"
    console.print(Text.assemble("  ", f"{answer}: ", (result, color), f" ({graded.voice} voice{ending})"))
