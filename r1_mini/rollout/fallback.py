"""Which sampler a model gets: the engine, or transformers' `generate` where the engine would fail or be wrong.

The engine keeps the keys and values of each token. Some models keep something else (states of linear attention or of
convolutions), or mask by rules of their own (chunks, ALiBi, windows that the configuration has no common name for).
No list of names says which: each model is tried once.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PretrainedConfig, PreTrainedModel

from r1_mini.rollout.choose import choose, uniform
from r1_mini.rollout.params import Sampled, Sampler, SamplingParams

log = logging.getLogger(__name__)

TOLERANCE, ROUNDED = 0.01, 0.2
"""Nats by which log-probabilities may be off in the mean of a few tokens, in fp32 and in 16 bits. SmolLM2-135M is off
by 0.00001 and 0.03 to 0.065; GPT-Neo, whose windows the engine does not know, by more than 0.4."""
_TRIED = partial(replace, n=2, max_tokens=4, temperature=4.0, top_p=1.0)
"""How a model is tried: with rows that branch, and with unlikely tokens too."""

_chosen: WeakKeyDictionary[PreTrainedModel, dict[int, tuple[Sampler, str]]] = WeakKeyDictionary()


def sampler_for(model: PreTrainedModel, room: int, engine: Sampler, params: SamplingParams) -> Sampler:
    """The engine, or `by_generate` where the engine cannot sample from this model with `room` tokens a row.

    A model is tried once within the windows of its configuration, and once beyond those that are shorter than `room`.
    """
    if not hasattr(model, "generate"):  # no model of transformers, such as a mixture of two: there is no other sampler
        return engine
    config, chosen = model.config.get_text_config(decoder=True), _chosen.setdefault(model, {})
    window = max((size for size in windows(config) if size < room), default=0)
    if window not in chosen:
        most = getattr(config, "max_position_embeddings", None) or 2**31
        tried = _TRIED(params)
        chosen[window] = _choose(model, max(2, min(window + window // 2 + 16, most) - tried.max_tokens), engine, tried)
        if chosen[window][1]:
            log.info("%s", why_not_engine(model))
    return chosen[window][0]


def why_not_engine(model: PreTrainedModel) -> str:
    """A line that says why `generate` samples from a model; empty where, as far as was tried, the engine does."""
    reasons = [why for _, why in _chosen.get(model, {}).values() if why]
    return f"{model.config.model_type}: transformers' generate samples, since {reasons[0]}" if reasons else ""


def windows(config: PretrainedConfig) -> list[int]:
    """Whatever could be the width of an attention window or chunk."""
    fields = config.get_text_config(decoder=True).to_dict().items()
    named = [size for name, size in fields if ("window" in name or "chunk" in name) and not name.endswith("layers")]
    return [size for size in named if type(size) is int and size > 0]


def _choose(model: PreTrainedModel, length: int, engine: Sampler, params: SamplingParams) -> tuple[Sampler, str]:
    """The first sampler that is right on random prompts of up to `length` tokens, and what is wrong with the engine."""
    without_cache, why = partial(by_generate, use_cache=False), ""
    for name, sampler in (("r1-mini's sampler", engine), ("generate", by_generate)):
        try:
            gap = _gap(model, length, sampler, params)
            exact = model.dtype == torch.float32 and not torch.is_autocast_enabled(model.device.type)
            if gap <= (TOLERANCE if exact else ROUNDED):
                return sampler, why
            why = why or f"log-probabilities of {name} are off by {gap:.2g}"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # models refuse in many ways
            why = why or f"{name} fails ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
    return without_cache, why


def _gap(model: PreTrainedModel, length: int, sampler: Sampler, params: SamplingParams) -> float:
    """Nats by which log-probabilities differ from those of a plain forward pass: the mean over a completion, as if at
    temperature 1, of the worst completion; NaN if one is."""
    numbers, last = torch.Generator().manual_seed(0), params.max_tokens + 1
    vocabulary = model.get_input_embeddings().num_embeddings
    prompts = [torch.randint(vocabulary, (size,), generator=numbers).tolist() for size in (length, length // 2)]
    sampled = sampler(model, prompts, [[1, 2], [3, 4]], params, (), (), None)
    gaps = []
    for place, (tokens, logprobs, _) in enumerate(sampled):
        ids = torch.tensor([prompts[place // params.n] + tokens], device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=last).logits[0, -last:-1].float()
        plain = (logits / params.temperature).log_softmax(dim=-1).gather(1, ids[0, 1 - last :, None])[:, 0]
        gaps.append((plain - torch.tensor(logprobs, device=plain.device)).abs().mean() * params.temperature)
    return float(torch.stack(gaps).max())


class _Choose(LogitsProcessor):
    """Makes greedy search take the token that our random numbers choose; keeps its log-probability."""

    def __init__(self, streams: Sequence[int], width: int, params: SamplingParams, banned: Sequence[int]) -> None:
        self.streams, self.width, self.params, self.banned = streams, width, params, list(banned)
        self.logprobs: list[Tensor] = []  # (rows,) of each token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        at = torch.tensor(input_ids.shape[1] - self.width, device=scores.device)
        if not self.logprobs:
            scores[:, self.banned] = -torch.inf
        numbers = uniform(torch.tensor(self.streams, device=scores.device), at)
        rows = torch.arange(len(scores), device=scores.device)
        tokens, logprobs = choose(scores, rows, numbers, self.params.temperature, self.params.top_p)
        self.logprobs.append(logprobs)
        return torch.full_like(scores, -torch.inf).index_put((rows, tokens), scores.new_zeros(()))


def by_generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    streams: Sequence[Sequence[int]],
    params: SamplingParams,
    stop: Sequence[int],
    banned_first: Sequence[int],
    progress: Callable[[int], None] | None,
    use_cache: bool = True,
) -> list[Sampled]:
    """A completion for each stream of each prompt, through transformers' `generate`, `params.rows` at once.

    The random numbers are the engine's, and so are the completions, but for rounding. Only prompts of one length are
    batched: padding is not out of sight in every model.
    """
    plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # of an adapter
    wanted = [(list(prompt), each) for prompt, group in zip(prompts, streams, strict=True) for each in group]
    order = sorted(range(len(wanted)), key=lambda place: len(wanted[place][0]))
    done: dict[int, Sampled] = {}
    ends = {"max_new_tokens": params.max_tokens, "eos_token_id": list(stop) or None, "pad_token_id": 0}
    settings = GenerationConfig(**ends, do_sample=False, use_cache=use_cache)
    own, plain.generation_config = plain.generation_config, settings  # its own penalties are not part of the policy
    try:
        while order:
            width = len(wanted[order[0]][0])
            batch = [place for place in order[: params.rows] if len(wanted[place][0]) == width]
            del order[: len(batch)]
            ids, names = zip(*(wanted[place] for place in batch), strict=True)
            chooser = _Choose(names, width, params, banned_first)
            ids_BT = torch.tensor(ids, device=model.device)
            mask, choosers = torch.ones_like(ids_BT), LogitsProcessorList([chooser])
            out_BT = plain.generate(ids_BT, settings, choosers, attention_mask=mask)[:, width:]
            logprobs_BT = torch.stack(chooser.logprobs, dim=1)
            for place, tokens, logprobs in zip(batch, out_BT.tolist(), logprobs_BT.tolist(), strict=True):
                end = next((at for at, token in enumerate(tokens, start=1) if token in stop), None)
                done[place] = tokens[:end], logprobs[:end], end is not None
            if progress:
                progress(len(batch))
    finally:
        plain.generation_config = own
    return [done[place] for place in range(len(wanted))]
