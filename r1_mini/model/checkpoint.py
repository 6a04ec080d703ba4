"""Loading and saving a causal language model with its tokenizer, and the LoRA adapter that trains it."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
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

    `prompt` is the style of its prompts; `options` are those of `from_pretrained`. The dtype is fp32 by default.
    """
    with _readable(folder):
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, **{"dtype": torch.float32, "local_files_only": True, "output_loading_info": True, **options}
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        _check(model.config, tokenizer, model.get_input_embeddings().num_embeddings, info["missing_keys"])
    give_template(tokenizer, prompt, str(folder))
    return model.to(device).eval(), tokenizer


def load_shape(
    folder: Path, prompt: PromptStyle = "auto"
) -> tuple[PretrainedConfig, GenerationConfig, PreTrainedTokenizerBase]:
    """Configuration, generation settings and tokenizer of a checkpoint, without its weights; UserError as above."""
    with _readable(folder):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        generation = GenerationConfig.from_model_config(config)
        if (folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(folder, local_files_only=True)
        _check(config, tokenizer, config.get_text_config(decoder=True).vocab_size)
    give_template(tokenizer, prompt, str(folder))
    return config, generation, tokenizer


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """UserError for whatever transformers, tokenizers and safetensors raise on files that they cannot use."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        fix = "give a folder that a stage has written, such as runs/tiny-r1-zero/02-grpo"
        raise UserError(f"cannot be loaded ({reason})", where=str(folder), fix=fix) from error


def _check(
    config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, embeddings: int, missing: Collection[str] = ()
) -> None:
    """ValueError if this is not a whole causal language model with its tokenizer."""
    kinds = config.architectures or []
    if missing:  # transformers would fill them with random numbers
        reason = f"it lacks weights, for example {min(missing)}"
    elif kinds and not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        reason = f"{kinds[0]} is not a causal language model"
    elif len(tokenizer) > embeddings:
        reason = "the tokenizer has more tokens than the model"
    else:
        return
    raise ValueError(reason)


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

        try:
            return get_peft_model(model, adapter(peft))
        except (ValueError, TypeError) as error:
            fix = "name modules of the model, or set target_modules: all-linear"
            raise UserError(str(error).splitlines()[0][:150], where="peft", fix=fix) from None
