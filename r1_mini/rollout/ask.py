"""`r1-mini sample`: a question, the chain that a checkpoint writes, and what the checker says of each step."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from r1_mini.completion import Finish, is_correct, read
from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.model.template import is_ours
from r1_mini.problems import families
from r1_mini.problems.problem import Problem
from r1_mini.problems.steps import check_chain
from r1_mini.rollout.generate import Drawing, complete, prompt_for, prompts_of
from r1_mini.system.logs import silent

_MARKS = {"right": ("✓", "green"), "wrong": ("✗", "red"), "retracted": ("↶", "yellow")}


def ask(
    checkpoint: Path,
    question: str | None,
    *,
    temperature: float,
    seed: int,
    max_tokens: int,
    voice: str | None,
    prompt: Any,
) -> None:
    """Print the answer to `question`; without one, ask for questions until an empty line or the end of input.

    `prompt` is a PromptStyle.
    """
    console = Console()
    with silent(), console.status("loading"):
        model, tokenizer = load_checkpoint(checkpoint, prompt=prompt)
    known = tokenizer.get_vocab().keys()
    drawing = Drawing(1, temperature, 1.0, max_tokens, seed, voice)

    def answer(question: str) -> None:
        words = any(character.isalpha() for character in question)
        problem = understood(question, free=not is_ours(tokenizer) or (words and set(question) <= known))
        prompts = prompts_of(tokenizer, [problem]) if problem else [prompt_for(tokenizer, question)]
        ((done,),) = complete(model, tokenizer, prompts, drawing)
        _show(console, question, problem, done.text, done.finish)

    if question is not None:
        answer(question)
        return
    with contextlib.suppress(EOFError):
        while line := console.input("[bold]question[/] (an empty line ends): ").strip():
            try:
                answer(line)
            except UserError as error:
                console.print(str(error), style="red", markup=False)


def understood(question: str, free: bool = False) -> Problem | None:
    """The problem that a text asks. If it is of no family: None if questions are `free`, else UserError."""
    try:
        return families.solve(question)
    except ValueError as error:
        if free:
            return None
        where = repr(question[:60])
        raise UserError(f"not a question ({error})", where=where, fix="ask for example 12+7*3") from None


def _show(console: Console, question: str, problem: Problem | None, completion: str, finish: Finish) -> None:
    transcript = read(completion, finish)
    console.print(Text(question, style="bold"))
    if transcript.thinking is None or problem is None or problem.formula is None:
        console.print(Text(f"  {completion}"))
    else:
        for step in check_chain(problem.formula, transcript.thinking):
            mark, color = _MARKS[step.verdict]
            reason = f"  ({step.reason})" if step.reason else ""
            console.print(Text.assemble(f"  {mark} ", (step.text, color), (reason, "dim")))
    if problem is None:
        verdict, color = "nobody here knows the right one", "yellow"
    elif is_correct(transcript, problem.answer, problem.judge):
        verdict, color = "right", "green"
    else:
        verdict, color = f"wrong, it is {problem.answer}", "red"
    ending = "" if finish == "stop" else "; cut off at the longest completion"
    said = "no answer" if transcript.answer is None else f"answer {transcript.answer.strip()}"
    console.print(Text.assemble("  ", f"{said}: ", (verdict, color), f" ({transcript.voice} voice{ending})"))
