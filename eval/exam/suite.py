"""A suite: which problems are asked, how often, and how answers are drawn.

A suite is a YAML file: `problems` is a list of entries, each a family with its axes, a `number`, and where it lies
outside of what models are trained on, the `axis` along which it does. Entries without `axis` are the exam proper.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, model_serializer, model_validator

from r1_mini.config import yaml_file as settings_file
from r1_mini.data.mix import AnySource
from r1_mini.data.source import Source
from r1_mini.errors import UserError, nearest
from r1_mini.model.prompts import PromptStyle
from r1_mini.problems.problem import Problem, Split
from r1_mini.rollout.engine import ROWS

OWN = "own"
"""The suite whose problems are those of the recipe, `OWN_NUMBER` in all."""
OWN_NUMBER = 1200
SURFACES = {
    "plain": lambda question: question,
    "spaced": lambda question: "".join(f" {c} " if c in "+-*/" else c for c in question),
    "bracketed": lambda question: f"({question})",
}
"""How a question is written: the same problem, in a form that no training text has."""


class Entry(BaseModel):
    """One line of a suite's `problems:`, such as `{family: sum, terms: [7, 9], number: 200, axis: more operands}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: AnySource
    number: int = Field(ge=1, strict=True)
    axis: str | None = Field(None, min_length=1, max_length=40)
    """How these problems lie outside the distribution of training; None is inside, and counts in the headline."""
    surface: Literal["plain", "spaced", "bracketed"] = "plain"

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, entry: Any) -> Any:
        """The family and its axes stand beside our own keys."""
        if not isinstance(entry, Mapping) or "spec" in entry:
            return entry
        own = {key: entry[key] for key in ("number", "axis", "surface") if key in entry}
        return {**own, "spec": {key: value for key, value in entry.items() if key not in own}}

    @model_serializer
    def _to_flat(self) -> dict[str, Any]:
        return {**self.spec.model_dump(), "number": self.number, "axis": self.axis, "surface": self.surface}


class Suite(BaseModel):
    """One exam: what is asked, and how answers are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    problems: Annotated[tuple[Entry, ...], Strict(False)] = ()
    split: Split = "test"
    min_depth: int = Field(2, ge=1)
    """Fewest operations; a problem of one is also a line inside worked solutions: a fact, not reasoning."""
    samples: int = Field(ge=1)
    """Completions per problem."""
    greedy: bool = True
    """Whether each problem is also answered once at temperature 0."""
    temperature: float = Field(1.0, ge=0)
    """0 is greedy decoding; all samples would be alike then, so there is one."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(ge=1)
    rows: int = Field(ROWS, ge=1, le=1_000_000)
    """Most completions in work at once; bounds the memory of the sampler's cache."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of every checkpoint that is examined, however it was saved."""
    prompt: PromptStyle = "auto"
    """How a model with a tokenizer that is not ours is asked."""
    seed: int = 0

    @model_validator(mode="after")
    def _greedy_samples_once(self) -> Suite:
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(f"{self.samples} samples at temperature 0 are all alike; set samples to 1")
        return self


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem of an exam, in the form in which it is asked."""

    problem: Problem
    axis: str | None

    @property
    def depth(self) -> int:
        return self.problem.difficulty["depth"]


def load_suite(
    name: str,
    *,
    recipe_problems: Sequence[Source] = (),
    families: Iterable[str] | None = None,
    limit: int | None = None,
    where: str = "evaluate.suite",
    **changes: Any,
) -> tuple[Suite, list[Asked]]:
    """The suite of that name, or in the YAML file of that path, and its problems.

    `families` keeps those alone, `limit` the first so many, evenly from all entries; `changes` that are not None take
    the place of the suite's own settings. UserError if there is no such suite or its cells hold too few problems.
    """
    path, values = _read(name, where)
    values |= {key: value for key, value in changes.items() if value is not None}
    if "name" in values:
        raise UserError("a suite has the name of its file", where=str(path), fix="remove `name`")
    if name == OWN:
        if not recipe_problems:
            raise UserError(
                f"suite '{OWN}' asks a recipe's problems, and there are none", where=where, fix="name another"
            )
        share = -(-min(OWN_NUMBER, limit or OWN_NUMBER) // len(recipe_problems))
        split, least = values.get("split", "test"), values.get("min_depth", 2)
        numbers = [min(share, _room(spec, split, least)) for spec in recipe_problems]
        values["problems"] = [
            {**spec.model_dump(), "number": number} for spec, number in zip(recipe_problems, numbers, strict=True)
        ]
    try:
        suite = Suite(name=path.stem, **values)
    except ValidationError as error:
        raise UserError(_explained(error), where=str(path), fix="correct the suite") from None
    if not suite.problems:
        raise UserError("the suite asks nothing", where=str(path), fix="add `problems`")
    if families is not None:
        known = {entry.spec.name for entry in suite.problems}
        for family in families:
            if family not in known:
                raise UserError(f"the suite has no family '{family}'", where=where, fix=nearest(family, known))
        suite = suite.model_copy(
            update={"problems": tuple(entry for entry in suite.problems if entry.spec.name in families)}
        )
    try:
        asked = _drawn(suite)[:limit]
    except ValueError as error:
        raise UserError(str(error), where=str(path), fix="ask for fewer, or widen the axes") from None
    if sum(each.axis is None for each in asked) < 2:
        what = "fewer than two problems without an axis, so there is no headline"
        raise UserError(what, where=str(path), fix="ask more, or add some without `axis`")
    return suite, asked


def _read(name: str, where: str) -> tuple[Path, dict[str, Any]]:
    """Where the suite stands and what it says."""
    if name.endswith((".yaml", ".yml")):
        return Path(name), settings_file.read_mapping(Path(name))
    folder = files("eval.exam") / "suites"
    known = [entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    if name not in known:
        raise UserError(f"no suite is called '{name}'", where=where, fix=nearest(name, known))
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    return Path(f"{name}.yaml"), settings_file.parse(text, f"{name}.yaml")


def _room(source: Source, split: Split, min_depth: int) -> int:
    """How many problems of a split a source can ask; at least one, so that it is the source that says there is none."""
    listed = source.listed(split)
    if listed is None:
        return OWN_NUMBER
    return max(1, sum((problem.difficulty["depth"] or min_depth) >= min_depth for problem in listed))


def _drawn(suite: Suite) -> list[Asked]:
    """Every problem, entries mixed in proportion, so that the first N are a smaller exam of the same kind."""
    used: set[str] = set()
    placed: list[tuple[float, int, Asked]] = []
    for index, entry in enumerate(suite.problems):
        drawn = entry.spec.exam(suite.split, entry.number, suite.seed, suite.min_depth, used)
        used.update(problem.key for problem in drawn)
        for place, problem in enumerate(drawn):
            asked = Asked(replace(problem, question=SURFACES[entry.surface](problem.question)), entry.axis)
            placed.append(((place + 0.5) / len(drawn), index, asked))
    placed.sort(key=lambda item: item[:2])
    return [asked for _, _, asked in placed]


def _explained(error: ValidationError) -> str:
    """The first thing that is wrong, with its key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = str(first.get("ctx", {}).get("error", first["msg"]))
    return f"{key}: {message}"
