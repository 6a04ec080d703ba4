"""Rows to arrays: what is read, and what is not the same exam."""

import json

import numpy as np
import pytest

from eval.analysis.metrics import maj_at_k
from eval.exam.samples import load_samples, require_same_exam, tabled
from r1_mini.errors import UserError
from tests.eval.conftest import make_row, make_rows, make_samples


def test_tables_hold_problems_by_samples():
    samples = make_samples("10d", "x-?")
    assert samples.correct_PN.tolist() == [[True, False, True], [False, False, False]]
    assert samples.stopped_PN.tolist() == [[True, True, True], [True, False, True]]
    assert samples.answer_PN.tolist() == [[0, 1, 0], [2, -1, -1]]
    assert samples.n == 3 and [question.key for question in samples.questions] == ["a", "b"]


def test_rows_may_come_in_any_order_and_two_notations_of_a_number_are_one_answer():
    rows = make_rows({"a": "10", "b": "01"})
    assert tabled(rows[::-1]).correct_PN.tolist() == [[False, True], [True, False]]
    rows = [make_row("a", "1", 0), make_row("a", "1", 1, parsed=" 03")]
    assert tabled(rows).answer_PN.tolist() == [[0, 0]]


@pytest.mark.parametrize("parsed", ["(([]))", "?", "-", "x" * 1001])
def test_what_is_right_has_one_value_in_a_vote_whatever_it_looks_like(parsed):
    rows = [make_row("a", "1", 0, judge="reasoning_gym", parsed=parsed), make_row("a", "1", 1, judge="reasoning_gym")]
    samples = tabled([*rows, make_row("a", "0", 2, judge="reasoning_gym", parsed="?")])
    assert samples.answer_PN.tolist() == [[0, 0, -1]]
    assert maj_at_k(samples, 3).tolist() == [1.0]


def test_a_problem_with_too_few_samples_is_an_error():
    with pytest.raises(AssertionError, match="not equally many samples"):
        tabled(make_rows({"a": "10", "b": "1"}))


def test_a_file_is_read_to_the_last_digit_whatever_its_answers_look_like(tmp_path):
    rows = [make_row("a", "1", logp=-1.2345, parsed="003"), make_row("a", "0", 1, logp=-0.1, parsed="2024-01-01")]
    (tmp_path / "samples.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
    samples = load_samples(tmp_path / "samples.jsonl")
    assert samples.logp_PN.tolist() == [[np.float32(-1.2345), np.float32(-0.1)]]
    assert samples.answer_PN.tolist() == [[0, -1]] and samples.first[0]["parsed"] == "003"
    assert np.isnan(samples.reference_PN).all()


@pytest.mark.parametrize(
    "other,message",
    [
        (make_samples("1", "1", suite="quick"), 'they differ in `suite`: "arithmetic" and "quick"'),
        (make_samples("1", "1", temperature=0.5), "they differ in `temperature`: 1.0 and 0.5"),
        (make_samples("11", "11"), "they differ in `samples`: 1 and 2"),
        (make_samples("1"), 'they differ in `problem b`: ["sum", null, 2, "1+1+1", "3"] and null'),
        (make_samples("1", "1", question="2+1+0"), '"1+1+1", "3"] and ["sum", null, 2, "2+1+0", "3"]'),
    ],
)
def test_what_is_not_the_same_exam_is_refused_by_name(other, message):
    with pytest.raises(UserError) as refused:
        require_same_exam({"one": make_samples("1", "1"), "two": other})
    assert message in str(refused.value) and "one and two" in str(refused.value)
