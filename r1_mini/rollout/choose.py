"""Sampling a token: random numbers from a hash, and the inverse of the cumulative distribution."""

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The low 64 bits of `value` as torch's signed integer."""
    return (value + 2**63) % 2**64 - 2**63


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1, _MIX2 = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def uniform(streams_B: Tensor, position_B: Tensor) -> Tensor:
    """One number in [0, 1) per row, (B,): SplitMix64 (Steele et al. 2014) of its stream at its position.

    float64 on a CPU, elsewhere the same number cut to 24 bits as float32: other devices are slow at float64 or lack it.
    """
    z = streams_B + (position_B + 1) * _GOLDEN
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    z = z ^ _shift_right(z, 31)
    if z.device.type != "cpu":
        return _shift_right(z, 40).float() * 2.0**-24
    return _shift_right(z, 11).double() * 2.0**-53


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift of signed 64-bit integers."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def choose(
    logits_RV: Tensor, row_N: Tensor | None, uniform_N: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """A token for each of N completions, sampled from row `row_N` of the logits, and its log-probability. (N,), (N,)

    Without `row_N` each row has one completion. The log-probability is that of softmax(logits / temperature), before
    `top_p` cuts. temperature 0 takes the most likely token; its log-probability is that at temperature 1.
    Probabilities are summed in the dtype of `uniform_N`.
    """
    rows = slice(None) if row_N is None else row_N
    if temperature == 0:
        logprobs_RV = logits_RV.log_softmax(dim=-1)
        token_N = logits_RV.argmax(dim=-1)[rows]
    else:
        logprobs_RV = (logits_RV / temperature).log_softmax(dim=-1)
        probs_RV = logprobs_RV.to(uniform_N.dtype).exp()
        if top_p < 1:
            probs_RV = _nucleus(probs_RV, top_p)
        edges_NV = probs_RV.cumsum(dim=-1)[rows]
        target_N1 = (uniform_N * edges_NV[:, -1])[:, None]
        token_N = torch.searchsorted(edges_NV, target_N1, right=True)[:, 0].clamp(max=logits_RV.shape[-1] - 1)
        if uniform_N.dtype == torch.float32:  # parallel sums may rise by rounding at a token of probability zero
            possible_N = _of(probs_RV, row_N, token_N) > 0
            token_N = token_N.where(possible_N, probs_RV.argmax(dim=-1)[rows])
    return token_N, _of(logprobs_RV, row_N, token_N)


def _of(values_RV: Tensor, row_N: Tensor | None, token_N: Tensor) -> Tensor:
    """The value of each completion's token, (N,)."""
    return values_RV.gather(1, token_N[:, None])[:, 0] if row_N is None else values_RV[row_N, token_N]


def _nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """Zero outside the smallest set of most likely tokens that holds at least `top_p` (Holtzman et al., 1904.09751)."""
    ordered_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
    before_BV = ordered_BV.cumsum(dim=-1) - ordered_BV
    kept_BV = ordered_BV.where(before_BV < top_p, 0.0)
    return torch.zeros_like(probs_BV).scatter(1, order_BV, kept_BV)
