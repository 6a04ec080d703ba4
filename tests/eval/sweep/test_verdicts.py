"""Better, worse or tied: numbers by hand, and simulated sweeps of which the truth is known."""

import numpy as np
import pytest

from eval.sweep.verdicts import improvement, interquartile_mean, of_cells, verdicts

CELLS = np.repeat(np.arange(4), 300)


def simulated(rng, gains, n_seeds=3, spread=0.01):
    """Scores of settings with known gains in an exam of the usual size, 1,200 problems x 8 samples; seeds differ by
    `spread`, problems in difficulty."""
    difficulty_P = rng.beta(2, 2, size=CELLS.size)
    scores = {}
    for name, gain in gains.items():
        chance_SP = np.clip(difficulty_P + gain + spread * rng.standard_normal((n_seeds, 1)), 0, 1)
        scores[name] = rng.binomial(8, chance_SP) / 8
    return scores


@pytest.mark.slow
def test_the_right_verdicts_in_at_least_95_of_100_simulated_sweeps():
    rng = np.random.default_rng(0)
    truth = {"same": "tied", "also the same": "tied", "best": "better", "bad": "worse"}
    right = 0
    for _ in range(100):
        scores = simulated(rng, {"default": 0.0, "same": 0.0, "also the same": 0.0, "best": 0.2, "bad": -0.2})
        right += {name: each.word for name, each in verdicts(scores, CELLS, "default").items()} == truth
    assert right >= 95


@pytest.mark.slow
def test_equal_settings_are_seldom_told_apart_when_seeds_differ_much():
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(100):
        found = verdicts(simulated(rng, dict.fromkeys("abcdefg", 0.0), spread=0.05), CELLS, "a")
        false += any(each.word != "tied" for each in found.values())
    assert false <= 11  # 5 % of families, and what 100 of them vary by (binomial, one in a hundred)


def test_a_smaller_number_is_better_when_minimizing():
    scores = {"default": np.full((3, 1200), 0.5), "less": np.full((3, 1200), 0.1)}
    scores["less"][:, :30] = 0.2
    scores["default"][:, :40] = 0.6
    assert verdicts(scores, CELLS, "default", maximize=True)["less"].word == "worse"
    assert verdicts(scores, CELLS, "default", maximize=False)["less"].word == "better"


def test_the_interquartile_mean_leaves_out_the_best_and_the_worst_quarter():
    found = interquartile_mean(np.array([[0.0, 0.4], [0.6, 1.0]]))
    assert found.estimate == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def test_without_spread_between_seeds_the_interval_of_the_interquartile_mean_has_no_width():
    found = interquartile_mean(np.array([[0.2, 0.4, 0.6, 0.9]] * 3))
    assert (found.estimate, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_chance_of_improvement_counts_ties_half():
    new, old = np.array([[0.5], [0.9]]), np.array([[0.5], [0.7]])
    assert improvement(new, old).estimate == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    assert improvement(new, new).estimate == 0.5


def test_cells_are_means_over_their_problems():
    assert of_cells(np.array([[1.0, 0.0, 1.0, 1.0]]), np.array([0, 0, 1, 1])).tolist() == [[0.5, 1.0]]
