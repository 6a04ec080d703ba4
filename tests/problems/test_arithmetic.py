"""Parsing, exact values, reductions and canonical keys."""

import random
import re
import time
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.problems.arithmetic import (
    Tree,
    canonical_key,
    combine,
    evaluate,
    is_plain,
    operations,
    parse,
    parse_number,
    partial_products,
    passed_through,
    reduce_once,
    render,
)


def trees(lowest: int) -> st.SearchStrategy[Tree]:
    numbers: st.SearchStrategy[Tree] = st.integers(min_value=lowest, max_value=99)
    return st.recursive(numbers, lambda inner: st.tuples(st.sampled_from("+-*/"), inner, inner), max_leaves=8)


TREES = trees(-99)  # what may stand in a remainder
QUESTIONS = trees(0)


def steps(text: str) -> tuple[list[str], list[str]]:
    """The worked solution in both wordings."""
    listed, restated = [], []
    tree = parse(text)
    while not is_plain(tree):
        operation, result, tree = reduce_once(tree)
        listed.append(f"{render(operation)}={render(result)}")
        restated.append(render(tree))
    return listed, restated


def key(text: str) -> str:
    return canonical_key(parse(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("10-4-3", 3),
        ("10-(4-3)", 9),
        ("24/4*2", 12),
        ("24/(4*2)", 3),
        ("45-29+(38-7)", 47),
        ("007+1", 8),
        ("-4+2", -2),
        ("5*(-4)", -20),
        ("7/2+1", Fraction(9, 2)),
        (" 12 +\t7 ", 19),
    ],
)
def test_precedence_is_standard_and_values_are_exact(text: str, value: Fraction) -> None:
    assert evaluate(parse(text)) == value


def test_equal_operators_group_to_the_left() -> None:
    assert parse("10-4-3") == ("-", ("-", 10, 4), 3)
    assert parse("10-(4-3)") == ("-", 10, ("-", 4, 3))
    assert parse("1+2*3") == ("+", 1, ("*", 2, 3))


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("", "number is missing at the end"),
        ("   ", "number is missing at the end"),
        ("12+", "number is missing at the end"),
        ("+12", "number is missing before '\\+'"),
        ("2**3", "number is missing before '\\*'"),
        ("2--3", "number is missing before '-'"),
        ("2*-3", "number is missing before '-'"),
        ("--3", "sign may stand only before a number"),
        ("-(3)", "sign may stand only before a number"),
        ("()", "number is missing before '\\)'"),
        ("(1+)", "number is missing before '\\)'"),
        ("1 2", "operator is missing before '2'"),
        ("2(3)", "operator is missing before '\\('"),
        ("(2)3", "operator is missing before '3'"),
        ("(1+2", "is not closed"),
        ("1+2)", "closes nothing"),
        ("1+2=3", "'=' is not arithmetic"),
        ("1.5+2", "'.' is not arithmetic"),
        ("1e9", "'e' is not arithmetic"),
        ("\uff11\uff12+1", "is not arithmetic"),
        ("1\n+2", "is not arithmetic"),
        ("1" * 65, "may have 64 digits"),
        ("1+" * 200 + "1", "may have 400 characters, this one has 401"),
        ("(" * 65 + "1" + ")" * 65, "nested 64 deep"),
        ("__import__('os')", "is not arithmetic"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_reason(text: str, clause: str) -> None:
    with pytest.raises(ValueError, match=clause):
        parse(text)


def test_the_largest_allowed_expressions_are_read() -> None:
    assert evaluate(parse("(" * 64 + "1" + ")" * 64)) == 1
    assert evaluate(parse("1+" * 199 + "10")) == 209  # 400 characters
    assert evaluate(parse("9" * 64 + "+1")) == 10**64


def test_division_by_zero_is_refused_and_not_guessed() -> None:
    with pytest.raises(ValueError, match="division by zero"):
        evaluate(parse("1+2/(3-3)"))
    with pytest.raises(ValueError, match="division by zero"):
        combine("/", 2, 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        (" -3\n", -3),
        ("+7", 7),
        ("007", 7),
        ("-0", 0),
        ("7/2", Fraction(7, 2)),
        ("14/4", Fraction(7, 2)),
        ("3.50", Fraction(7, 2)),
        ("9" * 64, 10**64 - 1),
    ],
)
def test_numbers_are_read_by_value(text: str, value: Fraction) -> None:
    assert parse_number(text) == value


@pytest.mark.parametrize(
    "texts",
    [
        ["", " ", "-", "/", "/2", "4/", "1.", ".5"],  # something missing
        ["\uff11\uff12", "²", "\u0663", "1\u0663"],  # digits of other scripts
        ["1e9", "1_000", "1,000", "0x10", "inf", "nan", "True"],  # notations of programs
        ["4/0", "4/00", "4/-2", "1/2/3", "1.5/2", "1/2.5"],  # fractions
        ["--3", "+-3", "1 2", "- 3", "12+4", "=16", "16;", "16\x00", "16\u00a0", "16\u200b"],  # something more
        ["1" * 65, "1/" + "1" * 65, "1." + "0" * 65],  # more than 64 digits
    ],
)
def test_everything_else_is_no_number(texts: list[str]) -> None:
    assert [parse_number(text) for text in texts] == [None] * len(texts)


@pytest.mark.parametrize(
    "text",
    ["1" * 10**6, "1/" + "1" * 10**6, " " * 10**6 + "x", "-" * 10**6, "1." * 10**6],
    ids=lambda text: repr(text[-3:]),
)
def test_a_million_characters_are_refused_at_once(text: str) -> None:
    start = time.perf_counter()
    assert parse_number(text) is None
    assert time.perf_counter() - start < 0.5


def test_worked_solution_goes_from_the_left_in_both_wordings() -> None:
    assert steps("12+7-3") == (["12+7=19", "19-3=16"], ["19-3", "16"])
    listed, restated = steps("45-29+(38-7)")
    assert listed == ["45-29=16", "38-7=31", "16+31=47"]
    assert restated == ["16+(38-7)", "16+31", "47"]
    assert steps("2+3*4")[0] == ["3*4=12", "2+12=14"]
    assert steps("8/(6-2)*(1+2)")[1] == ["8/4*(1+2)", "2*(1+2)", "2*3", "6"]


def test_values_below_zero_and_fractions_stay_readable_in_both_wordings() -> None:
    assert steps("3-7+2") == (["3-7=-4", "-4+2=-2"], ["-4+2", "-2"])
    assert steps("5*(3-7)") == (["3-7=-4", "5*(-4)=-20"], ["5*(-4)", "-20"])
    assert steps("7/2+1") == (["7/2+1=9/2"], ["9/2"])
    assert steps("2*(7/2)") == (["2*(7/2)=7"], ["7"])
    assert steps("6/4-1") == (["6/4=3/2", "3/2-1=1/2"], ["3/2-1", "1/2"])


def test_restated_remainders_keep_only_necessary_parentheses() -> None:
    assert render(parse("((1+2))+(3)")) == "1+2+3"
    assert render(parse("1-(2+3)")) == "1-(2+3)"
    assert render(parse("(1*2)+(3/4)")) == "1*2+3/4"
    assert render(parse("2*(3*4)")) == "2*(3*4)"
    assert render(("-", 1, -2)) == "1-(-2)"
    assert render(("*", ("+", -1, 2), 3)) == "(-1+2)*3"


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
    texts = [
        "12+7-3",
        "12-7+3",
        "12-7-3",
        "12+7+3",
        "12+7*3",
        "(12+7)*3",
        "12*7+3",
        "12/7*3",
        "12/(7*3)",
        "127-3",
        "12+73",
    ]
    assert len({key(text) for text in texts}) == len(texts)


def test_sub_expressions_and_remainders_of_two_or_more_operations_are_passed_through() -> None:
    assert [render(part) for part in passed_through(parse("1+2"))] == []
    assert [render(part) for part in passed_through(parse("1+2+3"))] == []
    assert [render(part) for part in passed_through(parse("1+2+3+4"))] == ["1+2+3", "3+3+4"]
    assert [render(part) for part in passed_through(parse("9-(1+2+3)*2"))] == [
        *["1+2+3", "(1+2+3)*2"],  # parts
        *["9-(3+3)*2", "9-6*2"],  # remainders; 9-12 has one operation
    ]


def test_partial_products_take_the_digits_from_the_highest_place_and_skip_zeros() -> None:
    def spread(text: str) -> str:
        tree = partial_products(parse(text))
        assert tree is not None
        return render(tree)

    assert spread("37*24") == "37*20+37*4"
    assert spread("37*204") == "37*200+37*4"
    assert spread("37*324") == "37*300+37*20+37*4"
    assert spread("37*20") == "37*20"
    assert spread("37*0") == "37*0"
    assert spread("37*(-24)") == "37*(-20)+37*(-4)"
    assert steps(spread("37*324"))[0] == [
        *["37*300=11100", "37*20=740", "11100+740=11840"],
        *["37*4=148", "11840+148=11988"],
    ]
    assert [partial_products(parse(text)) for text in ("37", "37+24", "2*(3+4)", "2*3*4")] == [None] * 4


@given(TREES)
def test_rendering_and_parsing_are_inverse(tree: Tree) -> None:
    text = render(tree)
    assert parse(text) == tree


@given(TREES)
def test_no_parenthesis_is_needless(tree: Tree) -> None:
    text = render(tree)
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
        if is_plain(tree):
            break
        _, _, tree = reduce_once(tree)
        assert evaluate(tree) == value
    assert is_plain(tree)
    assert parse_number(render(tree)) == value


@given(TREES, st.randoms(use_true_random=False))
def test_a_key_survives_shuffled_operands(tree: Tree, rng: random.Random) -> None:
    def shuffled(tree: Tree) -> Tree:
        if isinstance(tree, int):
            return tree
        operator, left, right = tree[0], shuffled(tree[1]), shuffled(tree[2])
        return (operator, right, left) if operator in "+*" and rng.random() < 0.5 else (operator, left, right)

    assert canonical_key(shuffled(tree)) == canonical_key(tree)


@given(QUESTIONS)
def test_a_key_survives_spaces_and_is_its_own_key(tree: Tree) -> None:
    assert key(re.sub(r"([-+*/()])", r" \1 ", render(tree))) == canonical_key(tree)
    assert key(canonical_key(tree)) == canonical_key(tree)


@given(QUESTIONS)
def test_equal_keys_mean_equal_values(tree: Tree) -> None:
    try:
        value = evaluate(tree)
    except ValueError:
        return
    assert evaluate(parse(canonical_key(tree))) == value


@settings(max_examples=300)
@given(st.text(alphabet="0123456789+-*/() \t=.eE\uff11²\n", max_size=60) | st.text(max_size=500))
def test_reading_any_text_ends_in_a_tree_or_a_value_error(text: str) -> None:
    parse_number(text)
    try:
        tree = parse(text)
    except ValueError:
        return
    assert parse(render(tree)) == tree
