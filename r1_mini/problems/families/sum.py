"""Sums: a chain of additions and subtractions, worked from the left. `45-29+7`

Not here: what every family offers (`base.py`), and values, keys and steps (`arithmetic.py`).
"""

import random
from typing import Annotated, Literal

from pydantic import Field

from r1_mini.problems.arithmetic import Tree
from r1_mini.problems.families.base import Arithmetic, ArithmeticAxes, Range, upto


class SumAxes(ArithmeticAxes):
    """How long a chain, of how large numbers. The longest question has `LONGEST_TEXT` characters."""

    terms: Range[Annotated[int, Field(ge=2, le=40)]] = (2, 6)
    """How many numbers; each count is equally likely."""
    digits: int = Field(2, ge=1, le=9)
    """The most digits a term may have; every smaller number is as likely."""
    operators: Literal["+-", "+"] = "+-"
    largest: int | None = Field(None, ge=1, le=10**15)
    """Every running total stays within 0..largest; unbounded, also below zero, if not given."""
    carry: bool = False
    """Every step carries or borrows in the ones, the place where small models slip."""


class Sum(Arithmetic[SumAxes]):
    name = "sum"
    axes = SumAxes

    def depths(self, axes: SumAxes) -> range:
        return range(axes.terms[0] - 1, axes.terms[1])

    def attempt(self, rng: random.Random, axes: SumAxes, depth: int) -> "Tree | None":
        """As every family; None if a step did not carry and has to."""
        longest = 10**axes.digits - 1
        bound = axes.largest
        tree: Tree
        tree = total = upto(rng, longest if bound is None else min(longest, bound))
        for _ in range(depth):
            adds = axes.operators == "+" or rng.random() < 0.5
            most = longest if bound is None else bound - total if adds else total
            term = upto(rng, min(longest, most))
            if axes.carry and (total % 10 + term % 10 < 10 if adds else total % 10 >= term % 10):
                return None
            total += term if adds else -term
            tree = ("+" if adds else "-", tree, term)
        return tree

    def has(self, tree: Tree) -> bool:
        if isinstance(tree, int):
            return False
        operator, left, term = tree
        return operator in "+-" and isinstance(term, int) and (isinstance(left, int) or self.has(left))
