"""A suite: the problems of an exam, how many of each kind, and how answers are sampled.

A suite is a YAML file: `problems` is a list of entries, each a family with its axes, a `number`, and where it lies
outside of what models are trained on, the `axis` along which it does. Entries without `axis` are the exam proper.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, model_serializer, model_validator

from eval.analysis.stats import FEW, FEWEST, planned_detectable
from r1_mini.config import yaml_file
from r1_mini.config.base import Seed, Several, Strict, Temperature, explain, wrong
from r1_mini.data.mix import AnySource
from r1_mini.data.source import Exhausted, Source
from r1_mini.data.table import Table
from r1_mini.errors import UserError, nearest
from r1_mini.model.templates import PromptStyle
from r1_mini.problems.problem import Problem, Split
from r1_mini.rollout.params import ROWS, SamplingParams

OWN = "own"
"""The suite of the recipe's own problems, `OWN_NUMBER` in all."""
OWN_NUMBER = 1200
SURFACES = {
    "plain": lambda question: question,
    "spaced": lambda question: "".join(f" {c} " if c in "+-*/" else c for c in question),
    "bracketed": lambda question: f"({question})",
}
"""How a question is written: the same problem, in a form that no training text has."""


class Entry(Strict):
    """One line of a suite's `problems:`, such as `{family: sum, terms: [7, 9], number: 200, axis: more operands}`."""

    spec: AnySource
    number: int = Field(ge=1, le=1_000_000)
    axis: str | None = Field(None, min_length=1, max_length=40)
    """How these problems lie outside the distribution of training; None is inside, and counts in the headline."""
    surface: Literal["plain", "spaced", "bracketed"] = "plain"

    @model_validator(mode="before")
    @classmethod
    def _from_flat(cls, entry: Any) -> Any:
        """In the file, the keys of the source stand next to our own."""
        if not isinstance(entry, Mapping) or "spec" in entry:
            return entry
        own = {key: entry[key] for key in ("number", "axis", "surface") if key in entry}
        return {**own, "spec": {key: value for key, value in entry.items() if key not in own}}

    @model_serializer
    def _to_flat(self) -> dict[str, Any]:
        return {**self.spec.model_dump(), "number": self.number, "axis": self.axis, "surface": self.surface}


class Suite(Strict):
    """One exam: its problems, and how answers are sampled."""

    problems: Several[Entry] = ()
    split: Split = "test"
    min_depth: int = Field(2, ge=1)
    """Fewest operations; a problem of one is also a line inside worked solutions: a fact, not reasoning."""
    samples: int = Field(ge=1, le=10_000)
    """Completions per problem."""
    greedy: bool = True
    """Whether each problem is also answered once at temperature 0."""
    temperature: Temperature = 1.0
    """0 is greedy decoding; all samples would be the same then, so there is one."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(ge=1, le=100_000)
    rows: int = Field(ROWS, ge=1, le=1_000_000)
    """Most completions in progress at once; bounds the memory of the sampler's cache and changes no completion."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype in which every checkpoint is examined, however it was saved."""
    prompt: PromptStyle = "auto"
    """How a model is prompted: by its template, or as R1-Zero prompted base models."""
    seed: Seed = 0
    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """The name of its file."""
        return self._name

    @model_validator(mode="after")
    def _greedy_samples_once(self) -> Self:
        if self.temperature == 0 and self.samples > 1:
            fix = "add samples=1, or in a recipe evaluate.samples=1"
            raise wrong(f"{self.samples} samples at temperature 0 are all alike", fix, "samples")
        return self

    def shows(self, problems: Sequence["ExamProblem"]) -> tuple[bool, str]:
        """Whether the problems without an axis are too few to tell much, and how small a difference they can show."""
        n = sum(each.axis is None for each in problems)
        who, fix = self._asked(n)
        smallest = planned_detectable(n, self.samples)
        what = f"{who} show differences from about {100 * smallest:.1f} points on, four times in five"
        if n < FEWEST:
            what = f"{who} are too few to show any difference"
        return n < FEW, f"{what}; {fix}" if n < FEW else what

    def _asked(self, n: int) -> tuple[str, str]:
        """What the `n` problems are, with the rows that they come from if they are all that tables have; and a fix."""
        tables = [entry.spec for entry in self.problems if isinstance(entry.spec, Table) and not entry.spec.streamed]
        if len(tables) < len(self.problems) or n < sum(len(table.loaded[0][self.split]) for table in tables):
            return f"{n:,} problems", f"ask {FEW} or more"
        if self.split == "test" and (held := tables[0].test):
            return f"{n:,} exam problems from {held}", "give more rows"
        rows = sum(len(problems) for table in tables for split, problems in table.loaded[0].items() if split != "base")
        fix = "name a file for the exam with `test:`, or " * (self.split == "test")
        return f"{n:,} exam problems from {rows:,} rows", f"{fix}give more rows"

    def sampling(self, voice: str | None = None) -> SamplingParams:
        """How the completions are sampled, forced to a voice or not."""
        return SamplingParams(self.samples, self.max_tokens, self.temperature, self.top_p, self.seed, voice, self.rows)

    def greedy_sampling(self, voice: str | None = None) -> SamplingParams | None:
        """How the greedy answers are sampled; None if there are none."""
        if not self.greedy or self.temperature == 0:
            return None
        return replace(self.sampling(voice), n=1, temperature=0.0)


@dataclass(frozen=True, slots=True)
class ExamProblem:
    """A problem of an exam, in the form in which the model reads it."""

    problem: Problem
    axis: str | None


def load_suite(
    name: str,
    *,
    recipe_problems: Sequence[Source] = (),
    families: Iterable[str] | None = None,
    limit: int | None = None,
    where: str = "evaluate.suite",
    **changes: Any,
) -> tuple[Suite, list[ExamProblem]]:
    """The suite of that name, or in the YAML file of that path, and its problems.

    `families` keeps only those, `limit` the first so many problems, evenly from all entries; `changes` that are not
    None replace the suite's own settings. Raises UserError if there is no such suite or there are too few problems.
    """
    packaged = {path.stem: path for path in Path(__file__).with_name("suites").glob("*.yaml")}
    path = Path(name) if Path(name).is_file() else packaged.get(name)
    if path is None:
        raise UserError(f"no suite is called '{name}'", where=where, fix=nearest(name, packaged))
    values = yaml_file.read_mapping(path, "max_tokens")
    values |= {key: value for key, value in changes.items() if value is not None}
    if name == OWN:
        if not recipe_problems:
            raise UserError("`own` has the problems of a recipe", where=where, fix="name another suite, such as quick")
        values["problems"] = _own_entries(recipe_problems, values, limit)
    try:
        suite = Suite.model_validate(values)
    except ValidationError as error:
        raise explain(error, str(path)) from None
    suite._name = path.stem
    if families is not None:
        known = {entry.spec.name for entry in suite.problems}
        for family in sorted(set(families) - known):
            raise UserError(f"the suite has no family '{family}'", where=where, fix=nearest(family, known))
        kept = tuple(entry for entry in suite.problems if entry.spec.name in families)
        suite = suite.model_copy(update={"problems": kept})
    problems = _problems(suite, {"--suite": "limit"}.get(where, where.replace("suite", "limit")))[:limit]
    if (n := sum(each.axis is None for each in problems)) < 2:
        what = "fewer than two problems without an axis, so there is no headline"
        fix = suite._asked(n)[1] if name == OWN else "give an entry without `axis` a `number` of 2 or more"
        raise UserError(what, where=name, fix=fix)
    return suite, problems


def _own_entries(sources: Sequence[Source], suite: Mapping[str, Any], limit: int | None) -> list[dict[str, Any]]:
    """Entries that share `OWN_NUMBER` problems evenly among the sources of a recipe; a table has as many as it has."""
    split, min_depth = suite.get("split", "test"), suite.get("min_depth", 2)
    entries = []
    for source in sources:
        number, listed = math.ceil(min(OWN_NUMBER, limit or OWN_NUMBER) / len(sources)), source.listed(split)
        if listed is not None:
            number = min(number, sum((each.difficulty["depth"] or min_depth) >= min_depth for each in listed))
        entries.append({"spec": source, "number": max(1, number)})  # it is the source that says it has none
    return entries


def _problems(suite: Suite, limit: str) -> list[ExamProblem]:
    """Every problem, entries mixed in proportion, so that the first N are a smaller exam of the same kind.

    UserError if there are too few, with the number that would fit; `limit` is the key that sets that of the suite OWN.
    """
    used: set[str] = set()
    placed: list[tuple[float, ExamProblem]] = []
    for number, entry in enumerate(suite.problems):
        try:
            problems = entry.spec.exam(suite.split, entry.number, suite.seed, suite.min_depth, used)
        except Exhausted as error:
            fits, key = error.found, f"problems.{number}.number"
            if suite.name == OWN:
                fits, key = fits * len(suite.problems), limit
            if fits < 2:
                raise
            raise UserError(error.what, where=suite.name, fix=f"{key}={fits} would fit") from None
        used.update(problem.key for problem in problems)
        for place, problem in enumerate(problems):
            asked = replace(problem, question=SURFACES[entry.surface](problem.question))
            placed.append(((place + 0.5) / len(problems), ExamProblem(asked, entry.axis)))
    return [problem for _, problem in sorted(placed, key=lambda item: item[0])]
