"""The families of problems, by name. A new family is one file here and one line in `FAMILIES`."""

from typing import Any

from r1_mini.problems.families.base import Arithmetic, Family
from r1_mini.problems.families.countdown import Countdown
from r1_mini.problems.families.expression import Expression
from r1_mini.problems.families.product import Product
from r1_mini.problems.families.sum import Sum
from r1_mini.problems.families.word import Word
from r1_mini.problems.problem import Problem

FAMILIES: dict[str, Family[Any, Any]] = {
    family.name: family for family in (Sum(), Product(), Expression(), Countdown(), Word())
}


def solve(question: str) -> Problem:
    """The problem a question asks: a countdown if it has a target, else of the first arithmetic family that has it.

    ValueError says why it is none.
    """
    if "=" in question:
        return FAMILIES["countdown"].solve(question)
    for family in (family for family in FAMILIES.values() if isinstance(family, Arithmetic)):
        try:
            return family.solve(question)
        except ValueError as error:
            reason = error
    raise reason
