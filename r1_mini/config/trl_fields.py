"""The `trainer:` and `peft:` sections of a stage, checked when the recipe is loaded: by TRL, where TRL checks.

A stage's TRL config is built once, on no device. What TRL takes without a word is checked here: types, choices that
fail only at the first loss, numbers that must be positive, and the fields that the pipeline sets itself.
"""

import copy
import dataclasses
import enum
import importlib.util
import os
import typing
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from r1_mini.config.base import Temperature, wrong
from r1_mini.errors import UserError, nearest, shown

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
"""Fields that the pipeline sets itself -> what to do instead."""

CHOICES: dict[str, tuple[str, ...]] = {
    "loss_type": ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("server", "colocate"),
}
"""Choices of GRPOConfig that TRL checks only when it computes the first loss or reward."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
"""dtype of the trained weights; `auto` keeps the checkpoint's dtype."""
TRACKERS = ("tensorboard", "trackio", "wandb")
"""Trackers that are an extra of this package, under the name of their own package."""
_POSITIVE = ("max_steps", "temperature", "top_p")  # and whole numbers that TRL sets to more than 0
_MACHINE = ("deepspeed", "fsdp", "fsdp_config", "tf32")  # checked by TRL against this machine, not only as settings


@cache
def _fields(config_name: str) -> dict[str, tuple[Any, Any, tuple[str, ...]]]:
    """Name -> (type, default, choices) of every field of a TRL config. Importing TRL takes seconds, so not above."""
    import trl

    config = getattr(trl, config_name)
    hints = typing.get_type_hints(config)
    return {
        field.name: (hints[field.name], field.default, _choices(config_name, field, hints[field.name]))
        for field in dataclasses.fields(config)
        if field.init
    }


def _choices(config_name: str, field: Any, hint: Any) -> tuple[str, ...]:
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return tuple(str(option.value) for option in kind)
    ours = CHOICES.get(field.name, ()) if config_name == "GRPOConfig" else ()
    return ours or tuple(field.metadata.get("choices") or ())


def resolved(config_name: str, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a TRL config: TRL's default, overridden by a stage's `defaults`, overridden by `values`."""
    return {**{name: default for name, (_, default, _) in _fields(config_name).items()}, **defaults, **values}


def check_trainer(
    config_name: str,
    values: Mapping[str, Any],
    defaults: Mapping[str, Any] = MappingProxyType({}),
    fixed: Mapping[str, str] = MappingProxyType({}),
    processes: int | None = None,
) -> dict[str, Any]:
    """The trainer section of a stage, each value in its field's type; a settings error if one is wrong.

    `defaults` are the stage's own, `fixed` the fields that it sets itself, each with what to do instead. `processes`
    train together; by default as many as the launcher has started.
    """
    fields, ours = _fields(config_name), {**OURS, **fixed}
    checked: dict[str, Any] = {}
    for key, value in values.items():
        if key in ours:
            raise wrong("the pipeline sets this field itself", ours[key], key)
        if key not in fields:
            raise wrong(f"trl.{config_name} has no such field", nearest(key, fields.keys() - ours.keys()), key)
        hint, default, choices = fields[key]
        checked[key] = _check_value(key, value, hint, default, choices)
    world = processes or int(os.environ.get("WORLD_SIZE", "1"))
    try:
        config = _build(config_name, {**defaults, **checked}, world)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise wrong(str(error).partition("\n")[0].rstrip("."), f"see trl.{config_name}") from None
    if config_name == "GRPOConfig" and (share := config.generation_batch_size // world) % config.num_generations:
        what = f"each process generates {share} completions, not whole groups of {config.num_generations}"
        raise wrong(what, f"make it a multiple of {config.num_generations}", "per_device_train_batch_size")
    return checked


def _build(config_name: str, values: Mapping[str, Any], world: int) -> Any:
    """TRL's config for `world` processes, checked by TRL. It is built without accelerate's state, which stays unset."""
    import torch
    import trl

    config = getattr(trl, config_name)
    unplaced = type(config_name, (config,), {"device": torch.device("cpu"), "world_size": world, "n_gpu": 0})
    fields = {key: copy.deepcopy(value) for key, value in values.items() if key not in _MACHINE}
    with warnings.catch_warnings(action="ignore"):
        return unplaced(output_dir="", use_cpu=True, **fields)


def _check_value(key: str, value: Any, hint: Any, default: Any, choices: Iterable[str]) -> Any:
    """`value` in the type of its field."""
    if key == "scale_rewards" and isinstance(value, bool):  # TRL takes both, its annotation does not say so
        return "group" if value else "none"
    if key == "report_to":
        from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

        choices = ("none", "all", *INTEGRATION_TO_CALLBACK)
    chosen = [value] if not isinstance(value, list) else value
    if key == "model_init_kwargs" and isinstance(value, Mapping):  # transformers looks at it only when it loads
        old_name = "torch_dtype" in value
        choices, chosen = (("dtype",), ["torch_dtype"]) if old_name else (DTYPES, [value.get("dtype", "auto")])
    for choice in chosen if choices else ():
        if isinstance(choice, str) and choice not in choices:
            raise wrong(f"'{choice}' is not a choice", nearest(choice, choices), key)
    hint = Temperature if key == "temperature" else hint
    try:
        adapter = TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True))
        checked = adapter.validate_python(value)
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise wrong(f"should be {message}, got {shown(value)}", "change it", key) from None
    if isinstance(checked, enum.Enum):
        return value
    is_positive = key in _POSITIVE or (type(default) is int and default > 0)
    has_bound = type(checked) in (int, float) and (is_positive or (type(default) in (int, float) and default >= 0))
    if has_bound and (checked < 0 or (checked == 0 and is_positive)):
        raise wrong(f"should be {'greater than 0' if is_positive else '0 or more'}, got {value}", "change it", key)
    return checked


def check_peft(values: Mapping[str, Any]) -> dict[str, Any]:
    """The `peft:` section of a stage: fields of peft.LoraConfig; an error if peft refuses them or is missing."""
    try:
        from peft import LoraConfig

        LoraConfig(**values)
    except (ImportError, TypeError, ValueError) as error:
        fix = "pip install 'r1-mini[peft]'" if isinstance(error, ImportError) else "see peft.LoraConfig"
        raise wrong(str(error).partition("\n")[0], fix) from None
    return dict(values)


def require_machine(values: Mapping[str, Any], where: str) -> None:
    """UserError for what a trainer section needs and this machine lacks; for a run, not where a recipe is only read."""
    import torch

    trackers = values.get("report_to") or ()
    trackers = [trackers] if isinstance(trackers, str) else trackers
    needed = [("report_to", tracker, f"r1-mini[{tracker}]") for tracker in trackers if tracker in TRACKERS]
    needed += [("use_vllm", "vllm", "trl[vllm]")] if values.get("use_vllm") else []
    lacks = [
        (f".{key}", f"needs the package {package}", f"pip install '{extra}', or leave it out")
        for key, package, extra in needed
        if importlib.util.find_spec(package) is None
    ]
    if "WORLD_SIZE" not in os.environ and torch.cuda.device_count() > 1:  # TRL refuses torch's DataParallel
        fix = "put CUDA_VISIBLE_DEVICES=0 in front of the command, or use accelerate launch"
        lacks.append(("", f"{torch.cuda.device_count()} GPUs are visible, and one process works with one", fix))
    if values.get("tf32") and not (torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8):
        lacks.append((".tf32", "needs a GPU of NVIDIA's Ampere generation or later", "set it to null"))
    for key, what, fix in lacks:
        raise UserError(what, where=where + key, fix=fix)
