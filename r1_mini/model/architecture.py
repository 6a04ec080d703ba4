"""A Llama with random weights, small enough for two CPU cores."""

from typing import Any, Self

import torch
from pydantic import Field, model_validator
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from r1_mini.config.base import Strict


class ModelSettings(Strict):
    """Shape of the from-scratch Llama; the defaults give about 0.35 M parameters."""

    hidden_size: int = Field(96, ge=8, le=8192)
    """Width; a multiple of twice the number of heads (rotary positions pair up the channels of a head)."""
    layers: int = Field(3, ge=1, le=128)
    heads: int = Field(4, ge=1, le=128)
    intermediate_size: int | None = Field(None, ge=8)
    """Width of the MLP; null is Llama's 8/3 of the width, rounded up to a multiple of 16."""
    characters: str = ""
    """Those that its tokenizer has besides ASCII, such as `éß`."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % (twice := 2 * self.heads):
            raise ValueError(f"hidden_size should be a multiple of {twice}, twice the heads, not {self.hidden_size}")
        return self


def make_config(tokenizer: PreTrainedTokenizerFast, **fields: Any) -> LlamaConfig:
    """The configuration of a model for this tokenizer; `fields` are those of `ModelSettings`."""
    shape = ModelSettings(**fields)
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size or -(-shape.hidden_size * 8 // 3 // 16) * 16,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, *, seed: int, **fields: Any) -> LlamaForCausalLM:
    """A model with random weights, fp32, from `seed` alone; `fields` are those of `ModelSettings`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(make_config(tokenizer, **fields))
