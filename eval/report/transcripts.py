"""Transcripts for the page: which problems are shown, and each step of both chains judged."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.metrics import Sample, depth
from r1_mini.problems.checking import CheckedStep, check_chain
from r1_mini.transcript import read

SHOWN = 10
MOST_TEXT = 2_000  # characters of one text; model text has no bound of its own


@dataclass(frozen=True, slots=True)
class Chain:
    """One completion, ready to be shown."""

    steps: Sequence[CheckedStep]
    answer: str | None
    raw: str | None  # the whole completion, where it has no thinking to take apart
    correct: bool
    voice: str
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Pair:
    """The same problem answered by base and RL."""

    question: str
    answer: str
    depth: int
    base: Chain
    rl: Chain


def fixed_pairs(base: Sequence[Sample], rl: Sequence[Sample]) -> list[Pair]:
    """Sample 0 of problems 0, n/10, 2n/10, … of the exam, shallow problems first, so that nobody picked what is shown.

    An exam deals its depths in turn, so a fixed stride through its own order could land on one depth every time.
    The sort is stable: within a depth the exam's order stands.
    """
    others = {row["key"]: row for row in rl if row["sample_index"] == 0}
    firsts = sorted((row for row in base if row["sample_index"] == 0), key=depth)
    chosen = dict.fromkeys(number * len(firsts) // SHOWN for number in range(SHOWN))
    return [_pair(firsts[index], others[firsts[index]["key"]]) for index in chosen]


def clip(text: str) -> str:
    """The text, or its start and the count of characters left out."""
    if len(text) <= MOST_TEXT:
        return text
    return f"{text[:MOST_TEXT]} … {len(text) - MOST_TEXT:,} more characters in samples.jsonl"


def _pair(base: Sample, rl: Sample) -> Pair:
    return Pair(base["question"], base["answer"], depth(base), _chain(base), _chain(rl))


def _chain(sample: Sample) -> Chain:
    transcript = read(sample["completion"], sample["finish"])
    readable = transcript.well_formed and transcript.thinking is not None
    return Chain(
        steps=check_chain(sample["question"], transcript.thinking or "") if readable else (),
        answer=transcript.answer,
        raw=None if readable else sample["completion"],
        correct=sample["correct"],
        voice=sample["voice"],
        n_tokens=sample["n_tokens"],
    )
