r"""Problems from tables with columns for question and answer: a JSONL file, a folder, or a data set of the Hub.

    problems:
      - {dataset: openai/gsm8k, config: main, extract: gsm8k, judge: amount}
      - {dataset: data/math, question: problem, answer: solution, extract: boxed, judge: latex}
      - {dataset: data/countdown, numbers: nums, target: target, judge: countdown, template: "Make {target} of {nums}."}
      - {jsonl: quiz.jsonl, judge: choice, template: "{question}\n{choices}"}

Where a set has a test split of its own, that is our `test`, and questions that are in both are for the test alone;
else `test` is the tenth that `split_of` says. `dev` is always a tenth of what may teach, by `split_of`, and the rest is
`train`: no base stage can use it, since there is no worked text.
"""

import json
import logging
import random
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from r1_mini.config.base import Strict, wrong
from r1_mini.data.source import Source, known_name
from r1_mini.errors import UserError, nearest, shown
from r1_mini.judges.answers import boxed
from r1_mini.judges.judges import JUDGES
from r1_mini.judges.sandbox import require
from r1_mini.problems.problem import Problem, Split, split_of
from r1_mini.problems.wording import canonical_text

MOST_UNUSABLE = 0.01  # share of unusable rows, above which a table is refused
BUFFER = 10_000  # rows that a streamed set is shuffled among
PROBED = 1000  # rows after which a streamed set may be refused, and problems that stand for the whole of it

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

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands, for messages, and its cells by column."""


class Unusable(Exception):
    """A row that makes no problem; the text says why."""


class Splits(Strict):
    """Which of a data set's own splits are used."""

    train: str | None = "train"
    """What may teach; null is nothing, of a set that is for exams alone."""
    test: str | None = None
    """What is asked in an exam on test; null is `test` where the set has one that does not teach."""


class Table(Source):
    """A table. Nothing is read before a problem is wanted; a process reads a table once."""

    KEYS = ("jsonl", "dataset")

    label: str | None = Field(None, alias="name", min_length=1, max_length=60)
    """What its problems are called in an exam; null is the name of the file or data set."""
    jsonl: str | None = Field(None, min_length=1)
    """Path of a file with a JSON object per line."""
    dataset: str | None = Field(None, min_length=1)
    """Id on the Hub, such as `openai/gsm8k`, or a folder: files for `load_dataset`, or what `save_to_disk` wrote."""
    config: str | None = None
    """Which of the data set's configurations."""
    splits: Splits = Splits()
    streamed: bool = Field(False, alias="stream")
    """True for a set that does not fit into memory: read in order, shuffled among `BUFFER` rows at a time."""
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
    extract: Annotated[str, AfterValidator(lambda name: known_name(name, EXTRACTS))] = "as_is"
    """How the right answer is got out of its column: a key of `EXTRACTS`."""
    judge: Annotated[str, AfterValidator(lambda name: known_name(name, JUDGES.keys() - {"reasoning_gym"}))] = "number"
    """A key of `JUDGES`."""
    limit: int | None = Field(None, ge=1)
    """Read the first so many rows of each split."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.numbers is None) != (self.target is None) or (self.numbers and self.judge != "countdown"):
            raise wrong("`numbers`, `target` and `judge: countdown` belong together", "give all or none", "numbers")
        return self

    @property
    def name(self) -> str:
        path = Path(self.place)
        return self.label or (path.stem if self.jsonl else path.name)

    @property
    def place(self) -> str:
        """What the table is called in messages: its path or id."""
        return self.jsonl or self.dataset or ""

    def listed(self, split: Split) -> Sequence[Problem] | None:
        if self.streamed:
            return None
        return [problem for problem in self._read(split) if not self._excludes(problem)]

    def _stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        """Every problem of the split once, in random order, then again in another."""
        order = [] if self.streamed else self._read(split)
        while True:
            rng.shuffle(order)
            count = 0
            for problem in self._pass(split, rng.getrandbits(31)) if self.streamed else order:
                count += 1
                yield problem
            if not count:
                raise self.exhausted(f"no {split} problem in it")

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        problems: Iterable[Problem] = self._pass(split, seed)
        if not self.streamed:
            problems = self._read(split)
            random.Random(f"exam {split} {seed}").shuffle(problems)
        chosen: dict[str, Problem] = {}
        for problem in problems:
            if (problem.difficulty["depth"] or min_depth) >= min_depth and problem.key not in used:
                chosen.setdefault(problem.key, problem)
                if len(chosen) == n:
                    return list(chosen.values())
        raise self.exhausted(f"{len(chosen)} {split} problems to ask, not {n}")

    def _data_hash(self) -> str:
        """Of a streamed set, the first problems stand for the whole."""
        digest = sha256()
        splits: tuple[Split, ...] = ("train",) if self.streamed else ("train", "dev", "test")
        for split in splits:
            for problem in _first(self) if self.streamed else self._read(split):
                fields = [split, problem.key, problem.question, problem.answer, problem.judge, problem.difficulty]
                digest.update(json.dumps(fields).encode() + b"\n")
        return digest.hexdigest()

    def notes(self) -> Sequence[str]:
        return () if self.streamed else _loaded(self)[1]

    def _read(self, split: Split) -> list[Problem]:
        """Every problem of a split of a table that is not streamed, in the table's order."""
        return list(_loaded(self)[0].get(split, ()))

    def rows(self, seed: int | None = None) -> tuple[Iterable[Row], Iterable[Row] | None]:
        """The rows that are split by the hash, and those of the test split that the set has itself, if any.

        A streamed set comes in the order of a shuffle buffer if there is a seed.
        """
        require(self.judge)
        if self.jsonl is not None:
            return islice(_lines(self.jsonl), self.limit), None
        there = _opened(self.place, self.config, self.streamed)
        teaches, test = self.splits.train, self.splits.test
        if test is None and "test" in there and teaches != "test":
            test = "test"
        for wanted in (teaches, test):
            if wanted is not None and wanted not in there:
                fix = nearest(wanted, there)
                if "test" in there and wanted == "train":
                    fix = "for exams alone write splits: {train: null}"
                raise UserError(f"no split is called '{wanted}'", where=self.place, fix=fix)
        own = None if test is None else self._rows_of(there[test], test, seed)
        return () if teaches is None else self._rows_of(there[teaches], teaches, seed), own

    def _rows_of(self, data: Any, split: str, seed: int | None) -> Iterator[Row]:
        if self.limit is not None:
            data = data.take(self.limit)
        if seed is not None:
            data = data.shuffle(seed=seed, buffer_size=BUFFER)
        for number, cells in enumerate(data, start=1):
            yield f"{self.place}, split {split}, row {number}", cells

    def _pass(self, split: Split, seed: int | None) -> Iterator[Problem]:
        """The problems of a split of a streamed set, once."""
        teaches, own_test = self.rows(seed)
        asks_own = split == "test" and own_test is not None
        reader = _Reader(self)
        for problem in reader.problems((own_test or ()) if asks_own else teaches):
            if asks_own or self.split_for(problem.key, tested=own_test is not None) == split:
                yield problem
        reader.check()

    def split_for(self, key: str, *, tested: bool) -> Split:
        """Where a row that may teach belongs; `tested` says that the table has a test split of its own."""
        split = split_of(key)
        return split if split == "dev" or (split == "test" and not tested) else "train"

    def problem(self, cells: Mapping[str, Any]) -> Problem:
        """The problem of a row; Unusable if it has no question, or an answer that the judge cannot read."""
        if self.template is None:
            question = _text(cells, self.question).strip()
        else:
            question = _COLUMN.sub(lambda column: _text(cells, column[1]), self.template).strip()
        if not question:
            raise Unusable("the question is empty")
        depth = 0
        if self.numbers is not None and self.target is not None:
            given, target = _cell(cells, self.numbers), _cell(cells, self.target)
            numbers = given if isinstance(given, list) and all(isinstance(one, int) for one in given) else []
            gold: str | None = f"{' '.join(map(str, numbers))}={target}"
            key = f"{' '.join(map(str, sorted(numbers)))}={target}"  # as the family's, so that both are in one split
            answer: Any = [given, target]
        else:
            answer = _text(cells, self.answer)
            gold, key = EXTRACTS[self.extract](answer), canonical_text(question)
            depth = answer.count("<<") if self.extract == "gsm8k" else 0
        if gold is None or not _is_readable(gold, self.judge):
            raise Unusable(f"judge '{self.judge}' cannot read the right answer {shown(answer)}")
        return Problem(
            family=self.name,
            question=question,
            answer=gold,
            difficulty={"depth": depth},
            key=key,
            judge=self.judge,
        )


def _cell(cells: Mapping[str, Any], column: str) -> Any:
    if column not in cells:
        raise Unusable(f"no column is called '{column}', {nearest(column, cells)}")
    return cells[column]


def _text(cells: Mapping[str, Any], column: str) -> str:
    """A cell as text: numbers as they are written, options as lines."""
    value = _cell(cells, column)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    labels, texts = "ABCDEFGHIJ", value
    if isinstance(value, dict) and value.keys() == {"label", "text"}:  # ARC's options
        labels, texts = value["label"], value["text"]
    if not isinstance(texts, list) or not texts or len(labels) < len(texts):
        raise Unusable(f"column '{column}' holds {shown(value)}, not text")
    if all(isinstance(item, int | float) for item in texts):
        return str(texts)
    return "\n".join(f"({label}) {text}" for label, text in zip(labels, texts, strict=False))


def _is_readable(gold: str, judge: str) -> bool:
    """Whether the judge understands a right answer: it has to hold it right itself."""
    if judge == "countdown":  # its right answer looks different there: numbers and target, no expression
        return _COUNTDOWN.fullmatch(gold) is not None
    return JUDGES[judge](gold, gold)


@dataclass
class _Reader:
    """Makes problems of rows and counts those that cannot be used; too many of them are refused."""

    table: Table
    rows: int = 0
    unusable: list[str] = field(default_factory=list)

    def problems(self, rows: Iterable[Row]) -> Iterator[Problem]:
        for where, cells in rows:
            self.rows += 1
            try:
                problem = self.table.problem(cells)
            except Unusable as reason:
                self.unusable.append(f"{where}: {reason}")
                if self.table.streamed and self.rows >= PROBED:
                    self.check()
            else:
                yield problem

    def check(self) -> None:
        """Raise UserError if there were no rows, or too many that cannot be used."""
        if not self.rows:
            raise self.table.exhausted("no rows in it")
        if len(self.unusable) > MOST_UNUSABLE * self.rows:
            what = f"{len(self.unusable)} of {self.rows:,} rows cannot be used, the first at {self.unusable[0]}"
            fix = "name other columns, another `extract` or `judge`, or correct the rows"
            raise UserError(what, where=self.table.name, fix=fix)


Loaded = tuple[Mapping[Split, Sequence[Problem]], Sequence[str]]
"""The problems of each split, and the notes."""


def _loaded(table: Table) -> Loaded:
    """Read the table, once in a process for all entries that differ only in their weight and what they exclude."""
    plain = table.model_copy(update={"weight": 1.0})
    plain._excluded = frozenset()
    return _load(plain)


@lru_cache(maxsize=32)
def _load(table: Table) -> Loaded:
    teaches, own_test = table.rows()
    reader = _Reader(table)
    test: dict[str, Problem] = {}
    taught: dict[str, Problem] = {}
    shared = 0
    for problem in reader.problems(own_test or ()):
        test.setdefault(problem.key, problem)
    for problem in reader.problems(teaches):
        if problem.key in test:
            shared += 1
        else:
            taught.setdefault(problem.key, problem)
    reader.check()
    splits: dict[Split, list[Problem]] = {"train": [], "dev": [], "test": list(test.values())}
    for key, problem in taught.items():
        splits[table.split_for(key, tested=own_test is not None)].append(problem)
    notes = []
    if reader.unusable:
        what = f"{len(reader.unusable)} of {reader.rows:,} rows cannot be used and are left out"
        notes.append(f"{table.place}: {what}, the first at {reader.unusable[0]}")
    if repeated := reader.rows - len(reader.unusable) - shared - len(test) - len(taught):
        notes.append(f"{table.place}: {repeated} of {reader.rows:,} rows repeat a question and are left out")
    if shared:
        notes.append(f"{table.place}: {shared} training questions are also in its own test split and are left out")
    return splits, notes


@lru_cache(maxsize=32)
def _first(table: Table) -> Sequence[Problem]:
    """The first training problems of a streamed set."""
    return list(islice(table._pass("train", None), PROBED))


def _lines(path: str) -> Iterator[Row]:
    """The rows of a JSONL file. Not by `datasets`, whose columns have one type: here an answer may be 3 or "three"."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        fix = "give the path of a JSONL file in UTF-8; for a folder write `dataset:`"
        raise UserError(f"cannot be read: {error}", where=path, fix=fix) from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield f"{path}:{number}", dict(json.loads(line).items())
            except (ValueError, RecursionError, AttributeError):
                fix = 'write {"question": …, "answer": …} on each line'
                raise UserError("not a JSON object", where=f"{path}:{number}", fix=fix) from None


@lru_cache(maxsize=32)
def _opened(place: str, config: str | None, streaming: bool) -> Mapping[str, Any]:
    """The splits of a data set by name; UserError in one line whatever goes wrong."""
    import datasets
    from datasets.exceptions import DatasetsError

    path = Path(place).expanduser()
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # retries and progress: what matters is said in one line below
    datasets.disable_progress_bars()
    try:
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            found = datasets.load_from_disk(str(path))
            splits = dict(found) if isinstance(found, dict) else {"train": found}
            return {name: split.to_iterable_dataset() if streaming else split for name, split in splits.items()}
        return dict(datasets.load_dataset(str(path) if path.exists() else place, config, streaming=streaming))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        fix = "give a folder with its files, or an id on the Hub; `config` may be needed, a token in HF_TOKEN where it "
        fix += "is gated, and without a network HF_HOME has to name a cache that holds it"
        raise UserError(f"cannot be loaded: {reason}", where=place, fix=fix) from None
    finally:
        logging.disable(before)
