"""Verifiers of other packages, in their process: right answers, hostile ones, and ones that never end."""

import json
import os
import signal
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.errors import UserError
from r1_mini.judges import sandbox as verifier
from r1_mini.judges.judges import JUDGES
from r1_mini.judges.sandbox import LONGEST_SAID, Verifier, require
from r1_mini.judges.sandbox_process import packed, unpacked

latex = JUDGES["latex"]


@pytest.fixture
def needs_math():
    pytest.importorskip("math_verify")


@pytest.mark.parametrize(
    ("said", "right", "verdict"),
    [
        (r"\frac12", "0.5", True),
        (r"$\dfrac{2}{4}$", r"\frac{1}{2}", True),
        (r"\frac{1}{3}", r"\frac{1}{2}", False),
        ("(1, 2)", "(1,2)", True),
        ("(2,1)", "(1,2)", False),
        ("1,2", "(1,2)", False),
        ("[0,1)", "[0,1)", True),
        ("(0,1)", "[0,1)", False),
        (r"\{2,1\}", r"\{1,2\}", True),
        ("5 cm", r"5\text{ cm}", True),
        ("60\u00b0", r"60^\circ", True),
        ("1+x^2", "x^2+1", True),
        ("2 or 3", "3", False),
        ("seat", r"\text{east}", False),
        ("", "1", False),
    ],
)
def test_formulas_are_equal_by_value(needs_math, said: str, right: str, verdict: bool) -> None:
    assert latex(said, right) is verdict


@settings(max_examples=25, deadline=None)
@given(said=st.text(max_size=40))
def test_no_text_makes_the_judge_of_formulas_raise(said: str) -> None:
    pytest.importorskip("math_verify")
    assert latex(said, r"\frac{17}{31}") is False


def test_one_process_answers_all_questions_and_a_killed_one_is_replaced(needs_math) -> None:
    ask = Verifier("latex")
    assert ask("1", "1")
    assert ask._process is not None
    first = ask._process.pid
    assert not ask("1", "2")
    assert ask._process.pid == first
    os.kill(first, signal.SIGKILL)
    ask._process.wait()
    assert ask("2", "2")  # asked again, of another
    assert ask._process.pid != first


@pytest.mark.slow
def test_a_question_without_end_is_wrong_and_the_next_is_answered(needs_math) -> None:
    ask = Verifier("latex")
    begun = time.monotonic()
    assert ask("9^{9^{9^{9}}}", "1") is False
    assert time.monotonic() - begun < verifier.START
    assert ask("1", "1") is True


def test_silence_is_wrong_after_the_wait(needs_math) -> None:
    ask = Verifier("latex", wait=0.0)
    assert ask("1", "1") is False
    assert ask._process is None


def test_too_long_an_answer_is_wrong_without_a_process() -> None:
    ask = Verifier("latex")
    assert ask("1" * (LONGEST_SAID + 1), "1") is False
    assert ask._process is None


def test_a_missing_package_is_said_with_its_extra(monkeypatch) -> None:
    monkeypatch.setattr(verifier.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"latex: math_verify is not installed; pip install 'r1-mini\[math\]'"):
        require("latex")
    with pytest.raises(UserError, match=r"reasoning_gym is not installed; pip install 'r1-mini\[gym\]'"):
        Verifier("reasoning_gym")("1", "{}")
    require("amount")  # needs none


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.fractions(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(max_size=5) | st.tuples(st.integers()), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(deadline=None)
@given(VALUES)
def test_what_json_cannot_hold_survives_it(value) -> None:
    assert unpacked(json.loads(json.dumps(packed(value)))) == value


def test_tuples_stay_tuples() -> None:
    value = {"tuple": [1], 3: (Fraction(1, 2), [("a",)])}
    again = unpacked(json.loads(json.dumps(packed(value))))
    assert again == value
    assert isinstance(again[3], tuple)
    assert isinstance(again[3][1][0], tuple)
