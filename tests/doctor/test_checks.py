"""Each check on courses made by hand: just over its threshold, and just under."""

import math
import re
from pathlib import Path

import pytest

from r1_mini.config import packaged
from r1_mini.doctor import checks
from r1_mini.doctor.case import Case, Course, flow, pilot_step, scaled
from r1_mini.pipeline.recipe import load

SMOKE = packaged.find("smoke", "tiny")
HEALTHY = {
    **{"reward": 0.7, "accuracy": 0.6, "format": 1.0, "solved": 0.3, "failed": 0.1, "zero_variance": 0.4},
    **{"entropy": 0.2, "length": 10.0, "truncated": 0.0, "voice_worked": 0.3, "voice_checked": 0.0},
    **{"logp_gap_mean": 1e-6, "logp_gap_max": 1e-5, "reward_accuracy": 0.6, "seconds": 0.3, "seconds_rollout": 0.1},
}


def course(start=None, end=None, n=20, *, rollouts=(), settings=(), needed=0):
    """A course whose metrics go in a straight line from start to end; what is not given stays as it is in HEALTHY."""
    first = HEALTHY | (start or {})
    last = first | (end or {})
    steps = [
        {"step": step + 1}
        | {key: first[key] + (last[key] - first[key]) * min(1.0, max(0.0, (step - 2) / max(1, n - 6))) for key in last}
        for step in range(n)
    ]
    return Course(load(SMOKE, settings), "02-grpo", steps, rollouts, needed, "runs/x/02-grpo")


def kept(n, **changes):
    row = {"step": 0, "problem": 0, "sample": 0, "depth": 3, "text": "<think></think><answer>1</answer>", "tokens": 8}
    row |= {"finish": "stop", "correct": False, "well_formed": True, "voice": "direct", "steps": None, "reward": 0.0}
    return [row | {"logp": -4.0} | changes for _ in range(n)]


def names(one):
    return [finding.name for check in checks.COURSE if (finding := check(one)) is not None]


def test_a_healthy_course_has_no_finding():
    assert names(course(end={"accuracy": 0.95, "reward": 1.05, "entropy": 0.03, "length": 18.0})) == []
    assert names(course(n=1)) == names(course(n=0)) == []


def test_what_goes_on_after_its_answer_never_stops():
    ends = kept(16, finish="length") + kept(16)
    assert checks.never_stops(course(rollouts=ends)).what.startswith("50% of the kept")
    assert checks.never_stops(course(rollouts=ends[1:] + kept(1))) is None


def test_a_limit_below_the_solutions_is_found_before_and_during_a_run():
    limit = ["grpo.trainer.max_completion_length=48"]
    found = checks.truncates(course({"truncated": 0.1}, needed=60, settings=limit))
    assert found.fix == ("grpo.trainer.max_completion_length=72",)  # 66, in eights
    assert checks.truncates(course({"truncated": 0.09}, needed=60, settings=limit)) is None
    assert checks.truncates(course(n=0, needed=49, settings=limit)).what.startswith(
        "completions will be truncated at 48"
    )
    assert checks.truncates(course(n=0, needed=48, settings=limit)) is None


def test_what_was_right_until_it_was_cut_off_wants_twice_the_limit():
    right, wrong = ([["1+1=2", verdict]] for verdict in ("right", "wrong"))
    mixed = kept(2, finish="length", steps=right) + kept(2, finish="length", steps=wrong)
    found = checks.truncates(course({"truncated": 0.2}, rollouts=mixed))
    assert found.fix == ("grpo.trainer.max_completion_length=96",) and "50% of those were right so far" in found.what
    assert checks.truncates(course({"truncated": 0.2}, rollouts=mixed[2:] + mixed[2:] + mixed[:1])) is None


def test_a_gap_between_sampler_and_trainer_is_grave_above_two_hundredths_of_a_nat():
    found = checks.disagrees(course({"logp_gap_mean": 0.03}, settings=["grpo.trainer.bf16=true"]))
    assert found.grave and found.fix == ("grpo.trainer.bf16=false",)
    assert not checks.disagrees(course({"logp_gap_max": 0.3})).grave
    assert checks.disagrees(course({"logp_gap_max": 0.7}, settings=["grpo.trainer.bf16=true"])) is None
    assert checks.disagrees(course({"logp_gap_max": 0.2, "logp_gap_mean": 0.02})) is None


def test_a_fall_of_accuracy_and_reward_blames_the_learning_rate():
    fallen = {"accuracy": 0.1, "reward": 0.1}
    assert checks.breaks(course(end=fallen)).fix == ("grpo.trainer.learning_rate=0.000333333",)
    found = checks.breaks(course(end=fallen, settings=["grpo.trainer.learning_rate=0.05"]))
    assert found.fix == ("grpo.trainer.learning_rate=0.001",) and "accuracy fell from 60% to 10%" in found.what
    assert checks.breaks(course(end=fallen | {"reward": 0.9})) is None  # what is paid rose: another finding
    assert checks.breaks(course(end={"accuracy": 0.41, "reward": 0.1})) is None


DEAD = {"accuracy": 0.0, "reward": 0.0, "zero_variance": 1.0, "failed": 1.0, "solved": 0.0, "format": 0.0}


def test_noise_from_step_to_step_is_no_fall():
    noisy = course()
    for place, row in enumerate(noisy.steps):
        row["accuracy"] = row["reward"] = 0.6 if place % 2 else 0.3  # a standard error of about 0.18
    noisy.steps[1]["accuracy"] = noisy.steps[2]["accuracy"] = noisy.steps[3]["accuracy"] = 0.7
    noisy.steps[3]["reward"] = 0.9
    assert checks.breaks(noisy) is None


def test_three_dead_steps_or_a_dead_pilot_earn_nothing():
    assert checks.earns_nothing(course(DEAD, n=3)).fix == ("base.trainer.max_steps=2000",)
    assert checks.earns_nothing(course(DEAD, n=2)) is None
    assert checks.earns_nothing(course(DEAD | {"accuracy": 0.001}, n=20)) is None
    pilot = kept(16)
    one = Course(load(SMOKE), "02-grpo", [pilot_step(pilot)], pilot)
    assert "no completion of step 0 was right" in checks.earns_nothing(one).what
    assert checks.earns_nothing(Course(load(SMOKE), "02-grpo", [pilot_step(pilot[1:])], pilot[1:])) is None


def test_before_a_foreign_model_the_cold_start_is_a_stage_that_can_be_pasted(tmp_path):
    entry = "[{kind: grpo, trainer: {max_steps: 5}}]"
    recipe = load(SMOKE, [f"stages={entry}", "model=some/model"])
    found = checks.earns_nothing(Course(recipe, "01-grpo", [DEAD | HEALTHY | DEAD | {"step": k} for k in (1, 2, 3)]))
    (fix,) = found.fix
    after = load(SMOKE, [f"stages={entry}", "model=some/model", fix])
    assert [stage.kind for stage in after.stages] == ["sft", "grpo"]
    assert after.stages[1].trainer["max_steps"] == 5


def test_a_judge_that_pays_a_tenth_more_than_the_exact_one_is_fooled():
    assert checks.is_fooled(course(end={"reward_accuracy": 0.71})).fix == ("grpo.judge=exact",)
    assert checks.is_fooled(course(end={"reward_accuracy": 0.69})) is None


def test_a_reward_that_rises_without_accuracy_pays_for_something_else():
    assert checks.pays_something_else(course(end={"reward": 0.9})).name == "reward without accuracy"
    assert checks.pays_something_else(course(end={"reward": 0.9, "accuracy": 0.63})) is None
    assert checks.pays_something_else(course(end={"reward": 0.8})) is None  # 0.1 of 0.8 is an eighth


def test_form_that_is_learned_before_accuracy_is_no_alarm_nor_is_a_reward_that_begins_late():
    dead = {"accuracy": 0.0, "reward": 0.02, "reward_accuracy": 0.0}
    assert checks.pays_something_else(course(dead, {"reward": 0.1})) is None
    late = ["grpo.rewards={accuracy: 1.0, format: {weight: 0.5, from_step: 10}}"]
    assert checks.pays_something_else(course(end={"reward": 1.2}, settings=late)) is None


def test_right_completions_that_earn_no_more_than_wrong_ones_are_an_alarm():
    blind = kept(16, correct=True, reward=1.0) + kept(16, reward=1.0)
    assert "right completions earn 1, wrong ones 1" in checks.pays_something_else(course(rollouts=blind)).what
    assert checks.pays_something_else(course(rollouts=kept(16, correct=True, reward=1.0) + kept(16))) is None
    assert checks.pays_something_else(course(rollouts=kept(7, correct=True, reward=1.0) + kept(30, reward=1.0))) is None


def test_welchs_t_is_that_of_the_textbook():
    assert checks.t_value([1.0, 3.0], [0.0, 0.0]) == pytest.approx(2 / math.sqrt(1 / 2))
    assert checks.t_value([1.0], [0.0]) == math.inf and checks.t_value([1.0], [1.0]) == 0.0


def test_what_has_no_chance_is_never_sampled():
    unseen = {"voice_worked": 0.004, "voice_checked": 0.0}
    assert checks.never_saw_steps(course(unseen, rollouts=kept(1))).fix[0].startswith("base.voices=")
    assert checks.never_saw_steps(course(unseen, rollouts=kept(1, depth=1))) is None
    assert checks.never_saw_steps(course(unseen | {"voice_checked": 0.002}, rollouts=kept(1))) is None
    words = [
        "grpo.rewards={accuracy: 1.0, language_words: 1.0}",
        "base.languages={signs: 0.99, words: 0.01, mixed: 0.0}",
    ]
    assert checks.never_saw_language(course({"reward_language_words": 0.009}, settings=words)).name
    assert checks.never_saw_language(course({"reward_language_words": 0.01}, settings=words)) is None


def test_groups_without_a_right_completion_want_easier_problems_and_solved_ones_harder():
    hard = ["grpo.problems=[{family: sum, terms: [8, 9], digits: 2, largest: 99}]"]
    found = checks.is_too_rare(course({"failed": 0.8, "accuracy_sum_7": 0.0}, {"failed": 0.6}, settings=hard))
    assert found.fix == ("grpo.problems=[{family: sum, terms: [2, 4], digits: 1, largest: 9}]",)
    assert found.what.endswith("sum 7 0%")
    assert checks.is_too_rare(course({"failed": 0.8}, {"failed": 0.59})) is None
    assert (
        checks.is_solved(course({"solved": 0.9})).fix[0]
        == "grpo.problems=[{family: sum, terms: [4, 8], digits: 1, largest: 9}]"
    )
    assert checks.is_solved(course({"solved": 0.89})) is None


def test_entropy_that_is_gone_before_accuracy_came_is_a_collapse():
    gone = {"entropy": 0.03, "accuracy": 0.55}
    assert checks.collapses(course(end=gone)).fix == ("grpo.trainer.learning_rate=0.000333333",)
    assert checks.collapses(course(end=gone | {"accuracy": 0.75})) is None
    assert checks.collapses(course(end=gone | {"entropy": 0.06})) is None


def test_a_dev_score_that_falls_while_the_reward_does_not_stops_at_its_best_step():
    one = course()
    for step, score in ((5, 0.5), (10, 0.6), (20, 0.54)):
        one.steps[step - 1]["dev_pass_at_1"] = score
    assert checks.dev_falls(one).fix == ("grpo.trainer.max_steps=10", "grpo.dev.keep=best")
    one.steps[19]["dev_pass_at_1"] = 0.56
    assert checks.dev_falls(one) is None


def test_fifteen_steps_without_a_move_are_too_slow_or_held():
    slow = ["grpo.trainer.learning_rate=1e-7"]
    assert checks.does_not_move(course(settings=slow)).fix == ("grpo.trainer.learning_rate=0.001",)
    assert checks.does_not_move(course(settings=slow, n=14)) is None
    assert checks.does_not_move(course(settings=["grpo.trainer.beta=0.2"])).fix == ("grpo.trainer.beta=0.0",)
    assert not checks.does_not_move(course()).grave  # at the usual rate it may only be short
    assert checks.does_not_move(course(end={"entropy": 0.15})) is None


def test_long_slow_and_hopeless_courses_are_noted():
    long = {"length": 15.0, "truncated": 0.1}
    assert checks.runs_on(course(end=long)).name == "lengths run away"
    assert checks.runs_on(course(end=long | {"accuracy": 0.65})) is None
    deep = {"accuracy_sum_2": 0.3, "accuracy_sum_5": 0.0}
    assert "no problem of sum 5 is right" in checks.depth_without_success(course(deep)).what
    assert checks.depth_without_success(course(deep | {"accuracy_sum_2": 0.29})) is None
    assert checks.samples_slowly(course({"seconds": 5.0, "seconds_rollout": 4.0})).name == "slow rollouts"
    assert checks.samples_slowly(course({"seconds": 5.0, "seconds_rollout": 3.9})) is None


def test_what_was_not_logged_is_no_finding():
    bare = [{"step": step, "accuracy": 0.0, "reward": 0.0, "zero_variance": 0.5} for step in range(1, 40)]
    assert names(Course(load(SMOKE), "02-grpo", bare)) == []
    words = ["grpo.rewards={accuracy: 1.0, language_words: {weight: 0.2, from_step: 60}}"]
    words += ["base.languages={signs: 0.99, words: 0.01, mixed: 0.0}"]
    unpaid = [row | {"reward_language_words": None} for row in course().steps]
    assert checks.never_saw_language(Course(load(SMOKE, words), "02-grpo", unpaid)) is None


def summary(**changes):
    one = {"before": "base", "after": "rl", "verdict": "worse", "estimate": -0.1, "low": -0.15, "high": -0.05}
    score = {"pass_at_1": 0.6, "pass_at_k": [{"k": 1, "estimate": 0.6}, {"k": 8, "estimate": 0.62}], "entropy": 0.03}
    return {
        "starts": {"base": None, "rl": "base"},
        "names": {"base": "base", "rl": "after RL"},
        "comparisons": [one | changes],
        "scores": {"base": score},
        "n_problems": 100,
    }


def test_the_exam_says_which_stage_harmed_changed_nothing_or_had_nothing_left():
    recipe = load(SMOKE)
    harmed = checks.harms(Case(recipe, summary=summary()))
    assert harmed.what == "after RL against base: -10.0 points (95% interval -15.0 to -5.0)"
    assert checks.harms(Case(recipe, summary=summary(verdict="shown"))) is None
    assert checks.harms(Case(recipe, summary=summary(before="forced"))) is None  # not its own start
    assert checks.changes_nothing(Case(recipe, summary=summary(verdict="not shown"))).name
    assert checks.changes_nothing(Case(recipe, summary=summary())) is None
    assert "pass@1 60%, pass@8 62%" in checks.has_nothing_left(Case(recipe, summary=summary())).what
    assert checks.has_nothing_left(Case(recipe)) is checks.harms(Case(recipe)) is None


def test_a_pilot_logs_what_a_step_of_training_would():
    rows = kept(3, problem=0) + kept(1, problem=0, correct=True, reward=1.0) + kept(4, problem=1, finish="length")
    step = pilot_step(rows)
    assert (step["accuracy"], step["zero_variance"], step["failed"], step["solved"]) == (1 / 8, 0.5, 0.5, 0.0)
    assert (step["truncated"], step["entropy"], step["voice_direct"]) == (0.5, 0.5, 1.0)


def test_settings_are_written_as_a_command_line_takes_them():
    assert flow([{"family": "sum", "terms": [2, 4], "x": None, "b": True, "lr": 1e-4}]) == (
        "[{family: sum, terms: [2, 4], x: null, b: true, lr: 0.0001}]"
    )
    problems = load(SMOKE).problems
    assert scaled(problems, 0.5) == "[{family: sum, terms: [2, 2], digits: 1, largest: 9}]"
    page = (Path(__file__).parents[2] / "docs/DOCTOR.md").read_text(encoding="utf-8")
    assert load(SMOKE, [f"problems={scaled(problems, 2)}"]).problems[0].axes.terms == (4, 8) and page


def test_every_check_has_its_row_in_the_page():
    source = Path(checks.__file__).read_text(encoding="utf-8")
    page = (Path(__file__).parents[2] / "docs/DOCTOR.md").read_text(encoding="utf-8")
    written = re.findall(r'Finding\(\s*"([^"]+)"', source)
    assert len(written) == len(checks.COURSE) + len(checks.CASE)
    assert [name for name in written if f"| {name} |" not in page] == []
