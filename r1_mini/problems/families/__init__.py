"""The families of problems, by name. A new family is one file here and one line in `FAMILIES`."""

from typing import Any

from r1_mini.problems.arithmetic import parse
from r1_mini.problems.families.base import Family
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

    ValueError if it is none.
    """
    if "=" in question:
        return Countdown().solve(question)
    tree = parse(question)
    family = next((family for family in (Sum(), Product()) if family.has(tree)), Expression())
    return family.problem(tree)
