"""A sweep file becomes trials; what is wrong in it is one line before anything runs."""

import pytest

from eval.sweep.spec import read
from r1_mini.errors import UserError
from tests.eval.sweep.conftest import study_of

RATE = "grpo.trainer.learning_rate"
BETA = "grpo.trainer.beta"


def settings(path):
    return [dict(setting.changes) for setting in read(path).settings()]


def test_a_grid_is_every_combination_in_order(sweep_file):
    path = sweep_file(space=f"{{{RATE}: {{choices: [0.1, 0.2]}}, {BETA}: {{low: 0.0, high: 1.0, steps: 3}}}}")
    assert settings(path) == [{RATE: rate, BETA: beta} for rate in (0.1, 0.2) for beta in (0.0, 0.5, 1.0)]


def test_a_grid_on_a_log_scale_has_equal_ratios(sweep_file):
    path = sweep_file(space=f"{{{RATE}: {{low: 1.0e-4, high: 1.0e-2, log: true, steps: 3}}}}")
    assert settings(path) == [{RATE: 1e-4}, {RATE: 1e-3}, {RATE: 1e-2}]


def test_whole_numbers_stay_whole(sweep_file):
    path = sweep_file(space="{grpo.trainer.warmup_steps: {low: 1, high: 8, steps: 3}}")
    assert settings(path) == [{"grpo.trainer.warmup_steps": value} for value in (1, 4, 8)]


def test_a_key_with_a_condition_is_set_only_where_it_holds(sweep_file):
    loss = "grpo.trainer.loss_type"
    path = sweep_file(
        space=f"{{{loss}: {{choices: [grpo, dapo]}}, {BETA}: {{choices: [0.0, 0.1], when: {{{loss}: [grpo]}}}}}}"
    )
    assert settings(path) == [{loss: "grpo", BETA: 0.0}, {loss: "grpo", BETA: 0.1}, {loss: "dapo"}]


def test_random_settings_are_within_the_range_and_the_same_for_the_same_seed(sweep_file):
    space = f"{{{RATE}: {{low: 1.0e-4, high: 1.0e-2, log: true}}}}"
    sampled = settings(path := sweep_file(space=space, sampler="random", trials="200"))
    rates = [each[RATE] for each in sampled]
    assert len(rates) == 200 and all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 70 <= sum(rate < 1e-3 for rate in rates) <= 130  # evenly by the logarithm: half of them, +- 4 errors
    assert settings(path) == sampled
    assert settings(sweep_file(space=space, sampler="random", trials="200", sampler_seed="1")) != sampled


def test_choices_may_be_whole_pieces_of_a_recipe(sweep_file):
    choices = "[{accuracy: 1.0}, {format: 1.0}]"
    (first, second) = read(sweep_file(space=f"{{grpo.rewards: {{choices: {choices}}}}}")).settings()
    assert first.changes == {"grpo.rewards": {"accuracy": 1.0}}
    assert second.params == {"grpo.rewards": '{"format": 1.0}'}


def test_named_settings_may_start_from_another_recipe(sweep_file, tmp_path):
    path = sweep_file(settings="{plain: {}, other: {recipe: other.yaml, seed: 5}}")
    (tmp_path / "other.yaml").write_text((tmp_path / "recipe.yaml").read_text().replace("max_steps: 2", "max_steps: 9"))
    plan = read(path)
    assert [setting.recipe for setting in plan.settings()] == ["recipe.yaml", "other.yaml"]
    assert plan.recipes["other.yaml"].stages[1].trainer["max_steps"] == 9


def test_trials_are_examined_on_dev_whatever_the_recipe_says_by_default(sweep_file):
    assert read(sweep_file(settings="{a: {}}")).recipes["recipe.yaml"].evaluate.split == "dev"


SPACE = f"{{{RATE}: {{low: 1.0e-4, high: 1.0e-2}}}}"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"space": "{grpo.trainer.learning_rat: {choices: [1]}}"}, "did you mean 'learning_rate'"),
        ({"space": "{gpro.trainer.beta: {choices: [0.1]}}"}, "no key and no stage is called 'gpro'"),
        ({"space": f"{{{RATE}: {{low: 1.0, high: 0.5, steps: 3}}}}"}, "the range from 1 to 0.5 is empty"),
        ({"space": f"{{{RATE}: {{low: 0.0, high: 0.5, log: true, steps: 3}}}}"}, "a log scale cannot begin at 0"),
        (
            {"space": f"{{{RATE}: {{choices: []}}}}"},
            "the range from 0 to 0 is empty; give choices, or let low be less than high",
        ),
        ({"space": f"{{{BETA}: {{low: -1.0, high: 1.0, steps: 3}}}}"}, "beta: should be 0 or more, got -1.0"),
        ({"space": SPACE}, "a grid needs to know how many values"),
        ({"space": SPACE, "sampler": "tpe"}, "the tpe sampler has no end"),
        ({"space": SPACE, "sampler": "random", "trials": "3", "objective": "accuracy"}, "nothing measures 'accuracy'"),
        ({"settings": "{a: {}}", "objective": "pass_at1"}, "did you mean 'pass_at_1'?"),
        ({"settings": "{a: {}}", "space": SPACE}, "give either settings or a space"),
        ({"settings": "{a: {}}", "default": "b"}, "no setting is called 'b'"),
        ({"settings": "{a: {}}", "seeds": "{values: [1, 1]}"}, "a seed comes twice"),
        ({"settings": "{a: {}}", "seeds": "{key: grpo.sede, values: [1]}"}, "did you mean 'seed'"),
        ({"settings": "{a: {}}", "prune": "true"}, "pruning needs scores on dev during training"),
        ({"settings": "{a: {evaluate.split: test}}"}, "a sweep never looks at test"),
        ({"settings": "{a: {}}", "recipe": "none.yaml"}, "none.yaml: no such file, and no packaged recipe"),
        ({"settings": "{a: {}}", "workers": "2"}, "unknown key"),
    ],
)
def test_a_wrong_sweep_is_one_line_that_says_what_and_nothing_is_made(sweep_file, tmp_path, parts, message):
    path = sweep_file(**parts)
    with pytest.raises(UserError) as error:
        study_of(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
