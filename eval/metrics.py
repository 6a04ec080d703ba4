"""Samples to numbers: pure functions of the rows of a `samples.jsonl`.

A new metric is a new function here. A score is averaged over the samples of a problem first and over problems second,
so each problem counts alike however many samples it has.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

Sample = Mapping[str, Any]
VOICES = ("direct", "worked", "checked", "none")


def per_problem(samples: Iterable[Sample], score: Callable[[Sample], float]) -> dict[str, float]:
    """Mean score of each problem's samples, by problem key, in order of first appearance."""
    scores: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        scores[sample["key"]].append(score(sample))
    return {key: fmean(values) for key, values in scores.items()}


def accuracy_per_problem(samples: Iterable[Sample]) -> dict[str, float]:
    """Share of correct samples of each problem, by problem key."""
    return per_problem(samples, lambda sample: float(sample["correct"]))


def pass_at_1(samples: Iterable[Sample]) -> float:
    """Chance that one completion of a problem drawn from the exam is correct (equals avg@n)."""
    return fmean(accuracy_per_problem(samples).values())


def mean_tokens(samples: Iterable[Sample]) -> float:
    """Mean completion length in tokens."""
    return fmean(per_problem(samples, lambda sample: float(sample["n_tokens"])).values())


def well_formed_share(samples: Iterable[Sample]) -> float:
    """Share of completions that keep to `<think>…</think><answer>…</answer>` and stop."""
    return fmean(per_problem(samples, lambda sample: float(sample["well_formed"])).values())


def truncated_share(samples: Iterable[Sample]) -> float:
    """Share of completions that ran into the token limit."""
    return fmean(per_problem(samples, lambda sample: float(sample["finish"] == "length")).values())


def voice_share(samples: Iterable[Sample], voice: str) -> float:
    """Share of completions in one voice; over `VOICES` the shares add up to 1."""
    return fmean(per_problem(samples, lambda sample: float(sample["voice"] == voice)).values())


def voice_shares(samples: Sequence[Sample]) -> dict[str, float]:
    """Share of completions in each voice."""
    return {voice: voice_share(samples, voice) for voice in VOICES}


def depth(sample: Sample) -> int:
    """Number of operations that the problem asks for."""
    return int(sample["difficulty"]["depth"])


def by_depth(samples: Iterable[Sample]) -> dict[int, list[Sample]]:
    """Samples grouped by depth, shallowest first."""
    cells: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        cells[depth(sample)].append(sample)
    return dict(sorted(cells.items()))


def at_depth(samples: Iterable[Sample], low: int, high: float = float("inf")) -> list[Sample]:
    """Samples of problems with low <= depth <= high, in their order."""
    return [sample for sample in samples if low <= depth(sample) <= high]
