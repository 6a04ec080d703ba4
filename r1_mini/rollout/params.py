"""What a sampler is asked for, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass

from r1_mini.completion import Finish

ROWS = 1024


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How completions are sampled."""

    n: int
    """Completions of each prompt."""
    max_tokens: int
    """Longest completion."""
    temperature: float = 1.0
    """0 takes the most likely token."""
    top_p: float = 1.0
    seed: int = 0
    voice: str | None = None
    """A key of `completion.FORCED`: the style of answer that completions are made to begin with."""
    rows: int = ROWS
    """Most completions in progress at once, and so the most rows of the cache; the others wait."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion: its tokens, prefix and stop token included, and the log-probability of each (0 in the prefix)."""

    tokens: list[int]
    logprobs: list[float]
    finish: Finish


Sampled = tuple[list[int], list[float], bool]
"""Tokens of a completion, the log-probability of each, and whether a stop token ended it."""
Sampler = Callable[..., list[Sampled]]
"""(model, prompts, streams of each, params, stop, banned_first, progress) -> every completion, prompt by prompt."""
