"""Problems from tables with columns for question and answer: a JSONL file, a folder, or a data set of the Hub.

A set's own test split is our `test`, and a question in both is for the test alone; without one, `split_of` decides.
`dev` is what `split_of` says of the rest; all else is `train`. If it has solutions, `base` and `sft` stages read those
of `train`. `docs/DATA.md` has examples.
"""

import json
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import islice
from operator import index
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from r1_mini.completion import TAGS, write
from r1_mini.config import packaged
from r1_mini.config.base import Strict, known_name
from r1_mini.data.source import Source
from r1_mini.errors import UserError, explained, nearest, shown
from r1_mini.judges.answers import after_marks, boxed, choice, last_number
from r1_mini.judges.judges import JUDGES, can_read
from r1_mini.judges.sandbox import require
from r1_mini.problems.problem import Problem, Split, split_of
from r1_mini.problems.wording import canonical_text

MOST_UNUSABLE = 0.01  # share of unusable rows, above which a table is refused
BUFFER = 10_000  # rows that a streamed set is shuffled among
PROBED = 1000
"""Problems that stand for the whole of a streamed set; the least rows that its unusable ones are a share of."""

_CALCULATED = re.compile(r"<<[^<>]*>>")
"""GSM8K's marks of what a calculator worked out."""
_COLUMN = re.compile(r"\{(\w+)\}")
_LINES = 'give a file in UTF-8 with {"question": …, "answer": …} on each line; for a folder write `dataset:`'

EXTRACTS: dict[str, Callable[[str], str | None]] = {
    "as_is": str.strip,
    "gsm8k": after_marks,
    "boxed": boxed,
    "last_number": last_number,
    "letter": dict(zip("01234", "ABCDE", strict=True)).get,  # of an option that is given by its place
}
"""How the right answer is got out of the answer's column; None where it is not there."""


class Splits(Strict):
    """Which of a data set's own splits are used."""

    train: str | None = "train"
    """What may teach; null is nothing, of a set that is for exams alone."""
    test: str | None = None
    """What is asked in an exam on test; null is `test` where the set has one that does not teach."""


class Table(Source):
    """A table. Nothing is read before a problem is wanted; what does not stream is read once."""

    KEYS = ("jsonl", "dataset")

    label: str | None = Field(None, alias="name", min_length=1, max_length=60)
    """What its problems are called in an exam; null is the name of the file or data set."""
    jsonl: str | None = Field(None, min_length=1)
    """Path of a file with a JSON object per line, or the name of one that comes with this package."""
    test: str | None = Field(None, min_length=1)
    """Path of a JSONL file with the problems of the exam; null takes the set's own test split, or a tenth."""
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
    solution: str | None = Field(None, min_length=1)
    """The column of a worked solution, for `base` and `sft`: a completion with its tags, or what stands within
    `<think>`; of chats, the assistant's turn. With `extract: gsm8k` it may be that of the answer."""
    numbers: str | None = None
    """Of Countdown: the column of the numbers that may be used."""
    target: str | None = None
    """Of Countdown: the column of the value to reach."""
    template: str | None = None
    """The question made of several columns, such as `"{question}\\n{choices}"`, where a list of texts becomes lines."""
    extract: Annotated[str, AfterValidator(lambda name: known_name(name, EXTRACTS))] = "as_is"
    """How the right answer is got out of its column: a key of `EXTRACTS`."""
    judge: Annotated[str, AfterValidator(lambda name: known_name(name, JUDGES.keys() - {"reasoning_gym"}))] = "number"
    """A key of `JUDGES`."""
    limit: int | None = Field(None, ge=1)
    """Read the first so many rows of each split."""

    @property
    def name(self) -> str:
        return self.label or (Path(self.place).stem if self.jsonl else Path(self.place).name)

    @property
    def place(self) -> str:
        """What the table is called in messages: its path or id."""
        return self.jsonl or self.dataset or ""

    @property
    def worked(self) -> bool:
        return self.solution is not None

    def listed(self, split: Split) -> Sequence[Problem] | None:
        if self.streamed:
            return None
        return [problem for problem in self.loaded[0][split] if not self._excludes(problem)]

    def notes(self) -> Sequence[str]:
        return self.loaded[1]

    def _stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        """Every problem of the split once, in random order, then again in another."""
        order = [] if self.streamed else list(self.loaded[0][split])
        some = True
        while some:
            rng.shuffle(order)
            some = False
            for problem in self._pass(split, rng.getrandbits(31)) if self.streamed else order:
                some = True
                yield problem

    def _candidates(self, split: Split, seed: int) -> Iterable[Problem]:
        if self.streamed:
            return self._pass(split, seed)
        order = list(self.loaded[0][split])
        random.Random(f"exam {split} {seed}").shuffle(order)
        return order

    def _data_hash(self) -> str:
        digest = sha256()
        for split, problems in self.loaded[0].items():
            for problem in problems:
                fields = [split, problem.key, problem.question, problem.answer, problem.judge, problem.difficulty]
                fields += [problem.solution or ""] if self.worked else []
                digest.update(json.dumps(fields).encode() + b"\n")
        return digest.hexdigest()

    def _pass(self, split: Split, seed: int | None) -> Iterator[Problem]:
        """The problems of a split of a streamed set, once, in the order of a shuffle buffer if there is a seed."""
        wanted = "train" if split == "base" and self.worked else split
        return (problem for own, problem in self._read(seed, []) if own == wanted)

    @cached_property
    def loaded(self) -> tuple[Mapping[Split, Sequence[Problem]], Sequence[str]]:
        """The problems of each split and the notes; of a streamed set, the first training problems alone."""
        splits: dict[Split, list[Problem]] = {"base": [], "train": [], "dev": [], "test": []}
        if self.streamed:
            return {**splits, "train": list(islice(self._pass("train", None), PROBED))}, ()
        seen: dict[str, tuple[Split, str, set[str | None]]] = {}
        unusable: list[str] = []
        repeated: Counter[bool] = Counter()  # whether with the same answer
        for split, problem in self._read(None, unusable):
            first, answer, ways = seen.setdefault(problem.key, (split, problem.answer, set()))
            another = split == first == "train" and problem.answer == answer and problem.solution not in ways
            if another or not ways:  # a question that teaches may be worked in several ways
                ways.add(problem.solution)
                splits[split].append(problem)
            else:
                repeated[problem.answer == answer] += 1
        notes = []
        if unusable:
            notes.append(f"left out because they cannot be used: {len(unusable)} rows, the first is {unusable[0]}")
        for same, rows in repeated.items():
            what = "asks the same" if same else "asks the same, with another right answer"
            notes.append(f"{self.place}: left out because the table, or its test split, {what}: {rows} rows")
        if self.worked:
            splits["base"] = splits["train"]
        return splits, notes

    def _read(self, seed: int | None, unusable: list[str]) -> Iterator[tuple[Split, Problem]]:
        """Each problem with its split, those of a test split of the set's own first.

        Adds place and fault of every unusable row to `unusable`; UserError if they are too many.
        """
        parts = self._parts(seed)
        size = PROBED if self.streamed else sum(map(len, parts.values()))
        rows = 0
        for part, data in parts.items():
            file = self.test if part == "test" and self.test else self.jsonl
            where = file or f"{self.place}, split {getattr(self.splits, part) or part}"
            if not self.streamed and not len(data):
                raise UserError("holds no rows", where=where, fix=_LINES if file else "name another set or split")
            for number, cells in enumerate(data, start=1):
                rows += 1
                try:
                    problem = self.problem(cells)
                except (ValueError, TypeError) as reason:
                    unusable.append(f"{where}, row {number}: {reason}")
                    if len(unusable) > MOST_UNUSABLE * max(rows, size):
                        what = f"{len(unusable)} of {rows:,} rows cannot be used, the first at {unusable[0]}"
                        fix = "name other columns, another `extract` or `judge`, or correct the rows"
                        raise UserError(what, where=self.name, fix=fix) from None
                else:
                    split = split_of(problem.key)
                    if part == "test":
                        split = "test"
                    elif split == "base" or (split == "test" and "test" in parts):
                        split = "train"
                    yield split, problem

    def _parts(self, seed: int | None) -> Mapping[str, Any]:
        """The rows of "test", if the set has a test split of its own, and of "train", which teaches and is split."""
        require(self.judge)
        parts: dict[str, Any] = {} if self.test is None else {"test": _json_rows(self.test, None)}
        if self.jsonl is not None:
            return {**parts, "train": _json_rows(str(packaged.data(self.jsonl)), self.limit)}
        there = _opened(self.place, self.config, self.streamed)
        test = "test" if "test" in there and self.splits.train != "test" else None
        for part, own in (("test", None if self.test else self.splits.test or test), ("train", self.splits.train)):
            if own is not None and own not in there:
                raise UserError(f"no split is called '{own}'", where=self.place, fix=nearest(own, there))
            if own is not None:
                data = there[own] if self.limit is None else there[own].take(self.limit)
                parts[part] = data if seed is None else data.shuffle(seed=seed, buffer_size=BUFFER)
        return parts

    def problem(self, cells: Mapping[str, Any]) -> Problem:
        """The problem of a row; ValueError if it has no question, or an answer that the judge cannot read."""
        columns: list[str] = []
        if self.template is None:
            question = _text(cells, self.question, lettered=False).strip()
        else:
            columns = _COLUMN.findall(self.template)
            question = _COLUMN.sub(
                lambda found: str(_cell(cells, found[1])) if found[1] == self.numbers else _text(cells, found[1]),
                self.template,
            ).strip()
        if not question:
            raise ValueError("the question is empty")
        solution = None if self.solution is None else _text(cells, self.solution, role="assistant").strip()
        if solution == "":
            raise ValueError("the solution is empty")
        depth = 0
        if self.numbers is not None and self.target is not None:
            numbers, target = [index(number) for number in _cell(cells, self.numbers)], index(_cell(cells, self.target))
            answer = f"{' '.join(map(str, numbers))}={target}"
            gold: str | None = answer
            key = f"{' '.join(map(str, sorted(numbers)))}={target}"  # as the family's, so that both are in one split
        else:
            if self.answer in cells or solution is None:
                answer = _text(cells, self.answer, lettered=False)
            else:
                answer = solution.rpartition(TAGS[2])[2].partition(TAGS[3])[0]
            gold, key = EXTRACTS[self.extract](answer), canonical_text(question)
            depth = answer.count("<<") if self.extract == "gsm8k" else 0
        if gold is None or not can_read(self.judge, gold):
            in_words = self.judge in ("number", "amount") and re.fullmatch("[a-zA-Z -]+", answer)
            digits = ", write it in digits" if in_words else ""
            raise ValueError(f"judge '{self.judge}' cannot read the right answer {shown(answer)}{digits}")
        for options in (_options(cells[column]) for column in columns if self.judge == "choice"):
            if options is not None and choice(gold) not in options:
                raise ValueError(f"the right answer {gold} is none of the {len(options)} options; places count from 0")
        if solution is not None and TAGS[0] not in solution:
            lines = _CALCULATED.sub("", solution.partition("####")[0] if self.extract == "gsm8k" else solution)
            solution = write(lines.strip().split("\n"), gold)
        return Problem(
            family=self.name,
            question=question,
            answer=gold,
            difficulty={"depth": depth},
            key=key,
            judge=self.judge,
            solution=solution,
        )


def _cell(cells: Mapping[str, Any], column: str) -> Any:
    if column not in cells:
        raise ValueError(f"no column is called '{column}', {nearest(column, cells)}")
    return cells[column]


def _text(cells: Mapping[str, Any], column: str, lettered: bool = True, role: str = "user") -> str:
    """A cell as text: numbers as they are written, options as lines if `lettered`, of a chat its one turn of `role`."""
    value = _cell(cells, column)
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        asked = [turn.get("content") for turn in value if turn.get("role") == role]
        if len(asked) != 1 or not isinstance(asked[0], str) or value[0].get("role") == "system":
            raise ValueError(f"column '{column}' is no chat with one turn of the {role}")
        return asked[0]
    options = _options(value) if lettered else None
    if options is not None:
        return "\n".join(f"({label}) {text}" for label, text in options.items())
    if not isinstance(value, str | int | float):
        raise ValueError(f"column '{column}' holds {shown(value)}, not text")
    return "" if value != value else str(value)  # NaN is how pandas writes an empty cell


def _options(value: Any) -> dict[str, Any] | None:
    """Label -> option of a list of plain values, or of ARC's `{label: […], text: […]}`; None of anything else."""
    labels: Sequence[str] = "ABCDEFGHIJ"[: len(value)] if isinstance(value, list) else ""
    if isinstance(value, dict) and value.keys() == {"label", "text"}:
        value, labels = value["text"], value["label"]
    if not isinstance(value, list) or not all(isinstance(each, str | int | float) for each in value):
        return None
    if len(labels) != len(value):
        raise ValueError(f"{len(value)} options have {len(labels)} labels")
    return dict(zip(labels, value, strict=True))


def _json_rows(path: str, limit: int | None) -> list[dict[str, Any]]:
    """The rows of a JSONL file. Not by `datasets`, whose columns have one type: here an answer may be 3 or "three"."""
    rows, where = [], path
    try:
        if Path(path).exists() and not Path(path).is_file():  # a fifo would wait, /dev/zero would never end
            raise ValueError("not a regular file")
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(islice(file, limit), start=1):
                where = f"{path}:{number}"
                if line.strip():
                    rows.append({**json.loads(line)})
                    if "\\u" in line:  # perhaps a lone surrogate, which is no text
                        json.dumps(rows[-1], ensure_ascii=False).encode()
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"cannot be read: {error}", where=where, fix=_LINES) from None
    return rows


def _opened(place: str, config: str | None, streaming: bool) -> Mapping[str, Any]:
    """The splits of a data set by name; UserError in one line whatever goes wrong."""
    import datasets
    from datasets.exceptions import DatasetGenerationError

    path = Path(place).expanduser()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # what it logs, it raises too
    fix = "give a folder of files, or an id on the Hub; `config`, HF_TOKEN or, offline, HF_HOME may be needed"
    with explained("cannot be loaded", place, fix):
        if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
            found = datasets.load_from_disk(str(path))
            splits = dict(found) if isinstance(found, dict) else {"train": found}
            return {name: split.to_iterable_dataset() if streaming else split for name, split in splits.items()}
        try:
            return dict(datasets.load_dataset(str(path) if path.exists() else place, config, streaming=streaming))
        except DatasetGenerationError as error:  # only its cause says what is wrong
            raise error.__cause__ or error from None
