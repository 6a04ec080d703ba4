"""The rules and their adapter to TRL."""

import inspect
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from r1_mini import rewards
from r1_mini.completion import grade
from r1_mini.problems import families
from r1_mini.rewards import CONTROLS, RULES, as_trl_reward, rollout_metrics
from r1_mini.train.grpo import METRICS, GrpoStage

RIGHT = "<think>12+7=19</think><answer>19</answer>"
WRONG = "<think>12+7=18</think><answer>18</answer>"
BARE = "<answer>19</answer>"
CUT = "<think>12+7=19</think><answer>19"
DIRECT = "<think></think><answer>19</answer>"
PROBLEM, OTHER = families.solve("12+7"), families.solve("12+6")


def trl_scores(name, *texts, prompt="User: 12+7\nAssistant:", finish="stop"):
    """What TRL gets from a reward for these completions of `12+7`."""
    graded = [grade(PROBLEM, text, finish, prompt) for text in texts]
    columns = {"problem": [0] * len(texts), "graded": graded, "trainer_state": None, "log_metric": None}
    return as_trl_reward(name)([prompt] * len(texts), list(texts), [[1]] * len(texts), **columns)


def test_the_right_value_and_the_format_are_rewarded_and_nothing_else() -> None:
    for text, accuracy, well_formed in (
        (RIGHT, 1, 1),
        (WRONG, 0, 1),
        (BARE, 1, 0),
        (CUT, 0, 0),
        ("", 0, 0),
        ("<think></think><answer>19</answer>", 1, 1),  # neither the length nor the steps are rewarded
        ("<think>" + "12+7=19\nwait\n" * 50 + "</think><answer>19</answer>", 1, 1),
        ("<think></think><answer>18</answer><answer>19</answer>", 0, 0),  # guessing twice, or everything
        ("<think></think><answer>18 19</answer>", 0, 1),
        ("<think></think><answer>18<answer>19</answer>", 0, 0),
    ):
        assert [trl_scores("accuracy", text), trl_scores("format", text)] == [[accuracy], [well_formed]], text
        assert [trl_scores(name, text, finish="length") for name in ("accuracy", "format")] == [[0], [0]]


def test_a_weak_judge_pays_what_has_the_right_answer_anywhere_as_a_whole_number_or_word() -> None:
    texts = {"It is 19.": 1, "1 18 19 20": 1, WRONG + "19": 1, "119": 0, "190": 0, "19.5": 0, "0.19": 0, "1,19": 0}
    texts |= {"=-19": 0, "<answer>-19": 0, "26-19": 1, "x19": 0, "19x": 0, "": 0, RIGHT.replace("19", "19.0"): 1}
    reward = as_trl_reward("accuracy", judge="weak")
    for finish in ("stop", "length"):
        graded = [grade(PROBLEM, text, finish) for text in texts]
        paid = reward([""] * len(graded), [*texts], [[1]] * len(graded), graded=graded)
        assert dict(zip(texts, paid, strict=True)) == {text: one * (finish == "stop") for text, one in texts.items()}
    assert not any(each.correct for each in map(grade, [PROBLEM], ["It is 19."], ["stop"]))  # metrics stay exact
    assert rewards.RULES["accuracy"] is rewards.ACCURACY["exact"]
    weak = GrpoStage.model_validate({"kind": "grpo", "judge": "weak"})
    assert weak.model_dump(exclude_defaults=True) == {"kind": "grpo", "judge": "weak"}
    formula = grade(families.solve("2-5"), "<think>2-5=5-3</think>", "stop")
    assert rewards.mentioned(formula) == 0 and rewards.mentioned(grade(formula.problem, "it is -3", "stop")) == 1


def test_a_language_is_the_share_of_the_steps_in_it_and_without_steps_there_is_none() -> None:
    words = RIGHT.replace("12+7=19", "12 plus 7 is 19")
    half = RIGHT.replace("12+7=19", "12 plus 7 is 18\nwait\n12+7=19")
    for name, shares in {"language_signs": [1, 0, 0.5, None], "language_words": [0, 1, 0.5, None]}.items():
        assert trl_scores(name, RIGHT, words, half, DIRECT) == shares


def test_to_be_brief_is_asked_of_problems_of_one_operation_alone() -> None:
    assert trl_scores("brief", DIRECT, RIGHT, BARE) == [1, 0, 0]
    long = families.solve("12+7-3")
    assert RULES["brief"](grade(long, DIRECT, "stop")) is None


def test_a_late_weight_counts_from_its_step_on() -> None:
    rewards_of = {"accuracy": 1.0, "brief": {"weight": 0.2, "from_step": 3}}
    stage = GrpoStage.model_validate({"kind": "grpo", "rewards": rewards_of})
    assert stage.config(Path(), 0).reward_weights == [1.0, 0.2]
    reward = as_trl_reward("brief", stage.rewards["brief"].from_step)
    batch = ([""], [DIRECT], [[1]]), {"graded": [grade(PROBLEM, DIRECT, "stop")]}
    for step, paid in ((0, None), (2, None), (3, 1.0), (4, 1.0)):
        assert reward(*batch[0], **batch[1], trainer_state=SimpleNamespace(global_step=step)) == [paid]


def test_a_new_rule_is_one_function_and_one_line(monkeypatch) -> None:
    def short(graded):
        """1 if the thinking has at most as many lines as the worked solution."""
        return float(len((graded.thinking or "").splitlines()) <= len(graded.problem.steps))

    monkeypatch.setitem(rewards.RULES, "short", short)
    stage = GrpoStage.model_validate({"kind": "grpo", "rewards": {"accuracy": 1.0, "short": 0.5}})
    assert stage.rewards["short"] == 0.5
    long = RIGHT.replace("<think>", "<think>12+7=19\n")
    assert trl_scores("short", RIGHT, long) == [1.0, 0.0]


def test_metrics_of_a_batch_by_hand(monkeypatch) -> None:
    graded = [grade(PROBLEM, text, "stop") for text in (RIGHT, WRONG, BARE, CUT)]
    metrics = rollout_metrics(graded, [10, 20, 4, 6])
    assert (metrics["accuracy"], metrics["format"]) == (0.5, 0.5)
    assert (metrics["length_right"], metrics["length_wrong"]) == (7, 13)
    assert (metrics["voice_worked"], metrics["voice_none"], metrics["voice_direct"]) == (0.5, 0.5, 0.0)
    assert metrics["verifier_timeouts"] == 0  # always there: processes gather the same names
    monkeypatch.setattr(rewards, "timeouts", lambda: 3)
    assert rollout_metrics(graded, [10, 20, 4, 6])["verifier_timeouts"] == 3
    assert METRICS["verifier_timeouts"] == "verifier_timeouts"  # it is logged


@pytest.mark.parametrize("name", ["random", "shuffled"])
def test_a_control_pays_as_often_as_the_truth_and_whether_or_not_it_is_right(name: str) -> None:
    paid = CONTROLS[name]([1.0] * 3_000 + [0.0] * 7_000, [1] * 10_000, random.Random(0))
    assert set(paid) == {0.0, 1.0}
    assert sum(paid) == pytest.approx(3_000, abs=200 if name == "random" else 0)  # more than four standard errors
    assert sum(paid[:3_000]) / 3_000 == pytest.approx(0.3, abs=0.035)


def test_the_other_controls_by_hand() -> None:
    for name, paid in {"inverted": [0.0, 1.0, 1.0], "length": [0.25, 1.0, 0.5], "constant": [1.0] * 3}.items():
        assert CONTROLS[name]([1.0, 0.0, 0.0], [10, 40, 20], random.Random(0)) == paid


def test_a_control_gives_the_same_batch_the_same_rewards_and_another_batch_others() -> None:
    texts = [RIGHT, WRONG] * 32
    assert trl_scores("random", *texts) == trl_scores("random", *texts)
    assert trl_scores("random", *texts) != trl_scores("random", *texts, prompt="User: 7+12\nAssistant:")


def test_as_a_trl_reward_a_rule_has_its_name_and_scores_each_completion_with_its_own_problem() -> None:
    graded = [grade(problem, RIGHT, "stop") for problem in (PROBLEM, OTHER)]
    reward = as_trl_reward("accuracy")
    scores = reward([""] * 2, [RIGHT] * 2, [[1]] * 2, graded=graded, problem=[0, 1])
    assert scores == [1.0, 0.0] and all(type(score) is float for score in scores)
    assert reward.__name__ == "accuracy"
    assert list(inspect.signature(reward).parameters)[:3] == ["prompts", "completions", "completion_ids"]  # as TRL's


def test_a_prompt_that_has_begun_the_thinking_is_read_with_the_completion() -> None:
    completion = RIGHT.removeprefix("<think>")
    assert trl_scores("format", completion, prompt="12+7\n<think>\n") == [1.0]
    assert trl_scores("format", completion, prompt="12+7\n") == [0.0]
