"""Countdown: reach a target with all of some numbers, each used once. `19 36 55 7=65`, for one by `55+36-(7+19)`

The task of TinyZero (Pan et al. 2025, github.com/Jiayi-Pan/TinyZero), which small models learned to search for.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from r1_mini.config.base import Strict
from r1_mini.problems.arithmetic import CALCULATE, Tree, canonical_key, evaluate, numbers, render
from r1_mini.problems.families.base import Family, Operators, Range
from r1_mini.problems.problem import Problem

_QUESTION = re.compile(r"\s*([0-9]{1,6}(?:\s+[0-9]{1,6})+)\s*=\s*([0-9]{1,6})\s*", re.ASCII)
_SENTENCE = (
    "Write an expression that equals {target}. Use each of the numbers {numbers} exactly once, and no other number. "
    "You may use + - * / and parentheses. The answer is the expression alone, without what it equals, such as (1+2)*3"
)


class CountdownAxes(Strict):
    """How many numbers, how large they and the target are, and how the question is put."""

    numbers: Range[Annotated[int, Field(ge=2, le=8)]] = (2, 4)
    """How many numbers are given; each count is equally likely."""
    largest_number: int = Field(99, ge=1, lt=10**6)
    """Each given number lies in 1..largest_number, all equally likely."""
    smallest: int = Field(1, ge=1, lt=10**6)
    """The target is at least this."""
    largest: int = Field(99, ge=1, lt=10**6)
    """The target, and every result on the way to it in the solution that is known, is a whole number in 1..largest."""
    operators: Operators = "+-*/"
    """Which operations that solution is made of, each as likely where it can be done; an answer may use all four."""
    wording: Literal["short", "sentence"] = "short"
    """`19 36 55 7=65`, or an instruction in English for models that know it."""


class Hunt(NamedTuple):
    """A countdown with the solution that it was made from."""

    numbers: tuple[int, ...]  # in the order of the question, which tells nothing of the solution
    solution: Tree


class Countdown(Family[CountdownAxes, Hunt]):
    name = "countdown"
    axes = CountdownAxes
    restates = False

    def depths(self, axes: CountdownAxes) -> range:
        return range(axes.numbers[0] - 1, axes.numbers[1])

    def attempt(self, rng: random.Random, axes: CountdownAxes, depth: int) -> Hunt | None:
        given = tuple(rng.randint(1, axes.largest_number) for _ in range(depth + 1))
        solution = _combined(rng, axes, given)
        return None if solution is None else Hunt(given, solution)

    def formula(self, sketch: Hunt) -> Tree:
        return sketch.solution

    def question(self, sketch: Hunt, axes: CountdownAxes) -> str:
        target = evaluate(sketch.solution)
        *others, last = map(str, sketch.numbers)
        if axes.wording == "short":
            return f"{' '.join(others)} {last}={target}"
        return _SENTENCE.format(target=target, numbers=f"{', '.join(others)} and {last}")

    def keys(self, sketch: Hunt, tree: Tree) -> tuple[str, ...]:
        return countdown_key(tree), canonical_key(tree)

    def problem(self, sketch: Hunt, axes: CountdownAxes | None = None) -> Problem:
        """As every family; no exact checker reads the steps of a search, so there is no formula."""
        return replace(super().problem(sketch, axes), answer=render(sketch.solution), judge="countdown", formula=None)

    def solve(self, question: str) -> Problem:
        """Read a question in the short wording; ValueError if it is none. No solution is searched for."""
        match = _QUESTION.fullmatch(question)
        if match is None:
            raise ValueError("a countdown is written as its numbers and the target, such as 19 36 55 7=65")
        given = sorted(map(int, match[1].split()))
        key = f"{' '.join(map(str, given))}={int(match[2])}"
        difficulty = {"depth": len(given) - 1, "digits": len(str(given[-1]))}
        return Problem(
            family=self.name, question=question, answer=key, difficulty=difficulty, key=key, judge="countdown"
        )


def countdown_key(solution: Tree) -> str:
    """The numbers, ascending, and the target."""
    return f"{' '.join(map(str, sorted(numbers(solution))))}={evaluate(solution)}"


def _combined(rng: random.Random, axes: CountdownAxes, given: Sequence[int]) -> "Tree | None":
    """All numbers in one expression, two at a time, each result within the axes; None if it got stuck."""
    standing: list[tuple[int, Tree]] = [(number, number) for number in given]  # values, and how they were made
    while len(standing) > 1:
        least = axes.smallest if len(standing) == 2 else 1
        for operator in rng.sample(axes.operators, len(axes.operators)):
            possible = [
                (result, a, b)
                for a, b in permutations(standing, 2)
                if (result := _result(operator, a[0], b[0])) is not None and least <= result <= axes.largest
            ]
            if possible:
                result, a, b = rng.choice(possible)
                standing.remove(a)
                standing.remove(b)
                standing.append((result, (operator, a[1], b[1])))
                break
        else:
            return None
    return standing[0][1]


def _result(operator: str, a: int, b: int) -> int | None:
    """What one operation on two positive numbers gives; None if that is not whole."""
    if operator != "/":
        return int(CALCULATE[operator](a, b))
    return None if a % b else a // b
