"""What a speed comparison is about, and what it must cost: cases, the arithmetic of a step, ratios of paired times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Size:
    """Shape of a Llama over the project's tokenizer."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int | None


@dataclass(frozen=True, slots=True)
class Profile:
    """Lengths of completions: geometric, tokens."""

    mean: float
    """Before the cut at `longest`; the chance of EOS is one in so many at each token."""
    longest: int


SIZES = {"0.3M": Size(96, 3, 6, None), "5M": Size(256, 6, 8, 736), "30M": Size(512, 10, 8, 1280)}
PROFILES = {"short": Profile(30, 80), "long": Profile(60, 512)}
REAL = Profile(math.nan, 80)
"""Lengths as a checkpoint's completions have them."""
_BATCHES = {
    ("0.3M", "short"): (32, 16),
    ("0.3M", "long"): (16, 16),
    ("5M", "short"): (16, 8),
    ("5M", "long"): (8, 8),
    ("30M", "short"): (8, 8),
    ("30M", "long"): (4, 8),
}
"""Prompts and samples of a step, so that all together take about ten minutes on two cores."""

What = Literal["step", "rollout"]


@dataclass(frozen=True, slots=True)
class Rival:
    """What ours is compared with."""

    what: What
    title: str


RIVALS = {
    "trl": Rival("step", "TRL"),
    "generate": Rival("rollout", "model.generate"),
    "trl-continuous-batching": Rival("step", "TRL, continuous batching"),
    "trl-vllm": Rival("step", "TRL, vLLM"),
}


@dataclass(frozen=True, slots=True)
class Case:
    """What both sides do alike: one GRPO step, or the rollouts alone."""

    what: What
    size: str
    profile: Profile
    prompts: int
    samples: int
    without_signal: float
    """Share of the groups whose reward is constant."""
    steps: int
    """Most steps that will be asked for; there are prompts for so many."""
    seed: int = 0
    checkpoint: str | None = None
    """Folder of the weights, instead of random ones of the size; `size` is then its name."""

    @property
    def batch(self) -> int:
        return self.prompts * self.samples

    @property
    def silent(self) -> int:
        """Groups of a step whose reward is constant."""
        return round(self.without_signal * self.prompts)


def case_of(
    what: What, size: str, profile: str, without_signal: float, steps: int, prompts: int | None, samples: int | None
) -> Case:
    """The case with its usual batch, or another."""
    many, each = _BATCHES[size, profile]
    return Case(what, size, PROFILES[profile], prompts or many, samples or each, without_signal, steps)


def case_of_checkpoint(what: What, checkpoint: Path, steps: int, prompts: int | None, samples: int | None) -> Case:
    """A checkpoint on the default recipe's problems, with lengths and rewards as they come."""
    name = "/".join(checkpoint.resolve().parts[-2:])
    return Case(what, name, REAL, prompts or 32, samples or 16, 0.0, steps, checkpoint=str(checkpoint))


def growing(base: Case) -> dict[str, list[tuple[str, Case]]]:
    """Axis -> label and case: `base` with one thing changed. The longest completion grows with the mean."""
    cut = base.profile.longest / base.profile.mean
    lengths = [Profile(mean, round(mean * cut)) for mean in (15, 30, 60)]
    return {
        "group size": [(str(n), replace(base, samples=n)) for n in (4, 8, 16, 32)],
        "prompts": [(str(n), replace(base, prompts=n)) for n in (8, 16, 32, 64)],
        "mean length": [(f"{profile.mean:g}", replace(base, profile=profile)) for profile in lengths],
        "parameters": [(size, replace(base, size=size, prompts=8, samples=8)) for size in SIZES],
    }


def micro_batches(batch: int) -> list[int]:
    """Sizes of micro-batch to try, completions: those of 32, 64, 128 and 256 that divide the batch, and the batch."""
    return [*(size for size in (32, 64, 128, 256) if size < batch and batch % size == 0), batch]


def eos_logit(mean: float, others: int) -> float:
    """The logit of EOS, with that of `others` tokens at 0, for which completions have `mean` tokens, EOS included.

    A chance of 1 / mean at each token is odds of 1 to mean - 1.
    """
    return math.log(others / (mean - 1))


@dataclass(frozen=True, slots=True)
class Group:
    """Lengths in tokens of a prompt and its completions, and whether their rewards differ."""

    prompt: int
    completions: Sequence[int]
    signal: bool


@dataclass(frozen=True, slots=True)
class Network:
    """What the arithmetic depends on. `weights`: parameters in matrix products, so no input embedding and no norms."""

    weights: int
    layers: int
    width: int


def step_flops(network: Network, groups: Sequence[Group], update: bool = True) -> float:
    """Arithmetic of a step, FLOP: what has to be done when nothing is done twice or on padding.

    Sampling: 2 FLOP per weight for every sampled token and, once per group, every prompt token. Update: 6 per weight
    (forward 2, backward 4) for every token of the rows whose group has a signal. Attention, per token and layer:
    4 * mean context * width in a forward pass, three times that in the update.
    """

    def cost(tokens: int, context: float) -> float:
        return tokens * (2 * network.weights + 4 * context * network.width * network.layers)

    total = 0.0
    for group in groups:
        prompt = group.prompt
        total += cost(prompt, prompt / 2)
        total += sum(cost(length, prompt + length / 2) for length in group.completions)
        if update and group.signal:
            total += 3 * sum(cost(prompt + length, (prompt + length) / 2) for length in group.completions)
    return total


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as long theirs takes, pair by pair: median, smallest and largest."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
