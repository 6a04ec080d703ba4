"""Countdown: every question has a solution, the key forgets the order, and no text solves what is held out."""

import re
from collections import Counter
from itertools import product, starmap

import pytest

from r1_mini.judges.judges import same_countdown
from r1_mini.problems.arithmetic import evaluate, numbers, parse
from r1_mini.problems.families import FAMILIES, solve
from r1_mini.problems.families.countdown import CountdownAxes, Hunt
from tests.problems.sampled import AXES, sampled

FAMILY = FAMILIES["countdown"]
SENTENCE = CountdownAxes(wording="sentence")


def asked(question: str) -> tuple[list[int], int]:
    """The numbers and the target of a question in the short wording."""
    left, right = question.split("=")
    return [int(number) for number in left.split(" ")], int(right)


@pytest.mark.parametrize("axes", AXES["countdown"], ids=str)
def test_a_drawn_question_lies_within_its_axes_and_its_answer_solves_it(axes: dict) -> None:
    settings = FAMILY.axes(**axes)
    for problem in sampled("countdown", axes):
        given, target = asked(problem.key)
        assert settings.numbers[0] <= len(given) <= settings.numbers[1]
        assert all(1 <= number <= settings.largest_number for number in given)
        assert settings.smallest <= target <= settings.largest
        assert all(1 <= int(step.split("=")[1]) <= settings.largest for step in problem.steps)
        assert set(re.findall("[-+*/]", problem.answer)) <= set(settings.operators)
        assert problem.difficulty == {"depth": len(given) - 1, "digits": len(str(max(given)))}
        assert sorted(numbers(parse(problem.answer))) == given
        assert evaluate(parse(problem.answer)) == target
        assert same_countdown(problem.answer, problem.key)
        assert problem.judge == "countdown" and problem.formula is None and problem.restated == ()


def test_a_problem_written_by_hand() -> None:
    problem = FAMILY.problem(Hunt((19, 36, 55, 7), parse("55+36-(7+19)")))
    assert problem.question == "19 36 55 7=65"
    assert problem.answer == "55+36-(7+19)"
    assert problem.steps == ("55+36=91", "7+19=26", "91-26=65")
    assert problem.key == "7 19 36 55=65"
    assert problem.difficulty == {"depth": 3, "digits": 2}
    assert problem.inside == {
        *("36+55-19-7", "91-19-7"),  # the solution, and what stands after its first step
        "7 19 91=65",  # that remainder, as a countdown
    }


def test_a_part_that_is_solved_on_the_way_is_inside_as_an_expression_and_as_a_countdown() -> None:
    inside = FAMILY.inside(Hunt((2, 3, 4, 5), parse("(2+3+4)*5")))
    assert {*inside} == {"(2+3+4)*5", "2+3+4", "2 3 4=9", "(4+5)*5", "4 5 5=45"}
    assert not [*FAMILY.inside(Hunt((2, 3), parse("2+3")))]


def test_the_sentence_says_the_numbers_the_target_and_the_rules_in_english() -> None:
    problem = FAMILY.problem(Hunt((19, 36, 55, 7), parse("55+36-(7+19)")), SENTENCE)
    assert problem.question == (
        "Write an expression that equals 65. Use each of the numbers 19, 36, 55 and 7 exactly once, and no other number. "
        "You may use + - * / and parentheses. The answer is the expression alone, without what it equals, such as (1+2)*3"
    )
    assert FAMILY.problem(Hunt((19, 7), parse("19-7")), SENTENCE).question.count("numbers 19 and 7 exactly") == 1


def test_the_order_of_the_question_does_not_tell_the_solution_and_every_operation_occurs() -> None:
    first, ascending = Counter(), 0
    for problem in sampled("countdown", {"numbers": 3, "largest_number": 99}, 3000):
        given, _ = asked(problem.question)
        if len(set(given)) == 3:
            first[given.index(next(numbers(parse(problem.answer))))] += 1
            ascending += given == sorted(given)
    assert all(abs(count / first.total() - 1 / 3) < 0.03 for count in first.values())  # 3.5 standard errors
    assert abs(ascending / first.total() - 1 / 6) < 0.025
    answers = "".join(problem.answer for problem in sampled("countdown", {"largest": 999}, 1000))
    assert all(answers.count(operator) > 60 for operator in "+-*/")  # two given numbers seldom divide


def test_the_key_forgets_the_order_of_the_numbers_the_solution_and_the_wording() -> None:
    orders = [(19, 36, 55, 7), (7, 19, 36, 55)]
    solutions = map(parse, ["55+36-(7+19)", "36-7+55-19", "55-(19-36)-7"])
    hunts = [*starmap(Hunt, product(orders, solutions))]
    assert {FAMILY.problem(hunt, axes).key for hunt in hunts for axes in (None, SENTENCE)} == {"7 19 36 55=65"}
    assert FAMILY.key(Hunt((7, 19, 36), parse("36-19-7"))) == "7 19 36=10"
    assert FAMILY.key(Hunt((7, 19, 36, 55), parse("55+36-(19-7)"))) == "7 19 36 55=79"


def test_a_question_read_as_text_is_the_same_problem_without_a_solution() -> None:
    for problem in sampled("countdown", {"numbers": [2, 6]}, 100):
        again = solve(problem.question)
        assert (again.family, again.question, again.judge) == ("countdown", problem.question, "countdown")
        assert (again.key, again.difficulty) == (problem.key, problem.difficulty)
        assert same_countdown(problem.answer, again.answer) and not same_countdown(again.answer, again.answer)
    assert solve(" 03 8  3 8 = 24").key == "3 3 8 8=24"


def test_what_is_no_countdown_is_a_value_error() -> None:
    for question in ("7=7", "1 2=", "=3", "1+2=3", "1 2=3=3", "1 2 x=3", "1 \u0662=3"):
        with pytest.raises(ValueError, match="a countdown is written as its numbers and the target"):
            solve(question)
