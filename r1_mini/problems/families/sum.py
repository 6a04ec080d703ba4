"""Sums: a chain of additions and subtractions, worked from the left. `45-29+7`"""

from __future__ import annotations

import random
from typing import Annotated, Literal

from pydantic import model_validator

from r1_mini.problems.arithmetic import LONGEST_TEXT, Tree, render
from r1_mini.problems.families.family import Arithmetic, Axes, Range, Whole, upto, within

TRIES = 10_000  # failed attempts before the axes count as impossible


class SumAxes(Axes):
    """How long a chain, of how large numbers."""

    terms: Annotated[Range, within(2, 100)] = (2, 6)
    """How many numbers; each count is equally likely."""
    digits: Annotated[Whole, within(1, 15)] = 2
    """The most digits a term may have; every smaller number is as likely."""
    operators: Literal["+-", "+"] = "+-"
    largest: Annotated[Whole, within(1, 10**15)] | None = None
    """Every running total stays within 0..largest; unbounded, also below zero, if not given."""
    carry: bool = False
    """Every step carries or borrows in the ones, the place where small models slip."""

    @model_validator(mode="after")
    def _fits_in_a_question(self) -> SumAxes:
        if self.terms[1] * (self.digits + 1) > LONGEST_TEXT:
            raise ValueError(
                f"terms {self.terms[1]} of {self.digits} digits: a question may have {LONGEST_TEXT} characters"
            )
        return self


class Sum(Arithmetic[SumAxes]):
    name = "sum"
    axes = SumAxes

    def cells(self, axes: SumAxes) -> list[int]:
        return list(range(axes.terms[0] - 1, axes.terms[1]))

    def sketch(self, rng: random.Random, axes: SumAxes, depth: int) -> Tree:
        for _ in range(TRIES):
            tree = _chain(rng, axes, depth)
            if tree is not None:
                return tree
        raise ValueError(f"no sum of {depth + 1} terms was found in {TRIES} tries: {axes!r}; allow more")

    def measure(self, tree: Tree) -> dict[str, int]:
        terms = []
        rest = tree
        while not isinstance(rest, int):
            operator, rest, term = rest
            if operator not in "+-" or not isinstance(term, int):
                raise ValueError(f"{render(tree)} is no chain of + and -")
            terms.append(term)
        if not terms:
            raise ValueError(f"{rest} has nothing to add or subtract")
        return {"depth": len(terms), "digits": len(str(max(map(abs, [rest, *terms]))))}


def _chain(rng: random.Random, axes: SumAxes, depth: int) -> Tree | None:
    """A sum of `depth` steps within the axes; None if a step did not carry and has to."""
    longest = 10**axes.digits - 1
    bound = axes.largest
    tree: Tree
    tree = total = upto(rng, longest if bound is None else min(longest, bound))
    for _ in range(depth):
        adds = axes.operators == "+" or rng.random() < 0.5
        room = longest if bound is None else bound - total if adds else total
        term = upto(rng, min(longest, room))
        if axes.carry and (total % 10 + term % 10 < 10 if adds else total % 10 >= term % 10):
            return None
        total += term if adds else -term
        tree = ("+" if adds else "-", tree, term)
    return tree
