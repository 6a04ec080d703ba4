"""Intervals, tests and verdicts by hand, by brute force, and against published values."""

from itertools import product

import numpy as np
import pytest

from eval.analysis import stats
from eval.analysis.stats import Interval, bootstrap_means, clustered_proportion, hierarchical, paired_difference


def ends(interval):
    return round(interval.low, 4), round(interval.high, 4)


@pytest.mark.parametrize(
    ("means_P", "n_samples", "successes", "n", "expected"),
    [
        ([1.0] * 8 + [0.0] * 2, 10, 8, 10, (0.4902, 0.9433)),  # one sample per problem: the published values
        ([0.0] * 10, 10, 0, 10, (0.0, 0.2775)),
        ([1.0], 1, 1, 1, (0.2065, 1.0)),
        ([1.0] * 8 + [0.0] * 2, 40, 8, 10, (0.4902, 0.9433)),  # samples that all agree count as one per problem
        ([1.0] * 10, 40, 10, 10, (0.7225, 1.0)),  # all right: problems count
        ([1.0, 0.5, 0.5, 0.0], 8, 4, 8, (0.2152, 0.7848)),  # coins: variance over problems 1/8, 1/4 * 4 / (1/8) = 8
        (
            [0.5] * 10,
            20,
            10,
            20,
            (0.2993, 0.7007),
        ),  # problems that vary less than chance count no more than the samples
    ],
)
def test_the_interval_of_pass_at_1_is_wilsons_for_the_effective_number_of_samples(
    means_P, n_samples, successes, n, expected
):
    assert ends(clustered_proportion(means_P, n_samples)) == ends(stats.wilson(successes, n)) == expected


def spaced(*parts):
    """20 problems: (how many, what differs), the others differ in nothing."""
    values = [value for count, value in parts for _ in range(count)]
    return np.array(values + [0.0] * (20 - len(values)))


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        # k = t^2 / n = 2.0930^2 / 20 = 0.21904. Without losses the upper end is Wilson's of the gains with this
        # quantile, (p + k/2 + t sqrt(p (1 - p) / n + k / (4 n))) / (1 + k), and the lower one (p - k) / (1 + k).
        (spaced((5, 1.0)), (0.0254, 0.4839)),
        (spaced((5, -1.0)), (-0.4839, -0.0254)),
        (spaced((20, 1.0)), (0.6406, 1.0)),
        (spaced((5, 0.5)), (0.0127, 0.2419)),  # half of each sample: gains of half the size
        (spaced(), (-0.1611, 0.1611)),  # nothing differs: Wilson's of 0 of 20, z^2 / (n + z^2)
        # Of six, all gained, k = 2.5706^2 / 6 is more than 1: no gain of so few is above zero.
        (np.ones(6), (-1.0, 1.0)),
        (np.ones(7), (0.078, 1.0)),
    ],
)
def test_interval_of_a_difference_by_hand(difference, expected):
    for before in (np.zeros_like(difference), -difference / 2):
        interval = paired_difference(before, before + difference)
        assert interval.estimate == pytest.approx(difference.mean())
        assert ends(interval) == expected


def test_the_interval_of_a_difference_is_of_gains_and_losses_with_its_mean_and_variance():
    # 10 x +1/4, 4 x +1/2, 2 x -1/4: sum of sizes 5, of squares 1.75, so 0.35 each: 4.5 / 0.35 gained, 0.5 / 0.35 lost.
    mixed = spaced((10, 0.25), (4, 0.5), (2, -0.25))
    interval = paired_difference(np.zeros(20), mixed)
    gained, lost, n, k = 4.5 / 0.35, 0.5 / 0.35, 20, 0.2190368
    for limit in (interval.low / 0.35, interval.high / 0.35):  # where Tango's test rejects: its statistic is t
        # The share of losses q solves 2 n q^2 - (gained + lost - (2 n - gained + lost) d) q - lost d (1 - d) = 0.
        roots = np.roots([2 * n, -(gained + lost - (2 * n - gained + lost) * limit), -lost * limit * (1 - limit)])
        q = max(roots.real)
        assert (0.2 / 0.35 - limit) ** 2 == pytest.approx(k * (2 * q + limit * (1 - limit)), rel=1e-4)
    assert (interval.low, interval.high) == (-paired_difference(mixed, np.zeros(20)).high, interval.high)


def test_a_resample_draws_as_many_problems_as_there_are_the_same_ones_for_all_columns():
    # The mean of 4 draws of 0 or 1 is 0 in 1 of 16 resamples, and its standard deviation is sqrt(1/4 / 4) = 1/4.
    draws = bootstrap_means([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    assert draws.sum(axis=1) == pytest.approx(np.ones(10_000))
    assert set(draws[:, 0]) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert ((draws[:, 0] == 0).mean(), draws[:, 0].std()) == pytest.approx((1 / 16, 0.25), abs=0.01)
    values = np.arange(300_000.0)[:, None]  # so many distinct rows that a few resamples fill a part
    parts = bootstrap_means(values, resamples=10)
    assert parts.shape == (10, 1) and len(set(parts[:, 0])) == 10
    assert parts == pytest.approx(np.full((10, 1), values.mean()), rel=0.01)


def test_interval_of_draws_leaves_out_a_fortieth_at_each_end():
    draws = np.arange(1.0, 40.0)  # 39 cut the line into 40 parts
    assert stats.interval_of(draws, 7.0).ends == pytest.approx((7.0, 1.0, 39.0))


@pytest.mark.parametrize(
    ("before_P", "after_P", "p_value"),
    [
        *(([0.0] * n, [1.0] * n, 2 / 2**n) for n in (1, 8, 100)),  # all gained: two of all ways
        ([0.0, 0.0], [0.5, 0.25], 0.5),  # 1/2 and 1/4: |sum| is 3/4 in 2 of 4 ways
        ([0.5, 0.0, 0.75], [0.0, 0.5, 0.75], 1.0),  # equal gains and losses
        ([0.0] * 2000, [1.0] * 2000, stats.SMALLEST_P),  # too small for a float
    ],
)
def test_permutation_p_by_hand(before_P, after_P, p_value):
    assert stats.permutation_p(before_P, after_P) == pytest.approx(p_value, rel=1e-12)
    assert stats.permutation_p(after_P, before_P) == pytest.approx(p_value, rel=1e-12)


@pytest.mark.parametrize("samples", [1, 4, 16, 64, np.arange(1, 11), None])
def test_permutation_p_is_the_share_of_all_sign_flips(samples):
    rng = np.random.default_rng(0)
    for _ in range(5):
        # Differences without a common step are rounded, which is as good as exact.
        before, after = rng.random((2, 10)) if samples is None else rng.integers(0, samples + 1, (2, 10)) / samples
        flipped = np.array(list(product((-1, 1), repeat=10))) @ (after - before)
        share = np.mean(np.abs(flipped) >= abs((after - before).sum()) - 1e-9)
        near = {"abs": 2 / 2**10} if samples is None else {"rel": 1e-12}
        assert stats.permutation_p(before, after) == pytest.approx(share, **near)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 raised to that
        *(([0.9, 0.6], [1.0, 1.0]), ([0.2], [0.2]), ([], [])),
    ],
)
def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less_and_never_falls(p_values, adjusted):
    assert stats.holm(p_values) == pytest.approx(adjusted)


def test_hierarchical_interval_of_one_seed_or_of_seeds_in_full_agreement_is_the_bootstrap_over_problems():
    difference = np.repeat([-0.5, 0.0, 0.5, 1.0], 10)
    resampled = bootstrap_means(difference[:, None], seed=3)[:, 0]
    assert hierarchical([difference], seed=3) == stats.interval_of(resampled, difference.mean())
    assert hierarchical([difference] * 3) == hierarchical([difference])


@pytest.mark.parametrize(
    ("problems_P", "half"),
    [
        # Problems alike, seeds 0.4, 0.5, 0.6: standard error 0.1 / sqrt(3) = 0.0577, times 4.303 with 2 degrees of freedom.
        (np.zeros(100), 0.248),
        # Half 0.2 below and half 0.2 above each seed's mean: variances 0.01 / 3 = 0.003333 of seeds, 0.04 / 99 = 0.000404
        # of problems. Degrees of freedom 2 * 0.003737 / 0.003333 = 2.242, t 3.886.
        (np.repeat([-0.2, 0.2], 50), 0.2376),
    ],
)
def test_hierarchical_interval_of_three_seeds_is_students_and_is_cut_to_where_the_truth_can_be(problems_P, half):
    means = problems_P + np.array([[0.4], [0.5], [0.6]])
    interval, turned = hierarchical(means), hierarchical(-means)
    assert interval.ends == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=0.015)
    assert (-turned.estimate, -turned.high, -turned.low) == pytest.approx(interval.ends, abs=0.015)
    assert hierarchical(means, within=(0.3, 0.7)).ends == (interval.estimate, 0.3, 0.7)


def test_p_over_seeds_is_that_of_students_t_and_has_a_smallest_and_a_largest_value():
    # Standard error 0.0577 and 2 degrees of freedom as above: t = 0.5 / 0.0577 = 8.66, two-sided p 0.0131.
    gains = np.repeat([[0.4], [0.5], [0.6]], 50, axis=1)
    assert [stats.seeds_p(gains), stats.seeds_p(-gains)] == pytest.approx([0.0131] * 2, abs=0.004)
    assert stats.seeds_p([[0.5] * 10]) == 2 / 10_001
    assert stats.seeds_p([[0.0] * 10]) == 1.0


# 60 of 100 problems gained: variance 0.24 * 100 / 99, standard error 0.04924, times 1.9600 + 0.8416.
SIXTY = [1.0] * 60 + [0.0] * 40
# Standard error 0.1 / sqrt(3), times 4.3027 + 1.0607 with 2 degrees of freedom.
THREE_SEEDS = np.repeat([[0.4], [0.5], [0.6]], 50, axis=1)
# +-1 of noise in all four combinations: variance of the problems' means 50 / 99, mean square of the rest 100 / 99, so the
# problems themselves have 50 / 99 - 100 / 99 / 2 = 0: noise is not counted twice. Standard error sqrt(0.005 / 2) = 0.05
# of the seeds, times 12.706 + 1.3764 with 1 degree of freedom.
NOISE = np.repeat([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]], 25, axis=1) + np.array([[0.2], [0.3]])


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        *((SIXTY, 0.1380), (THREE_SEEDS, 0.3097), (NOISE, 0.7041), (np.ones(6), 1.0)),
        *((np.zeros(20), 0.2303), (np.zeros((3, 20)), 0.2303)),  # 0.1611 / 1.9600 * 2.8016: not 0
    ],
)
def test_detectable_difference_by_hand(difference, expected):
    none = np.zeros_like(difference)
    assert [stats.detectable(none, difference), stats.detectable(difference, none)] == pytest.approx(
        [expected] * 2, abs=1e-4
    )


@pytest.mark.parametrize(
    ("gain", "p_value", "expected"),
    [
        (Interval(0.10, 0.05, 0.15), 0.001, "shown"),
        (Interval(0.10, -0.01, 0.21), 0.001, "not shown"),
        (Interval(-0.10, -0.15, -0.05), 0.001, "worse"),
        (Interval(0.67, 0.50, 1.00), 0.250, "not shown"),
    ],
)
def test_a_gain_or_a_loss_is_shown_only_beyond_zero_and_beyond_luck(gain, p_value, expected):
    assert stats.verdict(gain, p_value) == expected


@pytest.mark.parametrize(
    ("n_problems", "n_samples", "expected"),
    # r = 2.8016^2 / problems; (r + sqrt(r^2 + 2 r (1 + r) / samples)) / (2 (1 + r)).
    [(1200, 8, 0.0237), (60, 4, 0.1913), (30, 8, 0.2577), (6, 100, 1.0)],
)
def test_what_an_exam_will_show_is_known_from_its_size(n_problems, n_samples, expected):
    assert stats.planned_detectable(n_problems, n_samples) == pytest.approx(expected, abs=1e-4)
