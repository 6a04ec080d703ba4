"""Rows to numbers with intervals, which all experiments share."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from eval.analysis import stats
from eval.analysis.stats import RESAMPLES, Interval

Figure = dict[str, float]
"""`{"estimate": …, "low": …, "high": …}` of an `Interval`."""


def figure(interval: Interval) -> Figure:
    return dict(zip(("estimate", "low", "high"), (round(float(end), 6) for end in interval.ends), strict=True))


def share(hits_P: ArrayLike, n: int = 1) -> Figure:
    """The mean over problems of a share of `n` trials each, (P,), with its interval."""
    means = np.asarray(hits_P, dtype=float)
    return figure(stats.clustered_proportion(means, n * means.size))


def gap(before_P: ArrayLike, after_P: ArrayLike) -> Figure:
    """The difference of two shares over the same problems, after - before."""
    return figure(stats.paired_difference(before_P, after_P))


def recovered(part_P: ArrayLike, before_P: ArrayLike, after_P: ArrayLike) -> Figure | None:
    """(part - before) / (after - before), means over the same problems; None unless `after` is so far ahead that its
    lead is known within a half.

    Bootstrap over problems.
    """
    columns = np.stack([np.asarray(each, dtype=float) for each in (part_P, before_P, after_P)], axis=1)
    lead = stats.paired_difference(columns[:, 1], columns[:, 2])
    if lead.low <= max(0.0, lead.estimate / 2):
        return None
    means_RK = np.concatenate([columns.mean(axis=0, keepdims=True), stats.bootstrap_means(columns, RESAMPLES // 5)])
    gain_R = np.maximum(means_RK[:, 2] - means_RK[:, 1], 1e-9)
    ratios = (means_RK[:, 0] - means_RK[:, 1]) / gain_R
    return figure(stats.interval_of(ratios[1:], float(ratios[0])))


def bits(hits: Sequence[Any]) -> str:
    """`101` for [True, False, True]: a column of a row."""
    return "".join("1" if hit else "0" for hit in hits)


def unbits(text: str) -> np.ndarray[Any, Any]:
    """The column of `bits`, as floats."""
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(float) - ord("0")
