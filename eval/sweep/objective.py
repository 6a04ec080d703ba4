"""What a sweep may be after: scores of a checkpoint's exam, problem by problem, on the problems without an axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eval import metrics
from eval.samples import Samples

Score = Callable[[Samples], NDArray[np.float64]]


OBJECTIVES: dict[str, Score] = {
    "pass_at_1": metrics.pass_at_1,
    "pass_at_k": lambda samples: metrics.pass_at_k(samples, samples.n),
    "maj_at_k": lambda samples: metrics.maj_at_k(samples, samples.n),
    "mean_tokens": metrics.tokens,
    "well_formed": metrics.well_formed,
    "truncated": metrics.truncated,
}
"""Name -> (P,), a number for each problem; a checkpoint's score is their mean. k is the number of samples."""
