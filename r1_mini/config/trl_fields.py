"""The `trainer:` and `peft:` sections of a stage, checked when the recipe is loaded.

A pydantic model made from the type hints of TRL's config checks each value. Then the config is built once, on no
device, for what TRL checks itself.
"""

import copy
import dataclasses
import enum
import fnmatch
import importlib.util
import os
import typing
import warnings
from collections.abc import Collection, Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, create_model
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from r1_mini.config.base import Strict, wrong
from r1_mini.errors import UserError, nearest, shown
from r1_mini.system import environment

OURS = {
    "output_dir": "give --out",
    "seed": "set `seed` at the top of the recipe",
    "data_seed": "set `seed` at the top of the recipe",
    "full_determinism": "set `deterministic` at the top of the recipe",
    "resume_from_checkpoint": "run the same command again, it resumes by itself",
    "use_cpu": "a GPU is used where there is one; put ACCELERATE_USE_CPU=true in front of the command",
    "chat_template_kwargs": "set `prompt` at the top of the recipe, such as {enable_thinking: false}",
    "reward_weights": "set the weights under `rewards` of the stage",
    "eval_strategy": "the exam at the end of the run evaluates; see `evaluate`",
    "do_eval": "the exam at the end of the run evaluates; see `evaluate`",
    "load_best_model_at_end": "the exam at the end of the run evaluates; see `evaluate`",
    "save_only_model": "resuming needs the optimizer too",
    "save_strategy": "set save_steps",
    "ignore_data_skip": "resuming would repeat data",
    "push_to_hub": "push the finished run with `r1-mini push RUN REPO`",
    "log_completions_hub_repo": "push the finished run with `r1-mini push RUN REPO`",
    "auto_find_batch_size": "set per_device_train_batch_size; r1-mini plan says what fits",
    "remove_unused_columns": "rewards read the problem that stands beside each prompt",
    "deepspeed": "launch with recipes/accelerate/zero2.yaml or zero3.yaml",
    "fsdp": "launch with recipes/accelerate/fsdp2.yaml",
    "fsdp_config": "launch with recipes/accelerate/fsdp2.yaml",
}
"""Fields that the pipeline sets itself -> what to do instead."""

NO_EFFECT = {
    "": "*eval* hub_* do_* *_for_best_model greater_is_better prediction_loss_only include_for_metrics label_names "
    "length_column_name chat_template_*",
    "SFTConfig": "dataset_* max_length truncation_mode *packing* padding_free pad_to_multiple_of *_only_loss *_token",
    "DistillationConfig": "label_smoothing_factor train_sampling_strategy max_tool_calling_iterations use_vllm vllm_* "
    "top_k min_p generation_kwargs repetition_penalty cache_implementation ds3_* teacher_model_init_kwargs",
    "GRPOConfig": "label_smoothing_factor train_sampling_strategy max_tool_calling_iterations log_multimodal",
}
"""TRL config, "" for both -> patterns of the fields that change nothing here: there is no evaluation by TRL and no
push, texts are rendered, tokenized and packed by us, and GRPO has its own loss and its own order of prompts."""
ONLY_WITH = {
    "ref_model_*": "sync_ref_model",
    "use_bias_correction_kl": "beta",
    "entropy_coef_*": "use_adaptive_entropy",
    "entropy_target": "use_adaptive_entropy",
    "liger_kernel_config": "use_liger_kernel",
    "torch_compile_*": "torch_compile",
    "transformers_continuous_batching_config": "use_transformers_continuous_batching",
    "gradient_checkpointing_kwargs": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "activation_checkpointing",
}
"""Patterns of fields that change nothing unless another field is set -> that field."""
MOST = {int: 10_000_000, float: 3.4e38}
"""The largest number of a field: rows, tokens; what float32 can hold."""
MOST_TEXTS = 10**8
"""Texts that a stage may train on: they are made before it trains, and held in memory."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "loss_type": ("grpo", "dapo", "dr_grpo", "bnpo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none", True, False),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_mode": ("server", "colocate"),
}
"""Choices of GRPOConfig that TRL checks only when it computes the first loss or reward."""

_EXTRAS = ("tensorboard", "trackio", "wandb")  # of this package, under the name of the tracker's
_PACKAGES = {"azure_ml": "azureml", "flyte": "flytekit"}  # of trackers, where it has another name
_ABOVE_0, _SHARE = Field(gt=0), Field(ge=0, le=1)
_BOUNDS = {  # of fields whose defaults do not tell; whole numbers above 0 stay so, other numbers are not negative
    **dict.fromkeys(("max_steps", "logging_steps", "save_steps", "repetition_penalty"), _ABOVE_0),
    **dict.fromkeys(("generation_batch_size", "steps_per_generation"), _ABOVE_0),
    **dict.fromkeys(("min_p", "top_entropy_quantile", "label_smoothing_factor", "lora_dropout"), _SHARE),
    "top_p": Field(gt=0, le=1),
    "temperature": Field(ge=0.01, le=10),
    "epsilon_high": Field(ge=0),
}
_MACHINE = ("tf32",)  # checked by TRL against this machine, not only as a setting


class ModelOptions(TypedDict, total=False):
    """`model_init_kwargs`: of options of `from_pretrained`, the one that transformers checks only when it loads."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Field(validation_alias=AliasChoices("dtype", "torch_dtype")),  # the second is transformers' old name
    ]
    """Of the trained weights; `auto` keeps the checkpoint's."""


class Fields(Strict, arbitrary_types_allowed=True):
    """Base of the models of TRL's configs."""


@cache
def _model(config_name: str) -> type[Fields]:
    """A TRL config as a pydantic model. Importing TRL takes seconds, so not above."""
    import trl
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    config = getattr(trl, config_name)
    literal: Any = Literal
    tracker: Any = literal["none", "all", *INTEGRATION_TO_CALLBACK]
    hints: dict[str, Any] = typing.get_type_hints(config)
    hints |= {
        "report_to": tracker | None | list[tracker],
        "model_init_kwargs": ModelOptions | None,
    }
    return _fields_of(config, hints)


def _fields_of(config: Any, hints: Mapping[str, Any]) -> type[Fields]:
    """The fields of a dataclass, with these types, as a pydantic model."""
    fields = [field for field in dataclasses.fields(config) if field.init]
    types: dict[str, Any] = {field.name: (_bounded(field, hints[field.name]), field.default) for field in fields}
    return create_model(config.__name__, __base__=Fields, **types)


def _bounded(field: Any, hint: Any) -> Any:
    """The type of a field with its choices, or with the least number that makes sense: TRL annotates neither."""
    name, default = field.name, field.default
    literal: Any = Literal
    choices = field.metadata.get("choices") or CHOICES.get(name, ())
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            choices = [each.value for each in kind]
    if choices:
        return literal[*choices, default]
    if name in _BOUNDS:
        return Annotated[hint, _BOUNDS[name]]
    if type(default) is int and default > 0:
        return Annotated[hint, _ABOVE_0]
    return Annotated[hint, Field(ge=0)] if type(default) in (int, float) and default >= 0 else hint


def resolved(config_name: str, defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a TRL config: TRL's default, overridden by a stage's `defaults`, overridden by `values`."""
    fields = _model(config_name).model_fields
    return {**{name: field.default for name, field in fields.items()}, **defaults, **values}


def check_trainer(
    config_name: str,
    values: Mapping[str, Any],
    defaults: Mapping[str, Any] = MappingProxyType({}),
    fixed: Mapping[str, str] = MappingProxyType({}),
    processes: int | None = None,
) -> dict[str, Any]:
    """The trainer section of a stage, each value in its field's type; ValueError if one is wrong.

    `defaults` are the stage's own, `fixed` the fields that it sets itself, each with what to do instead. `processes`
    train together; by default as many as the launcher has started.
    """
    ours = {**OURS, **fixed}
    for key in values:
        if key in ours:
            raise wrong("the pipeline sets this field itself", ours[key], key)
    checked = _model(config_name).model_validate(values).model_dump(exclude_unset=True)
    fields, world = resolved(config_name, defaults, checked), processes or int(os.environ.get("WORLD_SIZE", "1"))
    texts = fields["per_device_train_batch_size"] * fields["gradient_accumulation_steps"] * world
    bounds = {"max_steps": max(1, MOST_TEXTS // texts)}
    for key in sorted(checked, key="max_steps".__eq__):  # last: a batch that is too large is not its fault
        number = checked[key]
        if type(number) in MOST and abs(number) > (most := bounds.get(key, MOST[type(number)])):
            raise wrong(f"should be at most {shown(most)}, got {shown(number)}", "lower it", key)
    changed = [key for key, value in checked.items() if value != resolved(config_name, {}, {})[key]]
    _require_effect(config_name, changed, fields)
    config = _built(config_name, {**defaults, **checked}, world)
    if config_name == "GRPOConfig" and (share := config.generation_batch_size // world) % config.num_generations:
        what = f"each process generates {share} completions, not whole groups of {config.num_generations}"
        raise wrong(what, f"make it a multiple of {config.num_generations}", "per_device_train_batch_size")
    return checked


def _require_effect(config_name: str, changed: Collection[str], settings: Mapping[str, Any]) -> None:
    """ValueError if a field that was changed would change nothing beside these settings."""
    from transformers import GenerationConfig

    for pattern in f"{NO_EFFECT['']} {NO_EFFECT[config_name]}".split():
        for key in fnmatch.filter(changed, pattern):
            raise wrong("has no effect in this stage", "leave it out", key)
    for pattern, needed in ONLY_WITH.items():
        for key in fnmatch.filter(changed, pattern):
            if not settings[needed]:
                raise wrong(f"has no effect without {needed}", f"set {needed} too, or leave it out", key)
    half = settings["bf16"] or settings["fp16"]
    if (
        settings.get("use_transformers_continuous_batching")
        and half
        and (settings["model_init_kwargs"] or {}).get("dtype", "float32") == "float32"
    ):
        what = "turns the float32 weights into 16 bits for good, in which small steps round to nothing"
        raise wrong(what, "leave it out", "use_transformers_continuous_batching")
    if "generation_kwargs" in changed and not settings["use_vllm"]:
        known = vars(GenerationConfig())
        for name in settings["generation_kwargs"].keys() - known.keys():
            raise wrong(f"'{name}' has no effect", nearest(name, known), "generation_kwargs")
    if "warmup_steps" in changed and settings["lr_scheduler_type"] == "constant":
        raise wrong(
            "has no effect beside a constant rate", "set lr_scheduler_type=constant_with_warmup", "warmup_steps"
        )


def _built(config_name: str, values: Mapping[str, Any], world: int) -> Any:
    """TRL's config for `world` processes, checked by TRL. It is built without accelerate's state, which stays unset."""
    import torch
    import trl

    config = getattr(trl, config_name)
    unplaced = type(config_name, (config,), {"device": torch.device("cpu"), "world_size": world, "n_gpu": 0})
    fields = {key: copy.deepcopy(value) for key, value in values.items() if key not in _MACHINE}
    with warnings.catch_warnings(action="ignore"):
        try:
            return unplaced(output_dir="", use_cpu=True, **fields)
        except (TypeError, ArithmeticError, LookupError, OSError) as error:
            raise wrong(str(error), f"see trl.{config_name}") from None


def check_peft(values: Mapping[str, Any]) -> dict[str, Any]:
    """The `peft:` section of a stage: fields of peft.LoraConfig; ValueError if one is wrong, or peft refuses them."""
    from peft import LoraConfig

    looser = {"init_lora_weights": bool | str, "layer_replication": list | None}  # than they are annotated
    _fields_of(LoraConfig, typing.get_type_hints(LoraConfig) | looser).model_validate(values)
    LoraConfig(**values)
    return dict(values)


def require_machine(values: Mapping[str, Any], where: str) -> None:
    """UserError for what a trainer section needs and this machine lacks; for a run, not where a recipe is only read."""
    import torch

    lacks = []
    if "WORLD_SIZE" not in os.environ and torch.cuda.device_count() > 1:  # TRL refuses torch's DataParallel
        fix = "put CUDA_VISIBLE_DEVICES=0 in front of the command, or use accelerate launch"
        lacks.append(("", f"{torch.cuda.device_count()} GPUs are visible, and one process works with one", fix))
    on_cuda, why = environment.kind() == "cuda", environment.why_no_gpu()
    why = f" ({why})" if why else ""
    if values.get("tf32") and not (on_cuda and torch.cuda.get_device_capability()[0] >= 8):
        fix = "set it to null, or plan for another machine with --gpu"
        lacks.append((".tf32", f"needs a GPU of NVIDIA's Ampere generation or later{why}", fix))
    if values.get("fp16") and not on_cuda:
        lacks.append((".fp16", f"has no effect without a GPU{why}", "set bf16, or leave it out"))
    trackers = values.get("report_to") or ()
    trackers = [trackers] if isinstance(trackers, str) else trackers
    needed = [
        ("report_to", _PACKAGES.get(each, each), f"r1-mini[{each}]" if each in _EXTRAS else each)
        for each in trackers
        if each not in ("none", "all")
    ]
    needed += [("use_vllm", "vllm", "r1-mini[vllm]")] if values.get("use_vllm") else []
    needed += [("use_liger_kernel", "liger_kernel", "liger-kernel")] if values.get("use_liger_kernel") else []
    lacks += [
        (f".{key}", f"needs the package {package}", f"pip install '{extra}', or leave it out")
        for key, package, extra in needed
        if importlib.util.find_spec(package) is None
    ]
    for key, what, fix in lacks:
        raise UserError(what, where=where + key, fix=fix)
