r"""Problems from tables with a column for question and answer: `jsonl: PATH` (`jsonl.py`) or `dataset: ID` (`hub.py`).

    problems:
      - {dataset: openai/gsm8k, config: main, extract: gsm8k, judge: amount}
      - {dataset: data/math, question: problem, answer: solution, extract: boxed, judge: latex}
      - {dataset: data/countdown, numbers: nums, target: target, judge: countdown, template: "Make {target} of {nums}."}
      - {jsonl: quiz.jsonl, judge: choice, template: "{question}\n{choices}"}

Where a set has a test split of its own, that is our `test`, and questions that are in both are for the test alone;
else `test` is the tenth that `split_of` says. `dev` is always a tenth of what may teach, by `split_of`, and the rest is
`train`: no base stage can use it, since there is no worked text.
"""

from __future__ import annotations

import json
import random
import re
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from typing import Any, NoReturn, Self

from pydantic import ConfigDict, Field, model_validator

from r1_mini.data.source import Source, nearest_of
from r1_mini.errors import UserError, nearest, shown
from r1_mini.judges.answers import boxed
from r1_mini.judges.judges import JUDGES
from r1_mini.judges.sandbox import PACKAGES, require
from r1_mini.problems.problem import Problem, Split, split_of
from r1_mini.problems.wording import canonical_text

MOST_UNREAD = 0.01  # share of the answers that the judge cannot read, above which a table is refused

_COLUMN = re.compile(r"\{(\w+)\}")
_LAST_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_COUNTDOWN = re.compile(r"-?\d+( -?\d+)*=-?\d+")


def _after_marks(text: str) -> str | None:
    """GSM8K's answer, `#### 1,234` at the end of the solution."""
    _, marks, after = text.rpartition("####")
    return after.strip().replace(",", "") if marks else None


def _last_number(text: str) -> str | None:
    found = _LAST_NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def _letter(text: str) -> str | None:
    """The letter of an option that is given by its place, counted from 0."""
    return "ABCDE"[int(text)] if text in ("0", "1", "2", "3", "4") else None


EXTRACTS: dict[str, Callable[[str], str | None]] = {
    "as_is": str.strip,
    "gsm8k": _after_marks,
    "boxed": boxed,
    "last_number": _last_number,
    "letter": _letter,
}
"""How the right answer is got out of the answer's column; None where it is not there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table and where it stands, for messages."""

    where: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A whole table, read."""

    splits: Mapping[Split, Sequence[Problem]]
    notes: Sequence[str]

    def every(self) -> Iterator[tuple[Split, Problem]]:
        return ((split, problem) for split, problems in self.splits.items() for problem in problems)


class Table(Source):
    """What all tables have in common. Nothing is read before a problem is asked for; a process reads a table once."""

    model_config = ConfigDict(serialize_by_alias=True)

    label: str | None = Field(None, alias="name", min_length=1, max_length=60)
    """What its problems are called in an exam; null is the name of the file or data set."""
    question: str = "question"
    """The column of the question."""
    answer: str = "answer"
    """The column of the right answer."""
    numbers: str | None = None
    """Of Countdown: the column of the numbers that may be used."""
    target: str | None = None
    """Of Countdown: the column of the value to reach."""
    template: str | None = None
    """The question made of several columns, such as `"{question}\\n{choices}"`; null is the question's column.

    A list of texts becomes lines, (A) to (E); a mapping with `label` and `text` likewise.
    """
    extract: str = "as_is"
    """How the right answer is got out of its column: a key of `EXTRACTS`."""
    judge: str = "number"
    """A key of `judging.JUDGES`."""
    limit: int | None = Field(None, ge=1)
    """Read the first so many rows of each split."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        judges = [name for name in JUDGES if name != "reasoning_gym"]
        if self.judge not in judges:
            raise ValueError(f"unknown judge {self.judge!r}; nearest known: {nearest_of(self.judge, judges)}")
        if self.extract not in EXTRACTS:
            raise ValueError(f"unknown extract {self.extract!r}; nearest known: {nearest_of(self.extract, EXTRACTS)}")
        if (self.numbers is None) != (self.target is None):
            raise ValueError("numbers and target belong together; give both columns or none")
        if self.numbers is not None and self.judge != "countdown":
            raise ValueError(f"numbers and target have another judge than {self.judge!r}; set judge: countdown")
        if self.template is not None and not _COLUMN.search(self.template):
            raise ValueError(f"template {self.template!r} names no column; write for example '{{question}}'")
        return self

    @property
    @abstractmethod
    def place(self) -> str:
        """What the table is called in messages: its path or id."""

    @abstractmethod
    def rows(self) -> tuple[Iterable[Row], Iterable[Row] | None]:
        """The rows that are split by the hash, and those of the test split that the table has itself, if any."""

    def draw(self, split: Split, rng: random.Random) -> Problem:
        return rng.choice(self._some(split))

    def stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        """Every problem of the split once, in random order, then again in another."""
        order = list(self._some(split))
        while True:
            rng.shuffle(order)
            yield from order

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        order = list(_loaded(self).splits.get(split, ()))
        random.Random(f"exam {split} {seed}").shuffle(order)
        return self.first(n, order, split, min_depth, used)

    def first(
        self, n: int, problems: Iterable[Problem], split: Split, min_depth: int, used: Container[str]
    ) -> list[Problem]:
        """The first `n` that an exam may ask; ValueError if there are too few."""
        chosen: dict[str, Problem] = {}
        for problem in problems:
            if (problem.difficulty["depth"] or min_depth) >= min_depth and problem.key not in used:
                chosen.setdefault(problem.key, problem)
                if len(chosen) == n:
                    return list(chosen.values())
        raise ValueError(f"{self.place} has {len(chosen)} {split} problems to ask, not {n}; ask for fewer problems")

    def listed(self, split: Split) -> Sequence[Problem] | None:
        return _loaded(self).splits.get(split, ())

    def content_hash(self) -> str:
        return hash_of(self, _loaded(self).every())

    def notes(self) -> Sequence[str]:
        return _loaded(self).notes

    def _some(self, split: Split) -> Sequence[Problem]:
        """All problems of a split that has some."""
        problems = _loaded(self).splits.get(split, ())
        if not problems:
            raise UserError(f"no {split} problem in it", where=self.place, fix="give more rows")
        return problems

    def split_for(self, key: str, *, tested: bool) -> Split:
        """Where a row that may teach belongs; `tested` says that the table has a test split of its own."""
        split = split_of(key)
        return split if split == "dev" or (split == "test" and not tested) else "train"

    def problem(self, row: Row) -> Problem | None:
        """The problem of a row; None if the judge cannot read its right answer. UserError if it has no question."""
        if self.template is None:
            question = self._text(row, self.question).strip()
        else:
            question = _COLUMN.sub(lambda column: self._text(row, column[1]), self.template).strip()
        if not question:
            raise UserError("the question is empty", where=row.where, fix="remove the row")
        depth = 0
        if self.numbers is not None and self.target is not None:
            numbers, target = self._value(row, self.numbers), self._value(row, self.target)
            if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
                return None
            gold: str | None = f"{' '.join(map(str, numbers))}={target}"
            key = f"{' '.join(map(str, sorted(numbers)))}={target}"  # as the family's, so that both fall into one split
        else:
            held = self._text(row, self.answer)
            gold, key = EXTRACTS[self.extract](held), canonical_text(question)
            depth = held.count("<<") if self.extract == "gsm8k" else 0
        if gold is None or not _is_readable(gold, self.judge):
            return None
        return Problem(
            family=self.name,
            question=question,
            answer=gold,
            steps=(),
            restated=(),
            difficulty={"depth": depth},
            key=key,
            inside=frozenset(),
            judge=self.judge,
        )

    def _value(self, row: Row, column: str) -> Any:
        if column not in row.values:
            raise UserError(f"no column is called '{column}'", where=row.where, fix=nearest(column, row.values))
        return row.values[column]

    def _text(self, row: Row, column: str) -> str:
        text = _written(self._value(row, column))
        if text is None:
            what = f"column '{column}' holds {shown(row.values[column])}, not text"
            raise UserError(what, where=row.where, fix="name another column")
        return text

    def refuse_unread(self, unread: Row, count: int, total: int) -> NoReturn:
        """UserError: too many right answers that the judge cannot read."""
        what = (
            f"judge '{self.judge}' cannot read {count} of {total} right answers, the first: {self.shown_answer(unread)}"
        )
        raise UserError(what, where=unread.where, fix="choose another `extract` or `judge`, or correct the rows")

    def shown_answer(self, row: Row) -> str:
        """The right answer of a row as the table has it."""
        columns = (self.answer,) if self.numbers is None or self.target is None else (self.numbers, self.target)
        return ", ".join(shown(row.values[column]) for column in columns)


def _written(value: Any) -> str | None:
    """A cell as text; None if it is nothing that a question or an answer could be."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    labels, texts = "ABCDEFGHIJ", value
    if isinstance(value, dict) and value.keys() == {"label", "text"}:  # ARC's options
        labels, texts = value["label"], value["text"]
    if not isinstance(texts, list) or not texts or len(labels) < len(texts):
        return None
    if all(isinstance(item, int | float) for item in texts):
        return str(texts)
    return "\n".join(f"({label}) {text}" for label, text in zip(labels, texts, strict=False))


def _is_readable(gold: str, judge: str) -> bool:
    """Whether the judge understands a right answer: it has to hold it right itself."""
    if judge == "countdown":  # what is right there looks different: an expression
        return _COUNTDOWN.fullmatch(gold) is not None
    return JUDGES[judge](gold, gold)


def hash_of(table: Table, problems: Iterable[tuple[Split, Problem]]) -> str:
    """Hash, hex, of problems and of the package that judges them."""
    digest = sha256()
    if table.judge in PACKAGES:
        digest.update(version(PACKAGES[table.judge][0]).encode())
    for split, problem in problems:
        fields = [split, problem.key, problem.question, problem.answer, problem.judge, problem.difficulty["depth"]]
        digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()


def _loaded(table: Table) -> Loaded:
    """The table read, once in a process for all entries that differ in nothing but their weight."""
    return _load(table.model_copy(update={"weight": 1.0}))


@lru_cache(maxsize=32)
def _load(table: Table) -> Loaded:
    require(table.judge)
    rest, own_test = table.rows()
    unread: list[Row] = []
    total = repeated = shared = 0
    test: dict[str, Problem] = {}
    taught: dict[str, Problem] = {}
    for rows, into in ((own_test or (), test), (rest, taught)):
        for row in rows:
            total += 1
            problem = table.problem(row)
            if problem is None:
                unread.append(row)
            elif problem.key in test and into is taught:
                shared += 1
            else:
                repeated += problem.key in into
                into.setdefault(problem.key, problem)
    if not total:
        raise UserError("no rows in it", where=table.place, fix="name another file, data set or split")
    if len(unread) > MOST_UNREAD * total:
        table.refuse_unread(unread[0], len(unread), total)
    splits: dict[Split, list[Problem]] = {"train": [], "dev": [], "test": list(test.values())}
    for key, problem in taught.items():
        splits[table.split_for(key, tested=own_test is not None)].append(problem)
    notes = []
    if unread:
        what = f"{len(unread)} of {total:,} rows are left out, whose answer judge '{table.judge}' cannot read"
        notes.append(f"{table.place}: {what}, the first at {unread[0].where}: {table.shown_answer(unread[0])}")
    if repeated:
        notes.append(f"{table.place}: {repeated} of {total:,} rows repeat a question and are left out")
    if shared:
        notes.append(f"{table.place}: {shared} training questions are also in its own test split and are left out")
    return Loaded(splits, notes)
