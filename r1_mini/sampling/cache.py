"""A key-value cache with preallocated room, whose rows can be repeated and dropped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

from r1_mini.errors import UserError


class _PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer: buffers of (rows, heads, room, channels), the first `length` places in use."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            states.new_empty(*states.shape[:2], self.room, states.shape[-1]) for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.length

    def rearrange(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was."""
        old = self.keys, self.values
        self.keys, self.values = (states.new_empty(len(rows), *states.shape[1:]) for states in old)
        for new, states in zip((self.keys, self.values), old, strict=True):
            new[:, :, : self.length] = states[:, :, : self.length].index_select(0, rows)


class RolloutCache(Cache):
    """A cache for models whose layers all attend to everything; `room` tokens a row. UserError for another model."""

    def __init__(self, config: PretrainedConfig, room: int) -> None:
        text = config.get_text_config(decoder=True)
        odd = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
        if odd:
            fix = "examine a model with full attention in every layer"
            raise UserError(f"the sampler does not know {', '.join(sorted(odd))}", where=text.model_type, fix=fix)
        super().__init__(layers=[_PreallocatedLayer(room) for _ in range(text.num_hidden_layers)])

    def repeat(self, times: int) -> None:
        """Each row `times` times over, neighbors together."""
        rows = self.layers[0].keys.shape[0]
        self.select(torch.arange(rows, device=self.layers[0].keys.device).repeat_interleave(times))

    def select(self, rows: Tensor) -> None:
        """Keep the given rows, in the given order."""
        for layer in self.layers:
            layer.rearrange(rows)
