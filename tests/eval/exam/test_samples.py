"""Rows to tables: what is read, what is judged, and what is refused."""

import json

import pytest

from eval.exam.samples import at_axis, axes_of, load_samples, pooled, require_same_exam, tabled
from r1_mini.errors import UserError
from tests.eval.conftest import make_row, make_rows, make_samples


def test_tables_hold_problems_by_samples():
    samples = make_samples("10d", "x-?")
    assert samples.correct_PN.tolist() == [[True, False, True], [False, False, False]]
    assert samples.stopped_PN.tolist() == [[True, True, True], [True, False, True]]
    assert samples.parsed_PN.tolist() == [[True, True, True], [True, False, False]]
    assert samples.first_wrong_PN.tolist() == [[0, 2, 0], [0, 0, 0]]
    assert samples.answer_PN.tolist() == [[0, 1, 0], [0, -1, -1]]
    assert samples.n == 3 and [question.key for question in samples.questions] == ["a", "b"]


def test_rows_may_come_in_any_order():
    rows = make_rows({"a": "10", "b": "01"})
    assert tabled(rows[::-1], "here").correct_PN.tolist() == [[False, True], [True, False]]


def test_two_notations_of_a_number_are_one_answer():
    rows = [make_row("a", "1", 0), make_row("a", "1", 1, parsed=" 03")]
    assert tabled(rows, "here").answer_PN.tolist() == [[0, 0]]


def test_an_axis_is_apart_from_the_exam_proper():
    samples = tabled(make_rows({"a": "1"}) + make_rows({"b": "0"}, axis="far"), "here")
    assert axes_of(samples) == ["far"]
    assert [at_axis(samples, axis).correct_PN.tolist() for axis in (None, "far")] == [[[True]], [[False]]]


def test_pooled_seeds_are_more_samples_of_the_same_problems():
    both = pooled([make_samples("1", "0"), make_samples("0", "0")])
    assert both.correct_PN.tolist() == [[True, False], [False, False]]


LINE = json.dumps(make_row("a", "1")) + "\n"


@pytest.mark.parametrize(
    "lines,message",
    [
        ([], "no samples"),
        ([LINE, LINE[:40]], "samples.jsonl:2: cut off in the middle of a line"),
        ([LINE, "{]\n"], "samples.jsonl:2: not a line of JSON"),
        (["[]\n"], "samples.jsonl:1: not an object"),
        ([LINE.replace('"voice"', '"choice"')], "field `voice` is missing"),
        ([LINE.replace('"correct": true', '"correct": "yes"')], 'field `correct` is "yes"'),
        ([LINE.replace('"voice": "worked"', '"voice": "loud"')], "not a sample that this program wrote"),
        ([LINE, LINE], "`key` a has sample 0 twice"),
        ([LINE, LINE.replace('"a"', '"b"').replace("1.0", "0.5")], "`temperature` is not the same in all samples"),
        ([LINE, LINE.replace('"sample_index": 0', '"sample_index": 1'), LINE.replace('"a"', '"b"')], "`key` b has 1 samples, others have 2"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_clear_line(rows_file, lines, message):
    with pytest.raises(UserError) as refused:
        load_samples(rows_file(lines))
    assert message in str(refused.value) and ";" in str(refused.value)


@pytest.mark.parametrize(
    "other,message",
    [
        (make_samples("1", "1", suite="quick"), 'they differ in `suite`: "arithmetic" and "quick"'),
        (make_samples("1", "1", temperature=0.5), "they differ in `temperature`: 1.0 and 0.5"),
        (make_samples("11", "11"), "they differ in `samples`: 1 and 2 completions per problem"),
        (make_samples("1"), "`key` b is in one of them only"),
        (make_samples("1", "1", question="2+1+0"), 'they differ in the problem `a`: "1+1+1" and "2+1+0"'),
    ],
)
def test_what_is_not_the_same_exam_is_refused_by_name(other, message):
    with pytest.raises(UserError) as refused:
        require_same_exam({"one": make_samples("1", "1"), "two": other})
    assert message in str(refused.value) and "one and two" in str(refused.value)
