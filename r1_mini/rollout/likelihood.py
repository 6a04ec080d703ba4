"""Log-probabilities of given completions: little padding, and no row twice. Training and the exam use them."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1_mini.rollout.params import Completion
from r1_mini.rollout.tuning import tuned

LOGITS = 2**26
"""Most logits in memory at once, where a single row has not more."""

Forward = Callable[[Tensor, Tensor], Any]
"""(ids, labels) -> an output with `log_probs` and `entropy`, one place shorter, as TRL's model with its fused head."""


class Rows:
    """The distinct rows of a batch of prompts and completions, sorted by length and cut into parts.

    `ids_BS` are prompts, padded on the left, then completions of at most `keep` tokens, padded on the right; `real_BS`
    is False on padding. U distinct rows begin at place 0, so that no mask is needed to keep padding out of sight.
    """

    def __init__(self, ids_BS: Tensor, real_BS: Tensor, keep: int, most: int | None = None) -> None:
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
        sizes = tuned(ids_BS.device.type)
        self.parts = parts(self.total_U.tolist(), most or sizes.part, sizes.overhead)

    def read(self, forward: Forward, part: slice) -> list[Tensor]:
        """Log-probability of each completion token of a part's rows and entropy before it, 0 where there is none."""
        width = max(2, int(self.total_U[part.stop - 1]))  # one output at least, of a lone prompt token too
        out = forward(self.ids_US[part, :width], self.labels_US[part, :width])
        place, there = self.place_UT[part].clamp(max=width - 2), self.there_UT[part]
        entropy = torch.zeros_like(out.log_probs) if out.entropy is None else out.entropy  # a reference has none
        return [values.gather(1, place) * there for values in (out.log_probs, entropy)]


def parts(lengths: Sequence[int], most: int, overhead: int) -> list[slice]:
    """Cut rows of rising length before `most` tokens, or where going on would cost more in padding than `overhead`."""
    cuts, start, padding = [], 0, 0
    for row, length in enumerate(lengths):
        more = (row - start) * (length - lengths[row - 1]) if row > start else 0
        if row > start and (padding + more > overhead or (row - start + 1) * length > most):
            cuts.append(slice(start, row))
            start, padding, more = row, 0, 0
        padding += more
    return [*cuts, slice(start, len(lengths))]


def score(
    forward: Forward, ids_BS: Tensor, real_BS: Tensor, keep: int, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token and entropy before it, (B, keep) each; see `Rows`."""
    rows = Rows(ids_BS, real_BS, keep, most)
    columns = zip(*(rows.read(forward, part) for part in rows.parts), strict=True)
    logps, entropies = (torch.cat(column)[rows.which_B] for column in columns)
    return logps, entropies


def log_likelihoods(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Completion]]
) -> list[list[float]]:
    """log p(completion | prompt) in nats at temperature 1 of each completion, its stop token included."""

    def forward(ids: Tensor, labels: Tensor) -> SimpleNamespace:
        logps = model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(dim=-1)
        chosen = logps.gather(-1, labels[:, 1:, None].clamp(min=0))[..., 0]
        return SimpleNamespace(log_probs=chosen, entropy=None)

    texts = [(list(prompt), done.tokens) for prompt, group in zip(prompts, groups, strict=True) for done in group]
    before, keep = (max((len(text[side]) for text in texts), default=0) for side in (0, 1))
    ids = [[-1] * (before - len(p)) + p + c + [-1] * (keep - len(c)) for p, c in texts]
    ids_BS = torch.tensor(ids, device=model.device).view(len(texts), before + keep)
    most = min(tuned(ids_BS.device.type).part, LOGITS // model.get_input_embeddings().num_embeddings)
    with torch.no_grad():
        logps, _ = score(forward, ids_BS, ids_BS >= 0, keep, most)
    sums = iter(logps.cpu().double().sum(dim=1).tolist())
    return [[next(sums) for _ in group] for group in groups]
