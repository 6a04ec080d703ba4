"""What a family of problems offers, and the types that the families' settings share."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Generic, Literal, TypeVar

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from r1_mini.config.base import Strict, wrong
from r1_mini.errors import UserError
from r1_mini.problems.arithmetic import (
    Tree,
    canonical_key,
    is_plain,
    numbers,
    operations,
    passed_through,
    reduce_once,
    render,
)
from r1_mini.problems.problem import Problem

AxesT = TypeVar("AxesT", bound=Strict)
SketchT = TypeVar("SketchT")
T = TypeVar("T")

TRIES = 10_000
"""Failed attempts before the axes count as impossible."""


class Family(ABC, Generic[AxesT, SketchT]):
    """A kind of problem. A sketch is a question that is not yet solved: most sketches belong to another split."""

    name: str
    axes: type[AxesT]
    """The settings of its difficulty."""
    restates = True  # whether the restate wording exists

    @abstractmethod
    def depths(self, axes: AxesT) -> range:
        """Every depth (number of steps) that the axes allow, ascending."""

    @abstractmethod
    def attempt(self, rng: random.Random, axes: AxesT, depth: int) -> SketchT | None:
        """Sample a question of this depth; None if the numbers that were sampled first leave none for the rest."""

    @abstractmethod
    def formula(self, sketch: SketchT) -> Tree:
        """The expression that the question means."""

    @abstractmethod
    def question(self, sketch: SketchT, axes: AxesT) -> str:
        """The text of the question."""

    @abstractmethod
    def keys(self, sketch: SketchT, tree: Tree) -> tuple[str, ...]:
        """What a tree solves, if this question asks for it: the canonical form of that question first."""

    def worked(self, formula: Tree) -> Tree:
        """The expression that the worked solution reduces: the formula, unless the family rewrites it first."""
        return formula

    def measure(self, sketch: SketchT) -> dict[str, int]:
        """The difficulty of a question."""
        formula = self.formula(sketch)
        return {"depth": operations(self.worked(formula)), "digits": len(str(max(map(abs, numbers(formula)))))}

    def sketch(self, rng: random.Random, axes: AxesT, depth: int) -> SketchT:
        """Sample a question of this depth; UserError if the axes admit none."""
        for _ in range(TRIES):
            sketch = self.attempt(rng, axes, depth)
            if sketch is not None:
                return sketch
        what = f"no problem of depth {depth} was found in {TRIES:,} tries with {axes!r}"
        raise UserError(what, where=self.name, fix="allow more")

    def key(self, sketch: SketchT) -> str:
        """The canonical form of the question, which decides its split."""
        return self.keys(sketch, self.formula(sketch))[0]

    def inside(self, sketch: SketchT) -> Iterator[str]:
        """Keys of the problems of two or more operations that are solved on the way; never the question's own."""
        own, worked = self.key(sketch), self.worked(self.formula(sketch))
        solved = chain(passed_through(worked), [worked] if operations(worked) >= 2 else [])
        return (key for tree in solved for key in self.keys(sketch, tree) if key != own)

    def problem(self, sketch: SketchT, axes: AxesT | None = None) -> Problem:
        """Solve the question, in the wording of its axes; ValueError if it divides by zero."""
        formula = self.formula(sketch)
        steps, restated, answer = worked_out(self.worked(formula))
        return Problem(
            family=self.name,
            question=self.question(sketch, axes or self.axes()),
            answer=answer,
            steps=steps,
            restated=restated if self.restates else (),
            difficulty=self.measure(sketch),
            key=self.key(sketch),
            inside=frozenset(self.inside(sketch)),
            formula=render(formula),
        )


SENTENCE = "What is {}?"


class ArithmeticAxes(Strict):
    """How an expression is put as a question."""

    wording: Literal["short", "sentence"] = "short"
    """`12+7-3`, or `What is 12+7-3?` for models that know English."""


ArithmeticT = TypeVar("ArithmeticT", bound=ArithmeticAxes)


class Arithmetic(Family[ArithmeticT, Tree]):
    """A family whose questions are expressions, and their own formulas."""

    @abstractmethod
    def has(self, tree: Tree) -> bool:
        """Whether an expression is a question of this family."""

    def formula(self, sketch: Tree) -> Tree:
        return sketch

    def question(self, sketch: Tree, axes: ArithmeticT) -> str:
        return render(sketch) if axes.wording == "short" else SENTENCE.format(render(sketch))

    def keys(self, sketch: Tree, tree: Tree) -> tuple[str, ...]:
        return (canonical_key(tree),)

    def problem(self, sketch: Tree, axes: ArithmeticT | None = None) -> Problem:
        """As every family; ValueError also if the expression is not of this one."""
        if not self.has(sketch):
            raise ValueError(f"{render(sketch)} is not of family {self.name}")
        return super().problem(sketch, axes)


def worked_out(tree: Tree) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Reduce an expression: each operation done, what stands after each, and the value; ValueError if it has none."""
    steps: list[str] = []
    restated: list[str] = []
    while not is_plain(tree):
        operation, result, tree = reduce_once(tree)
        steps.append(f"{render(operation)}={render(result)}")
        restated.append(render(tree))
    return tuple(steps), tuple(restated), render(tree)


def upto(rng: random.Random, most: int) -> int:
    """Sample from 0..most: several times faster than `randint`, and called for every number of every problem."""
    return int(rng.random() * (most + 1))


def _twice(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


def _ascending(pair: tuple[int, int]) -> tuple[int, int]:
    if pair[0] > pair[1]:
        raise wrong(f"{list(pair)}: the first is larger than the second", "swap them")
    return pair


Pair = Annotated[tuple[T, T], pydantic.Strict(False), BeforeValidator(_twice)]
"""Two values, [2, 6]; a number n stands for [n, n]."""
Range = Annotated[tuple[T, T], pydantic.Strict(False), BeforeValidator(_twice), AfterValidator(_ascending)]
"""From the first value to the second, both included; a number n stands for [n, n]."""
Operators = Annotated[str, Field(pattern=r"^[-+*/]+$")]
"""Some of + - * /."""
