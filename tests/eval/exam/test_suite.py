"""What a suite asks, and what it refuses."""

import json
import re
from collections import Counter

import pytest

from eval.exam.suite import load_suite
from r1_mini.data.mix import source_of
from r1_mini.data.source import FamilySource
from r1_mini.errors import UserError
from r1_mini.problems.arithmetic import parse
from r1_mini.problems.problem import split_of


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic-ood", "quick", "smoke"])
def test_every_suite_asks_distinct_problems_of_its_split_and_of_two_or_more_operations(name):
    suite, asked = load_suite(name)
    keys = [each.problem.key for each in asked]
    assert len(set(keys)) == len(keys) == sum(entry.number for entry in suite.problems)
    assert {split_of(key) for key in keys} == {suite.split}
    assert min(each.problem.difficulty["depth"] for each in asked) == 2


def test_the_default_suite_asks_sums_of_each_depth_equally_often_and_a_limit_keeps_its_kinds():
    suite, asked = load_suite("arithmetic", families=["sum"])
    assert Counter(each.problem.difficulty["depth"] for each in asked) == {2: 300, 3: 300, 4: 300, 5: 300}
    assert (suite.samples, suite.temperature, suite.top_p, suite.greedy) == (16, 1.0, 1.0, True)
    _, asked = load_suite("arithmetic", limit=26)
    assert Counter(each.problem.family for each in asked) == {"sum": 12, "expression": 12, "product": 2}
    assert asked == load_suite("arithmetic")[1][:26]


def test_every_axis_of_the_out_of_distribution_suite_lies_outside_of_training():
    _, asked = load_suite("arithmetic-ood")
    by_axis = {axis: [each for each in asked if each.axis == axis] for axis in {each.axis for each in asked}}
    assert min(each.problem.difficulty["depth"] for each in by_axis["more operands"]) == 6
    assert max(each.problem.difficulty["digits"] for each in by_axis["more digits"]) == 3
    assert max(each.problem.difficulty["nesting"] for each in by_axis["deeper nesting"]) > 2
    assert not any(set(each.problem.question) & set("+-") for each in by_axis["unseen operator mix"])
    odd = [each.problem.question for each in by_axis["unseen surface"]]
    assert any(" " in question for question in odd) and any(question.startswith("(") for question in odd)
    assert all(parse(question) for question in odd)
    for step in (step for each in by_axis["long carry chains"] for step in each.problem.steps):
        a, operator, b = re.fullmatch(r"(\d+)([+-])(\d+)=.*", step).groups()
        assert (int(a) % 10 + int(b) % 10 >= 10) if operator == "+" else (int(a) % 10 < int(b) % 10), step
    assert None in by_axis and len(by_axis) == 8


@pytest.mark.parametrize(
    "text,line",
    [
        *(("own", "`own` has the problems of a recipe"), ("gone.yaml", "no suite is called")),
        ("problems: [{family: sume, number: 5}]", "problems.0.spec"),
        ("problems: [{family: sum, terms: 3, digits: 1, largest: 2, number: 900}]", "no further test problem"),
        ("problems: [{family: sum, terms: 2, number: 5}]", "no problem of depth 2 or more"),
        ("problems: [{family: sum, terms: 3, number: 5, axis: far}]", "fewer than two problems without an axis"),
        ("problems: [{family: sum, terms: 3, number: 5, surface: odd}]", "problems.0.surface"),
        ("problems: [{family: sum, terms: 3, number: 5}]\ntemperature: 0", "2 samples at temperature 0 are all alike"),
        ("problems: [{family: sum, terms: 3, number: 5}]\ntop_q: 1", "top_q"),
        ("problems: [{family: sum, terms: 3, number: 5}]\nseed: -1", "seed: should be greater than or equal to 0"),
        ("problems: [{family: sum, terms: 3, number: 1000001}]", "number: should be less than or equal to 1000000"),
        *((f"temperature: {wrong}", f"temperature: should be 0 (greedy) or from 0.01 to 10, got {wrong}")
          for wrong in ("0.009", "-1.0", "11.0")),
    ],
)  # fmt: skip
def test_a_suite_that_cannot_be_held_is_one_clear_line(tmp_path, text, line):
    path = tmp_path / "mine.yaml"
    path.write_text(f"samples: 2\nmax_tokens: 9\n{text}\n")
    with pytest.raises(UserError) as refused:
        load_suite(text if text in ("own", "gone.yaml") else str(path))
    assert line in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "limit,is_small,said",
    [
        (30, False, "30 problems show differences from about 29.5 points on, four times in five"),
        (20, True, "20 problems show differences from about 37.6 points on, four times in five; ask 30 or more"),
        (6, True, "6 problems are too few to show any difference; ask 30 or more"),
    ],
)
def test_a_suite_says_how_small_a_difference_it_shows_and_whether_it_is_too_small(limit, is_small, said):
    suite, asked = load_suite("smoke", limit=limit)
    assert suite.shows(asked) == (is_small, said)


def quiz(folder, n, name="quiz.jsonl"):
    """A file of `n` rows."""
    rows = ({"question": f"{name}, item {i}", "answer": i} for i in range(n))
    (folder / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return {"jsonl": str(folder / name)}


HELD = "name a file for the exam with `test:`, or give more rows"


@pytest.mark.parametrize(
    ("rows", "held", "asked", "said"),
    [
        (60, None, {}, f"8 exam problems from 60 rows show differences from about 52.5 points on, four times in five; {HELD}"),
        (20, None, {}, f"2 exam problems from 20 rows are too few to show any difference; {HELD}"),
        (60, None, {"split": "dev"}, "4 exam problems from 60 rows are too few to show any difference; give more rows"),
        (60, 12, {}, "12 exam problems from held.jsonl show differences from about 42.5 points on, four times in five; give more rows"),
        (60, 400, {}, "400 exam problems from held.jsonl show differences from about 3.6 points on, four times in five"),
        (600, None, {"limit": 20}, "20 problems show differences from about 31.0 points on, four times in five; ask 30 or more"),
    ],
)  # fmt: skip
def test_of_a_table_the_suite_says_how_many_rows_there_are_and_how_to_get_more(tmp_path, rows, held, asked, said):
    entry = quiz(tmp_path, rows) | ({"test": quiz(tmp_path, held, "held.jsonl")["jsonl"]} if held else {})
    suite, problems = load_suite("own", recipe_problems=[source_of(entry)], **asked)
    is_small, line = suite.shows(problems)
    assert (is_small, line.replace(f"{tmp_path}/", "")) == (len(problems) < 30, said)


def test_a_table_with_one_problem_or_none_for_the_exam_says_what_gives_it_more(tmp_path):
    none = (
        "quiz: 0 test problems to ask, not 1; ask for fewer problems, give it more rows, or name a file for the exam "
    )
    one = f"own: fewer than two problems without an axis, so there is no headline; {HELD}"
    for rows, line in ((9, none), (12, one)):
        with pytest.raises(UserError) as refused:
            load_suite("own", recipe_problems=[source_of(quiz(tmp_path, rows))])
        assert str(refused.value).startswith(line)


def test_the_own_suite_shares_its_problems_among_sources_and_asks_what_a_table_has(tmp_path):
    specs = [FamilySource(family="sum", terms=[3, 4], digits=1), FamilySource(family="product", digits=2)]
    _, asked = load_suite("own", recipe_problems=specs, limit=20)
    assert [each.problem.family for each in asked].count("sum") == 10
    table = source_of(quiz(tmp_path, 100))
    asked = {split: load_suite("own", recipe_problems=[table], split=split)[1] for split in ("dev", "test")}
    assert {split: len(each) for split, each in asked.items()} == {split: len(table.listed(split)) for split in asked}
    drawn = table.exam("test", len(asked["test"]), seed=1)
    assert [each.problem.key for each in asked["test"]] == [problem.key for problem in drawn]
