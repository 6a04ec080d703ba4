"""One problem with its answer and worked solution, and the split that its canonical key decides.

Not here: how problems are sampled and solved (`families/`), and those that are not ours (`data/`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

Split = Literal["base", "train", "dev", "test"]

_HASH_KEY = b"r1_mini split"
_TENTHS: tuple[Split, ...] = ("base",) * 5 + ("train",) * 3 + ("dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question and everything known about it. Texts of arithmetic are ASCII without spaces."""

    family: str
    question: str
    answer: str  # the right one, in the form of its judge; of numbers exact: "16", "-3", "7/2"
    steps: tuple[str, ...] = ()  # worked solution, list wording: "12+7=19", "19-3=16"
    restated: tuple[str, ...] = ()  # worked solution, restate wording: "19-3", "16"; empty where the family has none
    difficulty: Mapping[str, int] = field(hash=False)  # "depth" (operations to do) and the family's other measures
    key: str  # canonical form: the same for every commuted or re-spaced form of the question
    inside: frozenset[str] = frozenset()  # keys of the problems of two or more operations solved on the way
    judge: str = "number"  # a key of JUDGES, or a task of your own
    solution: str | None = None  # a completion of somebody else's that solves it, to learn from
    formula: str | None = None  # the expression that a worked solution reduces; None where steps cannot be checked


def split_of(key: str) -> Split:
    """The split of a canonical key, from a keyed hash: base 50 %, train 30 %, dev 10 %, test 10 %."""
    tenth = int.from_bytes(blake2b(key.encode(), digest_size=8, key=_HASH_KEY).digest(), "big") * 10 >> 64
    return _TENTHS[tenth]


def may_teach(problem: Problem, split: Split) -> bool:
    """Whether the problem belongs to this split and its worked solution may be shown to a learner."""
    return split_of(problem.key) == split and not any(map(is_held_out, problem.inside))


def is_held_out(key: str) -> bool:
    """Whether no learner may see this problem solved."""
    return split_of(key) in ("dev", "test")
