"""Log-probabilities of given completions: little padding, and no row twice. Training and the exam use them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from r1_mini.rollout.engine import keeps_keys_alone
from r1_mini.rollout.params import Completion
from r1_mini.rollout.tuning import tuned

LOGITS = 2**26
"""Most logits in memory at once, where a single row has not more."""

Forward = Callable[..., Any]
"""(ids, labels, more inputs by name) -> an output with `log_probs` and `entropy`, one place shorter, as TRL's model
with its fused head."""


class Prefill:
    """Reads prompts once for all their completions."""

    def __init__(
        self, model: PreTrainedModel, autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> None:
        self.model, self.autocast = model, autocast

    def allowed(self, width: int) -> bool:
        """Whether a row of `width` tokens may begin at the end of its prompt.

        Not where layers keep something else than keys and values, or see no further than a window.
        """
        return not self.model.is_activation_checkpointing and keeps_keys_alone(self.model, width)

    def __call__(self, ids_DW: Tensor) -> list[Tensor]:
        """The keys, then the values, of each layer in turn, (D, heads, W, size); prompts are padded on the right."""
        cache = DynamicCache()
        with self.autocast():
            self.model.base_model(input_ids=ids_DW, past_key_values=cache, use_cache=True)
        return [each for layer in cache.layers for each in (layer.keys, layer.values)]


class Rows:
    """The distinct rows of a batch of prompts and completions, cut into parts of rows of similar length.

    `ids_BS` are prompts, padded on the left, then completions of at most `keep` tokens, padded on the right; `real_BS`
    is False on padding. U distinct rows begin at place 0, so that no mask is needed to keep padding out of sight.

    With `prefill`, each of D prompts is read once, all but its last token, and its rows begin with that token, if this
    saves more tokens than a pass costs. `chunks` are the prompts to read together, and the parts of their rows.
    """

    def __init__(
        self, ids_BS: Tensor, real_BS: Tensor, keep: int, most: int | None = None, prefill: Prefill | None = None
    ) -> None:
        first, size, sizes = ids_BS.shape[1] - keep, ids_BS.shape[1], tuned(ids_BS.device.type)
        most = most or sizes.part
        distinct_US, which_B = torch.unique(ids_BS.masked_fill(~real_BS, -1), dim=0, return_inverse=True)
        prompt_U1 = (distinct_US[:, :first] >= 0).sum(dim=1, keepdim=True)
        total_U1 = (distinct_US >= 0).sum(dim=1, keepdim=True)
        at_S = torch.arange(size, device=ids_BS.device)

        def moved(rows_US: Tensor, by_U1: Tensor) -> Tensor:
            """Rows that begin later, with as many tokens as they then have; -1 is padding."""
            return rows_US.gather(1, (by_U1 + at_S).clamp(max=size - 1)).where(by_U1 + at_S < size, -1)

        ids_US = moved(distinct_US, first - prompt_U1)
        before_U1 = (prompt_U1 - 1).clamp(min=0)
        width = max(1, int(before_U1.max()))
        prefixes_DW, self.prefix_U = torch.unique(
            ids_US[:, :width].where(at_S[:width] < before_U1, -1), dim=0, return_inverse=True
        )
        saved, chunk_U = int(before_U1.sum() - (prefixes_DW >= 0).sum()), torch.zeros_like(self.prefix_U)
        self.prefill = prefill if prefill and saved > sizes.overhead and prefill.allowed(size) else None
        if self.prefill:
            most = max(1, most // 2)  # half for the prompts, half for their rows
            at_once = max(1, most // width)
            ids_US, prompt_U1, total_U1 = moved(ids_US, before_U1), prompt_U1 - before_U1, total_U1 - before_U1
            chunk_U = self.prefix_U // at_once
        order_U = total_U1[:, 0].argsort(stable=True)
        order_U = order_U[chunk_U[order_U].argsort(stable=True)]
        self.which_B = order_U.argsort()[which_B]  # the distinct row of each row
        ids_US, prompt_U1, self.total_U = ids_US[order_U], prompt_U1[order_U], total_U1[order_U, 0]
        self.prefix_U, self.before_U1 = self.prefix_U[order_U], before_U1[order_U]
        self.ids_US, self.prefixes_DW = ids_US.clamp(min=0), prefixes_DW.clamp(min=0)
        self.labels_US = ids_US.where((ids_US >= 0) & (at_S >= prompt_U1), -100)
        self.place_UT = prompt_U1 - 1 + at_S[:keep]  # the output at a place is of the next token
        self.there_UT = at_S[:keep] < self.total_U[:, None] - prompt_U1
        self.chunks: list[tuple[slice, list[slice]]] = []
        lengths_U, start = self.total_U, 0
        if self.prefill:
            lengths_U = lengths_U + width // 4  # a row's copy of keys and values takes memory too
        for index, number in enumerate(chunk_U.bincount().tolist()):
            cut = parts(lengths_U[start : start + number].tolist(), most, sizes.overhead)
            some = slice(index * at_once, (index + 1) * at_once) if self.prefill else slice(0)
            self.chunks.append((some, [slice(start + part.start, start + part.stop) for part in cut]))
            start += number

    def stored(self, some: slice) -> list[Tensor]:
        """The prefill of some prompts; nothing if none are shared."""
        return self.prefill(self.prefixes_DW[some]) if self.prefill else []

    def read(self, forward: Forward, part: slice, stored: Sequence[Tensor] = (), first: int = 0) -> list[Tensor]:
        """Log-probability of each completion token of a part's rows and entropy before it, 0 where there is none.

        `stored` is the prefill of the prompts from number `first` on.
        """
        width, more = max(2, int(self.total_U[part].max())), {}  # one output at least, of a lone prompt token too
        if stored:
            which_R, before_R1 = self.prefix_U[part] - first, self.before_U1[part]
            at_W, at_T = (torch.arange(n, device=which_R.device) for n in (self.prefixes_DW.shape[1], width))
            real = torch.cat([at_W < before_R1, (at_T >= 0).expand(len(which_R), -1)], dim=1)
            rows = [each.index_select(0, which_R) for each in stored]
            cache = DynamicCache(list(zip(rows[::2], rows[1::2], strict=True)))
            more = {"past_key_values": cache, "attention_mask": real.long(), "position_ids": before_R1 + at_T}
        out = forward(self.ids_US[part, :width], self.labels_US[part, :width], **more)
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
    forward: Forward,
    ids_BS: Tensor,
    real_BS: Tensor,
    keep: int,
    most: int | None = None,
    prefill: Prefill | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token and entropy before it, (B, keep) each; see `Rows`."""
    rows = Rows(ids_BS, real_BS, keep, most, prefill)
    read = []
    for some, of_chunk in rows.chunks:
        stored = rows.stored(some)
        read += [rows.read(forward, part, stored, some.start or 0) for part in of_chunk]
    # By index_select: the gradient of [rows.which_B] is added up by several threads, each time in another order.
    logps, entropies = (torch.cat(column).index_select(0, rows.which_B) for column in zip(*read, strict=True))
    return logps, entropies


def log_likelihoods(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], groups: Sequence[Sequence[Completion]]
) -> list[list[float]]:
    """log p(completion | prompt) in nats at temperature 1 of each completion, its stop token included."""

    def forward(ids: Tensor, labels: Tensor, **more: Any) -> SimpleNamespace:
        logps = model(input_ids=ids, use_cache=False, **more).logits[:, :-1].float().log_softmax(dim=-1)
        chosen = logps.gather(-1, labels[:, 1:, None].clamp(min=0))[..., 0]
        return SimpleNamespace(log_probs=chosen, entropy=None)

    texts = [(list(prompt), done.tokens) for prompt, group in zip(prompts, groups, strict=True) for done in group]
    before, keep = (max((len(text[side]) for text in texts), default=0) for side in (0, 1))
    ids = [[-1] * (before - len(p)) + p + c + [-1] * (keep - len(c)) for p, c in texts]
    ids_BS = torch.tensor(ids, device=model.device).view(len(texts), before + keep)
    most = min(tuned(ids_BS.device.type).part, LOGITS // model.get_input_embeddings().num_embeddings)
    with torch.no_grad():
        logps, _ = score(forward, ids_BS, ids_BS >= 0, keep, most, Prefill(model))
    sums = iter(logps.cpu().double().sum(dim=1).tolist())
    return [[next(sums) for _ in group] for group in groups]
