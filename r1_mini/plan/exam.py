"""What a plan has to know of an exam."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exam:
    """An exam as the command line hands it over; the package of the exam is not known here."""

    suite: str
    split: str
    questions: tuple[str, ...]
    samples: int
    greedy: bool
    max_tokens: int
    temperature: float
    top_p: float
    rows: int
    dtype: str
    line: int
    """Bytes of a typical line of samples.jsonl."""
