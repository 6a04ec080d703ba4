"""A sweep file becomes settings; what is wrong in it is one line before anything runs."""

import optuna
import pytest

from eval.sweep.spec import read
from r1_mini.errors import UserError
from tests.eval.sweep.conftest import study_of

RATE, BETA, LOSS = "grpo.trainer.learning_rate", "grpo.trainer.beta", "grpo.trainer.loss_type"
WARMUP = "grpo.trainer.warmup_steps"
TWO, RATES = {"choices": [0.1, 0.2]}, {"low": 1e-4, "high": 1e-2}


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        ({RATE: TWO, BETA: {"low": 0.0, "high": 1.0, "steps": 3}},
         [{RATE: rate, BETA: beta} for rate in (0.1, 0.2) for beta in (0.0, 0.5, 1.0)]),
        ({RATE: {**RATES, "log": True, "steps": 3}}, [{RATE: rate} for rate in (1e-4, 1e-3, 1e-2)]),
        ({WARMUP: {"low": 1, "high": 8, "steps": 3}}, [{WARMUP: n} for n in (1, 4, 8)]),
        ({LOSS: {"choices": ["grpo", "dapo"]}, BETA: {**TWO, "when": {LOSS: ["grpo"]}}},
         [{LOSS: "grpo", BETA: 0.1}, {LOSS: "grpo", BETA: 0.2}, {LOSS: "dapo"}]),
    ],
    ids=["every combination", "equal ratios", "whole numbers", "a key only where its condition holds"],
)  # fmt: skip
def test_a_grid_is_every_combination_in_order(sweep_file, space, settings):
    sweep, recipes = read(sweep_file(space=space))
    assert list(sweep.known().values()) == settings
    assert recipes["recipe.yaml"].evaluate.split == "dev"


def test_random_settings_are_within_the_range_and_the_same_for_the_same_seed(sweep_file):
    def rates(**keys):
        sweep, _ = read(sweep_file(space={RATE: {**RATES, "log": True}}, sampler="random", trials="200", **keys))
        return [setting[RATE] for setting in sweep.known().values()]

    assert len(rates()) == 200 and all(1e-4 <= rate <= 1e-2 for rate in rates())
    assert 70 <= sum(rate < 1e-3 for rate in rates()) <= 130  # evenly by the logarithm: half of them, +- 4 errors
    assert rates() != rates(sampler_seed="1")


def test_choices_may_be_whole_pieces_of_a_recipe_and_numbers_whole(sweep_file):
    space = {"grpo.rewards": {"choices": [{"format": 1.0}]}, WARMUP: {"low": 1, "high": 8}}
    sweep, _ = read(sweep_file(space=space))
    point = sweep.suggest(optuna.create_study().ask())
    assert point["grpo.rewards"] == {"format": 1.0} and point[WARMUP] in range(1, 9)


def test_named_settings_may_start_from_another_recipe(sweep_file, tmp_path):
    path = sweep_file(settings="{plain: {}, other: {recipe: other.yaml, seed: 5}}")
    (tmp_path / "other.yaml").write_text((tmp_path / "recipe.yaml").read_text().replace("max_steps: 2", "max_steps: 9"))
    _, recipes = read(path)
    assert recipes["other.yaml"].stages[1].trainer["max_steps"] == 9
    plain, other = study_of(path).trainings()
    assert other.recipe.startswith("recipes/other-") and plain.recipe.startswith("recipes/recipe-")
    assert other.changes == {"seed": 0}  # the sweep sets the seed


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"space": "{grpo.trainer.learning_rat: {choices: [1]}}"}, "did you mean 'learning_rate'"),
        ({"space": "{gpro.trainer.beta: {choices: [0.1]}}"}, "no key and no stage is called 'gpro'"),
        ({"space": {RATE: {"low": 1.0, "high": 0.5}}}, f"space.{RATE}: `low <= high` must hold"),
        ({"space": {RATE: {"low": 0.0, "high": 0.5, "log": True}}}, "`low > 0` must hold for `log=True`"),
        ({"space": {RATE: {"choices": []}}}, "`low <= high` must hold"),
        ({"space": {BETA: {"low": -1.0, "high": 1.0}}}, "beta: should be greater than or equal to 0, got -1.0"),
        ({"space": {RATE: {**TWO, "when": {BETA: [0]}}}}, f"nothing there is called '{BETA}'"),
        ({"settings": "{a: {}}", "objective": "pass_at1"}, "did you mean 'pass_at_1'?"),
        ({"settings": "{a: {}}", "space": {RATE: RATES}}, "both settings and a space, or neither"),
        ({"settings": "{a: {}}", "default": "b"}, "default: nothing there is called 'b'"),
        ({"settings": "{a: {}}", "seeds": "{key: grpo.sede, values: [1]}"}, "did you mean 'seed'"),
        ({"settings": "{a: {}}", "prune": "true"}, "pruning needs scores on dev during training"),
        ({"settings": "{a: {}}", "recipe": "none.yaml"}, "none.yaml: no such file, and no packaged recipe"),
        ({"settings": "{a: {}}", "workers": "2"}, "unknown key"),
    ],
)
def test_a_wrong_sweep_is_one_line_that_says_what_and_nothing_is_made(sweep_file, tmp_path, parts, message):
    path = sweep_file(**parts)
    with pytest.raises(UserError) as error:
        study_of(path)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
