import numpy as np
import pytest

from eval.stats import Interval, clustered_proportion, paired_difference, sign_flip_p, verdict, wilson


def ends(interval: Interval) -> tuple[float, float]:
    return round(interval.low, 4), round(interval.high, 4)


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [(8, 10, (0.4902, 0.9433)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (1, 1, (0.2065, 1.0))],
)
def test_wilson_matches_published_values(successes, n, expected):
    assert ends(wilson(successes, n)) == expected


def test_one_sample_per_problem_gives_the_wilson_interval():
    assert ends(clustered_proportion([1.0] * 8 + [0.0] * 2, 10)) == (0.4902, 0.9433)


def test_samples_that_all_agree_count_as_one_per_problem():
    assert ends(clustered_proportion([1.0] * 8 + [0.0] * 2, 40)) == ends(wilson(8, 10))


def test_samples_that_disagree_as_coins_do_count_one_by_one():
    # p = 1/2, variance over problems 1/8: effective samples 1/4 * 4 / (1/8) = 8.
    assert ends(clustered_proportion([1.0, 0.5, 0.5, 0.0], 8)) == ends(wilson(4, 8))


def test_problems_that_vary_less_than_chance_do_not_count_more_than_the_samples():
    assert ends(clustered_proportion([0.5] * 10, 20)) == ends(wilson(10, 20))


def test_a_perfect_score_still_has_a_lower_end():
    assert ends(clustered_proportion([1.0] * 10, 40)) == (0.7225, 1.0)


def test_difference_is_after_minus_before():
    assert paired_difference([0.0, 0.5], [0.5, 1.0]) == Interval(0.5, 0.5, 0.5)
    assert paired_difference([0.5, 1.0], [0.0, 0.5]) == Interval(-0.5, -0.5, -0.5)


def test_pairing_removes_the_difficulty_of_the_problems():
    before = np.linspace(0, 0.75, 100)
    gain = paired_difference(before, before + 0.25)
    assert (gain.low, gain.high) == pytest.approx((0.25, 0.25))


def test_bootstrap_interval_is_two_standard_errors_wide():
    # 60 problems gained, 40 did not: standard error sqrt(0.6 * 0.4 / 100) = 0.0490, so 0.6 -+ 1.96 * 0.0490.
    gain = paired_difference(np.zeros(100), [1.0] * 60 + [0.0] * 40)
    assert gain.estimate == 0.6
    assert (gain.low, gain.high) == pytest.approx((0.504, 0.696), abs=0.011)


def test_bootstrap_resamples_problems_with_unequal_differences():
    # Differences -1/2, 0, 1/2, 1 in equal parts: mean 1/4, variance 5/16, standard error sqrt(5/16/400) = 0.0280.
    gain = paired_difference([0.5, 0.5, 0.5, 0.0] * 100, [0.0, 0.5, 1.0, 1.0] * 100)
    assert gain.estimate == 0.25
    assert (gain.low, gain.high) == pytest.approx((0.1952, 0.3048), abs=0.005)


def test_same_seed_gives_the_same_interval():
    before, after = np.zeros(30), np.repeat([0.0, 0.5, 1.0], 10)
    assert paired_difference(before, after, seed=1) == paired_difference(before, after, seed=1)
    assert sign_flip_p(before, after, seed=1) == sign_flip_p(before, after, seed=1)


@pytest.mark.parametrize(("n", "exact"), [(3, 2 / 8), (5, 2 / 32), (8, 2 / 256)])
def test_sign_flips_of_equal_gains_reach_the_sum_in_two_of_all_ways(n, exact):
    assert sign_flip_p(np.zeros(n), np.ones(n)) == pytest.approx(exact, abs=0.015)
    assert sign_flip_p(np.ones(n), np.zeros(n)) == pytest.approx(exact, abs=0.015)


def test_sign_flips_count_sums_equal_to_the_observed_one():
    # 1/2 and 1/4: |sum| is 3/4 in 2 of 4 ways; -1/2 and 1/4: |sum| >= 1/4 always.
    assert sign_flip_p([0.0, 0.0], [0.5, 0.25]) == pytest.approx(0.5, abs=0.02)
    assert sign_flip_p([0.5, 0.0], [0.0, 0.25]) == 1.0


@pytest.mark.parametrize(
    ("gain", "p_value", "expected"),
    [
        (Interval(0.10, 0.05, 0.15), 0.001, "shown"),
        (Interval(0.10, -0.01, 0.21), 0.001, "not shown"),
        (Interval(-0.10, -0.15, -0.05), 0.001, "not shown"),
        (Interval(0.67, 0.50, 1.00), 0.250, "not shown"),
        (Interval(0.0, 0.0, 0.0), 1.0, "not shown"),
    ],
)
def test_a_gain_is_shown_only_above_zero_and_beyond_luck(gain, p_value, expected):
    assert verdict(gain, p_value) == expected


def test_exams_without_a_difference_rarely_show_one():
    rng = np.random.default_rng(0)
    shown = 0
    for _ in range(200):
        p_P = rng.beta(0.5, 0.5, 60)
        before, after = rng.binomial(4, p_P) / 4, rng.binomial(4, p_P) / 4
        shown += verdict(paired_difference(before, after), sign_flip_p(before, after)) == "shown"
    assert shown <= 10  # the claim has one direction: 2.5 % expected
