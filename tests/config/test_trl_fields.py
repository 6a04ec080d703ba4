"""A stage's `trainer:` section is right, or refused in one line that names the field and the fix, before anything trains."""

import dataclasses
import importlib.util
import inspect
from typing import Any

import pytest
import trl
from accelerate import PartialState
from pydantic_core import PydanticCustomError

from r1_mini import cli
from r1_mini.config import trl_fields
from r1_mini.config.trl_fields import CHOICES, OURS, check_peft, check_trainer
from r1_mini.train import STAGES
from tests.conftest import SMOKE

SIZES = {"per_device_train_batch_size": 16, "num_generations": 4}


def checked(config: str, **values: Any) -> dict[str, Any]:
    groups = SIZES if config == "GRPOConfig" else {"max_steps": 10}
    return check_trainer(config, values, groups)


@pytest.mark.parametrize(
    ("config", "key", "value", "line"),
    [
        ("SFTConfig", "max_stepz", 5, "trl.SFTConfig has no such field; did you mean 'max_steps'?"),
        ("SFTConfig", "num_generations", 4, "trl.SFTConfig has no such field; "),
        ("SFTConfig", "max_steps", 2.5, "should be a valid integer, got 2.5; change it"),
        ("SFTConfig", "bf16", "yes", 'should be a valid boolean, got "yes"; change it'),
        ("SFTConfig", "learning_rate", float("nan"), "should be a finite number, got NaN; change it"),
        ("SFTConfig", "learning_rate", -1, "should be 0 or more, got -1; change it"),
        ("SFTConfig", "lr_scheduler_type", "cosin", "'cosin' is not a choice; did you mean 'cosine'?"),
        ("SFTConfig", "output_dir", "x", "the pipeline sets this field itself; give --out"),
        ("GRPOConfig", "data_seed", 1, "the pipeline sets this field itself; set `seed` at the top of the recipe"),
        ("GRPOConfig", "loss_type", "dr_grop", "'dr_grop' is not a choice; did you mean 'dr_grpo'?"),
        ("GRPOConfig", "temperature", 0, "should be greater than 0, got 0; change it"),
        ("GRPOConfig", "temperature", 1e-320, "should be 0 (greedy) or from 0.01 to 10, got 1e-320; change it"),
        ("SFTConfig", "max_steps", 0, "should be greater than 0, got 0; change it"),
        ("SFTConfig", "model_init_kwargs", {"dtype": "float8"}, "'float8' is not a choice; did you mean 'float"),
        ("SFTConfig", "report_to", "tensorbord", "'tensorbord' is not a choice; did you mean 'tensorboard'?"),
        ("SFTConfig", "report_to", ["wandb", "x"], "'x' is not a choice; "),
        ("GRPOConfig", None, {"num_generations": 1}, "GRPO requires at least 2 generations per prompt"),
        ("GRPOConfig", None, {"num_generations": 6}, "generation_batch_size (16) must be divisible by num_generations (6); see"),
        ("GRPOConfig", None, {"generation_batch_size": 24}, "generation_batch_size (24) must be divisible by the global batch"),
        ("SFTConfig", None, {"fp16": True, "bf16": True}, "At most one of fp16 and bf16 can be True, but not both; see trl.SFTConfig"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_fix(config: str, key: str | None, value: Any, line: str) -> None:
    with pytest.raises(PydanticCustomError) as caught:
        checked(config, **(value if key is None else {key: value}))
    context = caught.value.context or {}
    assert f"{context['what']}; {context['fix']}".startswith(line)
    assert context["key"] == (key or "")


@pytest.mark.parametrize("name", ["gradient_accumulation_steps", "steps_per_generation"])
def test_the_batch_that_has_to_hold_whole_groups_is_the_one_that_trl_computes(name: str) -> None:
    with pytest.raises(PydanticCustomError):
        checked("GRPOConfig", num_generations=3)
    checked("GRPOConfig", num_generations=3, **{name: 3})


def test_each_process_of_a_launched_run_generates_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 x 16 completions groups of 6 would make 8, but one of them would lie on two processes."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    checked("GRPOConfig", num_generations=8)
    with pytest.raises(PydanticCustomError, match="each process generates 16 completions, not whole groups of 6"):
        checked("GRPOConfig", num_generations=6)


def test_checking_leaves_accelerate_alone_and_needs_no_gpu() -> None:
    """A process group that were opened here, on the CPU, would be the one that training uses."""
    before = dict(PartialState._shared_state)
    assert checked("GRPOConfig", bf16=True, tf32=True) == {"bf16": True, "tf32": True}
    assert before == PartialState._shared_state


@pytest.mark.parametrize("kind", STAGES)
def test_every_field_of_trls_configs_but_ours_is_known_by_its_name(kind: str) -> None:
    stage = STAGES[kind]
    groups = {"num_generations": 8} if stage.CONFIG == "GRPOConfig" else {}
    allowed = {"warmup_steps": 0, "learning_rate": 0.0, "max_grad_norm": 0.0}
    assert check_trainer(stage.CONFIG, allowed, stage.DEFAULTS, stage.FIXED) == allowed
    for field in dataclasses.fields(getattr(trl, stage.CONFIG)):
        known = field.name not in OURS | stage.FIXED and field.name != "max_steps"  # -1 there means epochs
        if known and isinstance(field.default, bool | int | float | str):
            values = {**groups, field.name: field.default}
            assert check_trainer(stage.CONFIG, values) == values


def test_the_choices_listed_here_are_those_that_trl_knows() -> None:
    source = inspect.getsource(inspect.getmodule(trl.GRPOTrainer) or trl)
    for choice in (choice for choices in CHOICES.values() for choice in choices):
        assert f'"{choice}"' in source or f"'{choice}'" in source


def test_a_wrong_field_of_an_adapter_is_named() -> None:
    assert check_peft({"r": 8}) == {"r": 8}
    with pytest.raises(PydanticCustomError) as caught:
        check_peft({"rank": 8})
    assert "'rank'" in (caught.value.context or {})["what"]


def test_a_tracker_without_its_package_is_one_line_before_anything_is_trained(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    without = lambda name, *rest: None if name == "wandb" else found(name, *rest)  # noqa: E731
    monkeypatch.setattr(trl_fields.importlib.util, "find_spec", without)
    out = tmp_path / "run"
    assert cli.main(["run", str(SMOKE), "grpo.trainer.report_to=[tensorboard, wandb]", "--out", str(out)]) == 2
    line = "error: stages.1.trainer.report_to: needs the package wandb; pip install 'r1-mini[wandb]', or leave it out\n"
    assert capsys.readouterr().err == line
    assert not out.exists()
