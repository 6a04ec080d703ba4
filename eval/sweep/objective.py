"""What a sweep may be after: scores of a checkpoint's exam, problem by problem, on the problems without an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval.analysis import metrics
from eval.exam.samples import Samples

Score = Callable[[Samples], NDArray[np.float64]]


class Objective(NamedTuple):
    """A score of each problem, (P,); a checkpoint's is their mean."""

    score: Score
    is_share: bool = True
    """Whether it lies within 0 and 1."""


OBJECTIVES: dict[str, Objective] = {
    "pass_at_1": Objective(metrics.pass_at_1),
    "pass_at_k": Objective(lambda samples: metrics.pass_at_k(samples, samples.n)),
    "maj_at_k": Objective(lambda samples: metrics.maj_at_k(samples, samples.n)),
    "mean_tokens": Objective(metrics.tokens, is_share=False),
    "well_formed": Objective(metrics.well_formed),
    "truncated": Objective(metrics.truncated),
}
"""k is the number of samples."""
