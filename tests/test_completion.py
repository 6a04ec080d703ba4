"""Reading completions: what is well-formed, which voice, which answer, and that nothing hostile gets through."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_mini.completion import TAGS, Finish, Graded, grade, write
from r1_mini.problems import families
from r1_mini.problems.problem import Problem

PROBLEM = families.solve("12+7-3")
WORKED = "<think>12+7=19\n19-3=16</think><answer>16</answer>"


def read(completion: str, finish: Finish = "stop", problem: Problem = PROBLEM) -> Graded:
    return grade.__wrapped__(problem, completion, finish)  # large ones are not cached


def test_a_completion_gives_its_thinking_and_its_answer_and_is_well_formed_if_finished() -> None:
    for finish in ("stop", "length"):
        own = Graded(PROBLEM, "12+7=19\n19-3=16", "16", finish, well_formed=finish == "stop")
        assert read(WORKED, finish) == own
    assert read(f" \n{WORKED}\n ").well_formed and read("<think></think>\n<answer>16</answer>").well_formed
    assert (write(("12+7=19", "19-3=16"), "16"), write((), "16")) == (WORKED, "<think></think><answer>16</answer>")


TANGLED = [  # a tag repeated, in the wrong place, or in capitals
    *("<think></think><answer>15</answer><answer>16</answer>", "<think></think><answer>16<answer>"),
    *("<think><think></think></think><answer>16</answer>", "<answer>16</answer><answer>16</answer>"),
    *("<think></think><answer><answer>16</answer></answer>", "</think><think><answer>16</answer>"),
    *("<think></think><answer>1<think>6</answer>", "<think></think></think><answer>16</answer>"),
    *("<answer>16</answer><think></think>", "<think><answer>16</answer></think>", "<THINK></THINK><ANSWER>16</ANSWER>"),
]


def test_malformed_completions_give_only_what_is_unmistakable() -> None:
    for thinking, answer, completions in (
        (None, None, ["", "16", "<think>12+7=19", *TANGLED]),
        ("12+7=19", None, ["<think>12+7=19</think>", "<think>12+7=19</think><answer>19"]),
        (None, "16", ["<answer>16</answer>", "<think ></think ><answer>16</answer>"]),
        ("", None, ["<think></think>16"]),
        ("", "16", ["x<think></think><answer>16</answer>", "<think></think>x<answer>16</answer>"]),
        ("", "16", ["<think></think><answer>16</answer>x"]),
    ):
        for completion in completions:
            assert read(completion) == Graded(PROBLEM, thinking, answer, "stop", well_formed=False)
            assert read(completion).voice == "none"


def test_voices_are_told_apart_by_the_thinking() -> None:
    for voice, thoughts in {
        "direct": ["", " \n"],
        "worked": ["12+7=19\n19-3=16", "19-3\n16", "await", "wait what"],
        "checked": ["12+7=18\nwait\n12+7=19\n19-3=16", "wait"],
    }.items():
        assert {read(write([thinking], "16")).voice for thinking in thoughts} == {voice}
        assert {read(write([thinking], "16"), "length").voice for thinking in thoughts} == {"none"}


def test_an_answer_is_correct_if_it_is_one_number_of_the_right_value() -> None:
    listed = map(str, range(100))  # `test_arithmetic` has every notation of a number
    wrong = ["", "15", "16/0", "16\u200b", "sixteen", "16 or 17", "12+4", "16=16", " ".join(listed), "0" * 10**6 + "16"]
    for right, correct, answers in (
        ("16", True, ["16", " 16\n", "016", "32/2"]),
        ("7/2", True, ["14/4", "3.5"]),
        ("16", False, [*wrong, "</answer><answer>".join(map(str, range(100)))]),
    ):
        for answer in answers:
            assert read(write((), answer), "stop", replace(PROBLEM, answer=right)).correct == correct
            assert not read(write((), answer), "length", replace(PROBLEM, answer=right)).correct


@pytest.mark.parametrize("piece", ["<", *TAGS, "".join(TAGS[:3]), "9", "1/", "1.", "-", " ", "<think", "é"])
def test_a_million_pieces_are_read_in_linear_time(piece: str) -> None:
    many = piece * 10**6
    start = time.process_time()
    for completion in (many, f"<think>{many}</think><answer>{many}</answer>"):
        assert not read(completion).correct
    assert read(many).voice == "none"
    assert time.process_time() - start < 3.0


TAGGED = st.lists(st.sampled_from([*TAGS, "16", "\n", "wait", "x"]), max_size=10).map("".join)


@given(TAGGED | st.text(max_size=100), st.sampled_from(["stop", "length"]))
def test_reading_never_raises_and_well_formed_means_exactly_the_form(completion: str, finish: Finish) -> None:
    graded = read(completion, finish)
    if graded.well_formed:
        assert "".join(completion.split()) == "".join(write([graded.thinking], graded.answer).split())
        assert finish == "stop"
    assert (graded.voice == "none") == (not graded.well_formed)
    assert graded.correct <= (graded.answer is not None)
    assert graded.chain in ("right", "wrong", "none")


def test_a_chain_is_right_from_the_question_to_a_number() -> None:
    for completion, chain, first_wrong in (
        (write(["1+1=2", "2+1=3"], "3"), "right", None),
        (write(["1+1=2"], "3"), "wrong", None),
        (write(["1+1=3", "3+1=4"], "3"), "wrong", 1),
        (write(["1+1=2", "2+1=4"], "3"), "wrong", 2),
        (write(["1+1=3", "wait", "1+1=2", "2+1=3"], "3"), "right", None),
        (write(["   "], "3"), "none", None),
        ("<think>1+1=2", "none", None),  # thinking that never ends
    ):
        graded = read(completion, problem=families.solve("1+1+1"))
        assert (graded.chain, graded.first_wrong) == (chain, first_wrong)
        unchecked = read(completion, problem=replace(graded.problem, formula=None))  # no exact checker reads its steps
        assert unchecked.chain == ("none" if chain == "none" else "unchecked")
        assert (unchecked.steps, unchecked.first_wrong) == (None, None)


LENIENT = [
    *("12+7 is 19, 19-3 is 16.", "The answer is **16**.", r"So it is $\boxed{16}$.", "#### 16"),
    *("<think>12+7=19</think>16", "<think>12+7=19</think><answer>**16**</answer>"),
    "<think>12+7=19</think><answer>19-3 = 16</answer>",
]
NOT_EVEN = ["16 is wrong, it is 17", "", "no number", "9" * 10**6]
NOT_EVEN += ["<think>16</think><answer>17</answer>", "<think>16</think><answer>19-3</answer>"]  # its answer counts


def test_the_lenient_score_reads_the_last_number_where_answers_are_numbers_and_is_no_reward() -> None:
    for completion in (*LENIENT, *NOT_EVEN):
        assert (read(completion).lenient, read(completion).correct) == (completion in LENIENT, False)
        assert not read(completion, "length").lenient
    for judge, right, lenient in (("amount", "16", True), ("choice", "B", False), ("text", "16", False)):
        problem = replace(PROBLEM, answer=right, judge=judge)
        assert read("It is B or 16", "stop", problem).lenient == lenient
        assert read(write((), right), "stop", problem).lenient  # what is correct is lenient
