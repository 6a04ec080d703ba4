"""The batch of the sampler on a CPU: completions of a prompt that agree so far share one row.

A group begins as a single row, which branches where its members sample different tokens. Rows whose completions have
ended leave the key-value cache, and waiting prompts enter it.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1_mini.rollout.cache import RolloutCache, visible
from r1_mini.rollout.choose import choose, uniform
from r1_mini.rollout.params import Sampled, SamplingParams
from r1_mini.rollout.tuning import tuned

_COMPACT_BELOW = 0.75
"""Rows are moved together when less than this share of the computed rows is in use."""


class Batch:
    """N completions in progress and the R rows that compute them; M completions in all.

    | tensor | of each | holds |
    |---|---|---|
    | `token_R`, `length_R` | row | the token it reads next, and the number of tokens it has read |
    | `row_N`, `stream_N` | completion in progress | its row, and the name of its random numbers |
    | `at_N`, `place_N` | completion in progress | the number of its next token, and its place among the M results |
    | `tokens_MT`, `logprobs_MT` | result | its tokens after the prefix, and their log-probabilities |
    | `lengths_M`, `stopped_M` | result | its number of tokens, and whether a stop token ended it |
    """

    LOOKS: ClassVar = True
    """Whether the host looks if a mask is needed, and waits for the device to know."""

    def __init__(
        self,
        model: PreTrainedModel,
        params: SamplingParams,
        stop: Sequence[int],
        banned_first: Sequence[int],
        rows: int,
        longest_prompt: int,
        number: int,
    ) -> None:
        self.model, self.params, self.banned_first, device = model, params, banned_first, model.device
        self.stops = torch.tensor(list(stop), device=device)
        self.config = model.config.get_text_config(decoder=True)
        self.cache = RolloutCache(self.config, rows, longest_prompt + params.max_tokens)
        self.rows = 0  # computed in a step; some of them may be in use by no completion
        self.token_R = torch.zeros(rows, dtype=torch.long, device=device)
        self.length_R = torch.zeros(rows, dtype=torch.long, device=device)
        self.row_N = self.stream_N = self.at_N = self.place_N = torch.zeros(0, dtype=torch.long, device=device)
        self.tokens_MT = torch.zeros(number, params.max_tokens, dtype=torch.long, device=device)
        self.logprobs_MT = torch.zeros(number, params.max_tokens, device=device)
        self.lengths_M = torch.zeros(number, dtype=torch.long, device=device)
        self.stopped_M = torch.zeros(number, dtype=torch.bool, device=device)

    @property
    def running(self) -> int:
        """Completions that have begun and not ended."""
        return len(self.row_N)

    def admit(self, prompts: list[list[int]], streams: list[list[int]], places: list[int]) -> None:
        """Begin a group of completions for each prompt: one row each, until they differ."""
        device, group = self.model.device, len(streams[0])
        self._compact()
        slots = torch.arange(self.rows, self.rows + len(prompts), device=device)
        self.rows += len(prompts)
        self._begin(slots, prompts)
        self.row_N = torch.cat([self.row_N, slots.repeat_interleave(group)])
        self.stream_N = torch.cat([self.stream_N, torch.tensor(streams, device=device).flatten()])
        self.at_N = torch.cat([self.at_N, self.at_N.new_zeros(len(prompts) * group)])
        new = torch.tensor(places, device=device)[:, None] + torch.arange(group, device=device)
        self.place_N = torch.cat([self.place_N, new.flatten()])

    def _begin(self, slots: Tensor, prompts: list[list[int]]) -> None:
        """Let rows read all tokens of their prompts but the last, which the first step reads."""
        device, lengths = self.model.device, [len(prompt) - 1 for prompt in prompts]
        self.length_R[slots] = torch.tensor(lengths, device=device)
        self.token_R[slots] = torch.tensor([prompt[-1] for prompt in prompts], device=device)
        at_once = max(1, tuned(device.type).prefill // max(1, *lengths))
        for first in range(0, len(prompts), at_once):
            some = slice(first, first + at_once)
            width = max(lengths[some])
            if width:  # padded on the right, where no token before it looks
                ids = [prompt[:-1] + [0] * (width - len(prompt) + 1) for prompt in prompts[some]]
                self.cache.begin(slots[some])
                self._forward(torch.tensor(ids, device=device), torch.arange(width, device=device)[None])

    def step(self) -> int:
        """Sample one token for every completion in progress; return how many ended with it."""
        params = self.params
        logits_RV = self._logits()
        for token in self.banned_first:
            logits_RV[self.row_N[self.at_N == 0], token] = -torch.inf
        numbers_N = uniform(self.stream_N, self.at_N)
        token_N, logprob_N = choose(logits_RV, self.row_N, numbers_N, params.temperature, params.top_p)
        self.tokens_MT[self.place_N, self.at_N] = token_N
        self.logprobs_MT[self.place_N, self.at_N] = logprob_N
        self.at_N = self.at_N + 1
        stopped_N = torch.isin(token_N, self.stops)
        goes_on_N = ~stopped_N & (self.at_N < params.max_tokens)
        ended = len(goes_on_N) - int(goes_on_N.sum())
        if ended:
            over_N = ~goes_on_N
            self.lengths_M[self.place_N[over_N]] = self.at_N[over_N]
            self.stopped_M[self.place_N[over_N]] = stopped_N[over_N]
            token_N, self.row_N, self.stream_N = token_N[goes_on_N], self.row_N[goes_on_N], self.stream_N[goes_on_N]
            self.at_N, self.place_N = self.at_N[goes_on_N], self.place_N[goes_on_N]
        self._branch(token_N, logits_RV.shape[1])
        return ended

    def _logits(self) -> Tensor:
        """Let each row read its token; logits of the next one, (R, V)."""
        length_R = self.length_R[: self.rows]
        width = int(length_R.max()) + 1
        self.cache.add(length_R, width)
        seen = visible(self.config, length_R, width)
        logits_RV = self._forward(self.token_R[: self.rows, None], length_R[:, None], seen)
        length_R += 1
        return logits_RV

    def _branch(self, token_N: Tensor, vocabulary: int) -> None:
        """Give a row to each distinct (row, token): to a row's first token that row, to the others copies of it."""
        pair_U, which_N = torch.unique(self.row_N * vocabulary + token_N, return_inverse=True)
        parent_U = pair_U // vocabulary
        slot_U = parent_U.clone()
        used_R = torch.zeros(len(self.token_R), dtype=torch.bool, device=slot_U.device)
        used_R[parent_U] = True
        other_U = torch.zeros_like(parent_U, dtype=torch.bool)
        other_U[1:] = parent_U[1:] == parent_U[:-1]
        source = parent_U[other_U]
        if len(source):
            free = (~used_R).nonzero(as_tuple=True)[0][: len(source)]
            self.rows = max(self.rows, int(free[-1]) + 1)
            self.cache.copy(source, free, int(self.length_R[source].max()))
            self.length_R[free] = self.length_R[source]
            slot_U[other_U] = free
            used_R[free] = True
        self.token_R[slot_U] = pair_U % vocabulary
        self.length_R[~used_R] = 0
        self.row_N = slot_U[which_N]
        if len(slot_U) < _COMPACT_BELOW * self.rows:
            self._compact()

    def _compact(self) -> None:
        """Move the rows in use together, to the front."""
        kept, self.row_N = torch.unique(self.row_N, return_inverse=True)
        front = torch.arange(len(kept), device=kept.device)
        moved = kept != front
        if bool(moved.any()):
            source, target = kept[moved], front[moved]
            self.cache.copy(source, target, int(self.length_R[source].max()))
            self.length_R[target], self.token_R[target] = self.length_R[source], self.token_R[source]
        self.rows = len(kept)

    def _forward(self, ids: Tensor, positions: Tensor, seen: Tensor | dict[str, Tensor] | None = None) -> Tensor:
        """Logits after the last token of each row, float32."""
        model: Any = self.model

        def mask_of(seen: Tensor) -> Tensor | None:
            if self.LOOKS and bool(seen.all()):
                return None
            if model.config._attn_implementation != "eager":
                return seen
            return torch.zeros_like(seen, dtype=model.dtype).masked_fill(~seen, torch.finfo(model.dtype).min)  # added

        mask: Any = mask_of(seen) if isinstance(seen, Tensor) else seen and {k: mask_of(m) for k, m in seen.items()}
        where = {"attention_mask": mask, "position_ids": positions, "past_key_values": self.cache, "use_cache": True}
        logits: Tensor = model(input_ids=ids, logits_to_keep=1, **where).logits
        return logits[:, -1].float()

    def sampled(self) -> list[Sampled]:
        """Every completion, by its place."""
        columns = (self.tokens_MT, self.logprobs_MT, self.lengths_M, self.stopped_M)
        return [
            (tokens[:n], logprobs[:n], stopped)
            for tokens, logprobs, n, stopped in zip(*(column.tolist() for column in columns), strict=True)
        ]
