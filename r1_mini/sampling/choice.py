"""Drawing a token: random numbers that a hash gives, and the inverse of the cumulative distribution."""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The low 64 bits of `value` as torch's signed integer."""
    return (value + 2**63) % 2**64 - 2**63


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def uniform(streams_B: Tensor, position_B: Tensor) -> Tensor:
    """One number in [0, 1) per row, (B,) float64: SplitMix64 (Steele et al. 2014) of its stream at its position."""
    z = streams_B + (position_B + 1) * _GOLDEN
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    z = z ^ _shift_right(z, 31)
    return _shift_right(z, 11).double() * 2.0**-53


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift of signed 64-bit integers."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def choose(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """A token per row and its log-probability under softmax(logits / temperature), before `top_p` cuts. (B,), (B,)

    temperature 0 takes the most likely token; its log-probability is that at temperature 1.
    """
    if temperature == 0:
        logprobs_BV = logits_BV.log_softmax(dim=-1)
        token_B = logits_BV.argmax(dim=-1)
    else:
        logprobs_BV = (logits_BV / temperature).log_softmax(dim=-1)
        probs_BV = logprobs_BV.double().exp()
        if top_p < 1:
            probs_BV = _nucleus(probs_BV, top_p)
        edges_BV = probs_BV.cumsum(dim=-1)
        target_B1 = (uniform_B * edges_BV[:, -1])[:, None]
        token_B = torch.searchsorted(edges_BV, target_B1, right=True)[:, 0].clamp(max=logits_BV.shape[-1] - 1)
    return token_B, logprobs_BV.gather(1, token_B[:, None])[:, 0]


def _nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """Zero outside the smallest set of most likely tokens that holds at least `top_p` (Holtzman et al., 1904.09751)."""
    ordered_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
    before_BV = ordered_BV.cumsum(dim=-1) - ordered_BV
    kept_BV = ordered_BV.where(before_BV < top_p, 0.0)
    return torch.zeros_like(probs_BV).scatter(1, order_BV, kept_BV)
