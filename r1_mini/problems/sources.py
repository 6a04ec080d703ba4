"""Where problems come from: an endless stream for training, a fixed list of distinct problems for an exam.

The depth is chosen first, each one equally likely; then problems of that depth are drawn until the split admits one.
Deep problems are rejected more often, because more is solved on their way, and would otherwise be rarer in training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer, model_validator
from pydantic_core import ErrorDetails

from r1_mini.problems.arithmetic import canonical_key
from r1_mini.problems.families import FAMILIES
from r1_mini.problems.families.family import Axes
from r1_mini.problems.problem import Problem, Split, is_held_out, split_of

PATIENCE = 20_000  # draws from one cell without a problem that can be used, before the cell counts as exhausted


class ProblemSpec(BaseModel):
    """One entry of a recipe's `problems:`, such as `{family: sum, terms: [2, 6], digits: 2, weight: 0.98}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    axes: Axes
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How often this entry is drawn, relative to the others."""

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
            raise ValueError(f"unknown family {name!r}; nearest known: {_nearest(name, FAMILIES)}")
        own = {"weight": axes.pop("weight")} if "weight" in axes else {}
        known = FAMILIES[name].axes
        for axis in axes:
            if axis not in known.model_fields:
                near = _nearest(axis, [*known.model_fields, "weight"])
                raise ValueError(f"unknown axis {axis!r} of family {name}; nearest known: {near}")
        try:
            return {"family": name, "axes": known(**axes), **own}
        except ValidationError as error:
            raise ValueError("; ".join(_sentence(detail) for detail in error.errors())) from None

    @model_serializer
    def _to_flat(self) -> dict[str, Any]:
        return {"family": self.family, **self.axes.model_dump(mode="json"), "weight": self.weight}


def _nearest(name: object, known: Iterable[str]) -> str:
    return repr(get_close_matches(str(name), known, n=1, cutoff=0)[0])


def _sentence(detail: ErrorDetails) -> str:
    if "error" in detail.get("ctx", {}):  # one of our own messages, which name the axis
        return str(detail["ctx"]["error"])
    return f"{'.'.join(map(str, detail['loc']))} {detail['input']!r}: {detail['msg']}"


def draw(specs: Sequence[ProblemSpec], split: Split, seed: int | str) -> Iterator[Problem]:
    """An endless stream of a split's problems, the same for the same seed; all but test may teach (`may_teach`)."""
    rng = random.Random(f"{split} {seed}")
    weights = [spec.weight for spec in specs]
    cells = [FAMILIES[spec.family].cells(spec.axes) for spec in specs]
    while True:
        (chosen,) = rng.choices(range(len(specs)), weights)
        yield _draw_one(specs[chosen], rng.choice(cells[chosen]), split, rng)


def exam(
    spec: ProblemSpec, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()
) -> list[Problem]:
    """`n` distinct problems of a split, dealt in turn to each depth from `min_depth`, their keys not in `used`.

    ValueError if a depth has too few.
    """
    rng = random.Random(f"exam {split} {seed}")
    depths = [depth for depth in FAMILIES[spec.family].cells(spec.axes) if depth >= min_depth]
    if not depths:
        raise ValueError(f"no problem of depth {min_depth} or more in {spec.model_dump()}")
    drawn: dict[str, Problem] = {}
    while len(drawn) < n:
        problem = _draw_one(spec, depths[len(drawn) % len(depths)], split, rng, lambda key: key in drawn or key in used)
        drawn[problem.key] = problem
    return list(drawn.values())


def _draw_one(
    spec: ProblemSpec, depth: int, split: Split, rng: random.Random, is_used: Callable[[str], bool] = lambda key: False
) -> Problem:
    """A problem of one cell that belongs to the split and whose key is not used yet."""
    family = FAMILIES[spec.family]
    for _ in range(PATIENCE):
        tree = family.sketch(rng, spec.axes, depth)
        key = canonical_key(tree)
        if split_of(key) != split or is_used(key):
            continue
        if split == "test" or not any(map(is_held_out, family.inside(tree))):  # may_teach, before the costly solution
            return family.problem(tree)
    raise ValueError(
        f"{spec.model_dump()}: no further {split} problem of depth {depth} in {PATIENCE} draws; "
        "ask for fewer problems, larger numbers or less depth"
    )
