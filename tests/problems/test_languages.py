"""Two languages of a chain, which the checker reads alike."""

import pytest

from r1_mini.completion import grade
from r1_mini.problems import families
from r1_mini.problems.languages import WORDS, in_signs, in_words, language_of
from r1_mini.problems.steps import check_chain
from r1_mini.train.sft import BaseStage

TWO = [
    ("45+17=62", "45 plus 17 is 62"),
    ("3-8=-5", "3 minus 8 is -5"),
    ("-5+3=-2", "-5 plus 3 is -2"),
    ("(3+4)*2", "(3 plus 4) times 2"),
    ("7/2+1/2=4", "7/2 plus 1/2 is 4"),
    ("19", "19"),
    ("wait", "wait"),
]


@pytest.mark.parametrize(("signs", "words"), TWO)
def test_a_step_is_the_same_in_signs_and_in_words(signs, words) -> None:
    assert in_words(signs) == words
    assert in_signs(words) == in_signs(signs) == signs


def test_words_are_a_token_each_so_both_languages_are_of_one_length() -> None:
    stage = {"kind": "base", "languages": {"signs": 0.5, "words": 0.5}, "problems": [{"family": "sum"}]}
    tokenizer = BaseStage.model_validate(stage).tokenizer()
    for signs, words in TWO:
        assert len(tokenizer(signs)["input_ids"]) == len(tokenizer(words)["input_ids"])
        assert tokenizer.decode(tokenizer(words)["input_ids"]) == words
    assert not set(WORDS.values()) & set(BaseStage(kind="base").tokenizer().get_vocab())


@pytest.mark.parametrize(
    ("chain", "language", "each"),
    [
        ("12+7=19\n19-3=16", "signs", ["signs", "signs"]),
        ("12 plus 7 is 19\n19 minus 3 is 16", "words", ["words", "words"]),
        ("12+7=19\n19 minus 3 is 16", "mixed", ["signs", "words"]),
        ("12 plus 7=19\n19-3=16", "mixed", ["mixed", "signs"]),
        ("12+7=18\nwait\n12+7=19\n19-3=16", "signs", ["signs", "signs", "signs"]),
        ("19-3\n16", "signs", ["signs"]),
        ("", None, []),
    ],
)
def test_a_chain_has_the_languages_of_its_steps_and_a_sound_one_is_sound_in_each(chain, language, each) -> None:
    graded = grade(families.solve("12+7-3"), f"<think>{chain}</think><answer>16</answer>", "stop")
    assert (graded.language, graded.languages) == (language, each)
    assert graded.chain == ("right" if chain else "none")


def test_a_wrong_step_in_words_is_wrong_and_no_text_is_cut_into_a_right_one() -> None:
    (wrong,) = check_chain("12+7", "12 plus 7 is 18")
    assert (wrong.text, wrong.verdict, wrong.reason) == ("12 plus 7 is 18", "wrong", "12+7 is 19")
    (long,) = check_chain("12+7", "12 plus 7 is 19" + " plus " * 80)
    assert long.verdict == "wrong"
    assert language_of("12 plus7=19") == "signs"
