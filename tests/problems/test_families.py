"""The families: what they sample stays within their axes, and their solutions are right."""

from dataclasses import replace

import pytest

from r1_mini.errors import UserError
from r1_mini.problems.arithmetic import canonical_key, evaluate, operations, parse, parse_number, render
from r1_mini.problems.families import FAMILIES, solve
from r1_mini.problems.families.base import Arithmetic
from r1_mini.problems.steps import chain_is_right, check_chain
from tests.problems.sampled import AXES, numbers_in, sampled

CASES = [(name, axes) for name, several in AXES.items() for axes in several]


@pytest.mark.parametrize(("name", "axes"), CASES, ids=str)
def test_answers_and_every_step_are_right_and_every_depth_occurs(name: str, axes: dict) -> None:
    problems, own = sampled(name, axes), FAMILIES[name].axes(**axes)
    for problem in problems:
        assert problem.difficulty["depth"] == len(problem.steps)
        if name == "expression":
            assert problem.difficulty["digits"] <= own.digits and problem.difficulty["nesting"] <= own.nesting
            assert set(problem.question) <= set("0123456789()" + own.operators)
            assert all(0 <= int(step.split("=")[1]) <= own.largest for step in problem.steps)
        if name != "countdown":
            assert parse_number(problem.answer) == evaluate(parse(problem.formula))
            assert problem.steps[-1].endswith(f"={problem.answer}")
            assert chain_is_right(check_chain(problem.formula, "\n".join(problem.steps)))
        if problem.restated:
            assert len(problem.restated) == len(problem.steps) and problem.restated[-1] == problem.answer
            assert chain_is_right(check_chain(problem.formula, "\n".join(problem.restated)))
        assert (problem.restated == ()) == (name in ("product", "countdown"))
        if isinstance(FAMILIES[name], Arithmetic):
            assert FAMILIES[name].problem(parse(problem.question)) == problem
            assert problem.question == problem.formula == render(parse(problem.question))
    assert {problem.difficulty["depth"] for problem in problems} == set(FAMILIES[name].depths(own))


@pytest.mark.parametrize("name", ["sum", "product", "expression"])
def test_a_sentence_asks_the_same_problems_as_the_short_wording(name: str) -> None:
    short, asked = sampled(name, {}), sampled(name, {"wording": "sentence"})
    assert [each.question for each in asked] == [f"What is {each.formula}?" for each in short]
    assert [replace(each, question=each.formula) for each in asked] == short  # with their keys and steps


def test_sums_and_products_have_the_terms_digits_operators_and_totals_that_were_set() -> None:
    problems = sampled("sum", {"terms": [2, 4], "digits": 2})
    assert {len(numbers_in(problem.question)) for problem in problems} == {2, 3, 4}
    assert {len(str(n)) for problem in problems for n in numbers_in(problem.question)} == {1, 2}
    assert {c for problem in problems for c in problem.question if not c.isdigit()} == {"+", "-"}
    assert {c for problem in sampled("sum", {"operators": "+"}) for c in problem.question if not c.isdigit()} == {"+"}
    assert any(problem.answer.startswith("-") for problem in problems)
    totals = [int(step.split("=")[1]) for problem in sampled("sum", {"largest": 150}) for step in problem.steps]
    assert min(totals) >= 0 and 100 < max(totals) <= 150
    for problem in sampled("sum", {"carry": True, "terms": 2}):
        a, b = numbers_in(problem.question)
        assert a % 10 + b % 10 >= 10 if "+" in problem.question else a % 10 < b % 10
    for problem in sampled("product", {"digits": [3, 4]}):
        assert [*map(len, problem.question.split("*"))] == [3, 4]


def test_expressions_use_every_operator_and_nesting_and_their_numbers_do_not_dwindle_with_depth() -> None:
    problems = sampled("expression", {"depth": [1, 6], "largest": 199}, 1000)
    text = "".join(problem.question for problem in problems)
    assert all(text.count(operator) > 300 for operator in "+-*/")
    assert {problem.difficulty["nesting"] for problem in problems} == {0, 1, 2}
    assert all("(" not in problem.question for problem in sampled("expression", {"nesting": 0}))
    (long,) = sampled("expression", {"depth": 15, "operators": "+-", "nesting": 0}, 1)
    assert len(long.steps) == 15
    numbers = [n for problem in sampled("expression", {"depth": 6}) for n in numbers_in(problem.question)]
    assert sum(numbers) / len(numbers) > 20
    assert numbers.count(0) < 0.05 * len(numbers)
    values = {int(problem.answer) for problem in sampled("expression", {"depth": 1, "operators": "*"})}
    assert not values & {1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79}


@pytest.mark.parametrize(
    ("question", "family", "answer", "key", "steps", "restated", "difficulty"),
    [
        ("12+7-3", "sum", "16", "12+7-3", "12+7=19 19-3=16", "19-3 16", (2, 2)),
        ("3-7+2", "sum", "-2", "2+3-7", "3-7=-4 -4+2=-2", "-4+2 -2", (2, 1)),
        (" ( 12 + 7 ) ", "sum", "19", "12+7", "12+7=19", "19", (1, 2)),
        ("37*24", "product", "888", "24*37", "37*20=740 37*4=148 740+148=888", "", (3, 2)),
        ("37*204", "product", "7548", "204*37", "37*200=7400 37*4=148 7400+148=7548", "", (3, 3)),
        ("37*0", "product", "0", "0*37", "37*0=0", "", (1, 2)),
        ("7*(3-1)", "expression", "14", "(3-1)*7", "3-1=2 7*2=14", "7*2 14", (2, 1, 1)),
        ("7/2+1", "expression", "9/2", "1+7/2", "7/2+1=9/2", "9/2", (2, 1, 0)),
        ("6/4-1", "expression", "1/2", "6/4-1", "6/4=3/2 3/2-1=1/2", "3/2-1 1/2", (2, 1, 0)),
        ("2*(7/2)", "expression", "7", "2*7/2", "2*(7/2)=7", "7", (2, 1, 1)),
        ("5*(3-7)", "expression", "-20", "(3-7)*5", "3-7=-4 5*(-4)=-20", "5*(-4) -20", (2, 1, 1)),
        ("2+3*4", "expression", "14", "2+3*4", "3*4=12 2+12=14", "2+12 14", (2, 1, 0)),
        ("8/(6-2)*3", "expression", "6", "3*8/(6-2)", "6-2=4 8/4=2 2*3=6", "8/4*3 2*3 6", (3, 1, 1)),
        ("9-3+(8-7)", "expression", "7", "8+9-3-7", "9-3=6 8-7=1 6+1=7", "6+(8-7) 6+1 7", (3, 1, 1)),
    ],
)
def test_known_problems_are_worked_out_from_the_left_in_both_wordings(
    question, family, answer, key, steps, restated, difficulty
) -> None:
    problem = solve(question)
    assert (problem.family, problem.answer, problem.key) == (family, answer, key)
    assert (problem.steps, problem.restated) == (tuple(steps.split()), tuple(restated.split()))
    assert problem.difficulty == dict(zip(("depth", "digits", "nesting"), difficulty, strict=False))
    assert problem.question == problem.formula == render(parse(question))
    assert FAMILIES["expression"].key(parse(question)) == key  # the same problem in every family that has it


def test_inside_are_the_larger_problems_on_the_way_and_never_the_problem_itself() -> None:
    assert solve("12+7").inside == solve("12+7-3").inside == solve("37*20").inside == frozenset()
    assert solve("12+7-3+20").inside == {"12+7-3", "19+20-3"}
    assert solve("45-29+(38-7)").inside == {"16+38-7"}
    assert solve("0+1+2+3").inside == {"0+1+2", "1+2+3"}
    assert solve("0+0+1+2").inside == {"0+0+1", "0+1+2"}
    assert solve("37*24").inside == {"20*37+37*4", "37*4+740"}
    assert solve("9-(1+2+3)*2").inside == {"1+2+3", "(1+2+3)*2", "9-(3+3)*2", "9-2*6"}  # 9-12 has one operation
    for problem in sampled("sum", {}) + sampled("expression", {}):
        remainders = {canonical_key(parse(line)) for line in problem.restated if operations(parse(line)) >= 2}
        assert remainders <= problem.inside | {problem.key}
        assert problem.key not in problem.inside
        assert all(operations(parse(key)) >= 2 for key in problem.inside)


def test_what_is_no_problem_is_a_value_error() -> None:
    for question in ("", "5", "1/0", "2*(3-3)/(1-1)", "1++2", "what is 2+2", "1" * 500, "\u0661+1"):
        with pytest.raises(ValueError):
            solve(question)


def test_axes_that_no_problem_can_meet_are_reported() -> None:
    with pytest.raises(UserError, match=r"expression: no problem of depth 3 was found .*; allow more"):
        sampled("expression", {"operators": "/", "largest": 1, "depth": 3}, 1)
    with pytest.raises(UserError, match=r"countdown: no problem of depth 3 was found .*; allow more"):
        sampled("countdown", {"operators": "*", "largest_number": 2, "smallest": 17, "numbers": 4}, 1)
