"""The rules and their adapter to TRL."""

import inspect
import random

import pytest

from r1_mini import rewards
from r1_mini.completion import grade
from r1_mini.problems import families
from r1_mini.rewards import CONTROLS, RULES, as_trl_reward, rollout_metrics
from r1_mini.train.grpo import GrpoStage

RIGHT = "<think>12+7=19</think><answer>19</answer>"
WRONG = "<think>12+7=18</think><answer>18</answer>"
BARE = "<answer>19</answer>"
CUT = "<think>12+7=19</think><answer>19"


PROBLEM = families.solve("12+7")


def reward(name: str, text: str, finish: str = "stop") -> float:
    return RULES[name](grade(PROBLEM, text, finish), PROBLEM)


def test_accuracy_pays_for_the_right_value_alone() -> None:
    assert [reward("accuracy", text) for text in (RIGHT, WRONG, BARE, CUT, "")] == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert reward("accuracy", RIGHT, "length") == 0.0


def test_format_pays_for_the_format_alone() -> None:
    assert [reward("format", text) for text in (RIGHT, WRONG, BARE, CUT, "")] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert reward("format", RIGHT, "length") == 0.0


@pytest.mark.parametrize(
    "answers",
    ["<answer>18</answer><answer>19</answer>", "<answer>18 19</answer>", "<answer>18<answer>19</answer>"],
)
def test_guessing_twice_or_everything_does_not_earn_the_reward(answers: str) -> None:
    assert reward("accuracy", f"<think></think>{answers}") == 0.0


def test_length_and_steps_are_not_rewarded() -> None:
    many = "<think>" + "12+7=19\nwait\n" * 50 + "</think><answer>19</answer>"
    texts = ("<think></think><answer>19</answer>", RIGHT, many)
    assert {reward(name, text) for text in texts for name in RULES} == {1.0}


def test_a_new_rule_is_one_function_and_one_line(monkeypatch) -> None:
    def short(graded, problem):
        """1 if the thinking has at most as many lines as the worked solution."""
        return float(len((graded.thinking or "").splitlines()) <= len(problem.steps))

    monkeypatch.setitem(rewards.RULES, "short", short)
    stage = GrpoStage.model_validate({"kind": "grpo", "rewards": {"accuracy": 1.0, "short": 0.5}})
    assert stage.rewards["short"] == 0.5
    long = RIGHT.replace("<think>", "<think>12+7=19\n")
    assert trl_scores("short", RIGHT, long) == [1.0, 0.0]


def test_metrics_of_a_batch_by_hand() -> None:
    graded = [grade(PROBLEM, text, "stop") for text in (RIGHT, WRONG, BARE, CUT)]
    metrics = rollout_metrics(graded, [10, 20, 4, 6])
    assert (metrics["accuracy"], metrics["format"]) == (0.5, 0.5)
    assert (metrics["length_right"], metrics["length_wrong"]) == (7, 13)
    assert (metrics["voice_worked"], metrics["voice_none"], metrics["voice_direct"]) == (0.5, 0.5, 0.0)


def trl_scores(name, *texts, prompt="User: 12+7\nAssistant:", problems=(0,), finish="stop"):
    """What TRL gets from a reward for these completions of `12+7`, or of other problems."""
    known = [PROBLEM, families.solve("12+6")]
    index = (list(problems) * len(texts))[: len(texts)]
    graded = [grade(known[i], text, finish, prompt) for i, text in zip(index, texts, strict=True)]
    columns = {"problem": index, "graded": graded, "trainer_state": None, "log_metric": None}
    return as_trl_reward(name, known)([prompt] * len(texts), list(texts), [[1]] * len(texts), **columns)


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
    texts = [RIGHT, WRONG] * 32
    assert trl_scores("random", *texts) == trl_scores("random", *texts)
    assert trl_scores("random", *texts) != trl_scores("random", *texts, prompt="User: 7+12\nAssistant:")


@pytest.mark.parametrize(("name", "expected"), [("accuracy", [1.0, 0.0, 1.0]), ("format", [1.0, 1.0, 0.0])])
def test_as_a_trl_reward_a_rule_scores_each_completion_with_its_own_problem(name, expected) -> None:
    scores = trl_scores(name, RIGHT, RIGHT, BARE, problems=(0, 1, 0))
    assert scores == expected
    assert all(type(score) is float for score in scores)
    assert trl_scores(name, RIGHT, finish="length") == [0.0]
    assert as_trl_reward(name, []).__name__ == name


def test_a_prompt_that_has_begun_the_thinking_is_read_with_the_completion() -> None:
    completion = RIGHT.removeprefix("<think>")
    assert trl_scores("format", completion, prompt="12+7\n<think>\n") == [1.0]
    assert trl_scores("format", completion, prompt="12+7\n") == [0.0]


def test_the_adapter_has_the_arguments_that_trl_passes() -> None:
    parameters = inspect.signature(as_trl_reward("format", [])).parameters
    assert list(parameters)[:3] == ["prompts", "completions", "completion_ids"]


def test_a_column_of_the_wrong_length_is_an_error_and_not_a_silent_score() -> None:
    with pytest.raises(ValueError):
        graded = [grade(PROBLEM, RIGHT, "stop")] * 2
        as_trl_reward("accuracy", [PROBLEM])([""] * 2, [RIGHT] * 2, [[], []], problem=[0], graded=graded)
