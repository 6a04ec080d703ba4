"""Where a difference in pass@1 comes from: parts that add up to it; what is sharpened and what is new.

A completion is right if it stops, gives a number, and either reasons without a slip, or slips and is right all the
same, or answers at once and guesses right. So pass@1 = stops x numbers x (reasons x (sound + lucky) + (1 - reasons) x
guesses), each a share of those that got so far, among problems of one family and depth.

A lower temperature makes more chains sound too, without any training. Where the start was also sampled at the
temperature that suits it best, the part of `sound` is divided into what that gives and the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from eval.analysis.metrics import pass_at_k
from eval.analysis.stats import LEVEL, RESAMPLES, Floats, Interval, bootstrap_means, interval_of
from eval.exam.samples import Samples

PARTS = (
    "stops in time",
    "gives a number",
    "chooses to reason",
    "reasons without a slip",
    "is right despite a slip",
    "guesses better",
)
SOUND = PARTS.index("reasons without a slip")
DIVIDED = (*PARTS[:SOUND], "sharper sampling", "fewer slips", *PARTS[SOUND + 1 :])


@dataclass(frozen=True)
class Part(Interval):
    """What one part contributes to the difference in pass@1."""

    name: str


@dataclass(frozen=True)
class Sharpened:
    """Whether `after` only says more surely what `before` could say too, or solves what `before` never did."""

    before: str
    after: str
    n_problems: int
    n: int
    """Completions per problem, of all seeds. A problem is solved if one of them is right."""
    leads: bool
    """Whether pass@1 of `after` is higher."""
    crossing: int | None
    """The smallest k at which pass@k of `before` is no longer below, if there is one."""
    bound: float
    """The highest rate that `before` can have on a problem that it never solved, with 95 % confidence."""
    n_solved_anew: int
    n_lost: int


def gain_parts(before: Samples, after: Samples, cooled: Samples | None = None) -> list[Part]:
    """Each of `PARTS` in pass@1 with its 95 % interval (bootstrap over problems); they add up to the difference.

    Shapley values: the mean, over all orders in which the factors could be exchanged for those of `after`, of what
    each exchange changes (Shapley 1953). A share without completions to compute it from (no direct answers that could
    be right) is taken from the other side, so that it changes nothing.

    With `cooled`, the start at the temperature that suits it best, the parts are `DIVIDED`. pass@1 is linear in each
    factor, so in each cell the part of `sound` is a coefficient times (sound_after - sound_before). The same with
    sound_cooled for sound_after is what the temperature alone would add: of this, what lies between nothing and the
    whole part is sharper sampling, and the rest of the part fewer slips. No other factor of `cooled` counts.
    """
    cells = list(dict.fromkeys((q.family, q.depth) for q in before.questions))
    member_PC = np.array([[(q.family, q.depth) == cell for cell in cells] for q in before.questions], dtype=float)
    sides = [before, after] if cooled is None else [before, after, cooled]
    counts_PK = np.concatenate(list(map(_funnel, sides)), axis=1)  # K = sides x parts
    columns = np.concatenate([member_PC, *(counts_PK * member_PC[:, [c]] for c in range(len(cells)))], axis=1)
    point = _parts(columns.mean(axis=0, keepdims=True), len(cells))[0]
    parts_RJ = _parts(bootstrap_means(columns, RESAMPLES // 5), len(cells))
    intervals = [interval_of(means, float(value)) for means, value in zip(parts_RJ.T, point, strict=True)]
    names = PARTS if cooled is None else DIVIDED
    return [Part(*each.ends, name) for each, name in zip(intervals, names, strict=True)]


def _funnel(samples: Samples) -> Floats:
    """Shares of each problem's completions that stop, give a number, reason, are right by a sound chain, are right by
    an unsound one, are right without a chain; (P, 6)."""
    number = samples.answer_PN >= 0
    reasons = number & (samples.chain_PN != "none")
    right = samples.correct_PN
    sound = reasons & np.isin(samples.chain_PN, ["right", "unchecked"])  # as far as can be checked
    guesses = number & ~reasons
    counts = (samples.stopped_PN, number, reasons, sound & right, reasons & ~sound & right, guesses & right)
    return np.stack([count.mean(axis=1) for count in counts], axis=1)


def _parts(means_RK: Floats, n_cells: int) -> Floats:
    """The parts, (R, 6), or divided (R, 7), from the means of the columns in the order of `gain_parts`."""
    weights_RC = means_RK[:, :n_cells]
    counts = means_RK[:, n_cells:].reshape(len(means_RK), n_cells, -1, len(PARTS))
    first, second, *third = (_factors(counts[:, :, side], weights_RC) for side in range(counts.shape[2]))
    old = np.where(np.isnan(first), np.nan_to_num(second), first)
    new = np.where(np.isnan(second), np.nan_to_num(first), second)
    parts_RJ = _shapley(old, new, weights_RC)
    if not third:
        return parts_RJ
    sound_RC = np.where(np.isnan(first), np.nan, third[0])[:, :, SOUND]
    sharper = new.copy()
    sharper[:, :, SOUND] = np.where(np.isnan(sound_RC), old[:, :, SOUND], sound_RC)
    before, whole_R, after = np.split(parts_RJ, [SOUND, SOUND + 1], axis=1)
    sharper_R = _shapley(old, sharper, weights_RC)[:, [SOUND]].clip(np.minimum(0, whole_R), np.maximum(0, whole_R))
    return np.concatenate([before, sharper_R, whole_R - sharper_R, after], axis=1)


def _shapley(old: Floats, new: Floats, weights_RC: Floats) -> Floats:
    """What each factor adds on the way from the factors `old` to `new`, (R, C, 6): (R, 6)."""

    def pass_at_1(exchanged: tuple[int, ...]) -> Floats:
        """(R,), if these factors are those of the second side and the others those of the first."""
        factors = [(new if factor in exchanged else old)[:, :, factor] for factor in range(len(PARTS))]
        stops, numbers, reasons, sound, lucky, guesses = factors
        value_RC = weights_RC * stops * numbers * (reasons * (sound + lucky) + (1 - reasons) * guesses)
        return np.asarray(value_RC.sum(axis=1))

    sizes = range(len(PARTS) + 1)
    values = {chosen: pass_at_1(chosen) for size in sizes for chosen in combinations(range(len(PARTS)), size)}
    shares: list[list[Floats]] = [[] for _ in PARTS]  # what each factor adds to each choice of others
    for chosen, value in values.items():
        for factor in chosen:
            others = tuple(other for other in chosen if other != factor)
            weight = len(PARTS) * math.comb(len(PARTS) - 1, len(others))
            shares[factor].append((value - values[others]) / weight)
    return np.stack([np.sum(added, axis=0) for added in shares], axis=1)


def _factors(counts_RCJ: Floats, weights_RC: Floats) -> Floats:
    """The conditional shares of the parts, (R, C, 6); NaN where no completion got so far."""
    stop, number, reason, sound, lucky, guess = np.moveaxis(counts_RCJ, 2, 0)
    direct = np.where(number - reason > 1e-9, number - reason, 0.0)  # not what rounding leaves when all reason
    reached = (weights_RC, stop, number, reason, reason, direct)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [part / of for part, of in zip((stop, number, reason, sound, lucky, guess), reached, strict=True)]
    factors = np.stack(shares, axis=2)
    return np.where(np.isfinite(factors), factors, np.nan)


def sharpened_or_new(
    old: Sequence[Samples], new: Sequence[Samples], pair: tuple[str, str] = ("before", "after")
) -> Sharpened:
    """Compare what two columns solve at all, from the samples of each seed; curves are means over the seeds.

    The bound is 1 - 0.05^(1/N): a problem with that rate is missed in all N completions with a chance of 5 %.
    """
    ks = range(1, old[0].n + 1)
    curves = [[float(np.mean([pass_at_k(seed, k).mean() for seed in side])) for k in ks] for side in (old, new)]
    leads = curves[1][0] > curves[0][0]
    crossing = next((k for k in ks if curves[0][k - 1] >= curves[1][k - 1]), None) if leads else None
    n = sum(seed.n for seed in old)
    before_P, after_P = (np.sum([seed.correct_PN.sum(axis=1) for seed in side], axis=0) for side in (old, new))
    return Sharpened(
        *pair,
        n_problems=len(old[0].questions),
        n=n,
        leads=leads,
        crossing=crossing,
        bound=1 - (1 - LEVEL) ** (1 / n),
        n_solved_anew=int(((before_P == 0) & (after_P > 0)).sum()),
        n_lost=int(((after_P == 0) & (before_P > 0)).sum()),
    )
