"""A Llama with random weights, small enough for two CPU cores."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

LONGEST_CONTEXT = 1024


def make_config(
    tokenizer: PreTrainedTokenizerFast, *, hidden_size: int, layers: int, heads: int, intermediate_size: int | None
) -> LlamaConfig:
    """The shape. `intermediate_size` None is Llama's 8/3 of the width, in steps of 16."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size or -(-hidden_size * 8 // 3 // 16) * 16,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=LONGEST_CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
    )


def make_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden_size: int,
    layers: int,
    heads: int,
    intermediate_size: int | None,
    seed: int,
) -> LlamaForCausalLM:
    """Random weights from `seed` alone, fp32; the shape is `make_config`'s."""
    config = make_config(
        tokenizer, hidden_size=hidden_size, layers=layers, heads=heads, intermediate_size=intermediate_size
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
