"""A causal language model with its tokenizer: finding, loading and saving it, and the LoRA adapter that trains it."""

import copy
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from safetensors import safe_open
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from r1_mini.errors import UserError, explained
from r1_mini.model.prompts import stop_tokens
from r1_mini.model.templates import PromptStyle, give_template
from r1_mini.model.tokenizer import keep_tags
from r1_mini.system.files import example

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_OTHER = "give the folder of another checkpoint, or correct its files"
FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.safetensors")
"""Patterns of the files that a model is loaded from; nothing else is downloaded."""


def find_checkpoint(path: Path, weights: bool = True) -> Path:
    """The folder of a model: `path` itself, or the local copy of the Hub's model of that id, downloaded if needed.

    Without `weights` only small files are downloaded, and a folder need not have weights.
    """
    if not path.exists() and _HUB_ID.fullmatch(str(path)) and not path.parent.exists():
        from huggingface_hub import snapshot_download

        with explained("cannot be used", path, "give a folder, or an id on the Hub; a gated model needs HF_TOKEN"):
            path = Path(snapshot_download(str(path), allow_patterns=[*FILES[: None if weights else -1]]))
    if (path / "adapter_config.json").exists():  # transformers would load its base, from wherever it says
        fix = f"did you mean {path.parent}?" if (path.parent / "config.json").is_file() else "merge it into its model"
        raise UserError("an adapter, not a whole model", where=str(path), fix=fix)
    pipes = path.is_dir() and any(each.exists() and not (each.is_file() or each.is_dir()) for each in path.iterdir())
    if pipes or not (path / "config.json").is_file() or (weights and not any(path.glob("*.safetensors"))):
        near = example(path, "model*.safetensors", "config.json", otherwise="runs/tiny-r1-zero/02-grpo")
        fix = f"give the folder of a checkpoint, such as {near}"
        raise UserError("not a checkpoint" if path.exists() else "no such folder", where=str(path), fix=fix)
    return path


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu", prompt: PromptStyle = "auto", **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (evaluation mode, on `device`) and tokenizer; UserError if the folder does not hold both.

    `prompt` is the style of its prompts; `options` are those of `from_pretrained`. The dtype is fp32 by default.
    """
    with explained("cannot be used", folder, _OTHER):
        _, _, tokenizer = load_shape(folder, prompt)
        safe = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
        given = {"dtype": torch.float32, **options, **safe, "output_loading_info": True}
        model, info = AutoModelForCausalLM.from_pretrained(folder, **given)
        for what, names in (
            ("lacks", info["missing_keys"]),
            ("has, and its config does not ask for,", info["unexpected_keys"]),
        ):
            if names:  # transformers would fill or drop them
                raise ValueError(f"it {what} {min(names)}")
        if not all(weights.isfinite().all() for weights in model.parameters()):
            raise ValueError("its weights are not finite")
    return model.to(device).eval(), tokenizer


def load_shape(
    folder: Path, prompt: PromptStyle = "auto"
) -> tuple[PretrainedConfig, GenerationConfig, PreTrainedTokenizerBase]:
    """Configuration, generation settings and tokenizer of a checkpoint, without its weights; UserError as above."""
    with explained("cannot be used", folder, _OTHER):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        generation = GenerationConfig.from_model_config(config)
        if (folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
        kind, vocabulary = (config.architectures or ["ForCausalLM"])[0], config.get_text_config(decoder=True).vocab_size
        if not kind.endswith(("ForCausalLM", "LMHeadModel")):
            raise ValueError(f"{kind} is not a causal language model")
        if len(tokenizer) > vocabulary:
            raise ValueError("the tokenizer has more tokens than the model")
        if outside := [token for token in stop_tokens(generation, tokenizer) if not 0 <= token < vocabulary]:
            raise ValueError(f"eos_token_id {outside[0]} is no token of the model")
        _require_size(folder, config)
        for name in ("is_local", "local_files_only"):  # how it was loaded, which would be saved with it
            tokenizer.init_kwargs.pop(name, None)
        keep_tags(tokenizer)
        give_template(tokenizer, prompt, str(folder))
    return config, generation, tokenizer


def _require_size(folder: Path, config: PretrainedConfig) -> None:
    """ValueError if the config asks for more than the files hold, before a model of that size is built, or names files
    that are not in the folder."""
    for index in folder.glob("*.index.json"):
        if outside := [
            name for name in json.loads(index.read_text())["weight_map"].values() if Path(name).name != name
        ]:
            raise ValueError(f"its index names a file outside of the folder: {outside[0]}")
    held, asked = 0, 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            held += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118

    def count(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal asked
        asked += 0 if parameter is None else parameter.numel()
        if asked > 10 * held:  # quantized weights are packed, tied ones are there once
            raise ValueError("its config asks for a larger model than its weights are")

    if held:
        counting = register_module_parameter_registration_hook(count)
        try:
            shape_of(copy.deepcopy(config), torch.float32, None)
        finally:
            counting.remove()


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save what `AutoModelForCausalLM` and `AutoTokenizer.from_pretrained` load.

    For a LoRA model, save the adapter to `adapter/` and the merged model next to it. Merging reloads the base weights
    from disk.
    """
    if is_peft_model(model):
        from peft import AutoPeftModelForCausalLM

        model.save_pretrained(folder / "adapter")
        with_adapter = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", dtype=model.dtype)
        model = with_adapter.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def adapter(peft: Mapping[str, Any] | None) -> Any:
    """peft.LoraConfig of a stage's `peft`; None trains all weights."""
    if peft is None:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"task_type": "CAUSAL_LM", **peft})


def shape_of(config: PretrainedConfig, dtype: torch.dtype, peft: Mapping[str, Any] | None) -> Any:
    """A model of a configuration with a stage's adapter, all of it on meta: it takes no memory.

    UserError if the adapter fits none of its modules.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if peft is None:
            return model
        from peft import get_peft_model

        with explained("cannot be used", "peft", "correct it; name modules of the model, or all-linear"):
            return get_peft_model(model, adapter(peft))
