"""The checker of single steps: both wordings, products, retractions, wrong steps, and hostile text."""

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.problems.families import FAMILIES
from r1_mini.problems.steps import CheckedStep, chain_is_right, check_chain

CHECKED = sorted(FAMILIES.keys() - {"countdown"})  # a search has no formula


def verdicts(question: str, *lines: str) -> list[str]:
    return [step.verdict for step in check_chain(question, "\n".join(lines))]


def reasons(question: str, *lines: str) -> list[str]:
    return [step.reason for step in check_chain(question, "\n".join(lines))]


def right(question: str, *lines: str) -> bool:
    return chain_is_right(check_chain(question, "\n".join(lines)))


def test_a_right_chain_in_the_list_wording() -> None:
    assert verdicts("12+7-3", "12+7=19", "19-3=16") == ["right", "right"]
    assert right("12+7-3", "12+7=19", "19-3=16")
    assert right("45-29+(38-7)", "38-7=31", "45-29=16", "16+31=47")  # in any order that precedence allows


def test_a_right_chain_in_the_restate_wording() -> None:
    assert verdicts("45-29+(38-7)", "16+(38-7)", "16+31", "47") == ["right"] * 3
    assert right("45-29+(38-7)", "45-29+31", "16+31", "47")


def test_both_wordings_may_alternate() -> None:
    assert right("12+7-3", "12+7=19", "16")
    assert right("12+7-3", "19-3", "19-3=16")


def test_an_inexact_result_is_wrong_and_the_next_step_is_judged_by_what_it_builds_on() -> None:
    steps = check_chain("12+7-3", "12+7=18\n18-3=15")
    assert steps == [
        CheckedStep("12+7=18", "wrong", "12+7 is 19", arrived=False),
        CheckedStep("18-3=15", "right", "", arrived=True),
    ]
    assert not chain_is_right(steps)
    assert verdicts("12+7-3", "12+7=18", "19-3=16") == ["wrong", "wrong"]
    assert reasons("12+7-3", "18-3", "15") == ["12+7 is 19", ""]


def test_an_operation_that_does_not_stand_is_wrong_even_if_it_is_true() -> None:
    assert reasons("12+7-3", "7-3=4") == ["7-3 is not what stands to be done"]
    assert reasons("2+3*4", "2+3=5") == ["2+3 is not what stands to be done"]
    assert reasons("10-4-3", "4-3=1") == ["4-3 is not what stands to be done"]
    assert reasons("12+7", "1+1=2") == ["1+1 is not what stands to be done"]
    assert verdicts("12+7-3", "1+1=2", "12+7=19", "19-3=16") == ["wrong", "right", "right"]
    assert not right("12+7-3", "1+1=2", "12+7=19", "19-3=16")


def test_operands_of_plus_and_times_may_be_swapped_and_no_others() -> None:
    assert right("12+7", "7+12=19")
    assert right("3*4", "4*3=12")
    assert verdicts("12-7", "7-12=5") == verdicts("12-7", "7-12=-5") == ["wrong"]
    assert verdicts("12/4", "4/12=3") == verdicts("12/4", "4/12=1/3") == ["wrong"]


def test_a_step_used_once_is_used_up() -> None:
    assert verdicts("(1+2)*(1+2)", "1+2=3", "1+2=3", "3*3=9") == ["right"] * 3
    assert verdicts("(1+2)*4", "1+2=3", "1+2=3") == ["right", "wrong"]


def test_a_restated_line_must_be_exactly_one_operation_further() -> None:
    two_at_once = "more than one operation done, or something copied wrong"
    assert reasons("45-29+(38-7)", "16+31") == [two_at_once]
    assert reasons("12+7-3", "16") == [two_at_once]
    assert reasons("12+7-3", "19-4") == [two_at_once]
    assert reasons("12+7-3", "19+3") == [two_at_once]
    assert reasons("45-29+(38-7)", "16+38-7") == [two_at_once]  # a parenthesis dropped
    assert reasons("12+7-3", "12+7-3") == ["nothing was done"]
    assert reasons("12+7-3", "12+(7-3)") == [two_at_once]
    assert reasons("12+7-3", "12+4") == [two_at_once]
    assert reasons("12+7-3", "18+1-3") == reasons("12+7-3", "12+6+1-3") == ["12+7 is 19"]
    assert verdicts("12+7-3", "(19)-3", "16") == ["right", "right"]  # needless parentheses change nothing


def test_wait_takes_back_the_step_before_it_and_what_stood_stands_again() -> None:
    steps = check_chain("12+7-3", "12+7=18\nwait\n12+7=19\n19-3=16")
    assert [step.verdict for step in steps] == ["retracted", "right", "right", "right"]
    assert [step.reason for step in steps] == ["12+7 is 19", "", "", ""]
    assert chain_is_right(steps)
    assert right("45-29+(38-7)", "16+(38-7)", "16+30", "wait", "16+31", "47")


def test_a_right_step_that_is_taken_back_must_be_done_again() -> None:
    assert verdicts("12+7-3", "12+7=19", "wait", "19-3=16") == ["retracted", "right", "wrong"]
    assert reasons("12+7-3", "12+7=19", "wait")[0] == ""
    assert right("12+7-3", "12+7=19", "wait", "12+7=19", "19-3=16")
    assert not right("12+7", "12+7=19", "wait")


def test_wait_takes_back_one_step_and_no_more() -> None:
    assert verdicts("12+7", "wait", "12+7=19") == ["wrong", "right"]
    assert verdicts("12+7-3", "12+7=19", "19-3=15", "wait", "wait") == ["right", "retracted", "right", "wrong"]
    assert reasons("12+7", "wait") == ["no step to take back"]
    assert not right("12+7-3", "12+7=18", "18-3=15", "wait", "18-3=15")


def test_a_product_is_right_by_partial_products_or_at_once() -> None:
    assert verdicts("37*24", "37*20=740", "37*4=148", "740+148=888") == ["right"] * 3
    assert right("37*24", "37*20=740", "37*4=148", "740+148=888")
    assert right("37*24", "37*4=148", "37*20=740", "740+148=888")
    assert right("37*324", "37*300=11100", "37*20=740", "11100+740=11840", "37*4=148", "11840+148=11988")
    assert right("37*24", "37*24=888")
    assert right("37*24", "740+37*4", "740+148", "888")


def test_a_product_with_a_wrong_or_missing_part_is_wrong() -> None:
    assert reasons("37*24", "37*20=640", "37*4=148", "640+148=788") == ["37*20 is 740", "", ""]
    assert reasons("37*24", "37*2=74")[0] == "37*2 is not what stands to be done"
    assert reasons("37*24", "37*24=878") == ["37*24 is 888"]
    assert not right("37*24", "37*20=740", "37*4=148")
    assert verdicts("37*24", "37*20=740", "740+148=888") == ["right", "wrong"]


def test_values_below_zero_fractions_and_other_notations_are_judged_by_value() -> None:
    assert right("3-7+2", "3-7=-4", "-4+2=-2")
    assert right("3-7+2", "-4+2", "-2")
    assert right("5*(3-7)", "3-7=-4", "5*(-4)=-20")
    assert right("7/2+1", "7/2+1=9/2")
    assert right("6/4", "6/4=3/2") and right("6/4", "3/2")
    assert right("12+7", "012 + 7 = 019.0")
    assert reasons("7/2", "7/2=3") == ["not one operation on two numbers"]
    assert reasons("8/0", "8/0=0") == ["division by zero"]
    assert not right("8/0+1", "8/0=0", "0+1=1")


def test_a_chain_must_arrive() -> None:
    assert not chain_is_right([])
    assert not right("12+7-3", "12+7=19")
    assert verdicts("12+7", "12+7=19", "19+1=20") == ["right", "wrong"]
    assert verdicts("12+7", "12+7=19", "19") == ["right", "wrong"]


def test_blank_lines_and_outer_spaces_do_not_count() -> None:
    assert verdicts("12+7-3", "", " 12+7=19 ", "\t", "19-3=16", "") == ["right", "right"]
    assert check_chain("12+7-3", " \n\n") == []


@pytest.mark.parametrize(
    "lines",
    [
        ["=", "12+7=", "=19", "12+7==19", "12+7=19=19"],
        ["12=12", "12+7-3=16", "7=7"],
        ["12+7=1 9", "12+7=1e1", "12+7=\uff11\uff19", "12+7=19;", "12+7=19\x00", "12+7=38/0", "12+7=" + "9" * 65],
        ["hello", "((((", "\uff19+1", "2**9**9**9", "12+", "Wait", "wait wait", "#wait"],
    ],
)
def test_what_cannot_be_read_is_wrong_and_changes_nothing(lines: list[str]) -> None:
    for line in lines:
        assert verdicts("12+7-3", line, "12+7=19", "19-3=16") == ["wrong", "right", "right"]
        assert reasons("12+7-3", line)[0]


def test_a_question_that_is_no_arithmetic_makes_every_step_wrong() -> None:
    assert verdicts("how many?", "1+1=2", "wait") == ["wrong", "wrong"]
    assert reasons("1+", "1+1=2") == ["the question cannot be read: a number is missing at the end"]


def test_lines_and_characters_are_bounded() -> None:
    steps = check_chain("12+7", "1+1=2\n" * 100_000)
    assert len(steps) == 257
    assert steps[-1].reason == "more than 256 lines"
    (long,) = check_chain("12+7", "1" * 10**6)
    assert (long.verdict, long.reason, len(long.text)) == ("wrong", "longer than 400 characters", 401)


@pytest.mark.parametrize(
    "thinking",
    [
        "wait\n" * 10**6,
        "(" * 10**6,
        "1+" * 10**6,
        "\n" * 10**6,
        " " * 10**6,
        "=" * 10**6,
        "9" * 10**6,
        "\n".join(["(" * 64 + "1" + "+1)" * 64] * 300),
        "\n".join(["1+" * 199 + "10"] * 300),
        "\n".join(["9" * 64 + "*" + "9" * 64 + "=" + "9" * 64] * 300),
        "\n".join(["9" * 64 + "/" + "7" * 64 + "+" + "8" * 64 + "/" + "3" * 64] * 300),
    ],
    ids=lambda thinking: repr(thinking[:3]),
)
@pytest.mark.parametrize(
    "question",
    ["12+7-3", "1+" * 199 + "10", "9" * 64 + "*" + "7" * 64, "1/" * 100 + "3"],
    ids=lambda question: repr(question[:3]),
)
def test_hostile_thinking_is_judged_in_bounded_time(question: str, thinking: str) -> None:
    start = time.perf_counter()
    assert not chain_is_right(check_chain(question, thinking))
    assert time.perf_counter() - start < 2.0


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="0123456789+-*/()= \nwait", max_size=80) | st.text(max_size=80),
    st.sampled_from(["12+7-3", "37*24", "45-29+(38-7)", "7/2+1", "1/0", "5", "", "x"]),
)
def test_judging_any_text_never_raises(thinking: str, question: str) -> None:
    for step in check_chain(question, thinking):
        assert (step.reason == "") or step.verdict != "right"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CHECKED), st.integers(0, 10**6), st.sampled_from(["steps", "restated"]), st.integers(1, 9))
def test_a_chain_with_one_number_changed_is_wrong_there_and_mended_by_wait(name, seed, wording, change) -> None:
    family, rng = FAMILIES[name], random.Random(seed)
    axes = family.axes()
    problem = family.problem(family.sketch(rng, axes, rng.choice(family.depths(axes))))
    lines = getattr(problem, wording) or problem.steps
    place = rng.randrange(len(lines))
    line, start = lines[place], lines[place].rfind("=") + 1  # the result, or the whole remainder
    number = rng.choice(list(re.compile("[0-9]+").finditer(line, start)))
    wrong = f"{line[: number.start()]}{int(number.group()) + change}{line[number.end() :]}"
    judged = check_chain(problem.formula, "\n".join([*lines[:place], wrong, *lines[place + 1 :]]))
    assert [step.verdict for step in judged[: place + 1]] == ["right"] * place + ["wrong"]
    assert not chain_is_right(judged)
    assert right(problem.formula, *lines[:place], wrong, "wait", *lines[place:])
