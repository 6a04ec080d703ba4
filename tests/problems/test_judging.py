"""Judges: right is right in every notation, and nothing raises."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.problems.judging import JUDGES, VALUES

OWN = [name for name in JUDGES if name not in ("latex", "reasoning_gym")]


@pytest.mark.parametrize(
    ("judge", "said", "right", "verdict"),
    [
        ("number", "3.5", "7/2", True),
        ("number", "$3.5", "7/2", False),
        ("amount", "$1,234.50 in all", "1234.5", True),
        ("amount", "1234", "1,234", True),
        ("amount", "1235", "1234", False),
        ("amount", "unknown", "unknown", False),
        ("choice", "The answer is (B).", "b", True),
        ("choice", "(A) or (B)", "B", False),
        ("choice", "F", "F", False),
        ("text", "New  York!", "new york", True),
        ("text", "York", "new york", False),
        ("text", "!", "!", False),
    ],
)
def test_a_judge_compares_what_is_meant(judge: str, said: str, right: str, verdict: bool) -> None:
    assert JUDGES[judge](said, right) is verdict


def test_every_judge_says_what_counts_as_one_answer_in_a_vote() -> None:
    assert VALUES.keys() == JUDGES.keys()
    assert VALUES["amount"]("18 eggs") == VALUES["amount"]("$18.00") == 18
    assert VALUES["choice"]("(b)") == VALUES["choice"]("Answer: B") == "B"
    assert VALUES["latex"]("$x$.") == VALUES["latex"](r"\boxed{x}") == "x"


@settings(deadline=None)
@given(st.text(max_size=200), st.text(max_size=50))
def test_no_judge_raises(said: str, right: str) -> None:
    for name in OWN:
        assert JUDGES[name](said, right) in (True, False)
        VALUES[name](said)
