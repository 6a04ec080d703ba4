"""The exam before any training: its suite, its problems, and what it refuses."""

import pytest

from eval.harness import Exam
from eval.suite import load_suite
from r1_mini.errors import UserError
from r1_mini.problems.problem import split_of
from r1_mini.recipe import Recipe

BASE = {"kind": "base"}


def recipe(family=None, **evaluate):
    problems = [family or {"family": "sum", "terms": [2, 6], "largest": 99}]
    return Recipe.model_validate({"name": "x", "problems": problems, "stages": [BASE], "evaluate": evaluate})


def test_the_default_exam_asks_1200_test_problems_of_two_or_more_operations_four_times():
    exam = Exam(recipe())
    assert len({problem.key for problem in exam.problems}) == 1200
    assert {split_of(problem.key) for problem in exam.problems} == {"test"}
    depths = [problem.difficulty["depth"] for problem in exam.problems]
    assert {depth: depths.count(depth) for depth in set(depths)} == {2: 300, 3: 300, 4: 300, 5: 300}
    assert (exam.suite.samples, exam.suite.temperature, exam.suite.top_p) == (4, 1.0, 1.0)


def test_a_recipe_can_change_the_settings_of_its_exam():
    suite = load_suite("arithmetic", number=7, temperature=None, split="dev")
    assert (suite.number, suite.temperature, suite.split) == (7, 1.0, "dev")


def test_the_same_exam_is_drawn_again():
    assert Exam(recipe(number=20)).problems == Exam(recipe(number=20)).problems
    assert Exam(recipe(number=20)).problems != Exam(recipe(number=20, seed=9)).problems


@pytest.mark.parametrize(
    "wrong,line",
    [
        (recipe(suite="arithmetik"), "evaluate.suite: no suite is called 'arithmetik'; did you mean 'arithmetic'?"),
        (recipe({"family": "sum", "terms": [2, 3], "digits": 1, "largest": 2}), "no further test problem"),
        (recipe({"family": "sum", "terms": 2}, min_depth=1, number=50), "no problem of 2 or more operations"),
    ],
    ids=["unknown suite", "too few problems", "one step only"],
)
def test_an_exam_that_cannot_be_held_is_refused_before_training(wrong, line):
    with pytest.raises(UserError) as refused:
        Exam(wrong)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
