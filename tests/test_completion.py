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


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_completion_gives_its_thinking_and_its_answer_and_is_well_formed_if_finished(finish: Finish) -> None:
    assert read(WORKED, finish) == Graded(PROBLEM, "12+7=19\n19-3=16", "16", finish, well_formed=finish == "stop")
    assert read(f" \n{WORKED}\n ").well_formed
    assert read("<think></think>\n<answer>16</answer>").well_formed


def test_what_is_written_is_read_back() -> None:
    assert write(("12+7=19", "19-3=16"), "16") == WORKED
    assert write((), "16") == "<think></think><answer>16</answer>"


@pytest.mark.parametrize(
    ("thinking", "answer", "completions"),
    [
        (None, None, ["", "16", "<think>12+7=19"]),
        ("12+7=19", None, ["<think>12+7=19</think>", "<think>12+7=19</think><answer>19"]),
        (None, "16", ["<answer>16</answer>", "<think ></think ><answer>16</answer>"]),
        ("", None, ["<think></think>16"]),
        ("", "16", ["x<think></think><answer>16</answer>", "<think></think>x<answer>16</answer>"]),
        ("", "16", ["<think></think><answer>16</answer>x"]),
        # a tag repeated, in the wrong place, or in capitals
        (None, None, ["<think></think><answer>15</answer><answer>16</answer>", "<think></think><answer>16<answer>"]),
        (None, None, ["<think><think></think></think><answer>16</answer>", "<answer>16</answer><answer>16</answer>"]),
        (None, None, ["<think></think><answer><answer>16</answer></answer>", "</think><think><answer>16</answer>"]),
        (None, None, ["<think></think><answer>1<think>6</answer>", "<think></think></think><answer>16</answer>"]),
        (None, None, ["<answer>16</answer><think></think>", "<think><answer>16</answer></think>"]),
        (None, None, ["<THINK></THINK><ANSWER>16</ANSWER>"]),
    ],
)
def test_malformed_completions_give_only_what_is_unmistakable(thinking, answer, completions) -> None:
    for completion in completions:
        assert read(completion) == Graded(PROBLEM, thinking, answer, "stop", well_formed=False)
        assert read(completion).voice == "none"


@pytest.mark.parametrize(
    ("voice", "thoughts"),
    [
        ("direct", ["", " \n"]),
        ("worked", ["12+7=19\n19-3=16", "19-3\n16", "await", "wait what"]),
        ("checked", ["12+7=18\nwait\n12+7=19\n19-3=16", "wait"]),
    ],
)
def test_voices_are_told_apart_by_the_thinking(voice: str, thoughts: list[str]) -> None:
    assert {read(write([thinking], "16")).voice for thinking in thoughts} == {voice}
    assert {read(write([thinking], "16"), "length").voice for thinking in thoughts} == {"none"}


@pytest.mark.parametrize(
    ("right", "correct", "answers"),
    [
        ("16", True, ["16", " 16\n", "+16", "016", "16.0", "32/2"]),
        ("-3", True, ["-3", "-03", "-6/2"]),
        ("0", True, ["0", "-0", "0/7"]),
        ("7/2", True, ["7/2", "14/4", "3.5"]),
        ("16", False, ["", " ", "15", "-16", "16/1/1", "16/0", "33/2", "16.5"]),
        ("16", False, ["\uff11\uff16", "²", "16\u200b", "16\x00", "sixteen", "<b>16</b>"]),
        ("16", False, ["1.6e1", "16e0", "1_6", "0x10", "16.", "--16", "+-16"]),
        ("16", False, ["16 or 17", "16,17", "16=16", "12+4", "1 6", "16 16", " ".join(map(str, range(100)))]),
        ("16", False, ["</answer><answer>".join(map(str, range(100)))]),
        ("16", False, ["9" * 10**6, "0" * 10**6 + "16"]),
    ],
)
def test_an_answer_is_correct_if_it_is_one_number_of_the_right_value(right: str, correct: bool, answers: list) -> None:
    problem = replace(PROBLEM, answer=right)
    for answer in answers:
        assert read(write((), answer), "stop", problem).correct == correct
        assert not read(write((), answer), "length", problem).correct


@pytest.mark.parametrize("piece", ["<", *TAGS, "".join(TAGS[:3]), "<answer>1</answer>", "9", " ", "<think", "é"])
def test_a_million_pieces_are_read_in_linear_time(piece: str) -> None:
    many = piece * 10**6
    start = time.perf_counter()
    for completion in (many, f"<think>{many}</think><answer>{many}</answer>"):
        assert not read(completion).correct
    assert read(many).voice == "none"
    assert time.perf_counter() - start < 3.0


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


@pytest.mark.parametrize(
    ("completion", "chain", "first_wrong"),
    [
        (write(["1+1=2", "2+1=3"], "3"), "right", None),
        (write(["1+1=2"], "3"), "wrong", None),
        (write(["1+1=3", "3+1=4"], "3"), "wrong", 1),
        (write(["1+1=2", "2+1=4"], "3"), "wrong", 2),
        (write(["1+1=3", "wait", "1+1=2", "2+1=3"], "3"), "right", None),
        (write(["   "], "3"), "none", None),
        ("<think>1+1=2", "none", None),  # thinking that never ends
    ],
)
def test_a_chain_is_right_from_the_question_to_a_number(completion, chain, first_wrong) -> None:
    graded = read(completion, problem=families.solve("1+1+1"))
    assert (graded.chain, graded.first_wrong) == (chain, first_wrong)
    unchecked = read(completion, problem=replace(graded.problem, formula=None))  # no exact checker reads its steps
    assert unchecked.chain == ("none" if chain == "none" else "unchecked")
    assert (unchecked.steps, unchecked.first_wrong) == (None, None)


@pytest.mark.parametrize(
    ("lenient", "completions"),
    [
        (True, ["12+7 is 19, 19-3 is 16.", "The answer is **16**.", r"So it is $\boxed{16}$.", "#### 16"]),
        (True, ["<think>12+7=19</think>16", "<think>12+7=19</think><answer>**16**</answer>"]),
        (True, ["<think>12+7=19</think><answer>19-3 = 16</answer>"]),
        (False, ["16 is wrong, it is 17", "", "no number", "9" * 10**6]),
        (
            False,
            ["<think>16</think><answer>17</answer>", "<think>16</think><answer>19-3</answer>"],
        ),  # its answer counts
    ],
)
def test_the_lenient_score_reads_the_last_number_and_is_no_reward(lenient: bool, completions: list[str]) -> None:
    for graded in map(read, completions):
        assert (graded.lenient, graded.correct) == (lenient, False)
    assert not any(read(completion, "length").lenient for completion in completions)


@pytest.mark.parametrize(
    ("judge", "right", "lenient"), [("amount", "16", True), ("choice", "B", False), ("text", "16", False)]
)
def test_the_lenient_score_is_of_answers_that_are_numbers(judge: str, right: str, lenient: bool) -> None:
    problem = replace(PROBLEM, answer=right, judge=judge)
    assert read("It is B or 16", "stop", problem).lenient == lenient
    assert read(write((), right), "stop", problem).lenient  # what is correct is lenient
