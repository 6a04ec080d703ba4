"""What a family of problems offers, and the types that the families' settings share."""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Annotated, Any, Generic, TypeVar

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

    @abstractmethod
    def depths(self, axes: AxesT) -> range:
        """Every depth (number of steps) that the axes allow, ascending."""

    def sketch(self, rng: random.Random, axes: AxesT, depth: int) -> SketchT:
        """Sample a question of this depth; UserError if the axes admit none."""
        for _ in range(TRIES):
            sketch = self.attempt(rng, axes, depth)
            if sketch is not None:
                return sketch
        what = f"no problem of depth {depth} was found in {TRIES:,} tries with {axes!r}"
        raise UserError(what, where=self.name, fix="allow more")

    @abstractmethod
    def attempt(self, rng: random.Random, axes: AxesT, depth: int) -> SketchT | None:
        """Sample a question of this depth; None if the numbers that were sampled first leave none for the rest."""

    @abstractmethod
    def key(self, sketch: SketchT) -> str:
        """Return the canonical form of the question, which decides its split."""

    @abstractmethod
    def inside(self, sketch: SketchT) -> Iterator[str]:
        """Keys of the problems of two or more operations that are solved on the way; never the question's own."""

    @abstractmethod
    def problem(self, sketch: SketchT) -> Problem:
        """Solve the question; ValueError if it is not of this family."""


class Arithmetic(Family[AxesT, Tree]):
    """A family whose questions are expressions, worked by reducing them."""

    restates = True  # whether the restate wording exists

    @abstractmethod
    def has(self, tree: Tree) -> bool:
        """Whether an expression is a question of this family."""

    def measure(self, tree: Tree) -> dict[str, int]:
        """The difficulty of a question."""
        return {"depth": operations(self.worked(tree)), "digits": digits(numbers(tree))}

    def worked(self, tree: Tree) -> Tree:
        """The expression that the worked solution reduces: the question itself, unless the family rewrites it first."""
        return tree

    def key(self, sketch: Tree) -> str:
        return canonical_key(sketch)

    def inside(self, sketch: Tree) -> Iterator[str]:
        key, worked = canonical_key(sketch), self.worked(sketch)
        solved = passed_through(worked) if worked is sketch else chain(passed_through(worked), [worked])
        return (other for other in map(canonical_key, solved) if other != key)

    def problem(self, sketch: Tree) -> Problem:
        """As every family; ValueError also where it divides by zero."""
        if not self.has(sketch):
            raise ValueError(f"{render(sketch)} is not of family {self.name}")
        steps, restated, answer = worked_out(self.worked(sketch))
        return Problem(
            family=self.name,
            question=render(sketch),
            answer=answer,
            steps=steps,
            restated=restated if self.restates else (),
            difficulty=self.measure(sketch),
            key=canonical_key(sketch),
            inside=frozenset(self.inside(sketch)),
            formula=render(sketch),
        )


def solved_on_the_way(formula: Tree, own: Callable[[Tree], str]) -> Iterator[str]:
    """Keys of a formula, its parts and its remainders as expressions, and of all but the formula as `own` has them."""
    passed = list(passed_through(formula))
    whole = [formula] if operations(formula) >= 2 else []
    return chain(map(canonical_key, whole + passed), map(own, passed))


def worked_out(tree: Tree) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Reduce an expression: each operation done, what stands after each, and the value; ValueError if it has none."""
    steps: list[str] = []
    restated: list[str] = []
    while not is_plain(tree):
        operation, result, tree = reduce_once(tree)
        steps.append(f"{render(operation)}={render(result)}")
        restated.append(render(tree))
    return tuple(steps), tuple(restated), render(tree)


def digits(values: Iterable[int]) -> int:
    """How many digits the largest number has, whatever the signs."""
    return len(str(max(map(abs, values))))


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
