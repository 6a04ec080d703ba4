"""A stage's `trainer:` section is right, or refused in one line that names the field and the fix, before anything trains."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import trl
from accelerate import PartialState
from pydantic import ValidationError

from r1_mini.config import trl_fields
from r1_mini.config.base import explain
from r1_mini.config.trl_fields import CHOICES, OURS, check_trainer
from r1_mini.errors import UserError
from r1_mini.train import STAGES


def refusal(kind: str, settings: Mapping[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        STAGES[kind].model_validate({"kind": kind, **settings})
    return str(explain(caught.value, "stage"))


@pytest.mark.parametrize(
    ("kind", "fields", "line"),
    [
        ("base", {"max_stepz": 5}, ".max_stepz: unknown key; did you mean 'max_steps'?"),
        ("base", {"max_steps": 0}, ".max_steps: should be greater than 0, got 0; change it"),
        ("base", {"learning_rate": float("nan")}, ".learning_rate: should be a finite number, got NaN; change it"),
        ("base", {"learning_rate": -1}, ".learning_rate: should be greater than or equal to 0, got -1; change it"),
        ("base", {"lr_scheduler_type": "cosin"}, ".lr_scheduler_type: \"cosin\" is not a choice; did you mean 'cosine'?"),
        ("base", {"num_train_epochs": 1.0}, ".num_train_epochs: the pipeline sets this field itself; problems are sampled"),
        ("rejection", {"max_steps": 9}, ".max_steps: the pipeline sets this field itself; a round trains on what it has kept"),
        ("sft", {"output_dir": "x"}, ".output_dir: the pipeline sets this field itself; give --out"),
        ("sft", {"model_init_kwargs": {"dtype": "bf16"}}, ".model_init_kwargs.dtype: \"bf16\" is not a choice; did you mean 'bf"),
        ("sft", {"report_to": "tensorbord"}, ".report_to: \"tensorbord\" is not a choice; did you mean 'tensorboard'?"),
        ("sft", {"report_to": ["wandb", "x"]}, ".report_to.1: \"x\" is not a choice; "),
        ("grpo", {"use_transformers_continuous_batching": True, "bf16": True}, ".use_transformers_continuous_batching: turns the float32"),
        ("sft", {"fp16": True, "bf16": True}, ": At most one of fp16 and bf16 can be True, but not both"),
        ("grpo", {"loss_type": "dr_grop"}, ".loss_type: \"dr_grop\" is not a choice; did you mean 'dr_grpo'?"),
        ("grpo", {"temperature": 0}, ".temperature: should be greater than or equal to 0.01, got 0; change it"),
        ("grpo", {"temperature": 1e-320}, ".temperature: should be greater than or equal to 0.01, got 1e-320; change it"),
        ("base", {"max_steps": 10**30}, ".max_steps: should be at most 1562500, got 1000000"),
        ("sft", {"per_device_train_batch_size": 10**15}, ".per_device_train_batch_size: should be at most 10000000, got 10"),
        ("grpo", {"epsilon": 1e300}, ".epsilon: should be at most 3.4e+38, got 1e+300; lower it"),
        ("sft", {"logging_steps": 0}, ".logging_steps: should be greater than 0, got 0; change it"),
        ("grpo", {"remove_unused_columns": True}, ".remove_unused_columns: the pipeline sets this field itself; rewards read"),
        ("sft", {"auto_find_batch_size": True}, ".auto_find_batch_size: the pipeline sets this field itself; set per_dev"),
        ("sft", {"deepspeed": "ds.json"}, ".deepspeed: the pipeline sets this field itself; launch with recipes/accelerate/zero2"),
        ("grpo", {"fsdp": "full_shard"}, ".fsdp: the pipeline sets this field itself; launch with recipes/accelerate/fsdp2"),
        ("grpo", {"chat_template_kwargs": {"enable_thinking": False}}, ".chat_template_kwargs: the pipeline sets this field itself; set `prompt` at the top of the recipe"),
        ("grpo", {"ref_model_sync_steps": 5}, ".ref_model_sync_steps: has no effect without sync_ref_model; set"),
        ("grpo", {"generation_kwargs": {"top_kk": 1}}, ".generation_kwargs: 'top_kk' has no effect; did you mean 'top_k'?"),
        ("sft", {"lr_scheduler_type": "constant", "warmup_steps": 5}, ".warmup_steps: has no effect beside a constant rate"),
        ("grpo", {"min_p": 2}, ".min_p: should be less than or equal to 1, got 2; change it"),
        ("grpo", {"top_p": 0}, ".top_p: should be greater than 0, got 0; change it"),
        ("grpo", {"top_p": 1.5}, ".top_p: should be less than or equal to 1, got 1.5; change it"),
        ("grpo", {"repetition_penalty": 0}, ".repetition_penalty: should be greater than 0, got 0; change it"),
        ("grpo", {"generation_batch_size": 0}, ".generation_batch_size: should be greater than 0, got 0; change it"),
        ("grpo", {"num_generations": 1}, ": GRPO requires at least 2 generations per prompt"),
        ("grpo", {"num_generations": None}, ": unsupported operand type(s) for %: 'int' and 'NoneType'"),
        ("grpo", {"num_generations": 6}, ": generation_batch_size (512) must be divisible by num_generations (6)"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_fix(kind: str, fields: dict[str, Any], line: str) -> None:
    assert refusal(kind, {"trainer": fields}).startswith(f"stage: trainer{line}")


def test_a_field_without_effect_and_one_that_an_adapter_lacks_are_named() -> None:
    for kind, fields in {
        "sft": {"eval_steps": 5, "hub_token": "hf_secret", "packing": True, "eos_token": "<end>"},
        "base": {"per_device_eval_batch_size": 5},
        "grpo": {"metric_for_best_model": "reward", "label_smoothing_factor": 0.1},
    }.items():
        for name, value in fields.items():
            line = refusal(kind, {"trainer": {name: value}})
            assert line == f"stage: trainer.{name}: has no effect in this stage; leave it out"
    assert "peft.rank: unknown key; known: rank_pattern" in refusal("sft", {"peft": {"rank": 8}})


def test_whole_groups_are_of_the_batch_that_trl_computes_and_of_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 x 16 completions groups of 6 would make 8, but one of them would lie on two processes."""
    batch = {"per_device_train_batch_size": 16}
    for name in ("gradient_accumulation_steps", "steps_per_generation"):
        assert check_trainer("GRPOConfig", {**batch, "num_generations": 3, name: 3})
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert check_trainer("GRPOConfig", {**batch, "num_generations": 8})
    with pytest.raises(ValueError, match="each process generates 16 completions, not whole groups of 6"):
        check_trainer("GRPOConfig", {**batch, "num_generations": 6})


def test_checking_leaves_accelerate_alone_needs_no_gpu_and_knows_the_old_name_of_dtype() -> None:
    """A process group that were opened here, on the CPU, would be the one that training uses."""
    before = dict(PartialState._shared_state)
    assert check_trainer("GRPOConfig", {"bf16": True, "tf32": True}) == {"bf16": True, "tf32": True}
    assert before == PartialState._shared_state
    old, new = ({"model_init_kwargs": {name: "bfloat16"}} for name in ("torch_dtype", "dtype"))
    assert check_trainer("SFTConfig", old) == new


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
    for choice in (choice for choices in CHOICES.values() for choice in choices if isinstance(choice, str)):
        assert f'"{choice}"' in source or f"'{choice}'" in source


def test_a_tracker_without_its_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trl_fields.importlib.util, "find_spec", lambda name: None if name == "wandb" else name)
    line = r"^stage.report_to: needs the package wandb; pip install 'r1-mini\[wandb\]', or leave it out$"
    with pytest.raises(UserError, match=line):
        trl_fields.require_machine({"report_to": ["tensorboard", "wandb"]}, "stage")
