"""What a sweep may be after: scores of a checkpoint's exam, on the problems without an axis."""

from __future__ import annotations

from collections.abc import Callable

from eval import metrics
from eval.columns import Column
from eval.samples import Samples, at_axis


def _mean(score: Callable[[Samples], float]) -> Callable[[Column], float]:
    return lambda column: score(at_axis(column.pooled, None))


OBJECTIVES: dict[str, Callable[[Column], float]] = {
    "pass_at_1": _mean(lambda samples: float(metrics.pass_at_1(samples).mean())),
    "pass_at_k": _mean(lambda samples: float(metrics.pass_at_k(samples, metrics.powers(samples.n)[-1]).mean())),
    "maj_at_k": _mean(lambda samples: float(metrics.maj_at_k(samples, metrics.powers(samples.n)[-1]).mean())),
    "mean_tokens": _mean(lambda samples: float(metrics.tokens(samples).mean())),
    "well_formed": _mean(lambda samples: float(metrics.well_formed(samples).mean())),
    "truncated": _mean(lambda samples: float(metrics.truncated(samples).mean())),
}
"""Name -> a number of a column; `pass_at_k` and `maj_at_k` at the largest power of two that the samples allow."""
