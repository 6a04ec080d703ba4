"""Many completions per prompt, through the model's own forward pass.

Each prompt is prefilled once for its whole group; keys and values live in preallocated buffers; finished rows leave the
batch. A completion is a function of (seed, prompt, sample index) alone: the random number of a token does not depend on
what else is in the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1_mini.sampling.cache import RolloutCache
from r1_mini.sampling.choice import choose, uniform
from r1_mini.transcript import Finish

ROWS = 1024
"""Most completions in work at once."""
_COMPACT_BELOW = 0.75
"""The batch is compacted when less than this share of its rows is still running."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How tokens are drawn. `prefix` leads every completion; `banned_first` cannot be the first token after it."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    prefix: tuple[int, ...] = ()
    banned_first: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion: its tokens, prefix and stop token included, and the log-probability of each (0 in the prefix)."""

    tokens: list[int]
    logprobs: list[float]
    finish: Finish


def rollout(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    group: int,
    decoding: Decoding,
    *,
    seed: int,
    stop: Sequence[int],
    pad: int,
    rows: int = ROWS,
    progress: Callable[[int], None] | None = None,
    first_sample: int = 0,
) -> list[list[Completion]]:
    """`group` completions of each prompt, in the order of the prompts; the first of a group is number `first_sample`.

    `stop`: token ids that end a completion. `progress` is called with a number of completions when they are done.
    """
    results: list[list[Completion]] = [[] for _ in prompts]
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))  # little padding
    per_batch = max(1, rows // group)
    streams = _streams(seed, prompts, group, first_sample)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(by_length), per_batch):
            chosen = by_length[start : start + per_batch]
            batch = [list(prompts[i]) for i in chosen]
            done = _rollout_batch(model, batch, [streams[i] for i in chosen], decoding, stop, pad)
            for position, index in enumerate(chosen):
                results[index] = done[position * group : (position + 1) * group]
            if progress:
                progress(len(chosen) * group)
    model.train(was_training)
    return results


def _rollout_batch(
    model: PreTrainedModel,
    prompts: list[list[int]],
    streams: list[list[int]],
    decoding: Decoding,
    stop: Sequence[int],
    pad: int,
) -> list[Completion]:
    """A completion for each of the random streams of each prompt, group after group. B = P * group rows."""
    device, group = model.device, len(streams[0])
    prefix = list(decoding.prefix)
    given = [prompt + prefix for prompt in prompts]
    width = max(map(len, given))
    ids_PT = torch.tensor([[pad] * (width - len(row)) + row for row in given], device=device)
    real_PT = torch.tensor([[False] * (width - len(row)) + [True] * len(row) for row in given], device=device)
    cache = RolloutCache(model.config, width + decoding.max_tokens)
    logits_PV = _prefill(model, ids_PT, real_PT, cache)
    cache.repeat(group)

    batch = len(prompts) * group
    streams_B = torch.tensor(streams, device=device).flatten()
    logits_BV = logits_PV.repeat_interleave(group, dim=0)
    seen_BT = torch.ones(batch, width + decoding.max_tokens, dtype=torch.bool, device=device)
    seen_BT[:, :width] = real_PT.repeat_interleave(group, dim=0)
    position_B = seen_BT[:, :width].sum(dim=1)
    rows_B = torch.arange(batch, device=device)  # which completion a running row belongs to
    stops = torch.tensor(list(stop), device=device)
    drawn_BT = torch.full((batch, decoding.max_tokens), pad, device=device)
    logprob_BT = torch.zeros(batch, decoding.max_tokens, device=device)
    length_B = torch.full((batch,), decoding.max_tokens, device=device)
    stopped_B = torch.zeros(batch, dtype=torch.bool, device=device)
    running_B = torch.ones(batch, dtype=torch.bool, device=device)  # of the rows in `rows_B`

    for step in range(decoding.max_tokens):
        if step == 0 and decoding.banned_first:
            logits_BV[:, list(decoding.banned_first)] = -torch.inf
        token_B, logprob_B = choose(logits_BV, uniform(streams_B, step), decoding.temperature, decoding.top_p)
        drawn_BT[rows_B, step] = torch.where(running_B, token_B, drawn_BT[rows_B, step])
        logprob_BT[rows_B, step] = torch.where(running_B, logprob_B, 0.0)
        ends_B = running_B & torch.isin(token_B, stops)
        length_B[rows_B[ends_B]] = step + 1
        stopped_B[rows_B[ends_B]] = True
        running_B = running_B & ~ends_B
        alive = int(running_B.sum())
        if alive == 0 or step + 1 == decoding.max_tokens:
            break
        if alive < _COMPACT_BELOW * len(rows_B):
            keep = running_B.nonzero(as_tuple=True)[0]
            rows_B, streams_B, position_B, token_B = rows_B[keep], streams_B[keep], position_B[keep], token_B[keep]
            seen_BT, running_B = seen_BT[keep], running_B[keep]
            cache.select(keep)
        logits_BV = _decode(model, token_B, position_B, seen_BT[:, : width + step + 1], cache)
        position_B = position_B + 1

    return _gather(prefix, drawn_BT, logprob_BT, length_B, stopped_B)


def _prefill(model: PreTrainedModel, ids_PT: Tensor, real_PT: Tensor, cache: RolloutCache) -> Tensor:
    """Logits after the last prompt token, (P, V); `cache` then holds the prompts."""
    width = ids_PT.shape[1]
    position_PT = (real_PT.cumsum(dim=1) - 1).clamp(min=0)
    mask = None  # no padding: the model's own causal mask
    if not bool(real_PT.all()):
        causal_TT = torch.ones(width, width, dtype=torch.bool, device=ids_PT.device).tril()
        own_TT = torch.eye(
            width, dtype=torch.bool, device=ids_PT.device
        )  # padding sees itself, so that no softmax is empty
        mask = ((causal_TT & real_PT[:, None, :]) | own_TT)[:, None]
    return _forward(model, ids_PT, position_PT, mask, cache)


def _decode(
    model: PreTrainedModel, token_B: Tensor, position_B: Tensor, seen_BT: Tensor, cache: RolloutCache
) -> Tensor:
    """Logits after one more token, (B, V)."""
    mask = None if bool(seen_BT.all()) else seen_BT[:, None, None, :]
    return _forward(model, token_B[:, None], position_B[:, None], mask, cache)


def _forward(
    model: PreTrainedModel, ids: Tensor, positions: Tensor, mask: Tensor | None, cache: RolloutCache
) -> Tensor:
    if mask is not None and model.config._attn_implementation == "eager":  # which adds the mask to its scores
        mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
    options: dict[str, Any] = {
        "attention_mask": mask,
        "position_ids": positions,
        "past_key_values": cache,
        "use_cache": True,
    }
    logits: Tensor = model(input_ids=ids, logits_to_keep=1, **options).logits
    return logits[:, -1].float()


def _gather(
    prefix: list[int], drawn_BT: Tensor, logprob_BT: Tensor, length_B: Tensor, stopped_B: Tensor
) -> list[Completion]:
    completions = []
    rows = zip(drawn_BT.tolist(), logprob_BT.tolist(), length_B.tolist(), stopped_B.tolist(), strict=True)
    for tokens, logprobs, length, stopped in rows:
        completions.append(
            Completion(
                prefix + tokens[:length], [0.0] * len(prefix) + logprobs[:length], "stop" if stopped else "length"
            )
        )
    return completions


def _streams(seed: int, prompts: Sequence[Sequence[int]], group: int, first_sample: int) -> list[list[int]]:
    """A stream of random numbers for each completion; a prompt that comes again goes on counting its samples."""
    asked: Counter[tuple[int, ...]] = Counter()
    streams = []
    for prompt in prompts:
        first = first_sample + asked[tuple(prompt)]
        streams.append([stream(seed, prompt, first + index) for index in range(group)])
        asked[tuple(prompt)] += group
    return streams


def stream(seed: int, prompt: Sequence[int], sample_index: int) -> int:
    """The name of a completion's sequence of random numbers, 63 bits, from what identifies the completion."""
    text = f"{seed} {sample_index} {' '.join(map(str, prompt))}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
