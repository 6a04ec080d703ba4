"""Reading completions: what is well-formed, which voice, which answer, and that nothing hostile gets through."""

import time
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_mini.completion import Transcript, grade, is_correct, read, write
from r1_mini.problems import families
from r1_mini.problems.arithmetic import parse_number

WORKED = "<think>12+7=19\n19-3=16</think><answer>16</answer>"


def test_a_well_formed_completion_gives_its_thinking_and_its_answer() -> None:
    assert read(WORKED, "stop") == Transcript("12+7=19\n19-3=16", "16", "stop", True)
    assert read(f" \n{WORKED}\n ", "stop").well_formed
    assert read("<think></think>\n<answer>16</answer>", "stop").well_formed


def test_what_is_written_is_read_back() -> None:
    assert write(("12+7=19", "19-3=16"), "16") == WORKED
    assert write((), "16") == "<think></think><answer>16</answer>"


def test_an_unfinished_completion_is_neither_well_formed_nor_correct() -> None:
    assert read(WORKED, "length").answer == "16"
    assert not read(WORKED, "length").well_formed
    assert not is_correct(read(WORKED, "length"), "16")


@pytest.mark.parametrize(
    ("completion", "thinking", "answer"),
    [
        ("", None, None),
        ("16", None, None),
        ("<think>12+7=19", None, None),
        ("<think>12+7=19</think>", "12+7=19", None),
        ("<think>12+7=19</think><answer>19", "12+7=19", None),
        ("<answer>16</answer>", None, "16"),
        ("<think></think>16", "", None),
        ("x<think></think><answer>16</answer>", "", "16"),
        ("<think></think>x<answer>16</answer>", "", "16"),
        ("<think></think><answer>16</answer>x", "", "16"),
        ("<think></think><answer>16</answer><answer>16</answer>", None, None),
        ("<think></think><answer>15</answer><answer>16</answer>", None, None),
        ("<answer>16</answer><answer>16</answer>", None, None),
        ("<answer>16</answer><think></think>", None, None),
        ("<think><answer>16</answer></think>", None, None),
        ("<think><think></think></think><answer>16</answer>", None, None),
        ("<think></think><answer><answer>16</answer></answer>", None, None),
        ("<think></think><answer>1<think>6</answer>", None, None),
        ("<think></think></think><answer>16</answer>", None, None),
        ("</think><think><answer>16</answer>", None, None),
        ("<think></think><answer>16<answer>", None, None),
        ("<THINK></THINK><ANSWER>16</ANSWER>", None, None),
        ("<think ></think ><answer>16</answer>", None, "16"),
    ],
)
def test_malformed_completions_give_only_what_is_unmistakable(completion, thinking, answer) -> None:
    transcript = read(completion, "stop")
    assert (transcript.thinking, transcript.answer) == (thinking, answer)
    assert not transcript.well_formed
    assert transcript.voice == "none"


def test_voices_are_told_apart_by_the_thinking() -> None:
    def voice(thinking: str) -> str:
        return read(f"<think>{thinking}</think><answer>16</answer>", "stop").voice

    assert voice("") == voice(" \n") == "direct"
    assert voice("12+7=19\n19-3=16") == voice("19-3\n16") == "worked"
    assert voice("12+7=18\nwait\n12+7=19\n19-3=16") == voice("wait") == "checked"
    assert voice("await") == voice("wait what") == "worked"
    assert read(WORKED, "length").voice == "none"


@pytest.mark.parametrize(
    ("right", "notations"),
    [
        ("16", ["16", " 16\n", "+16", "016", "16.0", "32/2"]),
        ("-3", ["-3", "-03", "-6/2"]),
        ("0", ["0", "-0", "0/7"]),
        ("7/2", ["7/2", "14/4", "3.5"]),
    ],
)
def test_an_answer_of_the_right_value_is_correct_in_any_notation(right: str, notations: list[str]) -> None:
    for notation in notations:
        assert is_correct(read(f"<think></think><answer>{notation}</answer>", "stop"), right)


@pytest.mark.parametrize(
    "answers",
    [
        ["", " ", "15", "-16", "16/1/1", "16/0", "33/2", "16.5"],
        ["\uff11\uff16", "²", "16\u200b", "16\x00", "sixteen", "<b>16</b>"],
        ["1.6e1", "16e0", "1_6", "0x10", "16.", "--16", "+-16"],
        ["16 or 17", "16,17", "16=16", "12+4", "1 6", "16 16"],
        ["9" * 10**6, "0" * 10**6 + "16"],
    ],
    ids=["value", "characters", "notation", "expression", "length"],
)
def test_any_other_answer_is_wrong(answers: list[str]) -> None:
    for answer in answers:
        assert not is_correct(read(f"<think></think><answer>{answer}</answer>", "stop"), "16")


def test_listing_every_number_does_not_make_an_answer_correct() -> None:
    assert not is_correct(read("<think></think><answer>" + " ".join(map(str, range(100))) + "</answer>", "stop"), "16")
    every_number = "".join(f"<answer>{number}</answer>" for number in range(100))
    assert not is_correct(read(f"<think></think>{every_number}", "stop"), "16")


@pytest.mark.parametrize(
    "piece",
    ["<", "<think>", "</answer>", "<think></think><answer>", "<answer>1</answer>", "9", " ", "<think", "\n", "é"],
)
def test_a_million_pieces_are_read_in_linear_time(piece: str) -> None:
    start = time.perf_counter()
    transcript = read(piece * 10**6, "stop")
    assert transcript.voice == "none"
    assert not is_correct(transcript, "1")
    transcript = read(f"<think>{piece * 10**6}</think><answer>{piece * 10**6}</answer>", "stop")
    assert transcript.voice in ("direct", "worked", "none")
    assert not is_correct(transcript, "1")
    assert time.perf_counter() - start < 3.0


TAGGED = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "16", "\n", "wait", "x"]), max_size=10
)


@given(TAGGED.map("".join) | st.text(max_size=100), st.sampled_from(["stop", "length"]), st.text(max_size=5))
def test_reading_never_raises_and_well_formed_means_exactly_the_form(completion, finish, answer) -> None:
    transcript = read(completion, finish)
    is_correct(transcript, answer)
    if transcript.well_formed:
        rebuilt = f"<think>{transcript.thinking}</think><answer>{transcript.answer}</answer>"
        assert "".join(completion.split()) == "".join(rebuilt.split())
        assert finish == "stop"
    assert (transcript.voice == "none") == (not transcript.well_formed)


@given(st.fractions(max_denominator=10**6))
def test_the_text_of_a_fraction_is_read_as_its_value(value: Fraction) -> None:
    assert parse_number(str(value)) == value


@pytest.mark.parametrize(
    "thinking,expected",
    [
        ("1+1=2\n2+1=3", ("right", None)),
        ("1+1=2", ("wrong", None)),
        ("1+1=3\n3+1=4", ("wrong", 1)),
        ("1+1=2\n2+1=4", ("wrong", 2)),
        ("1+1=3\nwait\n1+1=2\n2+1=3", ("right", None)),
        ("   ", ("none", None)),
    ],
)
def test_a_chain_is_right_from_the_question_to_a_number(thinking, expected):
    graded = grade(families.solve("1+1+1"), f"<think>{thinking}</think><answer>3</answer>", "stop")
    assert (graded.chain, graded.first_wrong) == expected


def test_thinking_that_never_ends_is_no_chain():
    assert grade(families.solve("1+1+1"), "<think>1+1=2", "length").chain == "none"


def test_a_chain_that_nobody_can_check_is_neither_right_nor_wrong():
    problem = replace(families.solve("1+1+1"), formula=None)
    graded = grade(problem, "<think>Ann has 3 apples, so</think><answer>3</answer>", "stop")
    assert (graded.chain, graded.steps, graded.first_wrong) == ("unchecked", None, None)
    assert grade(problem, "<think></think><answer>3</answer>", "stop").chain == "none"
