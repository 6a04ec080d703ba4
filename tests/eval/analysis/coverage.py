"""How often the intervals of `eval/analysis/stats.py` hold the truth and how often a verdict is wrong, on simulated exams.

A problem has a chance of success drawn from a Beta distribution; a training seed, and a gain, shift the log-odds of all
problems. `python -m tests.eval.analysis.coverage` prints the tables of docs/COVERAGE.md.
"""

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaincinv

from eval.analysis import stats

EXAMS = 2_000
RESAMPLES = 400  # of each bootstrap: fewer than an exam draws, which makes ends less steady and no less right
SEED = 0
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Setting:
    """One kind of exam: what is claimed and in which world.

    `spread` are a and b of Beta(a, b); `seed_sd` is the standard deviation of pass@1 between training seeds, before and
    after alike and independently; `gain` is what training adds to the log-odds.
    """

    claim: str  # "score" or "difference"
    seeds: int
    problems: int
    samples: int
    spread: tuple[float, float]
    seed_sd: float = 0.0
    gain: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """Of EXAMS exams: share whose interval holds the truth, mean width, share of the verdict "shown" (of differences)."""

    truth: float
    coverage: float
    width: float
    shown: float | None


UNEVEN, EVEN, EASY, RARE = (0.5, 0.5), (5.0, 5.0), (4.5, 0.5), (0.5, 9.5)
"""Chances of success with two humps, around the middle, skewed towards 1, and seldom far from 0."""
SMALL, DEEP, LARGE = (100, 4), (300, 16), (1200, 4)
TINY, SINGLE = (50, 4), (200, 1)
SETTINGS = (
    *(Setting("score", 1, *size, spread) for size, spread in product((SMALL, DEEP, LARGE), (UNEVEN, EVEN, EASY))),
    *(Setting("difference", 1, *SMALL, spread) for spread in (UNEVEN, EVEN, EASY)),
    *(Setting("difference", 1, *size, spread) for size, spread in ((DEEP, UNEVEN), (LARGE, EVEN))),
    *(Setting("difference", 1, *SMALL, spread, gain=0.5) for spread in (UNEVEN, EVEN, EASY)),
    *(
        Setting("score", seeds, *SMALL, spread, sd)
        for seeds, spread, sd in product((3, 5), (UNEVEN, EVEN), (0.0, 0.01, 0.03, 0.1))
    ),
    *(Setting("score", seeds, *LARGE, EVEN, sd) for seeds, sd in ((3, 0.0), (3, 0.01), (5, 0.01))),
    Setting("score", 3, *DEEP, UNEVEN, 0.03),
    *(Setting("difference", seeds, *SMALL, EVEN, sd) for seeds, sd in product((3, 5), (0.0, 0.03))),
    Setting("difference", 3, *SMALL, EVEN, 0.03, gain=0.5),
    *(
        Setting("difference", 1, *size, spread, gain=gain)
        for size, spread, gain in product((TINY, SINGLE), (EASY, UNEVEN, EVEN, RARE), (0.0, 1.0, 2.0))
    ),
    Setting("difference", 1, 60, 1, EASY, gain=0.5),
)
BEYOND = (  # for which 93 to 97 percent is not claimed
    *(Setting("difference", 1, 20, 4, spread, gain=1.0) for spread in (EASY, UNEVEN, EVEN, RARE)),
    *(Setting("score", seeds, *SMALL, EASY, sd) for seeds, sd in ((3, 0.03), (3, 0.1), (5, 0.03), (5, 0.1))),
    *(Setting("score", 2, *SMALL, EVEN, sd) for sd in (0.0, 0.03, 0.1)),
)


@cache
def simulate(setting: Setting) -> Result:
    """EXAMS exams of one setting, each with its own problems, seeds and samples."""
    truth = true_value(setting)
    rng = np.random.default_rng((SEED, (SETTINGS + BEYOND).index(setting)))
    claims = [claim(setting, *exam(setting, rng), seed) for seed in range(EXAMS)]
    verdicts = [said for _, said in claims if said]
    return Result(
        truth,
        coverage=float(np.mean([interval.low <= truth <= interval.high for interval, _ in claims])),
        width=float(np.mean([interval.high - interval.low for interval, _ in claims])),
        shown=verdicts.count("shown") / EXAMS if verdicts else None,
    )


def exam(setting: Setting, rng: np.random.Generator) -> tuple[Array, Array]:
    """Shares of correct samples before and after, (S, P) each, over the same problems."""
    chance_P = rng.beta(*setting.spread, size=setting.problems)
    before_S1, after_S1 = log_odds_sd(setting) * rng.standard_normal((2, setting.seeds, 1))
    before_SP = rng.binomial(setting.samples, shifted(chance_P, before_S1)) / setting.samples
    after_SP = rng.binomial(setting.samples, shifted(chance_P, setting.gain + after_S1)) / setting.samples
    return before_SP, after_SP


def claim(setting: Setting, before_SP: Array, after_SP: Array, seed: int) -> tuple[stats.Interval, str | None]:
    """What the exam says: the interval of a score, before any gain, or that of a difference and its verdict."""
    if setting.claim == "score" and setting.seeds == 1:
        return stats.clustered_proportion(before_SP[0], setting.problems * setting.samples), None
    if setting.claim == "score":
        return stats.hierarchical(before_SP, seed, within=(0.0, 1.0), resamples=RESAMPLES), None
    if setting.seeds == 1:
        interval = stats.paired_difference(before_SP[0], after_SP[0])
    else:
        interval = stats.hierarchical(after_SP - before_SP, seed, resamples=RESAMPLES)
    if interval.low <= 0:
        return interval, "not shown"  # whatever the test says
    difference = after_SP - before_SP
    alone = setting.seeds == 1
    p = stats.permutation_p(before_SP[0], after_SP[0]) if alone else stats.seeds_p(difference, seed, RESAMPLES)
    return interval, stats.verdict(interval, p)


def true_value(setting: Setting) -> float:
    """The mean over all seeds and problems that the interval is to hold."""
    before, _ = moments(setting.spread, log_odds_sd(setting), 0.0)
    after, _ = moments(setting.spread, log_odds_sd(setting), setting.gain)
    return before if setting.claim == "score" else after - before


@cache
def log_odds_sd(setting: Setting) -> float:
    """Standard deviation of a seed's shift of the log-odds that gives pass@1 the setting's `seed_sd` between seeds."""
    if setting.seed_sd == 0:
        return 0.0
    return float(brentq(lambda sd: moments(setting.spread, sd, 0.0)[1] - setting.seed_sd, 0.0, 3.0))


def moments(spread: tuple[float, float], sd: float, shift: float) -> tuple[float, float]:
    """Mean and standard deviation over seeds of pass@1 over all problems, where seeds shift log-odds by N(shift, sd^2)."""
    chance_P = betaincinv(*spread, (np.arange(1_000) + 0.5) / 1_000)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    score_S = shifted(chance_P, shift + sd * nodes[:, None]).mean(axis=1)
    mean = float(weights @ score_S / weights.sum())
    return mean, float(np.sqrt(weights @ (score_S - mean) ** 2 / weights.sum()))


def shifted(chance: Array, log_odds: Array | float) -> Array:
    """Chances of success after a shift of their log-odds."""
    odds = np.exp(log_odds)
    return chance * odds / (1 - chance + chance * odds)


def label(setting: Setting) -> str:
    """The setting as the first cells of its row."""
    a, b = setting.spread
    cells = (setting.claim, setting.seeds, f"{setting.problems:,} x {setting.samples}", f"Beta({a:g}, {b:g})")
    return " | ".join(map(str, (*cells, f"{setting.seed_sd:g}", f"{setting.gain:g}")))


def table(settings: Iterable[Setting]) -> str:
    """In Markdown; truth and width in points, coverage and shown in percent."""
    heads = "claim of | seeds | problems x samples | chances | SD of seeds | gain | truth | coverage | width | shown"
    lines = [f"| {heads} |", "|---" * 10 + "|"]
    for setting in settings:
        shares = astuple(simulate(setting))
        numbers = ["" if share is None else f"{100 * share:.1f}" for share in shares]
        lines.append(f"| {label(setting)} | {' | '.join(numbers)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(SETTINGS), table(BEYOND), sep="\n\n")
