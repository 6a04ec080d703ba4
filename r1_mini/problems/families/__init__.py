"""The families of problems, by name. A new family is one file here and one line in `FAMILIES`."""

from __future__ import annotations

from typing import Any

from r1_mini.problems.families.expression import Expression
from r1_mini.problems.families.family import Family
from r1_mini.problems.families.product import Product
from r1_mini.problems.families.sum import Sum
from r1_mini.problems.problem import Problem

FAMILIES: dict[str, Family[Any, Any]] = {family.name: family for family in (Sum(), Product(), Expression())}


def solve(question: str) -> Problem:
    """The problem a question asks, in the first family that has it; ValueError says why none does."""
    for family in FAMILIES.values():
        try:
            return family.solve(question)
        except ValueError as error:
            reason = error
    raise reason
