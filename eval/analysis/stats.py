"""Numbers to intervals, tests and verdicts: pure functions of arrays.

Samples of one problem are not independent, so the unit that is resampled, flipped or counted is always the problem;
of several training seeds, the seed and the problem. Suffixes: S seeds, P problems, K columns, R resamples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST = 7  # problems: even if all of fewer are gained, the interval of the gain holds 0
FEW = 30  # problems: an exam of fewer comes with a warning
SMALLEST_P = 1e-300  # near the smallest float; a p-value below it is reported as this
FINEST = 2**17  # steps into which permutation_p divides the sum of all absolute differences, at most
Verdict = Literal["shown", "worse", "not shown"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its 95 % confidence interval."""

    estimate: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float, float]:
        return self.estimate, self.low, self.high


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
    100 % correct still has a lower end. Problems count as a random sample; an exam is balanced over depths, so the
    interval is a little wide.
    """
    means = np.asarray(means_P, dtype=float)
    p = float(means.mean())
    independent = p * (1 - p)  # the variance of one sample, were all of them independent
    effective = float(means.size)
    if independent > 0:
        effective = 1 / max(float(means.var()) / (independent * means.size), 1 / n_samples)
    return wilson(p * effective, effective)


def bootstrap_means(values_PK: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Means of K columns over P problems sampled with replacement, (R, K); the columns of a row share their problems.

    A resample is one multinomial sample over the distinct rows of `values_PK`; an exam with few samples has few.
    """
    values = np.asarray(values_PK, dtype=float)
    rows, counts = np.unique(values, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    at_once = 2**20 // len(rows) + 1  # resamples: 8 MB of counts, whatever the size of the exam
    sums = [
        rng.multinomial(len(values), counts / len(values), size=min(at_once, resamples - done)) @ rows
        for done in range(0, resamples, at_once)
    ]
    means: Floats = np.concatenate(sums) / len(values)
    return means


def interval_of(means_R: ArrayLike, estimate: float) -> Interval:
    """Percentile interval from the means of R resamples, (R,): the r-th smallest is the r / (R + 1) quantile."""
    low, high = np.quantile(np.asarray(means_R), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="weibull")
    return Interval(estimate, float(low), float(high))


def paired_difference(before_P: ArrayLike, after_P: ArrayLike) -> Interval:
    """Mean of after - before, two shares, over the same problems, (P,) each; score interval (Tango 1998).

    Tango's interval is of problems that are gained (+1), lost (-1) or neither. Several samples per problem give
    differences of any size; they are counted as gains and losses of one size, the one with which mean and variance are
    those observed. The quantile is Student's, as the variance is estimated. Chosen in simulations: docs/COVERAGE.md.
    Where no problem differs, Tango's interval is Wilson's of 0 problems of P, to both sides. Fewer than FEWEST problems
    tell nothing: the interval is all that is possible.
    """
    difference = _difference(before_P, after_P)
    assert difference.ndim == 1
    n, estimate = difference.size, float(difference.mean())
    if n < FEWEST:
        return Interval(estimate, -1.0, 1.0)
    changed = float(np.abs(difference).sum())
    if changed == 0:
        high = wilson(0, n).high
        return Interval(0.0, -high, high)
    size = float((difference**2).sum()) / changed
    gained, lost = ((changed + sign * n * estimate) / (2 * size) for sign in (1, -1))
    t = float(stdtrit(n - 1, (1 + LEVEL) / 2))
    low, high = -_score_limit(lost, gained, n, t), _score_limit(gained, lost, n, t)
    return Interval(estimate, size * low, size * high)


def _score_limit(gained: float, lost: float, n: int, quantile: float) -> float:
    """The largest gain that a score test does not reject, of `gained` and `lost` among n problems (Tango 1998)."""
    estimate = (gained - lost) / n
    if estimate > 1 - 1e-9:
        return 1.0

    def within(gain: float) -> float:
        """Above zero where the test does not reject; the share of losses is the most likely one with this gain."""
        linear = gained + lost - (2 * n - gained + lost) * gain
        losses = (linear + math.sqrt(max(0.0, linear**2 + 8 * n * lost * gain * (1 - gain)))) / (4 * n)
        return estimate - gain + quantile * math.sqrt(max(0.0, 2 * losses + gain * (1 - gain)) / n)

    return float(brentq(within, estimate + 1e-9, 1.0))


def permutation_p(before_P: ArrayLike, after_P: ArrayLike) -> float:
    """Exact two-sided p-value of no difference over the same problems, (P,) each.

    The share of all 2^P choices of signs for the problems' differences (Fisher 1935) that take their sum as far from
    zero as the observed one, counted problem by problem over whole steps (Pagano & Tritchler 1983). Only positive
    numbers are added, so a small p-value has about 12 right digits; one below SMALLEST_P is given as SMALLEST_P.
    """
    difference = _difference(before_P, after_P)
    assert difference.ndim == 1
    steps = _whole_steps(difference)
    gained, lost = int(steps[steps > 0].sum()), int(-steps[steps < 0].sum())
    if gained == lost:
        return 1.0
    chance_T = np.zeros(min(gained, lost) + 1)  # of T steps with a plus: the lower tail, which the upper one mirrors
    chance_T[0] = 1.0
    for step in np.sort(np.abs(steps[steps != 0])):
        chance_T /= 2
        chance_T[step:] += chance_T[:-step]
    return max(2 * float(chance_T.sum()), SMALLEST_P)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests, in their order (Holm 1979): controls the family-wise error rate."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return [float(value) for value in adjusted]


def hierarchical(
    means_SP: ArrayLike, seed: int = 0, within: tuple[float, float] = (-math.inf, math.inf), resamples: int = RESAMPLES
) -> Interval:
    """Interval of the mean over all training seeds and all problems, from S seeds examined on the same P, (S, P).

    For scores, clipped to `within` = (0, 1), or differences. A bootstrap over seeds and problems (cf. Saravanan et al.
    2020; Agarwal et al. 2021, 2108.13264). Seeds come from a normal distribution, as 3 seeds resampled vary too little.
    With one seed it is the bootstrap over problems, and says nothing about other seeds.
    """
    estimate = float(np.mean(np.asarray(means_SP, dtype=float)))
    interval = interval_of(_resampled_means(means_SP, seed, resamples), estimate)
    low, high = np.clip((interval.low, interval.high), *within)
    return Interval(estimate, float(low), float(high))


def seeds_p(difference_SP: ArrayLike, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p-value of no difference over all seeds and problems, from after - before, (S, P).

    Twice the share of the resamples of `hierarchical` beyond zero. The observed mean counts as another (Phipson &
    Smyth 2010), so the smallest value is 2 / (R + 1).
    """
    resampled = _resampled_means(difference_SP, seed, resamples)
    beyond = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0))
    return min(1.0, 2 * (1 + beyond) / (1 + resampled.size))


def detectable(before: ArrayLike, after: ArrayLike, power: float = 0.8) -> float:
    """Smallest true difference that an exam like this one would show with chance `power`; (P,) each, or (S, P) each.

    (t_.975 + t_power) * SE, where differences vary over problems and seeds as they did here; with one seed t is normal.
    Where nothing varies, SE is that of the score interval. Fewer than FEWEST problems show nothing.
    """
    difference_SP = np.atleast_2d(_difference(before, after))
    n = difference_SP.shape[1]
    if n < FEWEST:
        return 1.0
    of_seeds, of_problems, freedom = _variances(difference_SP)
    t = stdtrit(freedom, [(1 + LEVEL) / 2, power])
    error = math.sqrt(of_seeds + of_problems) or wilson(0, n).high / t[0]
    return float(t.sum() * error)


def planned_detectable(n_problems: int, n_samples: int) -> float:
    """About what `detectable` will be, before anything is sampled.

    The solution of d = (z_.975 + z_.8) * SE, where a gain d is all of some problems (variance d (1 - d)) and half of
    the independent samples are right.
    """
    if n_problems < FEWEST:
        return 1.0
    ratio = float(ndtri([(1 + LEVEL) / 2, 0.8]).sum()) ** 2 / n_problems
    return (ratio + math.sqrt(ratio**2 + 2 * ratio * (1 + ratio) / n_samples)) / (2 * (1 + ratio))


def verdict(gain: Interval, p_value: float) -> Verdict:
    """Whether the exam shows a gain, or a loss: the interval excludes zero and the test, `holm`'s if one of several,
    agrees. Otherwise the two are not told apart.

    The test protects small exams, where an interval from a handful of problems may be too narrow.
    """
    if p_value >= 1 - LEVEL or gain.low <= 0 <= gain.high:
        return "not shown"
    return "shown" if gain.low > 0 else "worse"


def _difference(before: ArrayLike, after: ArrayLike) -> Floats:
    """after - before, (P,) or (S, P)."""
    left, right = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    assert left.shape == right.shape and left.size > 0
    difference: Floats = np.round(right - left, 12)  # so that np.unique sees 2/3 - 1/3 and 1/3 as one
    return difference


def _whole_steps(difference_P: Floats) -> NDArray[np.int64]:
    """Differences as multiples of one step, (P,) int.

    Exactly, if they are fractions with denominators up to 1,000 and make up at most FINEST steps; else rounded, to
    FINEST steps in all. Rounded differences flip signs as well as others do: the test stays exact, of a sum that is off
    by a small part of its own spread.
    """
    sizes = np.unique(np.abs(difference_P)).tolist()
    per_unit = math.lcm(*(Fraction(size).limit_denominator(1_000).denominator for size in sizes))
    total = float(np.abs(difference_P).sum())
    steps: NDArray[np.int64] = np.rint(difference_P * min(per_unit, FINEST / max(total, 1e-9))).astype(np.int64)
    return steps


def _resampled_means(means_SP: ArrayLike, seed: int, resamples: int) -> Floats:
    """Resampled means over all seeds and problems, (R,): problems resampled, seeds normal, the sum Student's t."""
    means = np.asarray(means_SP, dtype=float)
    problems_P = means.mean(axis=0)
    resampled: Floats = bootstrap_means(problems_P[:, None], resamples, seed)[:, 0]
    if len(means) == 1:
        return resampled
    of_seeds, of_problems, freedom = _variances(means)
    if of_seeds == 0:
        return resampled
    rng = np.random.default_rng((seed, 1))  # not the stream that sampled the problems
    seeds = math.sqrt(of_seeds) * rng.standard_normal(resamples)
    without_noise = math.sqrt(of_problems / (problems_P.var(ddof=1) / problems_P.size or 1.0))
    student = np.sqrt(freedom / rng.chisquare(freedom, resamples))
    resampled = means.mean() + student * (seeds + without_noise * (resampled - means.mean()))
    return resampled


def _variances(means_SP: Floats) -> tuple[float, float, float]:
    """Variance of the mean of (S, P) due to the seeds, due to the problems, and degrees of freedom of their sum.

    Two-way random effects: sampling noise, and how seeds differ in what they find hard, are in the variance of the
    seeds' means already, so they are subtracted from that of the problems' means. The seeds' share of the sum has
    S - 1 degrees of freedom, the rest infinitely many; their reciprocals are averaged by share. Between Satterthwaite
    (1946), who averages by squared share, and Cochran (1964), who averages quantiles: see docs/COVERAGE.md.
    """
    n_seeds, n_problems = means_SP.shape
    assert n_problems > 1
    seeds_S, problems_P = means_SP.mean(axis=1), means_SP.mean(axis=0)
    of_seeds = float(seeds_S.var(ddof=1)) / n_seeds if n_seeds > 1 else 0.0
    of_problems = float(problems_P.var(ddof=1)) / n_problems
    if of_seeds == 0:
        return 0.0, of_problems, math.inf
    rest_SP = means_SP - seeds_S[:, None] - problems_P + means_SP.mean()
    noise = float((rest_SP**2).sum()) / ((n_seeds - 1) * (n_problems - 1)) / means_SP.size
    of_problems = max(0.0, of_problems - noise)
    return of_seeds, of_problems, (n_seeds - 1) * (of_seeds + of_problems) / of_seeds
