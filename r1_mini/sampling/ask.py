"""`r1-mini sample`: a question, the chain that a checkpoint writes, and what the checker says of each step."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.console import Console
from rich.text import Text

from r1_mini.errors import UserError
from r1_mini.logs import silent
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.problems import families
from r1_mini.problems.checking import check_chain
from r1_mini.problems.problem import Problem
from r1_mini.sampling.complete import Drawing, complete, prompts_of
from r1_mini.transcript import Finish, is_correct, read

_MARKS = {"right": ("✓", "green"), "wrong": ("✗", "red"), "retracted": ("↶", "yellow")}


def ask(
    checkpoint: Path, question: str | None, *, temperature: float, seed: int, max_tokens: int, voice: str | None
) -> None:
    """Print the answer to `question`; without one, ask for questions until an empty line or the end of input."""
    console = Console()
    with silent(), console.status("loading"):
        model, tokenizer = load_checkpoint(checkpoint)
    drawing = Drawing(1, temperature, 1.0, max_tokens, seed, voice)

    def answer(problem: Problem) -> None:
        ((done,),) = complete(model, tokenizer, prompts_of(tokenizer, [problem]), drawing)
        _show(console, problem, done.text, done.finish)

    if question is not None:
        answer(understood(question))
        return
    with contextlib.suppress(EOFError):
        while line := console.input("[bold]question[/] (an empty line ends): ").strip():
            try:
                answer(understood(line))
            except UserError as error:
                console.print(str(error), style="red", markup=False)


def understood(question: str) -> Problem:
    """The problem that a text asks; UserError if it is of no family."""
    try:
        return families.solve(question)
    except ValueError as error:
        where = repr(question[:60])
        raise UserError(f"not a question ({error})", where=where, fix="ask for example 12+7*3") from None


def _show(console: Console, problem: Problem, completion: str, finish: Finish) -> None:
    transcript = read(completion, finish)
    console.print(Text(problem.question, style="bold"))
    if transcript.thinking is None or problem.formula is None:
        console.print(Text(f"  {completion}"))
    else:
        for step in check_chain(problem.formula, transcript.thinking):
            mark, color = _MARKS[step.verdict]
            reason = f"  ({step.reason})" if step.reason else ""
            console.print(Text.assemble(f"  {mark} ", (step.text, color), (reason, "dim")))
    verdict = "right" if is_correct(transcript, problem.answer, problem.judge) else f"wrong, it is {problem.answer}"
    ending = "" if finish == "stop" else "; cut off at the longest completion"
    said = "no answer" if transcript.answer is None else f"answer {transcript.answer.strip()}"
    color = "green" if verdict == "right" else "red"
    console.print(Text.assemble("  ", f"{said}: ", (verdict, color), f" ({transcript.voice} voice{ending})"))
