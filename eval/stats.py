"""Numbers to intervals, tests and verdicts: pure functions of arrays.

Samples of one problem are not independent, so the unit that is resampled, flipped or counted is always the problem.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

LEVEL = 0.95
RESAMPLES = 10_000
Verdict = Literal["shown", "not shown"]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its 95 % confidence interval."""

    estimate: float
    low: float
    high: float


def wilson(successes: float, n: float) -> Interval:
    """Score interval of a proportion from n independent trials (Wilson 1927); counts may be fractional."""
    z = float(ndtri((1 + LEVEL) / 2))
    p = successes / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # p itself is an end where nothing or everything succeeded; min and max keep rounding from moving it outside.
    return Interval(p, max(0.0, min(p, center - half)), min(1.0, max(p, center + half)))


def clustered_proportion(means_P: ArrayLike, n_samples: int) -> Interval:
    """Interval of pass@1 from each problem's share of correct samples, (P,); `n_samples` counts those of all problems.

    Wilson's on the effective number of samples p (1 - p) / SE^2, with SE the standard error of the mean over problems
    (Dean & Pagano 2015). With one sample per problem it is Wilson's own; where all samples agree it counts problems, so
    100 % correct still has a lower end. Problems count as drawn at random: balance over depths makes it a little wide.
    """
    means = np.asarray(means_P, dtype=float)
    p = float(means.mean())
    independent = p * (1 - p)  # the variance of one sample, were all of them independent
    effective = float(means.size)
    if independent > 0:
        effective = 1 / max(float(means.var()) / (independent * means.size), 1 / n_samples)
    return wilson(p * effective, effective)


def paired_difference(before_P: ArrayLike, after_P: ArrayLike, seed: int = 0) -> Interval:
    """Mean of after - before over the same problems, (P,) each; percentile interval of a bootstrap over problems.

    Drawing P problems with replacement is a multinomial draw over the distinct differences: all resamples in one call.
    """
    difference = _difference(before_P, after_P)
    values, counts = np.unique(difference, return_counts=True)
    resampled = np.random.default_rng(seed).multinomial(difference.size, counts / difference.size, size=RESAMPLES)
    low, high = np.quantile(resampled @ values / difference.size, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(difference.mean()), float(low), float(high))


def sign_flip_p(before_P: ArrayLike, after_P: ArrayLike, seed: int = 0) -> float:
    """Two-sided p-value of no difference: how often random signs on the problems' differences reach the sum observed.

    The observed signs count as one of the draws (Phipson & Smyth 2010), so the smallest value is 1 / (RESAMPLES + 1).
    """
    difference = _difference(before_P, after_P)
    sizes, counts = np.unique(np.abs(difference), return_counts=True)
    positive = np.random.default_rng(seed).binomial(counts, 0.5, size=(RESAMPLES, counts.size))
    flipped = np.abs((2 * positive - counts) @ sizes)
    at_least = np.count_nonzero(flipped >= abs(difference.sum()) - 1e-9)  # equal sums differ by rounding
    return float((1 + at_least) / (1 + RESAMPLES))


def verdict(gain: Interval, p_value: float) -> Verdict:
    """Whether the exam shows a gain: the interval lies above zero and the sign-flip test agrees.

    The test guards the small exam, where a bootstrap over a handful of problems is too sure of itself.
    """
    return "shown" if gain.low > 0 and p_value < 1 - LEVEL else "not shown"


def _difference(before_P: ArrayLike, after_P: ArrayLike) -> NDArray[np.float64]:
    before, after = np.asarray(before_P, dtype=float), np.asarray(after_P, dtype=float)
    assert before.shape == after.shape and before.ndim == 1 and before.size > 0
    difference: NDArray[np.float64] = np.round(after - before, 12)  # so that np.unique sees 2/3 - 1/3 and 1/3 as one
    return difference
