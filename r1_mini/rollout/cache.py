"""A key-value cache with a fixed number of rows, each with its own length, that can be copied and moved."""

import math
from mmap import mmap
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import Cache, DynamicLayer


class _RowsLayer(DynamicLayer):
    """Keys and values of one layer: buffers of (rows, heads, room, channels).

    A forward pass either begins rows (`begin`: whole prompts, from place 0 on) or adds one token to each of the first
    rows (`add`: at a place of its own for each row).
    """

    def __init__(self, rows: int, room: int) -> None:
        super().__init__()
        self.rows, self.room = rows, room
        self.slots, self.places, self.width = torch.zeros(0), torch.zeros(0), 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Under autocast rotary positions make keys float32, and attention would cast all of them for each token.
        self.dtype, self.device = value_states.dtype, value_states.device
        self.keys, self.values = (
            _zeros((self.rows, states.shape[1], self.room, states.shape[-1]), value_states)
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        key_states = key_states.to(self.dtype)
        if self.width == 0:
            self.keys[self.slots, :, : key_states.shape[2]] = key_states
            self.values[self.slots, :, : key_states.shape[2]] = value_states
            return key_states, value_states
        rows = len(self.slots)
        self.keys[self.slots, :, self.places] = key_states[:, :, 0]
        self.values[self.slots, :, self.places] = value_states[:, :, 0]
        return self.keys[:rows, :, : self.width], self.values[:rows, :, : self.width]

    def get_seq_length(self) -> int:
        return max(0, self.width - 1)  # before the token that is being added


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros, since masked places are multiplied by zero, and a NaN of old memory would stay NaN.

    On a CPU an anonymous memory map, which takes memory page by page as it is used: a cache for 1,024 completions of
    128 tokens of the default model would take 360 MB at once.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return torch.frombuffer(mmap(-1, math.prod(shape) * like.element_size()), dtype=like.dtype).view(shape)


class RolloutCache(Cache):
    """A cache of `rows` rows with `room` tokens each, all of which are kept in every layer, whatever its window.

    On a CPU memory is taken as it is used, on a GPU all of it at once.
    """

    def __init__(self, config: PretrainedConfig, rows: int, room: int) -> None:
        super().__init__(layers=[_RowsLayer(rows, room) for _ in range(config.num_hidden_layers)])

    def begin(self, slots: Tensor) -> None:
        """The next forward pass writes prompts into these rows."""
        for layer in self.layers:
            layer.slots, layer.width = slots, 0

    def add(self, places_R: Tensor, width: int) -> None:
        """The next forward pass adds a token to each of the first R rows, at the given place, below `width`."""
        slots = torch.arange(len(places_R), device=places_R.device)
        for layer in self.layers:
            layer.slots, layer.places, layer.width = slots, places_R, width

    def copy(self, source: Tensor, target: Tensor, width: int) -> None:
        """Rows `target` become what rows `source` are, in their first `width` places."""
        for layer in self.layers:
            if layer.is_initialized:
                for states in (layer.keys, layer.values):
                    states[target, :, :width] = states[source, :, :width]


def visible(config: PretrainedConfig, length_R: Tensor, width: int) -> Tensor | dict[str, Tensor]:
    """Which of the first `width` tokens of its row a token sees at place `length_R`: bool, (R, 1, 1, width).

    One mask for each kind of layer, as transformers takes them, where only some layers have a sliding window.
    """
    kinds, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
    at_T, last_R1 = torch.arange(width, device=length_R.device), length_R[:, None]
    seen_RT = at_T <= last_R1
    if not window or width <= window or (kinds and "sliding_attention" not in kinds):
        return seen_RT[:, None, None]
    near_RT = seen_RT & (at_T > last_R1 - window)
    masks = {"full_attention": seen_RT[:, None, None], "sliding_attention": near_RT[:, None, None]}
    return masks if kinds else masks["sliding_attention"]
