"""How work is cut into pieces on a kind of device. No result depends on it, but for rounding."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """The sizes of pieces."""

    overhead: int
    """Tokens that take about as long as what one more forward and backward pass of a small model costs by itself."""
    part: int
    """Most tokens in one pass over given completions, where a single row is not longer."""
    prefill: int
    """Most prompt tokens in one forward pass of the sampler."""
    refills: int
    """A chunk of an exam has so many times `rows` completions: few where rows that end cost nothing, many where a step
    takes as long with few rows as with many, and rows must not wait for the longest."""


TUNED = {"cpu": Tuning(overhead=1_000, part=2_048, prefill=16_384, refills=1)}
"""Kind of device -> measured sizes. On a CPU a part fits into its cache."""
ELSEWHERE = Tuning(overhead=4_096, part=8_192, prefill=16_384, refills=16)
"""For GPUs, reasoned and not measured: a pass of 14 layers launches some 1,000 kernels, about 5 ms, in which an H100
trains 100 M parameters on about 4,000 tokens; 8,192 tokens keep it busy from there on, and bound the activations."""


def tuned(kind: str) -> Tuning:
    """The sizes for a kind of device, such as `torch.device.type`."""
    return TUNED.get(kind, ELSEWHERE)
