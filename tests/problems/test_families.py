"""The families: what they draw stays within their axes, and their solutions are right."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from r1_mini.problems.arithmetic import canonical_key, evaluate, operations, parse, parse_number, render
from r1_mini.problems.families import FAMILIES, solve
from r1_mini.problems.steps import chain_is_right, check_chain

AXES = [
    ("sum", {}),
    ("sum", {"largest": 99}),
    ("sum", {"terms": [7, 9], "digits": 3, "largest": 299}),
    ("sum", {"terms": 3, "operators": "+"}),
    ("product", {}),
    ("product", {"digits": [3, 4]}),
    ("product", {"digits": 1}),
    ("expression", {}),
    ("expression", {"operators": "+-", "depth": [2, 7]}),
    ("expression", {"operators": "+-*", "nesting": 0}),
    ("expression", {"operators": "/", "depth": [1, 3]}),
    ("expression", {"digits": 1, "largest": 50}),
    ("expression", {"digits": 3, "largest": 999, "nesting": 1}),
]


def draws(name: str, settings: dict, n: int = 300):
    family, rng = FAMILIES[name], random.Random(0)
    axes = family.axes(**settings)
    return [family.draw(rng, axes) for _ in range(n)]


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in "".join(c if c.isdigit() else " " for c in text).split()]


def nesting(text: str) -> int:
    return max(text[:place].count("(") - text[:place].count(")") for place in range(len(text) + 1))


@pytest.mark.parametrize(("name", "settings"), AXES)
def test_drawn_answers_and_every_step_are_right(name: str, settings: dict) -> None:
    for problem in draws(name, settings):
        assert parse_number(problem.answer) == evaluate(parse(problem.question))
        for step in problem.steps:
            left, right = step.split("=")
            assert evaluate(parse(left)) == parse_number(right)
        assert problem.steps[-1].endswith(f"={problem.answer}")
        for line in problem.restated:
            assert evaluate(parse(line)) == parse_number(problem.answer)
        assert chain_is_right(check_chain(problem.question, "\n".join(problem.steps)))
        assert (problem.restated == ()) == (name == "product")
        if problem.restated:
            assert problem.restated[-1] == problem.answer
            assert len(problem.restated) == len(problem.steps)
            assert chain_is_right(check_chain(problem.question, "\n".join(problem.restated)))


@pytest.mark.parametrize(("name", "settings"), AXES)
def test_a_drawn_question_solved_as_text_is_the_same_problem(name: str, settings: dict) -> None:
    for problem in draws(name, settings, 50):
        assert FAMILIES[name].solve(problem.question) == problem
        assert render(parse(problem.question)) == problem.question


@pytest.mark.parametrize(("name", "settings"), AXES)
def test_depth_counts_the_steps_and_every_declared_depth_occurs(name: str, settings: dict) -> None:
    problems = draws(name, settings)
    assert all(problem.difficulty["depth"] == len(problem.steps) for problem in problems)
    cells = FAMILIES[name].cells(FAMILIES[name].axes(**settings))
    assert {problem.difficulty["depth"] for problem in problems} == set(cells)


@pytest.mark.parametrize(("name", "settings"), AXES)
def test_a_problem_drawn_at_a_depth_has_that_depth(name: str, settings: dict) -> None:
    family, rng = FAMILIES[name], random.Random(0)
    axes = family.axes(**settings)
    for depth in family.cells(axes):
        assert all(family.draw(rng, axes, depth).difficulty["depth"] == depth for _ in range(30))


def test_sums_have_the_terms_digits_and_operators_that_were_asked() -> None:
    problems = draws("sum", {"terms": [2, 4], "digits": 2})
    assert {len(numbers_in(problem.question)) for problem in problems} == {2, 3, 4}
    assert {len(str(n)) for problem in problems for n in numbers_in(problem.question)} == {1, 2}
    assert {c for problem in problems for c in problem.question if not c.isdigit()} == {"+", "-"}
    assert {c for problem in draws("sum", {"operators": "+"}) for c in problem.question if not c.isdigit()} == {"+"}
    assert any(problem.answer.startswith("-") for problem in problems)


def test_running_totals_of_a_bounded_sum_stay_within_the_bound() -> None:
    totals = [int(step.split("=")[1]) for problem in draws("sum", {"largest": 150}) for step in problem.steps]
    assert min(totals) >= 0
    assert 100 < max(totals) <= 150


def test_factors_of_a_product_have_exactly_the_digits_that_were_asked() -> None:
    for problem in draws("product", {"digits": [3, 4]}):
        assert [len(str(number)) for number in numbers_in(problem.question)] == [3, 4]


def test_expressions_stay_within_their_axes() -> None:
    axes = {"depth": [1, 6], "digits": 2, "operators": "+-*/", "nesting": 2, "largest": 199}
    problems = draws("expression", axes, 1000)
    for problem in problems:
        assert all(0 <= int(step.split("=")[1]) <= 199 for step in problem.steps)
        assert all(number <= 99 for number in numbers_in(problem.question))
        assert nesting(problem.question) == problem.difficulty["nesting"] <= 2
    text = "".join(problem.question for problem in problems)
    assert all(text.count(operator) > 300 for operator in "+-*/")
    assert {problem.difficulty["nesting"] for problem in problems} == {0, 1, 2}
    assert all("(" not in problem.question for problem in draws("expression", {"nesting": 0}))


def test_long_expressions_without_parentheses_are_found() -> None:
    (problem,) = draws("expression", {"depth": 15, "operators": "+-", "nesting": 0}, 1)
    assert len(problem.steps) == 15


def test_a_product_is_never_only_a_number_times_one() -> None:
    values = {int(problem.answer) for problem in draws("expression", {"depth": 1, "operators": "*"})}
    assert not values & {1, 2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79}


def test_numbers_of_deep_expressions_do_not_dwindle() -> None:
    numbers = [n for problem in draws("expression", {"depth": 6}) for n in numbers_in(problem.question)]
    assert sum(numbers) / len(numbers) > 20
    assert numbers.count(0) < 0.05 * len(numbers)


def test_worked_solutions_of_known_problems() -> None:
    total = solve("12+7-3")
    assert (total.family, total.answer, total.key) == ("sum", "16", "12+7-3")
    assert total.steps == ("12+7=19", "19-3=16")
    assert total.restated == ("19-3", "16")
    assert total.difficulty == {"depth": 2, "digits": 2}
    product = solve("37*24")
    assert (product.family, product.answer, product.key) == ("product", "888", "24*37")
    assert product.steps == ("37*20=740", "37*4=148", "740+148=888")
    assert product.difficulty == {"depth": 3, "digits": 2}
    mixed = solve("45-29+(38-7)")
    assert (mixed.family, mixed.answer) == ("expression", "47")
    assert mixed.restated == ("16+(38-7)", "16+31", "47")
    assert mixed.difficulty == {"depth": 3, "digits": 2, "nesting": 1}


def test_one_step_problems_are_the_same_problem_in_every_family() -> None:
    assert FAMILIES["sum"].solve("12+7").key == FAMILIES["expression"].solve("7+12").key
    assert FAMILIES["product"].solve("37*24").key == FAMILIES["expression"].solve("24*37").key


def test_inside_are_the_larger_problems_on_the_way_and_never_the_problem_itself() -> None:
    assert solve("12+7").inside == frozenset()
    assert solve("12+7-3").inside == frozenset()
    assert solve("12+7-3+20").inside == {"12+7-3", "19+20-3"}
    assert solve("45-29+(38-7)").inside == {"16+38-7"}
    assert solve("0+1+2+3").inside == {"0+1+2", "1+2+3"}
    assert solve("0+0+1+2").inside == {"0+0+1", "0+1+2"}
    assert solve("37*20").inside == frozenset()
    assert solve("37*24").inside == {"20*37+37*4", "37*4+740"}


@pytest.mark.parametrize("name", ["sum", "expression"])
def test_every_larger_remainder_of_a_drawn_problem_is_inside(name: str) -> None:
    for problem in draws(name, {}):
        for line in problem.restated:
            if operations(parse(line)) >= 2:
                assert canonical_key(parse(line)) in problem.inside | {problem.key}
        assert problem.key not in problem.inside
        assert all(operations(parse(key)) >= 2 for key in problem.inside)


def test_a_users_question_may_have_negative_values_and_fractions() -> None:
    assert solve("3-7+2").restated == ("-4+2", "-2")
    assert solve("7/2+1").answer == "9/2"
    assert solve(" ( 12 + 7 ) ").question == "12+7"


@pytest.mark.parametrize("question", ["", "5", "1/0", "2*(3-3)/(1-1)", "1++2", "what is 2+2", "1" * 500, "\u0661+1"])
def test_what_is_no_problem_is_a_value_error(question: str) -> None:
    with pytest.raises(ValueError):
        solve(question)


@pytest.mark.parametrize(
    ("name", "axes", "message"),
    [
        ("sum", {"terms": [5, 1]}, "terms [5, 1]: the first is larger than the second"),
        ("sum", {"terms": 1}, "terms 1: must lie between 2 and 100"),
        ("sum", {"terms": [2, 101]}, "terms 101: must lie between 2 and 100"),
        ("sum", {"terms": "2-6"}, "terms '2-6': give a whole number or a pair of them, like [2, 6]"),
        ("sum", {"terms": [2.5, 6]}, "give a whole number"),
        ("sum", {"terms": True}, "give a whole number"),
        ("sum", {"terms": 100, "digits": 9}, "a question may have 400 characters"),
        ("sum", {"digits": 0}, "digits 0: must lie between 1 and 15"),
        ("sum", {"operators": "*"}, "'+-' or '+'"),
        ("sum", {"largest": -1}, "largest -1: must lie between 1 and"),
        ("product", {"digits": [2, 0]}, "digits 0: must lie between 1 and 18"),
        ("expression", {"depth": [5, 1]}, "depth [5, 1]: the first is larger than the second"),
        ("expression", {"operators": "+^"}, "operators '+^': give some of + - * /"),
        ("expression", {"operators": ""}, "operators '': give some of + - * /"),
        ("expression", {"nesting": -1}, "nesting -1: must lie between 0 and 64"),
        ("expression", {"terms": 3}, "terms"),
    ],
)
def test_impossible_axes_are_refused_with_the_reason(name: str, axes: dict, message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        FAMILIES[name].axes(**axes)
    assert message in str(refusal.value)


def test_axes_that_no_expression_can_meet_are_reported() -> None:
    axes = FAMILIES["expression"].axes(operators="/", largest=1, depth=3)
    with pytest.raises(ValueError, match=r"no expression of depth 3 was found .*allow more"):
        FAMILIES["expression"].draw(random.Random(0), axes)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 8),
    st.integers(1, 3),
    st.sampled_from(["+-*/", "+-", "-", "+-*", "-/"]),
    st.integers(0, 3),
    st.integers(20, 999),
)
def test_any_axes_yield_expressions_within_them(seed, depth, digits, operators, nesting_most, largest) -> None:
    family = FAMILIES["expression"]
    axes = family.axes(depth=depth, digits=digits, operators=operators, nesting=nesting_most, largest=largest)
    try:
        problem = family.draw(random.Random(seed), axes)
    except ValueError as error:
        assert "allow more" in str(error)
        return
    assert problem.difficulty["depth"] == depth
    assert problem.difficulty["digits"] <= digits
    assert problem.difficulty["nesting"] <= nesting_most
    assert set(problem.question) <= set("0123456789()" + operators)
    assert all(0 <= int(step.split("=")[1]) <= largest for step in problem.steps)
