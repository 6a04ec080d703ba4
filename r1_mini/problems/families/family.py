"""What every family of problems offers, and the pieces their settings share."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict, ValidationInfo

from r1_mini.problems.arithmetic import RANK, Tree, canonical_key, is_plain, parse, passed_through, reduce_once, render
from r1_mini.problems.problem import Problem


class Axes(BaseModel):
    """A family's axes of difficulty: frozen, and an unknown axis is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AxesT = TypeVar("AxesT", bound=Axes)
SketchT = TypeVar("SketchT")


class Family(ABC, Generic[AxesT, SketchT]):
    """A kind of problem: which questions there are, how hard each is, and how it is worked.

    A sketch is a question that is not yet solved.
    """

    name: str
    axes: type[AxesT]

    @abstractmethod
    def cells(self, axes: AxesT) -> list[int]:
        """The depths (number of steps) that these axes can yield, ascending."""

    @abstractmethod
    def sketch(self, rng: random.Random, axes: AxesT, depth: int) -> SketchT:
        """A random question of this depth."""

    @abstractmethod
    def key(self, sketch: SketchT) -> str:
        """The canonical form of the question, which decides its split."""

    @abstractmethod
    def inside(self, sketch: SketchT) -> Iterator[str]:
        """Keys of the problems of two or more operations that are solved on the way; never the question's own."""

    @abstractmethod
    def problem(self, sketch: SketchT) -> Problem:
        """The question with its worked solution; ValueError if it is not of this family."""

    def solve(self, question: str) -> Problem:
        """The problem that a text asks; ValueError says why it is none of this family."""
        raise ValueError(f"a question of family {self.name} is not read from text")

    def draw(self, rng: random.Random, axes: AxesT, depth: int | None = None) -> Problem:
        """A random problem; every depth that the axes allow is equally likely unless one is given."""
        return self.problem(self.sketch(rng, axes, rng.choice(self.cells(axes)) if depth is None else depth))


class Arithmetic(Family[AxesT, Tree]):
    """A family whose questions are expressions, worked by reducing them."""

    restates = True  # whether the restate wording exists

    @abstractmethod
    def measure(self, tree: Tree) -> dict[str, int]:
        """The difficulty of a question, "depth" first; ValueError if it is not of this family."""

    def worked(self, tree: Tree) -> Tree:
        """The expression that the worked solution reduces: the question itself, unless the family spreads it first."""
        return tree

    def key(self, sketch: Tree) -> str:
        return canonical_key(sketch)

    def inside(self, sketch: Tree) -> Iterator[str]:
        key, worked = canonical_key(sketch), self.worked(sketch)
        parts = passed_through(worked) if worked is sketch else chain(passed_through(worked), [worked])
        return (part for part in map(canonical_key, parts) if part != key)

    def problem(self, sketch: Tree) -> Problem:
        """As every family; ValueError also where it divides by zero."""
        difficulty = self.measure(sketch)
        steps, restated, answer = worked_out(self.worked(sketch))
        return Problem(
            family=self.name,
            question=render(sketch),
            answer=answer,
            steps=steps,
            restated=restated if self.restates else (),
            difficulty=difficulty,
            key=canonical_key(sketch),
            inside=frozenset(self.inside(sketch)),
            formula=render(sketch),
        )

    def solve(self, question: str) -> Problem:
        return self.problem(parse(question))


def worked_out(tree: Tree) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """The reductions of an expression, each as the operation done and as what stands after it; and its value.

    ValueError where it divides by zero.
    """
    steps: list[str] = []
    restated: list[str] = []
    while not is_plain(tree):
        operation, result, tree = reduce_once(tree)
        steps.append(f"{render(operation)}={render(result)}")
        restated.append(render(tree))
    return tuple(steps), tuple(restated), render(tree)


def _as_pair(value: Any, info: ValidationInfo) -> tuple[int, int]:
    low, high = value if isinstance(value, (list, tuple)) and len(value) == 2 else (value, value)
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int):
            raise ValueError(f"{info.field_name} {value!r}: give a whole number or a pair of them, like [2, 6]")
    return low, high


def _in_order(value: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError(f"{info.field_name} {list(value)}: the first is larger than the second")
    return value


def _are_operators(operators: str) -> str:
    if not operators or set(operators) - set(RANK) or len(set(operators)) < len(operators):
        raise ValueError(f"operators {operators!r}: give some of + - * /, each once")
    return operators


def within(lowest: int, highest: int) -> AfterValidator:
    """Bounds for an axis that is a whole number or a pair of them."""

    def check(value: Any, info: ValidationInfo) -> Any:
        for number in value if isinstance(value, tuple) else (value,):
            if not lowest <= number <= highest:
                raise ValueError(f"{info.field_name} {number}: must lie between {lowest} and {highest}")
        return value

    return AfterValidator(check)


Whole = Annotated[int, Strict()]  # a whole number; true and "3" are not
Operators = Annotated[str, AfterValidator(_are_operators)]  # some of + - * /
Pair = Annotated[tuple[int, int], BeforeValidator(_as_pair)]  # a number n stands for [n, n]
Range = Annotated[Pair, AfterValidator(_in_order)]  # from the first to the second, both included


def upto(rng: random.Random, most: int) -> int:
    """A number in 0..most; several times faster than `randint`, and drawn for every term of every problem."""
    return int(rng.random() * (most + 1))
