"""Loading and saving a causal language model with its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from r1_mini.errors import UserError


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu", **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (evaluation mode, on `device`) and tokenizer; UserError if the folder does not hold both.

    `options` are those of `from_pretrained`: of `dtype`, the default is fp32 on a CPU, elsewhere as the folder has it.
    """
    fix = "give a folder that a stage has written, such as runs/tiny-r1-zero/02-grpo"
    dtype = torch.float32 if torch.device(device).type == "cpu" else "auto"
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, **{"dtype": dtype, "local_files_only": True, "output_loading_info": True, **options}
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise UserError(f"cannot be loaded ({reason})", where=str(folder), fix=fix) from error
    if info["missing_keys"]:  # transformers would fill them with random numbers
        raise UserError(f"lacks weights, {min(info['missing_keys'])} for one", where=str(folder), fix=fix)
    kinds = model.config.architectures or []
    if kinds and not any(kind.endswith(("ForCausalLM", "LMHeadModel")) for kind in kinds):
        raise UserError(f"{kinds[0]} is not a causal language model", where=str(folder), fix=fix)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise UserError("the tokenizer has more tokens than the model", where=str(folder), fix=fix)
    return model.to(device).eval(), tokenizer


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
