"""A recipe's `trainer:` sections against trl.SFTConfig and trl.GRPOConfig, before any training starts.

The configs are not built here: building one starts accelerate's device state and refuses bf16 where there is no GPU,
while a recipe has to load anywhere. So names, types and choices are read from the fields, and the arithmetic of
GRPO's batches, where TRL would fail only after the base stage, is repeated here.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import math
import os
import types
import typing
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from r1_mini.errors import nearest, shown

OURS = {
    "output_dir": "give --out",
    "seed": "set `seed` at the top of the recipe",
    "data_seed": "set `seed` at the top of the recipe",
    "resume_from_checkpoint": "run the same command again, it resumes by itself",
    "use_cpu": "a GPU is used where there is one; hide it with CUDA_VISIBLE_DEVICES= in front of the command",
    "reward_weights": "set the weights under `rewards` of the stage",
    "eval_strategy": "the exam at the end of the run evaluates; see `evaluate`",
    "do_eval": "the exam at the end of the run evaluates; see `evaluate`",
    "load_best_model_at_end": "the exam at the end of the run evaluates; see `evaluate`",
    "save_only_model": "resuming needs the optimizer too",
    "save_strategy": "set save_steps",
    "ignore_data_skip": "resuming would repeat data",
    "push_to_hub": "push the finished run with `r1-mini push RUN REPO`",
}

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Of the weights that a stage trains; `auto` is as they lie on the disk."""

TRACKERS = ("tensorboard", "trackio", "wandb")
"""Those that are an extra of ours under the name of their package."""

# Choices that TRL checks only when the first loss or reward is computed; its fields say just `str`.
CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "GRPOConfig": {
        "loss_type": ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
        "scale_rewards": ("group", "batch", "none"),
        "importance_sampling_level": ("token", "sequence"),
        "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
        "vllm_mode": ("server", "colocate"),
    },
    "SFTConfig": {},
}

# Closed ranges that TRL and transformers leave unchecked, or check only once the stage starts.
_RANGES: dict[str, tuple[float, float]] = {
    "per_device_train_batch_size": (1, math.inf),
    "gradient_accumulation_steps": (1, math.inf),
    "generation_batch_size": (1, math.inf),
    "steps_per_generation": (1, math.inf),
    "num_generations": (2, math.inf),
    "max_steps": (1, math.inf),
    "num_train_epochs": (0.01, math.inf),
    "save_steps": (1, math.inf),
    "num_iterations": (1, math.inf),
    "max_completion_length": (1, math.inf),
    "max_length": (1, math.inf),
    "learning_rate": (0, math.inf),
    "weight_decay": (0, math.inf),
    "max_grad_norm": (0, math.inf),
    "warmup_steps": (0, math.inf),
    "adam_beta1": (0, 1),
    "adam_beta2": (0, 1),
    "label_smoothing_factor": (0, 1),
    "beta": (0, math.inf),
    "epsilon": (0, math.inf),
    "temperature": (1e-6, math.inf),
    "top_p": (1e-6, 1),
    "top_k": (0, math.inf),
    "top_entropy_quantile": (0, 1),
}


class TrainerError(ValueError):
    """One wrong field of a trainer section: `key` (may be empty), what is wrong, the fix."""

    def __init__(self, key: str, what: str, fix: str) -> None:
        super().__init__(what)
        self.key, self.what, self.fix = key, what, fix


@cache
def _fields(config_name: str) -> dict[str, tuple[Any, Any, tuple[str, ...]]]:
    """Name -> (type, default, choices) of every field of a TRL config; importing TRL takes seconds, so only here."""
    import trl

    config = getattr(trl, config_name)
    hints = typing.get_type_hints(config)
    choices = CHOICES[config_name]
    return {
        field.name: (
            hints[field.name],
            field.default,
            choices.get(field.name) or tuple(str(c) for c in field.metadata.get("choices") or ()),
        )
        for field in dataclasses.fields(config)
        if field.init
    }


def check_trainer(
    config_name: str,
    values: Mapping[str, Any],
    defaults: Mapping[str, Any] = MappingProxyType({}),
    fixed: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The trainer section of a stage, each value in its field's type; TrainerError if one is wrong.

    `defaults` are the stage's own, `fixed` the fields that it sets itself, each with what to do instead.
    """
    fields, ours = _fields(config_name), {**OURS, **fixed}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key in ours:
            raise TrainerError(key, "the pipeline sets this field itself", ours[key])
        if key not in fields:
            raise TrainerError(key, f"trl.{config_name} has no field '{key}'", nearest(key, set(fields) - set(ours)))
        hint, _, choices = fields[key]
        checked[key] = _check_value(key, value, hint, choices)
        if key == "model_init_kwargs" and value is not None:
            _check_loading(checked[key])
    _check_trackers(checked.get("report_to"))
    if config_name == "GRPOConfig":
        check_batches(
            resolved(config_name, defaults, checked), int(os.environ.get("WORLD_SIZE", "1"))
        )  # set by the launcher
    return checked


def _check_loading(value: Any) -> None:
    """`model_init_kwargs`, in which transformers would ignore or misread some things."""
    if not isinstance(value, Mapping):
        raise TrainerError("model_init_kwargs", f"should be keys and values, got {shown(value)}", "write {key: value}")
    if "torch_dtype" in value:
        raise TrainerError("model_init_kwargs", "'torch_dtype' is called 'dtype' now", "rename it")
    if (dtype := value.get("dtype", "auto")) not in DTYPES:
        raise TrainerError("model_init_kwargs", f"no dtype is called {shown(dtype)}", nearest(str(dtype), DTYPES))


def _check_trackers(value: Any) -> None:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    known = ("none", "all", *INTEGRATION_TO_CALLBACK)
    for name in [value] if isinstance(value, str) else value or ():
        if name not in known:
            raise TrainerError("report_to", f"no tracker is called '{name}'", nearest(name, known))


def check_peft(values: Mapping[str, Any]) -> dict[str, Any]:
    """The `peft:` section of a stage: fields of peft.LoraConfig; TrainerError if one is wrong or peft is missing."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise TrainerError("", "needs the package peft", "pip install 'r1-mini[peft]', or leave it out") from None
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    for key in values:
        if key not in known:
            raise TrainerError(key, f"peft.LoraConfig has no field '{key}'", nearest(key, known))
    try:
        LoraConfig(**values)
    except (TypeError, ValueError) as error:
        raise TrainerError("", str(error).splitlines()[0][:150], "change it") from None
    return dict(values)


def require_machine(values: Mapping[str, Any]) -> None:
    """TrainerError for what this machine lacks; asked before anything is trained, not where a recipe is only read."""
    import torch

    if "WORLD_SIZE" not in os.environ and torch.cuda.device_count() > 1:  # TRL refuses torch's DataParallel
        what = f"{torch.cuda.device_count()} GPUs are visible, and one process works with one"
        raise TrainerError("", what, "put CUDA_VISIBLE_DEVICES=0 in front of the command, or use accelerate launch")
    if values.get("use_vllm") and importlib.util.find_spec("vllm") is None:
        raise TrainerError("use_vllm", "needs the package vllm", "pip install 'trl[vllm]', or set it to false")
    trackers = values.get("report_to") or ()
    for tracker in [trackers] if isinstance(trackers, str) else trackers:
        if tracker in TRACKERS and importlib.util.find_spec(tracker) is None:
            fix = f"pip install 'r1-mini[{tracker}]', or leave it out"
            raise TrainerError("report_to", f"needs the package {tracker}", fix)
    ampere = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    if values.get("tf32") and not ampere:
        raise TrainerError("tf32", "needs a GPU of NVIDIA's Ampere generation or later", "set it to null")


def resolved(config_name: str, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a TRL config: TRL's default, overridden by a stage's `defaults`, overridden by `values`."""
    trls = {name: default for name, (_, default, _) in _fields(config_name).items()}
    return {**trls, **defaults, **values}


def _check_value(key: str, value: Any, hint: Any, choices: tuple[str, ...]) -> Any:
    """`value` in the type of its field."""
    if key == "scale_rewards" and isinstance(value, bool):  # TRL takes both, its annotation does not say so
        return "group" if value else "none"
    for member in typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,):
        if isinstance(member, type) and issubclass(member, enum.Enum) and isinstance(value, str):
            choices = tuple(str(option.value) for option in member)
    if choices and isinstance(value, str) and value not in choices:
        raise TrainerError(key, f"'{value}' is not a choice", nearest(value, choices))
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))
        checked = adapter.validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise TrainerError(key, f"should be {message}, got {shown(value)}", "change it") from None
    if isinstance(checked, enum.Enum):
        return value
    if isinstance(checked, int | float):
        low, high = _RANGES.get(key, (-math.inf, math.inf))
        bounds = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
        if not low <= checked <= high:
            raise TrainerError(key, f"must be {bounds}, got {shown(value)}", "change it")
    return checked


def check_batches(settings: Mapping[str, Any], world: int) -> None:
    """TRL's rule: a generation batch holds whole groups (trl.GRPOConfig.__post_init__). `world`: processes."""
    group = settings["num_generations"]
    if group is None:
        raise TrainerError("num_generations", "must be a number, got null", "set it to 2 or more")
    per_step = settings["per_device_train_batch_size"] * world
    batch, steps = settings["generation_batch_size"], settings["steps_per_generation"]
    if batch is not None and steps is not None:
        raise TrainerError("generation_batch_size", "set together with steps_per_generation", "keep one of the two")
    if batch is not None and batch % per_step:
        raise TrainerError(
            "generation_batch_size",
            f"{batch} is not a multiple of the batch of one step, {per_step}",
            f"set a multiple of {per_step}",
        )
    share = (batch or per_step * (steps or settings["gradient_accumulation_steps"])) // world
    if world > 1 and share % group:
        what = f"a process generates {share} completions, which do not divide into groups of {group} (num_generations)"
        raise TrainerError("per_device_train_batch_size", what, f"let each process have a multiple of {group}")
    if batch is not None:
        key, unit = "generation_batch_size", 1
    else:
        key, unit = (
            "per_device_train_batch_size",
            world * (settings["gradient_accumulation_steps"] if steps is None else steps),
        )
        batch = settings[key] * unit
    if batch % group:
        raise TrainerError(
            key,
            f"a generation batch of {batch} completions does not divide into groups of {group} (num_generations)",
            f"set {key} to a multiple of {math.lcm(group, unit) // unit}",
        )
