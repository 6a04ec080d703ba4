"""What every source of problems offers: an endless stream for training, distinct problems for an exam."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import ErrorDetails

from r1_mini.problems.problem import Problem, Split

PATIENCE = 20_000  # draws without a problem that can be used, before a source counts as exhausted


class Source(BaseModel, ABC):
    """One entry of a recipe's `problems:`. The same seed draws the same problems."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    KEY: ClassVar[str]
    """The key that tells an entry of this source from others."""
    worked: ClassVar[bool] = False
    """Whether its problems have worked solutions, which a base stage teaches."""

    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """How often this entry is drawn, relative to the others."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, entry: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in entry if isinstance(entry, Mapping) else ():
            if key not in known:
                raise ValueError(f"unknown key {key!r} of `{cls.KEY}`; nearest known: {nearest_of(key, known)}")
        return entry

    @property
    @abstractmethod
    def name(self) -> str:
        """What its problems are called in an exam."""

    @abstractmethod
    def draw(self, split: Split, rng: random.Random) -> Problem:
        """A random problem of a split; all but test may teach (`may_teach`)."""

    def stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        """Problems of a split without end; others draw from `rng` in between."""
        while True:
            yield self.draw(split, rng)

    @abstractmethod
    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        """`n` distinct problems of a split, none of less depth where depth is known, their keys not in `used`.

        ValueError if there are too few.
        """

    def listed(self, split: Split) -> Sequence[Problem] | None:
        """Every problem of a split; None where they are drawn on the spot, or too many to hold."""
        return None

    def content_hash(self) -> str:
        """Hash, hex, of whatever its problems depend on beside these settings and our own code; "" for nothing.

        UserError if what the settings name cannot be had.
        """
        return ""

    def notes(self) -> Sequence[str]:
        """What a run says of its data before it trains, a line each."""
        return ()


def nearest_of(name: object, known: Iterable[str]) -> str:
    """The known name most like it, quoted."""
    return repr(get_close_matches(str(name), known, n=1, cutoff=0)[0])


def sentence(detail: ErrorDetails) -> str:
    """What pydantic found wrong, in words."""
    if "error" in detail.get("ctx", {}):  # one of our own messages, which name the key
        return str(detail["ctx"]["error"])
    place = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f"{place} is missing"
    return f"{place} {detail['input']!r}: {detail['msg']}"
