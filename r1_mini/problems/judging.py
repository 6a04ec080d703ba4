"""Whether an answer is right: a judge for each form that right answers have.

What a model wrote is hostile: a judge never executes it, never raises, and is bounded in time. What it cannot read is
wrong. A new form is a function here and its lines in `JUDGES` and `VALUES`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from r1_mini.problems.arithmetic import evaluate, numbers, parse, parse_number

Judge = Callable[[str, str], bool]
"""(what was answered, the right answer in the judge's own form) -> whether it is right."""


def same_number(said: str, right: str) -> bool:
    """Exactly the same value, in whatever notation: 3.5, 7/2."""
    value = parse_number(said)
    return value is not None and value == parse_number(right)


class Reached(NamedTuple):
    """What counts of an expression that is to reach a target."""

    numbers: tuple[int, ...]  # those it uses, without their signs, ascending
    value: Fraction


@lru_cache(maxsize=1024)
def parse_countdown(text: str) -> Reached | None:
    """Of an expression of + - * / and parentheses, the numbers and the exact value; None for everything else."""
    try:
        tree = parse(text.strip(" \t\r\n"))
        return Reached(tuple(sorted(map(abs, numbers(tree)))), evaluate(tree))
    except ValueError:
        return None


def same_countdown(said: str, right: str) -> bool:
    """An expression of exactly the same numbers, each as often, and of exactly the same value.

    `right` is such an expression, or the numbers and the target, `44 19 35=98`, where no solution is known.
    """
    goal = _goal(right) if "=" in right else parse_countdown(right)
    return goal is not None and parse_countdown(said) == goal


def _goal(text: str) -> Reached | None:
    """What `44 19 35=98` asks for; None if it is not of this form."""
    given, _, target = text.partition("=")
    value = parse_number(target)
    try:
        return None if value is None else Reached(tuple(sorted(abs(int(number)) for number in given.split())), value)
    except ValueError:
        return None


JUDGES: dict[str, Judge] = {"number": same_number, "countdown": same_countdown}

VALUES: dict[str, Callable[[str], Hashable | None]] = {"number": parse_number, "countdown": parse_countdown}
"""What an answer counts as in a vote, where equal values are one answer; None is no answer.

It is what the judge compares, so one answer is right or wrong as a whole: all solutions of a countdown are one answer.
"""
