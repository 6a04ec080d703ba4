"""What an exam asks must not be trained on: problems that are the same, or share a long run of words.

Within one source the split by key sees to that. Between sources, and between a data set's own train and test, it does
not: a test question may stand in another table, or in an own train split with a word changed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain

from pydantic import ConfigDict

from r1_mini.data.source import PATIENCE, Source
from r1_mini.errors import UserError, shown
from r1_mini.problems.problem import Problem, Split, is_held_out
from r1_mini.problems.wording import words

RUN = 13
"""Words in a row that make two questions overlap, as in GPT-3's decontamination (2005.14165, appendix C)."""
COMMON = 10
"""A run of words in more questions than this is the data set's manner of speaking, and no overlap (same place)."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What an exam asks: keys, and runs of `RUN` words."""

    keys: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()

    def has(self, problem: Problem) -> bool:
        """Whether the problem, or one that is solved on its way, is asked; or overlaps with one that is."""
        if problem.key in self.keys or not problem.inside.isdisjoint(self.keys):
            return True
        return bool(self.runs) and not self.runs.isdisjoint(runs_of(problem.question))


class Excluding(Source):
    """A source without the problems that an exam asks."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    KEY = "excluding"

    source: Source
    held: HeldOut

    @property
    def name(self) -> str:
        return self.source.name

    def draw(self, split: Split, rng: random.Random) -> Problem:
        return next(self.stream(split, rng))

    def stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        refused = 0
        for problem in self.source.stream(split, rng):
            if self.held.has(problem):
                refused += 1
                if refused > PATIENCE:
                    what = f"an exam asks every {split} problem"
                    raise UserError(what, where=self.name, fix="ask for fewer, or for others")
            else:
                refused = 0
                yield problem

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        return self.source.exam(split, n, seed, min_depth, used)

    def listed(self, split: Split) -> Sequence[Problem] | None:
        problems = self.source.listed(split)
        return None if problems is None else [problem for problem in problems if not self.held.has(problem)]

    def content_hash(self) -> str:
        held = "\n".join([*sorted(self.held.keys), "", *sorted(self.held.runs)])
        return sha256(f"{self.source.content_hash()}\n{held}".encode()).hexdigest()


def runs_of(question: str) -> Iterator[str]:
    """Every run of `RUN` words of a question; of a shorter one none: there the key decides."""
    found = words(question)
    return (" ".join(found[start : start + RUN]) for start in range(len(found) - RUN + 1))


def separated(sources: Sequence[Source], asked: Sequence[Problem]) -> tuple[tuple[Source, ...], list[str]]:
    """The sources without what is asked, and a line on each that had some of it.

    A source that has none comes back as it is. What is drawn on the spot, not listed, is only kept from the keys: its
    questions are all in one manner of speaking.
    """
    kept: list[Source] = []
    lines: list[str] = []
    for source in sources:
        listed = source.listed("train")
        if listed is None:
            loose = frozenset(problem.key for problem in asked if not is_held_out(problem.key))
            kept.append(Excluding(source=source, held=HeldOut(loose), weight=source.weight) if loose else source)
            continue
        keys = frozenset(problem.key for problem in asked)
        same = [problem for problem in listed if problem.key in keys]
        runs = _telling_runs(asked, listed)
        close = HeldOut(runs=runs)
        alike = [problem for problem in listed if problem.key not in keys and close.has(problem)]
        if not same and not alike:
            kept.append(source)
            continue
        dropped = frozenset(problem.key for problem in (*same, *alike))
        kept.append(Excluding(source=source, held=HeldOut(dropped), weight=source.weight))
        found = f"{len(same)} the same, {len(alike)} with {RUN} words in a row the same"
        example = shown((same or alike)[0].question)
        lines.append(
            f"{source.name}: {len(dropped)} of {len(listed):,} training problems are asked in an exam and are left out "
            f"({found}), such as {example}"
        )
    return tuple(kept), lines


def _telling_runs(asked: Iterable[Problem], listed: Iterable[Problem]) -> frozenset[str]:
    """The runs of words that an exam's questions have and few others."""
    held = {run for problem in asked for run in runs_of(problem.question)}
    if not held:
        return frozenset()
    each = (set(runs_of(problem.question)) & held for problem in chain(asked, listed))
    counts = Counter(run for runs in each for run in runs)
    return frozenset(run for run in held if counts[run] <= COMMON)
