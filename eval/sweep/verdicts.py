"""Which settings of a sweep are better, worse, or cannot be told apart from the default: pure functions of arrays.

Two things are drawn by chance: the training seed and the problems. Suffixes: S seeds, P problems, C cells (a family and
depth), R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from eval.analysis import stats
from eval.analysis.stats import Interval

Array = NDArray[np.float64]
Word = Literal["better", "worse", "tied"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A setting against the default: the difference, what is left of its p-value after Holm, and the word for it."""

    difference: Interval
    p_value: float
    p_adjusted: float
    improvement: Interval
    """Chance that a training with this setting beats one with the default, on a cell drawn at random."""
    word: Word


def verdicts(
    scores: Mapping[str, Array],
    cells_P: NDArray[np.int64],
    default: str,
    maximize: bool = True,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> dict[str, Verdict]:
    """Every other setting against the default; `scores`: setting -> (S, P), the same seeds and problems for all.

    The differences are paired by seed and problem, their p-values adjusted for being several (Holm 1979). `bounds`
    are those of a difference, of shares by default.
    """
    base = scores[default]
    others = [name for name in scores if name != default]
    found = []
    for name in others:
        difference = scores[name] - base
        if len(difference) == 1:
            gain, p_value = (
                stats.paired_difference(base[0], scores[name][0]),
                stats.permutation_p(base[0], scores[name][0]),
            )
        else:
            gain, p_value = stats.hierarchical(difference, within=bounds), stats.seeds_p(difference)
        found.append((gain, p_value))
    adjusted = stats.holm([p_value for _, p_value in found]) if found else []
    return {
        name: Verdict(
            gain,
            p_value,
            p_adjusted,
            improvement(of_cells(scores[name], cells_P), of_cells(base, cells_P)),
            _word(gain, p_adjusted, maximize),
        )
        for name, (gain, p_value), p_adjusted in zip(others, found, adjusted, strict=True)
    }


def _word(gain: Interval, p_value: float, maximize: bool) -> Word:
    if p_value >= 1 - stats.LEVEL or gain.low <= 0 <= gain.high:
        return "tied"
    return "better" if (gain.estimate > 0) == maximize else "worse"


def of_cells(means_SP: Array, cells_P: NDArray[np.int64]) -> Array:
    """Mean score of each seed in each cell, (S, C)."""
    return np.stack([means_SP[:, cells_P == cell].mean(axis=1) for cell in np.unique(cells_P)], axis=1)


def interquartile_mean(scores_SC: Array, seed: int = 0, resamples: int = 2_000) -> Interval:
    """Mean of the middle half of all scores, with the percentile interval of a bootstrap stratified by cell.

    Agarwal et al. 2021, 2108.13264, section 4.3 and appendix A: within each cell the seeds are resampled by themselves.
    """
    draws_R = np.array([trim_mean(sample, 0.25, axis=None) for sample in _resampled(scores_SC, seed, resamples)])
    return stats.interval_of(draws_R, float(trim_mean(scores_SC, 0.25, axis=None)))


def improvement(new_SC: Array, old_SC: Array, seed: int = 0, resamples: int = 2_000) -> Interval:
    """Chance that a new score beats an old one in a cell drawn at random, ties counting half (2108.13264, eq. 1)."""
    draws_R = _beats(_resampled(new_SC, seed, resamples), _resampled(old_SC, seed + 1, resamples))
    return stats.interval_of(draws_R, float(_beats(new_SC, old_SC)))


def _beats(new: Array, old: Array) -> Array:
    """Share of the pairs of a new and an old seed, (..., S, C) each, in which the new is ahead; ties count half."""
    compared = np.sign(new[..., :, None, :] - old[..., None, :, :])
    return np.asarray((compared.mean(axis=(-3, -2, -1)) + 1) / 2)


def _resampled(scores_SC: Array, seed: int, resamples: int) -> Array:
    """Scores with the seeds of each cell drawn anew, (R, S, C)."""
    n_seeds, n_cells = scores_SC.shape
    rng = np.random.default_rng(seed)
    drawn = rng.integers(n_seeds, size=(resamples, n_seeds, n_cells))
    return np.asarray(scores_SC[drawn, np.arange(n_cells)])
