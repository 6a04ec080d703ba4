"""Expressions with standard precedence and parentheses, exact at every step. `45-29+(38-7)`"""

import random
from itertools import accumulate
from typing import Annotated

from pydantic import Field

from r1_mini.problems.arithmetic import DEEPEST_NESTING, Tree, divisors, render
from r1_mini.problems.families.base import Arithmetic, ArithmeticAxes, Operators, Range, upto


class ExpressionAxes(ArithmeticAxes):
    """How many operations of which kinds, how deeply nested, on how large numbers."""

    depth: Range[Annotated[int, Field(ge=1, le=40)]] = (1, 5)
    """How many operations; each count is equally likely."""
    digits: int = Field(2, ge=1, le=6)
    """The most digits a number in the question may have."""
    operators: Operators = "+-*/"
    """Which operations occur."""
    nesting: int = Field(2, ge=0, le=DEEPEST_NESTING)
    """The most parentheses inside parentheses; 0 is none at all."""
    largest: int = Field(99, ge=1, le=10**6)
    """Every intermediate value is a whole number in 0..largest."""


class Expression(Arithmetic[ExpressionAxes]):
    name = "expression"
    axes = ExpressionAxes

    def depths(self, axes: ExpressionAxes) -> range:
        return range(axes.depth[0], axes.depth[1] + 1)

    def attempt(self, rng: random.Random, axes: ExpressionAxes, depth: int) -> "Tree | None":
        return _grow(rng, axes, upto(rng, axes.largest), depth, axes.nesting, bare=axes.operators)

    def has(self, tree: Tree) -> bool:
        return not isinstance(tree, int)

    def measure(self, sketch: Tree) -> dict[str, int]:
        open_after = accumulate((letter == "(") - (letter == ")") for letter in render(sketch))
        return super().measure(sketch) | {"nesting": max(open_after)}


def _grow(rng: random.Random, axes: ExpressionAxes, value: int, depth: int, nesting: int, bare: str) -> "Tree | None":
    """A tree of `depth` operations worth `value`, from the top down; None if it got stuck.

    `bare` are the operators that need no parentheses in this place; any other one costs a level of `nesting`.
    """
    if depth == 0:
        return value
    usable = axes.operators if nesting else bare
    for operator in rng.sample(usable, len(usable)):
        if operator in "+-" and "+" in usable and "-" in usable:
            # each as often as it has pairs of operands: with + at every value, numbers would dwindle to 0 with depth
            operator = "+" if upto(rng, axes.largest + 1) <= value else "-"
        tight = axes.operators.replace("+", "").replace("-", "")
        bare_left, bare_right = (axes.operators, tight) if operator in "+-" else (tight, "")
        inner = nesting if operator in bare else nesting - 1
        left_depth = upto(rng, depth - 1) if inner or bare_right else depth - 1
        right_depth = depth - 1 - left_depth
        number = min(10**axes.digits - 1, axes.largest)
        most_left, most_right = axes.largest if left_depth else number, axes.largest if right_depth else number
        operands = _operands(rng, operator, value, most_left, most_right)
        if operands is not None:
            left = _grow(rng, axes, operands[0], left_depth, inner, bare_left)
            right = _grow(rng, axes, operands[1], right_depth, inner, bare_right)
            return None if left is None or right is None else (operator, left, right)
    return None


def _operands(rng: random.Random, operator: str, value: int, most_left: int, most_right: int) -> tuple[int, int] | None:
    """Two numbers within their bounds that make `value`; None if only 1 could multiply or divide, or nothing fits."""
    if operator == "+":
        least, most = max(0, value - most_right), min(value, most_left)
        left = least + upto(rng, most - least)
        return (left, value - left) if least <= most else None
    if operator == "-":
        most = min(most_left - value, most_right)
        right = upto(rng, most)
        return (value + right, right) if most >= 0 else None
    if operator == "*":
        if value == 0:
            return (0, upto(rng, most_right)) if rng.random() < 0.5 else (upto(rng, most_left), 0)
        fitting = [a for a in divisors(value) if a <= most_left and value // a <= most_right]
        if len(divisors(value)) < 3 or not fitting:
            return None
        left = fitting[upto(rng, len(fitting) - 1)]
        return left, value // left
    most = min(most_left // value, most_right) if value else most_right
    right = 1 + upto(rng, most - 1)
    return (value * right, right) if most >= 2 else None
