"""Log-probabilities of completions without wasted work: no padding to speak of, no row twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_PASS = 1_000
"""Tokens that take about as long as the overhead of one more forward and backward pass of the tiny model."""
_PART = 16_384
"""Most tokens in one forward pass, where a single row is not longer."""

Forward = Callable[[Tensor, Tensor], Any]
"""(ids, labels) -> an output with `log_probs` and `entropy`, one place shorter: TRL's model with its fused head."""


def score(forward: Forward, ids_BS: Tensor, real_BS: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token and entropy before it, (B, keep) each, 0 where there is no token.

    `ids_BS` are prompts, padded on the left, then completions of at most `keep` tokens, padded on the right; `real_BS`
    is False on padding. Rows that are alike are computed once: samples of one prompt often are.
    """
    first, size = ids_BS.shape[1] - keep, ids_BS.shape[1]
    distinct_US, which_B = torch.unique(ids_BS.masked_fill(~real_BS, -1), dim=0, return_inverse=True)
    total_U = (distinct_US >= 0).sum(dim=1)
    order_U = total_U.argsort(stable=True)
    distinct_US, total_U = distinct_US[order_U], total_U[order_U]
    prompt_U = (distinct_US[:, :first] >= 0).sum(dim=1)

    at_S = torch.arange(size, device=ids_BS.device)
    begin_U1 = first - prompt_U[:, None]
    left_US = distinct_US.gather(1, (begin_U1 + at_S).clamp(max=size - 1))  # padded on the right alone: needs no mask
    left_US = left_US.where(at_S < total_U[:, None], -1)
    labels_US = left_US.where((at_S >= prompt_U[:, None]) & (left_US >= 0), -100)
    read_US = left_US.clamp(min=0)
    place_UT = prompt_U[:, None] - 1 + at_S[:keep]  # the output at a place is of the next token

    columns: list[tuple[Tensor, Tensor]] = []
    for part in parts(total_U.tolist()):
        width = int(total_U[part.stop - 1])
        out = forward(read_US[part, :width], labels_US[part, :width])
        here = place_UT[part]
        there = at_S[:keep] < (total_U - prompt_U)[part, None]
        columns.append(tuple(v.gather(1, here.clamp(max=width - 2)) * there for v in (out.log_probs, out.entropy)))
    back_B = order_U.argsort()[which_B]
    logps, entropies = (torch.cat(column)[back_B] for column in zip(*columns, strict=True))
    return logps, entropies


def parts(lengths: Sequence[int]) -> list[slice]:
    """Cut rows of rising length where going on would cost more in padding than another pass."""
    cuts, start, padding = [], 0, 0
    for row, length in enumerate(lengths):
        more = (row - start) * (length - lengths[row - 1]) if row > start else 0
        if row > start and (padding + more > _PASS or (row - start + 1) * length > _PART):
            cuts.append(slice(start, row))
            start, padding, more = row, 0, 0
        padding += more
    return [*cuts, slice(start, len(lengths))]
