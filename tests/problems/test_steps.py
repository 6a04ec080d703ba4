"""The checker of single steps: both wordings, products, retractions, wrong steps, and hostile text."""

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.problems.families import FAMILIES
from r1_mini.problems.steps import CheckedStep, chain_is_right, check_chain
from tests.problems.sampled import sampled

CHECKED = sorted(FAMILIES.keys() - {"countdown"})  # a search has no formula


def check(question: str, lines: str) -> list[CheckedStep]:
    """Judge lines that are separated by `; `."""
    return check_chain(question, lines.replace("; ", "\n"))


RIGHT = {
    "12+7-3": (
        *("12+7=19; 19-3=16", "12+7=19; 16", "19-3; 19-3=16"),  # the wordings may alternate
        *("(19)-3; 16", ";  12+7=19 ; \t; 19-3=16; "),  # needless parentheses and blanks change nothing
    ),
    "45-29+(38-7)": (  # in any order that precedence allows
        *("38-7=31; 45-29=16; 16+31=47", "16+(38-7); 16+31; 47", "45-29+31; 16+31; 47"),
    ),
    "37*24": (  # by partial products, or at once
        *("37*20=740; 37*4=148; 740+148=888", "37*4=148; 37*20=740; 740+148=888", "37*24=888"),
        "740+37*4; 740+148; 888",
    ),
    "37*324": ("37*300=11100; 37*20=740; 11100+740=11840; 37*4=148; 11840+148=11988",),
    "37*(-24)": ("37*(-20)=-740; 37*(-4)=-148; -740+(-148)=-888",),
    **{"12+7": ("7+12=19", "012 + 7 = 019.0"), "3*4": ("4*3=12",), "(1+2)*(1+2)": ("1+2=3; 1+2=3; 3*3=9",)},
    **{"3-7+2": ("3-7=-4; -4+2=-2", "-4+2; -2"), "5*(3-7)": ("3-7=-4; 5*(-4)=-20",)},
    **{"7/2+1": ("7/2+1=9/2",), "6/4": ("6/4=3/2", "3/2")},
}


@pytest.mark.parametrize(
    ("question", "lines"), [(asked, lines) for asked, several in RIGHT.items() for lines in several]
)
def test_a_chain_of_right_steps_that_arrives_is_right(question: str, lines: str) -> None:
    steps = check(question, lines)
    assert {(step.verdict, step.reason) for step in steps} == {("right", "")}
    assert chain_is_right(steps)


NOT_READY = {
    **{"12+7-3": "7-3=4", "2+3*4": "2+3=5", "10-4-3": "4-3=1", "37*24": "37*2=74"},
    **{"12-7": "7-12=-5", "12/4": "4/12=1/3"},  # operands that do not commute
}
TWO_AT_ONCE = "more than one operation done, or something copied wrong"


@pytest.mark.parametrize(
    ("question", "lines", "reasons"),
    [
        ("12+7-3", "12+7=18; 18-3=15", ["12+7 is 19", ""]),  # later steps are judged by what they build on
        ("12+7-3", "18-3; 15", ["12+7 is 19", ""]),
        ("12+7-3", "12+7=18; 19-3=16", ["12+7 is 19", "19-3 is not what stands to be done"]),
        ("12+7-3", "1+1=2; 12+7=19; 19-3=16", ["1+1 is not what stands to be done", "", ""]),  # although it is true
        *[(asked, line, [f"{line.split('=')[0]} is not what stands to be done"]) for asked, line in NOT_READY.items()],
        ("(1+2)*4", "1+2=3; 1+2=3", ["", "1+2 is not what stands to be done"]),  # what was done is used up
        ("12+7", "12+7=19; 19+1=20", ["", "19+1 is not what stands to be done"]),
        ("12+7", "12+7=19; 19", ["", "nothing was done"]),
        ("12+7-3", "12+7-3", ["nothing was done"]),
        *[("45-29+(38-7)", line, [TWO_AT_ONCE]) for line in ("16+31", "16+38-7")],  # the second drops a parenthesis
        *[("12+7-3", line, [TWO_AT_ONCE]) for line in ("16", "19-4", "19+3", "12+(7-3)", "12+4")],
        *[("12+7-3", line, ["12+7 is 19"]) for line in ("18+1-3", "12+6+1-3")],
        ("37*24", "37*20=640; 37*4=148; 640+148=788", ["37*20 is 740", "", ""]),
        ("37*24", "37*24=878", ["37*24 is 888"]),
        ("37*24", "37*20=740; 740+148=888", ["", "740+148 is not what stands to be done"]),
        ("7/2", "7/2=3", ["not one operation on two numbers"]),
        ("8/0", "8/0=0", ["division by zero"]),
        ("8/0+1", "8/0=0; 0+1=1", ["division by zero", ""]),
        ("12+7", "wait; 12+7=19", ["no step to take back", ""]),
        ("1+", "1+1=2; wait", ["the question cannot be read: a number is missing before 'the end'"] * 2),
    ],
)
def test_a_wrong_step_has_its_reason_and_makes_the_chain_wrong(question: str, lines: str, reasons: list[str]) -> None:
    steps = check(question, lines)
    assert [step.reason for step in steps] == reasons
    assert [step.verdict for step in steps] == ["wrong" if reason else "right" for reason in reasons]
    assert not chain_is_right(steps)


def test_a_chain_must_arrive() -> None:
    for question, lines in (
        *(("12+7", " ;  "), ("12+7-3", "12+7=19"), ("37*24", "37*20=740; 37*4=148"), ("12+7", "12+7=19; wait")),
    ):
        steps = check(question, lines)
        assert not chain_is_right(steps)
        assert all(step.verdict != "wrong" and not step.reason for step in steps)
    assert [step.arrived for step in check("12+7-3", "12+7=18; 18-3=15; wait")] == [False, True, False]


@pytest.mark.parametrize(
    ("lines", "verdicts", "sound"),
    [
        ("12+7=18; wait; 12+7=19; 19-3=16", "retracted right right right", True),
        ("19-3; 15; wait; 16", "right retracted right right", True),
        ("12+7=19; wait; 12+7=19; 19-3=16", "retracted right right right", True),
        ("12+7=19; wait; 19-3=16", "retracted right wrong", False),  # what was taken back must be done again
        ("12+7=19; 19-3=15; wait; wait", "right retracted right wrong", False),  # one step and no more
        ("12+7=18; 18-3=15; wait; 18-3=15", "wrong retracted right right", False),
    ],
)
def test_wait_takes_back_one_step_and_what_stood_stands_again(lines: str, verdicts: str, sound: bool) -> None:
    steps = check("12+7-3", lines)
    assert [step.verdict for step in steps] == verdicts.split()
    assert chain_is_right(steps) == sound
    assert (steps[0].reason == "12+7 is 19") == lines.startswith("12+7=18")  # also of a step that is taken back


def test_what_cannot_be_read_is_wrong_and_changes_nothing() -> None:
    for line in (
        *("=", "12+7=", "=19", "12+7==19", "12+7=19=19", "12=12", "12+7-3=16", "7=7", "hello", "((((", "\uff19+1"),
        *("12+7=1 9", "12+7=1e1", "12+7=\uff11\uff19", "12+7=19;", "12+7=19\x00", "12+7=38/0", "12+7=" + "9" * 65),
        *("2**9**9**9", "12+", "Wait", "wait wait", "#wait"),
    ):
        steps = check("12+7-3", f"{line}; 12+7=19; 19-3=16")
        assert [step.verdict for step in steps] == ["wrong", "right", "right"]
        assert steps[0].reason


def test_lines_and_characters_are_bounded() -> None:
    steps = check_chain("12+7", "1+1=2\n" * 100_000)
    assert len(steps) == 257
    assert steps[-1].reason == "more than 256 lines"
    (long,) = check_chain("12+7", "1" * 10**6)
    assert (long.verdict, long.reason, len(long.text)) == ("wrong", "longer than 400 characters", 401)
    assert check_chain("12+7", f"12+7{' ' * 395}=19")[0].reason == "longer than 400 characters"


@pytest.mark.parametrize("question", ["12+7-3", "1+" * 199 + "10", "9" * 64 + "*" + "7" * 64, "1/" * 100 + "3"])
def test_hostile_thinking_is_judged_in_bounded_time(question: str) -> None:
    for thinking in (
        *(piece * 10**6 for piece in ("wait\n", "(", "1+", "\n", " ", "=", "9")),
        "\n".join(["(" * 64 + "1" + "+1)" * 64] * 300),
        "\n".join(["1+" * 199 + "10"] * 300),
        "\n".join(["9" * 64 + "*" + "9" * 64 + "=" + "9" * 64] * 300),
        "\n".join(["9" * 64 + "/" + "7" * 64 + "+" + "8" * 64 + "/" + "3" * 64] * 300),
    ):
        start = time.process_time()
        assert not chain_is_right(check_chain(question, thinking))
        assert time.process_time() - start < 2.0


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
    rng = random.Random(seed)
    (problem,) = sampled(name, {}, 1, seed)
    lines = getattr(problem, wording) or problem.steps
    place = rng.randrange(len(lines))
    line, start = lines[place], lines[place].rfind("=") + 1  # the result, or the whole remainder
    number = rng.choice(list(re.compile("[0-9]+").finditer(line, start)))
    wrong = f"{line[: number.start()]}{int(number.group()) + change}{line[number.end() :]}"
    judged = check_chain(problem.formula, "\n".join([*lines[:place], wrong, *lines[place + 1 :]]))
    assert [step.verdict for step in judged[: place + 1]] == ["right"] * place + ["wrong"]
    assert not chain_is_right(judged)
    assert chain_is_right(check_chain(problem.formula, "\n".join([*lines[:place], wrong, "wait", *lines[place:]])))
