"""Loading and saving a causal language model with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from r1_mini.errors import UserError
from r1_mini.model.prompts import PromptStyle, give_template


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu", prompt: PromptStyle = "auto", **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (evaluation mode, on `device`) and tokenizer; UserError if the folder does not hold both.

    `prompt` is how the tokenizer asks; `options` are those of `from_pretrained`; fp32 if they do not say otherwise.
    """
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, **{"dtype": torch.float32, "local_files_only": True, "output_loading_info": True, **options}
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except _UNREADABLE as error:
        raise _unreadable(error, folder) from error
    if info["missing_keys"]:  # transformers would fill them with random numbers
        raise UserError(f"lacks weights, {min(info['missing_keys'])} for one", where=str(folder), fix=_FIX)
    _check(model.config, tokenizer, model.get_input_embeddings().num_embeddings, folder)
    give_template(tokenizer, prompt, str(folder))
    return model.to(device).eval(), tokenizer


def load_shape(
    folder: Path, prompt: PromptStyle = "auto"
) -> tuple[PretrainedConfig, GenerationConfig, PreTrainedTokenizerBase]:
    """Configuration, settings for generation and tokenizer of a checkpoint, whose weights stay on the disk.

    UserError if the folder does not hold them.
    """
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        generation = GenerationConfig.from_model_config(config)
        if (folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except _UNREADABLE as error:
        raise _unreadable(error, folder) from error
    _check(config, tokenizer, config.get_text_config(decoder=True).vocab_size, folder)
    give_template(tokenizer, prompt, str(folder))
    return config, generation, tokenizer


_FIX = "give a folder that a stage has written, such as runs/tiny-r1-zero/02-grpo"
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)


def _unreadable(error: Exception, folder: Path) -> UserError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
    return UserError(f"cannot be loaded ({reason})", where=str(folder), fix=_FIX)


def _check(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, embeddings: int, folder: Path) -> None:
    """UserError for what is no causal language model with its tokenizer."""
    kinds = config.architectures or []
    if kinds and not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise UserError(f"{kinds[0]} is not a causal language model", where=str(folder), fix=_FIX)
    if len(tokenizer) > embeddings:
        raise UserError("the tokenizer has more tokens than the model", where=str(folder), fix=_FIX)


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """As `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` read it.

    Of a model with an adapter the adapter is saved in `adapter`, and the model with it merged in, from the weights on
    the disk that the adapter was trained on.
    """
    if is_peft_model(model):
        from peft import AutoPeftModelForCausalLM

        model.save_pretrained(folder / "adapter")
        with_adapter = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter", dtype=model.dtype)
        model = with_adapter.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
