"""Parsing, exact values, reductions and canonical keys."""

import random
import re
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_mini.problems import arithmetic
from r1_mini.problems.arithmetic import Tree, canonical_key, evaluate, operations, parse, parse_number, render
from r1_mini.problems.families.base import worked_out


def trees(lowest: int) -> st.SearchStrategy[Tree]:
    numbers: st.SearchStrategy[Tree] = st.integers(min_value=lowest, max_value=99)
    return st.recursive(numbers, lambda inner: st.tuples(st.sampled_from("+-*/"), inner, inner), max_leaves=8)


TREES = trees(-99)  # what may stand in a remainder


def key(text: str) -> str:
    return canonical_key(parse(text))


EQUATIONS = "2+3*4=14 (2+3)*4=20 10-4-3=3 10-(4-3)=9 24/4*2=12 24/(4*2)=3 45-29+(38-7)=47 007+1=8 7/2+1=9/2"
SIGNS = "-4+2=-2 5*(-4)=-20 (-4)*5=-20 5-(-4)=9"
LONGEST = ["(" * 64 + "1" + ")" * 64 + "=1", "1+" * 199 + "10=209", "9" * 64 + "+1=1" + "0" * 64]  # 400 characters


@pytest.mark.parametrize("equation", [*EQUATIONS.split(), *SIGNS.split(), *LONGEST, " 12 +\t7 = 19"])
def test_precedence_is_standard_and_values_are_exact(equation: str) -> None:
    text, value = equation.split("=")
    assert evaluate(parse(text)) == Fraction(value)


@pytest.mark.parametrize(
    ("reason", "texts"),
    [
        ("a number is missing before 'the end'", ["", "   ", "12+"]),
        ("a number is missing before", ["+12", "2**3", "2--3", "2*-3", "--3", "-(3)", "()", "(1+)", ".5", "x+1"]),
        ("an operator or 'the end' is missing before", ["1 2", "2(3)", "(2)3", "1+2)", "1+2=3", "1.5+2", "1e9", "1\n"]),
        (r"an operator or '\)' is missing before 'the end'", ["(1+2"]),
        ("is missing before", ["\uff11\uff12+1", "1+\u0662", "2\u00b2", "__import__('os')"]),
        ("is missing before", ["1" * 65, "(" * 65 + "1" + ")" * 65]),
        ("longer than 400 characters", ["1+" * 200 + "1"]),
    ],
)
def test_what_is_no_expression_is_refused_with_the_reason(reason: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(ValueError, match=reason):
            parse(text)


@pytest.mark.parametrize("use", [evaluate, worked_out])
def test_division_by_zero_is_refused_and_not_guessed(use) -> None:
    for text in ("1+2/(3-3)", "2/0"):
        with pytest.raises(ValueError, match="division by zero"):
            use(parse(text))


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (16, ["16"]),
        (-3, [" -3\n"]),
        (7, ["+7", "007"]),
        (0, ["-0"]),
        (Fraction(7, 2), ["7/2", "14/4", "3.50"]),
        (10**64 - 1, ["9" * 64]),
        (None, ["", " ", "-", "/", "/2", "4/", "1.", ".5"]),  # something missing
        (None, ["\uff11\uff12", "²", "\u0663", "1\u0663"]),  # digits of other scripts
        (None, ["1e9", "1_000", "1,000", "0x10", "inf", "nan", "True"]),  # notations of programs
        (None, ["4/0", "4/00", "4/-2", "1/2/3", "1.5/2", "1/2.5"]),  # fractions
        (None, ["--3", "+-3", "1 2", "- 3", "12+4", "=16", "16;", "16\x00", "16\u00a0", "16\u200b"]),  # something more
        (None, ["1" * 65, "1/" + "1" * 65, "1." + "0" * 65]),  # more than 64 digits
    ],
)
def test_numbers_are_read_by_value_and_everything_else_is_none(value: Fraction | None, texts: list[str]) -> None:
    assert [parse_number(text) for text in texts] == [value] * len(texts)


def test_commuted_respaced_and_regrouped_forms_share_a_key() -> None:
    assert key("12+7-3") == key("7 - 3 + 12") == key("(7+12)-3") == key("12-(3-7)") == "12+7-3"
    assert key("37*24") == key("24 * 37") == "24*37"
    assert key("(1+2)*3") == key("3*(2+1)") == "(1+2)*3"
    assert key("8/(4/2)") == key("8*2/4") == key("2*8/4")
    assert key("12/2/3") == key("12/3/2") == key("12/(3*2)")
    assert key("3-7+2") == key("2+3-7")
    assert key("-4+2") == key("2-4")
    assert key("1+2*3") == key("3*2+1")


def test_different_problems_have_different_keys() -> None:
    sums = ["12+7-3", "12-7+3", "12-7-3", "12+7+3", "127-3", "12+73"]
    texts = [*sums, "12+7*3", "(12+7)*3", "12*7+3", "12/7*3", "12/(7*3)"]
    assert len({key(text) for text in texts}) == len(texts)


@given(TREES)
def test_rendering_and_parsing_are_inverse_and_no_parenthesis_is_needless(tree: Tree) -> None:
    text = render(tree)
    assert parse(text) == tree
    stack = []
    for place, character in enumerate(text):
        if character == "(":
            stack.append(place)
        elif character == ")":
            start = stack.pop()
            without = text[:start] + text[start + 1 : place] + text[place + 1 :]
            with suppress(ValueError):  # a sign left standing after an operator
                assert parse(without) != tree


@given(TREES)
def test_every_reduction_keeps_the_value_and_ends_at_the_answer(tree: Tree) -> None:
    try:
        value = evaluate(tree)
    except ValueError:
        return
    for _ in range(2 * operations(tree)):
        if arithmetic.is_plain(tree):
            break
        _, _, tree = arithmetic.reduce_once(tree)
        assert evaluate(tree) == value
    assert arithmetic.is_plain(tree)
    assert parse_number(render(tree)) == value


@given(TREES, st.randoms(use_true_random=False))
def test_a_key_survives_shuffled_operands(tree: Tree, rng: random.Random) -> None:
    def shuffled(tree: Tree) -> Tree:
        if isinstance(tree, int):
            return tree
        operator, left, right = tree[0], shuffled(tree[1]), shuffled(tree[2])
        return (operator, right, left) if operator in "+*" and rng.random() < 0.5 else (operator, left, right)

    assert canonical_key(shuffled(tree)) == canonical_key(tree)


@given(trees(0))
def test_a_key_survives_spaces_is_its_own_key_and_has_the_value_of_the_question(tree: Tree) -> None:
    assert key(re.sub(r"([-+*/()])", r" \1 ", render(tree))) == canonical_key(tree)
    assert key(canonical_key(tree)) == canonical_key(tree)
    try:
        value = evaluate(tree)
    except ValueError:
        return
    assert evaluate(parse(canonical_key(tree))) == value
