"""Attention of one new token per row on a CPU, where two matrix products are faster than torch's kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

_NAME = "r1_mini_decoding"
_FEW = 32
"""Rows below which torch's kernel is as fast."""


@contextlib.contextmanager
def decoding_attention(model: PreTrainedModel) -> Iterator[None]:
    """Where a model on a CPU uses torch's scaled dot product attention, it uses ours instead."""
    config = model.config.get_text_config(decoder=True)
    was = config._attn_implementation
    if was == "sdpa" and model.device.type == "cpu":
        config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = was


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What `sdpa_attention_forward` computes. Query (B, heads, T, C), key and value (B, kv heads, S, C), mask bool."""
    rows, heads, length, channels = query.shape
    if length > 1 or rows < _FEW:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return out, None
    grouped = query.view(rows, key.shape[1], -1, channels)  # query heads that share keys
    scores = (grouped @ key.mT).mul_(channels**-0.5 if scaling is None else scaling)
    if attention_mask is not None:
        scores.masked_fill_(~attention_mask, -torch.inf)
    seen = (scores.softmax(dim=-1) @ value).view(rows, heads, 1, -1)
    return seen.transpose(1, 2), None


AttentionInterface.register(_NAME, attend)
AttentionMaskInterface.register(_NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
