"""Data sets of the Hub or of a folder as tables, `dataset: ID`; in memory, or streamed with `stream: true`."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from r1_mini.data.table import MOST_UNREAD, Row, Table, hash_of
from r1_mini.errors import UserError, nearest
from r1_mini.judges.sandbox import require
from r1_mini.problems.problem import Problem, Split

BUFFER = 10_000  # rows that a streamed set is shuffled among
PROBED = 1000  # problems of a streamed set that stand for it

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class OwnSplits(BaseModel):
    """Which of a data set's own splits are used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: str | None = "train"
    """What may teach; null is nothing, of a set that is for exams alone."""
    test: str | None = None
    """What is asked in an exam on test; null is `test` where the set has one that does not teach."""


class HubTable(Table):
    """A data set of the Hub, or a folder: files that `load_dataset` reads, or what `save_to_disk` wrote."""

    KEY = "dataset"

    dataset: str = Field(min_length=1)
    """Id on the Hub, such as `openai/gsm8k`, or the path of a folder."""
    config: str | None = None
    """Which of the data set's configurations."""
    splits: OwnSplits = OwnSplits()

    @property
    def name(self) -> str:
        return self.label or Path(self.dataset).name

    @property
    def place(self) -> str:
        return self.dataset

    def rows(self) -> tuple[Iterable[Row], Iterable[Row] | None]:
        return self.parts()

    def parts(self, *, streaming: bool = False, seed: int | None = None) -> tuple[Iterable[Row], Iterable[Row] | None]:
        """As `rows`; with a seed, in the order of a shuffle buffer."""
        there = _opened(self.dataset, self.config, streaming)
        ours = self.splits.train
        theirs = self.splits.test
        if theirs is None and "test" in there and ours != "test":
            theirs = "test"
        for wanted in (ours, theirs):
            if wanted is not None and wanted not in there:
                fix = nearest(wanted, there)
                if "test" in there and wanted == "train":
                    fix = "for exams alone write splits: {train: null}"
                raise UserError(f"no split is called '{wanted}'", where=self.dataset, fix=fix)
        parts = [None if split is None else self._rows(there[split], split, seed) for split in (ours, theirs)]
        return parts[0] or (), parts[1]

    def _rows(self, part: Any, split: str, seed: int | None) -> Iterator[Row]:
        if self.limit is not None:
            part = part.take(self.limit)
        if seed is not None:
            part = part.shuffle(seed=seed, buffer_size=BUFFER)
        for number, values in enumerate(part, start=1):
            yield Row(f"{self.dataset}, split {split}, row {number}", values)


class StreamedTable(HubTable):
    """A data set that does not fit into memory, `stream: true`: read in order, shuffled among `BUFFER` rows at a time.

    Its first rows stand for the whole where the whole would have to be read, for the hash.
    """

    KEY = "stream"

    streamed: Literal[True] = Field(alias="stream")

    def listed(self, split: Split) -> None:
        return None

    def content_hash(self) -> str:
        return hash_of(self, (("train", problem) for problem in _probed(self)))

    def notes(self) -> Sequence[str]:
        return ()

    def draw(self, split: Split, rng: random.Random) -> Problem:
        return next(self.stream(split, rng))

    def stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        """The problems of the split in the set's order, shuffled in the buffer; then again, shuffled in another way."""
        while True:
            count = 0
            for problem in self.once(split, rng.getrandbits(31)):
                count += 1
                yield problem
            if not count:
                raise UserError(f"no {split} problem in it", where=self.place, fix="give more rows")

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        return self.first(n, self.once(split, seed), split, min_depth, used)

    def once(self, split: Split, seed: int | None) -> Iterator[Problem]:
        """The problems of a split, once. UserError when it shows that too many answers cannot be read."""
        require(self.judge)
        rest, own_test = self.parts(streaming=True, seed=seed)
        asks_own = split == "test" and own_test is not None
        total = 0
        unread: list[Row] = []
        for row in (own_test or ()) if asks_own else rest:
            problem = self.problem(row)
            total += 1
            if problem is None:
                unread.append(row)
                if total >= PROBED and len(unread) > MOST_UNREAD * total:
                    self.refuse_unread(unread[0], len(unread), total)
            elif asks_own or self.split_for(problem.key, tested=own_test is not None) == split:
                yield problem
        if not total:
            raise UserError("no rows in it", where=self.place, fix="name another split")
        if len(unread) > MOST_UNREAD * total:
            self.refuse_unread(unread[0], len(unread), total)


@lru_cache(maxsize=32)
def _probed(table: StreamedTable) -> Sequence[Problem]:
    """The first training problems."""
    return list(islice(table.once("train", None), PROBED))


@lru_cache(maxsize=32)
def _opened(place: str, config: str | None, streaming: bool) -> Mapping[str, Any]:
    """The splits of a data set by name; UserError in one line whatever goes wrong."""
    import datasets
    from datasets.exceptions import DatasetsError

    path = Path(place).expanduser()
    is_path = path.exists() or not _HUB_ID.fullmatch(place)
    if is_path and not path.is_dir():
        what = "a file, not a folder" if path.exists() else "no such folder"
        raise UserError(what, where=place, fix="give a folder, or an id on the Hub; for a JSONL file write `jsonl:`")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # retries and progress: what matters is said in one line below
    datasets.disable_progress_bars()
    try:
        if is_path and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
            found = datasets.load_from_disk(str(path))
            splits = dict(found) if isinstance(found, dict) else {"train": found}
            return {name: part.to_iterable_dataset() if streaming else part for name, part in splits.items()}
        return dict(datasets.load_dataset(str(path) if is_path else place, config, streaming=streaming))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())[:160]
        if "gated" in reason.lower():
            fix = "accept its terms on huggingface.co and set HF_TOKEN, or give a local folder with its files"
        elif is_path or "config" in reason.lower():
            fix = "give the folder of a data set" if is_path else "set `config`"
        else:
            fix = "check the id and the network, set HF_HOME to a cache that holds it, or give a local folder"
        raise UserError(f"cannot be loaded: {reason or type(error).__name__}", where=place, fix=fix) from None
    finally:
        logging.disable(before)
