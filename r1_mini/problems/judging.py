"""Whether an answer is right: a judge for each form that right answers have.

What a model wrote is hostile: a judge never executes it, never raises, and is bounded in time. What it cannot read is
wrong. A new form is a function here and its lines in `JUDGES` and `VALUES`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from r1_mini.problems.arithmetic import parse_number

Judge = Callable[[str, str], bool]
"""(what was answered, the right answer in the judge's own form) -> whether it is right."""


def same_number(said: str, right: str) -> bool:
    """Exactly the same value, in whatever notation: 3.5, 7/2."""
    value = parse_number(said)
    return value is not None and value == parse_number(right)


JUDGES: dict[str, Judge] = {"number": same_number}

VALUES: dict[str, Callable[[str], Hashable | None]] = {"number": parse_number}
"""What an answer counts as in a vote, where equal values are one answer; None is no answer."""
