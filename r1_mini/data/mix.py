"""Where problems come from: an endless stream for training, a fixed list of distinct problems for an exam.

An entry of a recipe's `problems:` names its source: a family of this package, drawn on the spot, for one. Of a family,
the depth is chosen first, each one equally likely; then problems of that depth are drawn until the split admits one.
Deep problems are rejected more often, because more is solved on their way, and would otherwise be rarer in training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationError, model_serializer, model_validator

from r1_mini.data.gym import GymTask
from r1_mini.data.hub import HubTable, StreamedTable
from r1_mini.data.jsonl import JsonlTable
from r1_mini.data.source import PATIENCE, Source, nearest_of, sentence
from r1_mini.errors import shown
from r1_mini.problems.families import FAMILIES
from r1_mini.problems.families.family import Axes
from r1_mini.problems.problem import Problem, Split, is_held_out, split_of


class ProblemSpec(Source):
    """A family of this package, such as `{family: sum, terms: [2, 6], digits: 2, weight: 0.98}`."""

    KEY = "family"
    worked = True

    family: str
    axes: Axes

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, entry: Any) -> Any:
        """The axes stand beside `family` and `weight` in a recipe; they are validated by their family."""
        if not isinstance(entry, Mapping):
            raise ValueError(f"{entry!r}: give a mapping such as {{family: sum, terms: [2, 6]}}")
        if isinstance(entry.get("axes"), Axes):
            return entry
        axes = dict(entry)
        name = axes.pop("family", None)
        if not isinstance(name, str) or name not in FAMILIES:
            raise ValueError(f"unknown family {name!r}; nearest known: {nearest_of(name, FAMILIES)}")
        own = {"weight": axes.pop("weight")} if "weight" in axes else {}
        known = FAMILIES[name].axes
        for axis in axes:
            if axis not in known.model_fields:
                near = nearest_of(axis, [*known.model_fields, "weight"])
                raise ValueError(f"unknown axis {axis!r} of family {name}; nearest known: {near}")
        try:
            return {"family": name, "axes": known(**axes), **own}
        except ValidationError as error:
            raise ValueError("; ".join(sentence(detail) for detail in error.errors())) from None

    @model_serializer
    def _to_flat(self) -> dict[str, Any]:
        return {"family": self.family, **self.axes.model_dump(mode="json"), "weight": self.weight}

    @property
    def name(self) -> str:
        return self.family

    def draw(self, split: Split, rng: random.Random) -> Problem:
        return self._draw_one(rng.choice(FAMILIES[self.family].cells(self.axes)), split, rng)

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        """As every source; the problems are dealt in turn to each depth from `min_depth`."""
        rng = random.Random(f"exam {split} {seed}")
        depths = [depth for depth in FAMILIES[self.family].cells(self.axes) if depth >= min_depth]
        if not depths:
            raise ValueError(f"no problem of depth {min_depth} or more in {self.model_dump()}")
        drawn: dict[str, Problem] = {}
        while len(drawn) < n:
            depth = depths[len(drawn) % len(depths)]
            problem = self._draw_one(depth, split, rng, lambda key: key in drawn or key in used)
            drawn[problem.key] = problem
        return list(drawn.values())

    def _draw_one(
        self, depth: int, split: Split, rng: random.Random, is_used: Callable[[str], bool] = lambda key: False
    ) -> Problem:
        """A problem of one cell that belongs to the split and whose key is not used yet."""
        family = FAMILIES[self.family]
        for _ in range(PATIENCE):
            sketch = family.sketch(rng, self.axes, depth)
            key = family.key(sketch)
            if split_of(key) != split or is_used(key):
                continue
            if split == "test" or not any(map(is_held_out, family.inside(sketch))):  # may_teach, before the solution
                return family.problem(sketch)
        raise ValueError(
            f"{self.model_dump()}: no further {split} problem of depth {depth} in {PATIENCE} draws; "
            "ask for fewer problems, larger numbers or less depth"
        )


SOURCES: tuple[type[Source], ...] = (ProblemSpec, JsonlTable, StreamedTable, HubTable, GymTask)
"""What an entry of `problems:` may be. A new source is a file beside this one and its name here."""


def source_of(entry: Any) -> Source:
    """The source that an entry of `problems:` names; ValueError says what is wrong with it."""
    if isinstance(entry, Source):
        return entry
    keys = entry if isinstance(entry, Mapping) else {}
    kind = next((kind for kind in SOURCES if kind.KEY in keys), None)
    if kind is None:
        names = ", ".join(kind.KEY for kind in SOURCES if kind.KEY in kind.model_fields)
        raise ValueError(f"{shown(entry)} names no source; give one of {names}")
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        raise ValueError("; ".join(sentence(detail) for detail in error.errors())) from None


AnySource = Annotated[Source, PlainValidator(source_of), PlainSerializer(lambda source: source.model_dump(mode="json"))]
"""The type of an entry in a pydantic model."""


def draw(sources: Sequence[Source], split: Split, seed: int | str) -> Iterator[Problem]:
    """An endless stream of a split's problems, the same for the same seed; all but test may teach (`may_teach`)."""
    rng = random.Random(f"{split} {seed}")
    streams = [source.stream(split, rng) for source in sources]
    weights = [source.weight for source in sources]
    while True:
        (chosen,) = rng.choices(streams, weights)
        yield next(chosen)
