"""A recipe loads into what it says, or into one line that says what is wrong, where, and the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import Recipe, dump, load
from r1_mini.pipeline.store import fingerprint
from r1_mini.train import STAGES
from r1_mini.train.base import BaseStage
from r1_mini.train.grpo import GrpoStage
from r1_mini.train.rejection import RejectionStage
from tests.conftest import TINY

Write = Callable[..., Path]


def base_of(recipe: Recipe) -> BaseStage:
    stage = recipe.stages[0]
    assert isinstance(stage, BaseStage)
    return stage


def grpo_of(recipe: Recipe) -> GrpoStage:
    stage = recipe.stages[1]
    assert isinstance(stage, GrpoStage)
    return stage


def refusal(path: Path, *overrides: str) -> str:
    """The one line that the user sees, without the folder of the test."""
    with pytest.raises(UserError) as caught:
        load(path, overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(f"{path.parent}/", "")


def test_what_a_recipe_leaves_out_has_its_default(recipe_file: Write) -> None:
    recipe = load(recipe_file())
    assert (recipe.seed, recipe.model, recipe.evaluate.suite, recipe.evaluate.samples) == (0, None, "arithmetic", None)
    assert base_of(recipe).voices.model_dump() == {"direct": 0.60, "worked": 0.35, "checked": 0.05}
    assert grpo_of(recipe).rewards == {"accuracy": 1.0, "format": 0.1}


def test_a_stage_without_problems_draws_from_the_recipes(recipe_file: Write) -> None:
    recipe = load(recipe_file(), ["grpo.problems=[{family: sum, terms: 3}]"])
    assert recipe.problems_of(recipe.stages[0]) == recipe.problems
    assert recipe.problems_of(recipe.stages[1]) != recipe.problems


def test_a_number_in_scientific_notation_is_a_number(recipe_file: Write) -> None:
    assert base_of(load(recipe_file())).trainer["learning_rate"] == 0.001
    assert grpo_of(load(recipe_file(), ["grpo.trainer.learning_rate=5e-4"])).trainer["learning_rate"] == 0.0005


def test_an_override_names_a_place_by_index_or_by_kind_of_stage(recipe_file: Write) -> None:
    path = recipe_file()
    by_index = load(path, ["stages.1.trainer.max_steps=5", "stages.0.voices={direct: 0.5, worked: 0.5, checked: 0}"])
    by_kind = load(path, ["grpo.trainer.max_steps=5", "base.voices={direct: 0.5, worked: 0.5, checked: 0}"])
    assert by_index == by_kind
    assert grpo_of(by_kind).trainer["max_steps"] == 5


def test_an_override_reaches_a_section_that_the_file_leaves_out(recipe_file: Write) -> None:
    assert base_of(load(recipe_file(), ["base.model.hidden_size=64"])).model.hidden_size == 64


def test_overrides_leave_the_rest_of_the_recipe_alone(recipe_file: Write) -> None:
    path = recipe_file()
    assert load(path, ["seed=7"]).model_dump() == load(path).model_dump() | {"seed": 7}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("sed=1", "no key and no stage is called 'sed'; did you mean 'seed'?"),
        ("seed=a", "seed: should be a valid integer, got \"a\"; change it"),
        ("seed=true", "seed: should be a valid integer, got true; change it"),
        ("seed=", "seed: should be a valid integer, got null; change it"),
        ("seed=-1", "seed: should be greater than or equal to 0, got -1; change it"),
        ("name=../x", "name: should match pattern"),
        ("stages=[]", "stages: should have at least 1 item"),
        ("seed.x=1", "seed: should be a valid integer, got {\"x\": 1}; change it"),
        ("stages.0.kind=bose", "stages.0.kind: no stage is called 'bose'; did you mean 'base'?"),
        ("model=x", "model: given, but every stage starts from other weights; remove `model`"),
        ("base.voices.direct=0.7", "stages.0.voices: direct, worked and checked sum to 1.1, "
         "not 1; change one of them"),
        ("base.voices.direct=-1", "stages.0.voices.direct: should be greater than or equal to 0, "
         "got -1; change it"),
        ("base.optimizer=sgd", "stages.0.optimizer: should be 'muon' or 'adamw', got \"sgd\"; change it"),
        ("base.model.hidden_size=97", "stages.0.model.hidden_size: 97 does not divide into "
         "4 heads of even width; set a multiple of 8, such as 96"),
        ("problems.0.terms=[5, 3]", "problems.0.terms: [5, 3]: the first is larger than the second; swap them"),
        ("problems.0.family=sun", "problems.0.family: 'sun' is not known; did you mean 'sum'?"),
        ("problems.0.term=3", "problems.0.term: unknown key; did you mean 'terms'?"),
        ("evaluate.samples=0", "evaluate.samples: should be greater than or equal to 1, got 0; "
         "change it"),
        ("evaluate=7", "evaluate: should be keys and values, got 7; change it"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_with_its_fix(recipe_file: Write, override: str, line: str) -> None:
    assert refusal(recipe_file(), override).startswith(f"override '{override}': {line}")


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("base.trainer.max_stepz=5", "stages.0.trainer.max_stepz: trl.SFTConfig has no such field; did you mean 'max_steps'?"),
        ("base.trainer.num_generations=4", "stages.0.trainer.num_generations: trl.SFTConfig has no such field; "),
        ("base.trainer.max_steps=2.5", "stages.0.trainer.max_steps: should be a valid integer, got 2.5; change it"),
        ("base.trainer.bf16=yes", "stages.0.trainer.bf16: should be a valid boolean, got \"yes\"; change it"),
        ("base.trainer.learning_rate=.nan", "stages.0.trainer.learning_rate: should be a finite number, got NaN; change it"),
        ("base.trainer.learning_rate=-1", "stages.0.trainer.learning_rate: should be 0 or more, got -1; change it"),
        ("base.trainer.lr_scheduler_type=cosin", "stages.0.trainer.lr_scheduler_type: 'cosin' is not a choice; did you mean 'cosine'?"),
        ("base.trainer.adam_beta1=0.8", "stages.0.trainer.adam_beta1: has no effect beside the stage's optimizer, muon; set `optimizer: adamw`"),
        ("base.trainer.optim=sgd", "stages.0.trainer.optim: has no effect beside the stage's optimizer, muon; set `optimizer: adamw`"),
        ("base.trainer.output_dir=x", "stages.0.trainer.output_dir: the pipeline sets this field itself; give --out"),
        ("base.trainer.seed=1", "stages.0.trainer.seed: the pipeline sets this field itself; set `seed` at the top of the recipe"),
        ("grpo.trainer.data_seed=1", "stages.1.trainer.data_seed: the pipeline sets this field itself; set `seed` at the top"),
        ("grpo.trainer.num_generations=1", "stages.1.trainer: GRPO requires at least 2 generations per prompt"),
        ("grpo.trainer.loss_type=dr_grop", "stages.1.trainer.loss_type: 'dr_grop' is not a choice; did you mean 'dr_grpo'?"),
        ("grpo.trainer.temperature=0", "stages.1.trainer.temperature: should be greater than 0, got 0; change it"),
        ("grpo.trainer.max_steps=0", "stages.1.trainer.max_steps: should be greater than 0, got 0; change it"),
        ("grpo.trainer.num_generations=6", "stages.1.trainer: generation_batch_size (16) must be divisible by num_generations "
         "(6); see trl.GRPOConfig"),
        ("grpo.trainer.generation_batch_size=24", "stages.1.trainer: generation_batch_size (24) must be divisible by the global "
         "batch size (16); "),
        ("grpo.trainer=[1]", "stages.1.trainer: should be keys and values, got [1]; change it"),
    ],
)  # fmt: skip
def test_a_wrong_trainer_field_is_named_with_its_fix(recipe_file: Write, override: str, line: str) -> None:
    where, _, what = refusal(recipe_file(), override).partition(": ")
    assert where in (f"override '{override}'", "recipe.yaml")
    assert what.startswith(line)


def test_the_batch_that_has_to_hold_whole_groups_is_the_one_that_trl_computes(recipe_file: Write) -> None:
    path = recipe_file()
    three = ["grpo.trainer.num_generations=3"]
    assert "must be divisible by num_generations (3)" in refusal(path, *three)
    load(path, [*three, "grpo.trainer.gradient_accumulation_steps=3"])
    load(path, [*three, "grpo.trainer.steps_per_generation=3"])
    load(path, [*three, "grpo.trainer.generation_batch_size=48"])


def test_checking_a_trainer_section_leaves_accelerate_alone(recipe_file: Write) -> None:
    """A process group that were opened here, on the CPU, would be the one that training uses."""
    from accelerate import PartialState

    before = dict(PartialState._shared_state)
    load(recipe_file(), ["grpo.trainer.bf16=true"])
    assert before == PartialState._shared_state


def test_a_stage_that_leaves_everything_to_its_defaults_is_right(recipe_file: Write) -> None:
    load(recipe_file(), ["base.trainer={}", "grpo.trainer={}"])
    load(recipe_file(), ["grpo.trainer={max_steps: 160, num_generations: 16}"])


def test_a_process_of_a_launched_run_generates_whole_groups(
    recipe_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3 x 16 completions groups of 6 would make 8, but one of them would lie on two processes."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    load(recipe_file(), ["grpo.trainer.num_generations=8"])
    with pytest.raises(UserError, match="each process generates 16 completions, not whole groups of 6"):
        load(recipe_file(), ["grpo.trainer.num_generations=6"])


def test_every_field_of_trls_configs_but_ours_is_known_by_its_name() -> None:
    import dataclasses

    import trl

    from r1_mini.config.trl_fields import OURS, check_trainer

    for stage in STAGES.values():
        config = getattr(trl, stage.CONFIG)
        groups = {"num_generations": 8} if stage.CONFIG == "GRPOConfig" else {}
        for field in dataclasses.fields(config):
            known = field.name not in OURS | stage.FIXED and field.name != "max_steps"  # -1 there means epochs
            if known and isinstance(field.default, bool | int | float | str):
                values = {**groups, field.name: field.default}
                assert check_trainer(stage.CONFIG, values) == values


def test_a_round_of_expert_iteration_is_as_long_as_what_it_keeps() -> None:
    with pytest.raises(ValidationError, match="the pipeline sets this field itself") as refused:
        RejectionStage.model_validate({"kind": "rejection", "trainer": {"max_steps": 10}})
    assert "a round trains on what it has kept" in refused.value.errors()[0]["ctx"]["fix"]
    RejectionStage.model_validate({"kind": "rejection", "trainer": {"num_train_epochs": 2.0}})


def test_the_choices_listed_here_are_those_that_trl_knows() -> None:
    import inspect

    import trl

    from r1_mini.config.trl_fields import CHOICES

    source = inspect.getsource(inspect.getmodule(trl.GRPOTrainer) or trl)
    for choices in CHOICES.values():
        for choice in choices:
            assert f'"{choice}"' in source or f"'{choice}'" in source


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ("{acuracy: 1}", "stages.1.rewards.acuracy: no reward is called 'acuracy'; did you mean 'accuracy'?"),
        ("{accuracy: 0}", "stages.1.rewards: no reward has a weight; write for example {accuracy: 1.0, format: 0.1}"),
        ("{}", "stages.1.rewards: no reward has a weight; write for example {accuracy: 1.0, format: 0.1}"),
        ("{accuracy: much}", 'stages.1.rewards.accuracy: should be a valid number, got "much"; change it'),
        ("{accuracy: .inf}", "stages.1.rewards.accuracy: should be a finite number, got Infinity; change it"),
    ],
)
def test_a_wrong_reward_is_named_with_its_fix(recipe_file: Write, weights: str, line: str) -> None:
    assert refusal(recipe_file(), f"grpo.rewards={weights}") == f"override 'grpo.rewards={weights}': {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "holds no keys and values; start it with `name: …`"),
        ("- 1", "holds no keys and values; "),
        ("1: a", "1: unknown key; "),
        ("name: a", "stages: missing; add it"),
        ("name: a\nstages: [{}]", "stages.0.kind: missing; known: base, grpo, rejection, sft"),
        ("name: a\nstages: [base]", "stages.0: should be keys and values"),
        ("name: a\nstages: [{kind: base}]", "stages.0.problems: no problems here nor at the top; add for example "),
        ("name: a\nproblems: [{family: sum}]\nstages: [{kind: grpo}]", "model: missing, and no base stage makes one; "),
        ("name: a\nproblems: [{family: sum}]\nstages: [{kind: base}, {kind: base}]", "stages.1.kind: a base stage starts "),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_gets_one_line(recipe_file: Write, text: str, line: str) -> None:
    assert refusal(recipe_file(text)).startswith(f"recipe.yaml: {line}")


def test_a_recipe_cannot_be_changed_after_it_was_validated(recipe_file: Write) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(recipe_file()).seed = 1  # type: ignore[misc]


def test_a_dumped_recipe_loads_into_an_equal_one(recipe_file: Write) -> None:
    quoted = [
        "name='1e-3'",
        "evaluate.suite='010'",
        "base.trainer.logging_strategy=no",
        "base.trainer.weight_decay=1e-10",
    ]
    first = load(recipe_file(), quoted)
    assert (first.name, first.evaluate.suite) == ("1e-3", "010")
    assert load(recipe_file(dump(first))) == first
    assert dump(load(recipe_file(dump(first)))) == dump(first)


def test_a_fingerprint_tells_settings_apart_and_ignores_the_order_of_keys(recipe_file: Write) -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": (1, 2), "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    # printf '{"a":1}' | sha256sum
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    path = recipe_file()
    assert fingerprint(load(path)) == fingerprint(load(path))
    assert fingerprint(load(path)) != fingerprint(load(path, ["seed=1"]))


@pytest.mark.parametrize("source", ["{jsonl: quiz.jsonl}", "{dataset: own/set}", "{reasoning_gym: chain_sum}"])
def test_a_base_stage_on_problems_without_worked_solutions_gets_one_line(recipe_file: Write, source: str) -> None:
    path = recipe_file(TINY.replace("{family: sum, terms: [2, 4], digits: 1}", source))
    with pytest.raises(
        UserError, match=r"stages\.0\.problems: '[a-z_]+' has no worked solutions to learn from; give the"
    ):
        load(path)


def test_tables_are_read_from_a_recipe_without_being_opened_and_written_as_they_are_read(recipe_file: Write) -> None:
    text = "{jsonl: nowhere.jsonl, judge: amount}\n  - {dataset: own/set, stream: true, extract: gsm8k, weight: 2}"
    path = recipe_file(
        TINY.replace("{family: sum, terms: [2, 4], digits: 1}", text).replace(
            "kind: base", "kind: base\n    problems: [{family: sum}]"
        )
    )
    recipe = load(path)
    assert [(each.name, each.weight) for each in recipe.problems] == [("nowhere", 1.0), ("set", 2.0)]
    again = path.with_name("again.yaml")
    again.write_text(dump(recipe))
    assert load(again) == recipe
