"""What a `collect` stage kept, as a source of solutions for `sft`. The stage itself is `train/collect.py`."""

import random
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import PrivateAttr

from r1_mini.data.source import Source
from r1_mini.problems.problem import Problem, Split
from r1_mini.system.files import read_jsonl

FILE = "data.jsonl"
FIELDS = ("family", "question", "answer", "key", "judge", "formula", "difficulty")
"""Fields of a row that are those of its problem; `completion` is the text that was kept."""


class Collected(Source):
    """The completions that the `collect` stage of this name kept, such as `{collected: data, weight: 3}`."""

    KEYS: ClassVar = ("collected",)

    collected: str
    """Name of the stage."""

    _rows: Sequence[Problem] = PrivateAttr(())
    _digest: str = PrivateAttr("")

    @property
    def name(self) -> str:
        return self.collected

    @property
    def worked(self) -> bool:
        return True

    def read(self, folder: Path) -> Self:
        """The same source with the rows in the finished folder of its stage."""
        read = self.model_copy()
        read._rows = tuple(map(solved, read_jsonl(folder / FILE)))
        read._digest = sha256((folder / FILE).read_bytes()).hexdigest()
        return read

    def _stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        """Every row once, in random order, then again in another."""
        order = list(self._rows)
        while order:
            rng.shuffle(order)
            yield from order

    def listed(self, split: Split) -> Sequence[Problem]:
        return self._rows

    def _data_hash(self) -> str:
        return self._digest


def row_of(problem: Problem, completion: str) -> dict[str, Any]:
    """The row of a completion."""
    fields = {name: getattr(problem, name) for name in FIELDS}
    return {**fields, "difficulty": dict(problem.difficulty), "completion": completion}


def solved(row: dict[str, Any]) -> Problem:
    """The problem of a row, with its completion as the solution."""
    return Problem(**{name: row[name] for name in FIELDS}, solution=row["completion"])
