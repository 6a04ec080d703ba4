"""The rules and their adapter to TRL."""

import inspect
import random

import pytest

from r1_mini.completion import read
from r1_mini.rewards import CONTROLS, RULES, accuracy, as_trl_reward, well_formed

RIGHT = "<think>12+7=19</think><answer>19</answer>"
WRONG = "<think>12+7=18</think><answer>18</answer>"
BARE = "<answer>19</answer>"
CUT = "<think>12+7=19</think><answer>19"


def test_accuracy_pays_for_the_right_value_alone() -> None:
    assert [accuracy(read(text, "stop"), "19") for text in (RIGHT, WRONG, BARE, CUT, "")] == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert accuracy(read(RIGHT, "length"), "19") == 0.0


def test_format_pays_for_the_form_alone() -> None:
    assert [well_formed(read(text, "stop")) for text in (RIGHT, WRONG, BARE, CUT, "")] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert well_formed(read(RIGHT, "length")) == 0.0


def test_guessing_twice_or_everything_does_not_earn_the_reward() -> None:
    for answers in (
        "<answer>18</answer><answer>19</answer>",
        "<answer>18 19</answer>",
        "<answer>18<answer>19</answer>",
    ):
        assert accuracy(read(f"<think></think>{answers}", "stop"), "19") == 0.0


def test_length_and_steps_are_not_rewarded() -> None:
    texts = (
        "<think></think><answer>19</answer>",
        RIGHT,
        "<think>" + "12+7=19\nwait\n" * 50 + "</think><answer>19</answer>",
    )
    assert {rule(read(text, "stop"), "19") for text in texts for rule in RULES.values()} == {1.0}


def control(name: str, right: list[float], tokens: list[int] | None = None) -> list[float]:
    return CONTROLS[name](right, tokens or [1] * len(right), random.Random(0))


def test_the_random_control_pays_as_often_as_the_truth_and_whether_or_not_it_is_right() -> None:
    right = [1.0] * 3_000 + [0.0] * 7_000
    paid = control("random", right)
    assert set(paid) == {0.0, 1.0}
    assert sum(paid) / 10_000 == pytest.approx(0.3, abs=0.02)  # more than four standard errors
    assert sum(paid[:3_000]) / 3_000 == pytest.approx(0.3, abs=0.035)


def test_the_shuffled_control_pays_exactly_what_the_truth_pays_to_others() -> None:
    right = [1.0] * 300 + [0.0] * 700
    paid = control("shuffled", right)
    assert sum(paid) == 300
    assert sum(paid[:300]) == pytest.approx(90, abs=40)


def test_the_inverted_length_and_constant_controls_by_hand() -> None:
    assert control("inverted", [1.0, 0.0, 0.0]) == [0.0, 1.0, 1.0]
    assert control("length", [1.0, 0.0, 0.0], [10, 40, 20]) == [0.25, 1.0, 0.5]
    assert control("constant", [1.0, 0.0, 0.0]) == [1.0, 1.0, 1.0]


def test_a_control_gives_the_same_batch_the_same_rewards_and_another_batch_others() -> None:
    def paid(prompt: str) -> list[float]:
        texts = [RIGHT, WRONG] * 32
        ids = [[1]] * 64
        return as_trl_reward("random")(
            [prompt] * 64, texts, ids, answer=["19"] * 64, judge=["number"] * 64, finish=["stop"] * 64
        )

    assert paid("12+7") == paid("12+7")
    assert paid("12+7") != paid("7+12")


@pytest.mark.parametrize(("name", "expected"), [("accuracy", [1.0, 0.0, 0.0, 1.0]), ("format", [1.0, 1.0, 0.0, 0.0])])
def test_as_a_trl_reward_a_rule_scores_each_completion_with_its_own_answer_and_finish(name, expected) -> None:
    reward = as_trl_reward(name)
    scores = reward(
        prompts=["User: 12+7\nAssistant:"] * 4,
        completions=[RIGHT, RIGHT, RIGHT, BARE],
        completion_ids=[[1], [2], [3], [4]],
        answer=["19", "18", "19", "19"],
        judge=["number"] * 4,
        finish=["stop", "stop", "length", "stop"],
        trainer_state=None,
        log_metric=None,
    )
    assert scores == expected
    assert all(type(score) is float for score in scores)
    assert reward.__name__ == name


def test_a_prompt_that_has_begun_the_thinking_is_read_with_the_completion() -> None:
    asked = {"completion_ids": [[1]], "answer": ["19"], "judge": ["number"], "finish": ["stop"]}
    completion = RIGHT.removeprefix("<think>")
    for prompt, expected in (("12+7\n<think>\n", [1.0]), ("12+7\n", [0.0])):
        assert as_trl_reward("format")([prompt], [completion], **asked) == expected


def test_the_adapter_has_the_arguments_that_trl_passes() -> None:
    assert list(inspect.signature(as_trl_reward("format")).parameters)[:3] == [
        "prompts",
        "completions",
        "completion_ids",
    ]


def test_a_column_of_the_wrong_length_is_an_error_and_not_a_silent_score() -> None:
    with pytest.raises(ValueError):
        as_trl_reward("accuracy")(
            [""] * 2, [RIGHT, RIGHT], [[], []], answer=["19"], judge=["number"], finish=["stop", "stop"]
        )


def test_an_unknown_rule_is_refused_with_the_nearest_known() -> None:
    with pytest.raises(ValueError, match="unknown reward 'acuracy'; nearest known: 'accuracy'"):
        as_trl_reward("acuracy")
