"""The sampler: many completions of each prompt, through the model's own forward pass.

A completion is a function of (seed, prompt, sample index) alone: the random number of a token does not depend on what
else is in the batch.

Not here: what is asked and returned (`params.py`), a step of the batch (`batch.py`, on a GPU `slots.py`), models for
which transformers' `generate` samples (`fallback.py`), text and grades (`generate.py`).
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b

import torch
from transformers import PreTrainedModel

from r1_mini.rollout.batch import Batch
from r1_mini.rollout.fallback import sampler_for, windows
from r1_mini.rollout.params import Completion, Sampled, SamplingParams
from r1_mini.rollout.slots import Slots

_ADMIT_ABOVE = 0.25
"""Waiting prompts enter when this share of the rows is free: a prefill for each row that ends would be slow."""


@contextmanager
def _with_scans() -> Iterator[None]:
    """Permit `cumsum` on CUDA in torch's deterministic mode.

    torch refuses every one there, because the order in which it adds is not fixed in a tensor of a single row. It is
    in one of several (`ScanUtils.cuh`).
    """
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)


@torch.no_grad()
@_with_scans()
def rollout(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    *,
    stop: Sequence[int],
    prefix: Sequence[int] = (),
    banned_first: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
    first_sample: int = 0,
    elsewhere: Sequence[Sequence[int]] = (),
) -> list[list[Completion]]:
    """`params.n` completions of each prompt, in the order of the prompts, numbered from `first_sample`.

    Copies of a prompt get different completions, also from those of `elsewhere`, which another process samples.

    `stop`: token ids that end a completion. `prefix` leads every completion; `banned_first` cannot be the first token
    after it. `progress` is called with each number of completions that have ended. More than `params.rows` are in
    progress only if a single group is larger.
    """
    given = [[*prompt, *prefix] for prompt in prompts]
    streams = _streams(params.seed, [*elsewhere, *prompts], params.n, first_sample)[len(elsewhere) :]
    was_training = model.training
    model.eval()
    sample = sampler_for(model, max(map(len, given), default=0) + params.max_tokens, sample_by_rows, params)
    done = [
        Completion([*prefix, *tokens], [0.0] * len(prefix) + logprobs, "stop" if stopped else "length")
        for tokens, logprobs, stopped in sample(model, given, streams, params, stop, banned_first, progress)
    ]
    model.train(was_training)
    return [done[start : start + params.n] for start in range(0, len(done), params.n)]


def sample_by_rows(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    streams: list[list[int]],
    params: SamplingParams,
    stop: Sequence[int],
    banned_first: Sequence[int],
    progress: Callable[[int], None] | None,
) -> list[Sampled]:
    """A completion for each stream of each prompt, through a `Batch`, or one with slots where it is not on a CPU."""
    group, kind = params.n, Batch if model.device.type == "cpu" else Slots
    waiting = deque(sorted(range(len(prompts)), key=lambda index: len(prompts[index])))  # little padding in a prefill
    rows = min(max(params.rows, group), group * len(prompts))
    batch = kind(model, params, stop, banned_first, rows, max(map(len, prompts), default=0), group * len(prompts))
    while waiting or batch.running:
        free = (rows - batch.running) // group
        if waiting and (free >= len(waiting) or free * group >= _ADMIT_ABOVE * rows or not batch.running):
            chosen = [waiting.popleft() for _ in range(min(max(free, 1), len(waiting)))]
            batch.admit([prompts[i] for i in chosen], [streams[i] for i in chosen], [i * group for i in chosen])
        ended = batch.step()
        if progress and ended:
            progress(ended)
    return batch.sampled()


@torch.no_grad()
def keeps_keys_alone(model: PreTrainedModel, room: int) -> bool:
    """Whether a completion that ends after `room` tokens needs no more of its prompt than all its keys and values."""
    if any(size < room for size in windows(model.config)):
        return False
    return sampler_for(model, room, sample_by_rows, SamplingParams(1, 1)) is sample_by_rows


def _streams(seed: int, prompts: Sequence[Sequence[int]], group: int, first_sample: int) -> list[list[int]]:
    """The stream of random numbers of each completion; a repeated prompt goes on counting its samples."""
    seen: Counter[tuple[int, ...]] = Counter()
    streams = []
    for prompt in prompts:
        first = first_sample + seen[tuple(prompt)]
        streams.append([stream(seed, prompt, first + index) for index in range(group)])
        seen[tuple(prompt)] += group
    return streams


def stream(seed: int, prompt: Sequence[int], sample_index: int) -> int:
    """The name of a completion's sequence of random numbers, 63 bits, from what identifies the completion."""
    text = f"{seed} {sample_index} {' '.join(map(str, prompt))}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
