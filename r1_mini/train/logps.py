"""Log-probabilities of completions without wasted work: no padding to speak of, no row twice, no row kept for later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from trl.trainer import utils as trl_utils

_PASS = 1_000
"""Tokens that take about as long as the overhead of one more forward and backward pass of the tiny model."""
PART = {"cpu": 2_048}
"""Most tokens in one forward pass, where a single row is not longer: few enough for a processor's cache."""
PART_ELSEWHERE = 8_192

Forward = Callable[[Tensor, Tensor], Any]
"""(ids, labels) -> an output with `log_probs` and `entropy`, one place shorter: TRL's model with its fused head."""


class Rows:
    """The distinct rows of a batch of prompts and completions, by length, cut into parts; samples are often alike.

    `ids_BS` are prompts, padded on the left, then completions of at most `keep` tokens, padded on the right; `real_BS`
    is False on padding. U distinct rows begin at place 0, so that no mask is needed to keep padding out of sight.
    """

    def __init__(self, ids_BS: Tensor, real_BS: Tensor, keep: int) -> None:
        first, size = ids_BS.shape[1] - keep, ids_BS.shape[1]
        distinct_US, which_B = torch.unique(ids_BS.masked_fill(~real_BS, -1), dim=0, return_inverse=True)
        order_U = (distinct_US >= 0).sum(dim=1).argsort(stable=True)
        self.which_B = order_U.argsort()[which_B]  # the distinct row of each row
        distinct_US = distinct_US[order_U]
        prompt_U1 = (distinct_US[:, :first] >= 0).sum(dim=1, keepdim=True)
        self.total_U = (distinct_US >= 0).sum(dim=1)
        at_S = torch.arange(size, device=ids_BS.device)
        ids_US = distinct_US.gather(1, (first - prompt_U1 + at_S).clamp(max=size - 1))
        inside_US = at_S < self.total_U[:, None]
        self.ids_US = ids_US.where(inside_US, 0)
        self.labels_US = ids_US.where(inside_US & (at_S >= prompt_U1), -100)
        self.place_UT = prompt_U1 - 1 + at_S[:keep]  # the output at a place is of the next token
        self.there_UT = at_S[:keep] < self.total_U[:, None] - prompt_U1
        self.parts = parts(self.total_U.tolist(), PART.get(ids_BS.device.type, PART_ELSEWHERE))

    def read(self, forward: Forward, part: slice) -> list[Tensor]:
        """Log-probability of each completion token of a part's rows and entropy before it, 0 where there is none."""
        width = max(2, int(self.total_U[part.stop - 1]))  # one output at least, of a lone prompt token too
        out = forward(self.ids_US[part, :width], self.labels_US[part, :width])
        place, there = self.place_UT[part].clamp(max=width - 2), self.there_UT[part]
        entropy = torch.zeros_like(out.log_probs) if out.entropy is None else out.entropy  # TRL's reference has none
        return [values.gather(1, place) * there for values in (out.log_probs, entropy)]


def score(forward: Forward, ids_BS: Tensor, real_BS: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token and entropy before it, (B, keep) each; see `Rows`."""
    rows = Rows(ids_BS, real_BS, keep)
    columns = zip(*(rows.read(forward, part) for part in rows.parts), strict=True)
    logps, entropies = (torch.cat(column)[rows.which_B] for column in columns)
    return logps, entropies


def score_in_backward(
    forward: Forward, ids_BS: Tensor, real_BS: Tensor, keep: int, known_BT: Tensor, told: Callable[[Tensor], None]
) -> Tensor:
    """`known_BT`, log-probabilities known from sampling with the same weights, with the gradient that `score` has.

    The forward pass waits for the gradient, so the activations of one part at a time are in memory. Gradients of the
    weights are added up during the outer backward pass, unseen by hooks that several processes would need. `told` gets
    what the forward pass gave, (B, keep).
    """

    def backward(gradient_BT: Tensor) -> None:
        rows = Rows(ids_BS, real_BS, keep)
        gradient_UT = gradient_BT.new_zeros(len(rows.total_U), keep).index_add(0, rows.which_B, gradient_BT)
        seen = []
        with torch.enable_grad():
            for part in rows.parts:
                logps, _ = rows.read(forward, part)
                torch.autograd.backward(logps, gradient_UT[part])
                seen.append(logps.detach())
        told(torch.cat(seen)[rows.which_B])

    known_BT = known_BT.detach().clone().requires_grad_()
    known_BT.register_hook(backward)
    return known_BT


@contextlib.contextmanager
def narrow_tiles(vocabulary: int) -> Iterator[None]:
    """TRL's fused head no wider than the vocabulary: its tiles have 32,768 columns, used or not, and a token's row of
    them is on memory pages of its own."""
    width = trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
    trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = min(width, vocabulary)
    try:
        yield
    finally:
        trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = width


def parts(lengths: Sequence[int], most: int) -> list[slice]:
    """Cut rows of rising length before `most` tokens, or where going on would cost more in padding than a pass."""
    cuts, start, padding = [], 0, 0
    for row, length in enumerate(lengths):
        more = (row - start) * (length - lengths[row - 1]) if row > start else 0
        if row > start and (padding + more > _PASS or (row - start + 1) * length > most):
            cuts.append(slice(start, row))
            start, padding, more = row, 0, 0
        padding += more
    return [*cuts, slice(start, len(lengths))]
