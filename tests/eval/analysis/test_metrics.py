"""Metrics against numbers worked out by hand, and by brute force over all subsets."""

from collections import Counter
from itertools import combinations

import pytest

from eval.analysis import metrics
from eval.exam.samples import tabled
from tests.eval.conftest import COMPLETIONS, make_row, make_samples


@pytest.mark.parametrize("marks", ["0", "10", "100", "1x0", "1100xx", "11-?00", "---1", "d1x0-l0x", "xx00--11"])
def test_pass_at_k_and_maj_at_k_equal_the_count_over_all_subsets_with_ties_shared(marks):
    samples = make_samples(marks)
    assert metrics.pass_at_1(samples) == pytest.approx(metrics.pass_at_k(samples, 1))
    for k in range(1, len(marks) + 1):
        subsets = list(combinations(marks, k))
        solved = [not set("1dl").isdisjoint(subset) for subset in subsets]
        assert metrics.pass_at_k(samples, k)[0] == pytest.approx(sum(solved) / len(subsets), abs=1e-12)
        assert metrics.maj_at_k(samples, k)[0] == pytest.approx(sum(map(_vote, subsets)) / len(subsets), abs=1e-12)


def _vote(marks):
    votes = Counter(COMPLETIONS[mark][1] for mark in marks if mark not in "-?")
    if not votes:
        return 0.0
    winners = [answer for answer, count in votes.items() if count == max(votes.values())]
    return winners.count("3") / len(winners)


def test_the_curve_over_k_ends_at_the_number_of_samples():
    assert [metrics.powers(n) for n in (1, 2, 6)] == [[1], [1, 2], [1, 2, 4, 6]]


def test_lengths_are_told_apart_by_right_and_wrong():
    samples = make_samples("1x")
    lengths = [len(COMPLETIONS[mark][0]) for mark in "1x"]
    assert [metrics.mean_tokens_where(samples, right) for right in (True, False)] == lengths
    assert metrics.mean_tokens_where(make_samples("11"), correct=False) is None
    assert metrics.tokens(samples).tolist() == [sum(lengths) / 2]


def test_entropy_is_surprise_per_token_and_kl_the_mean_gap_to_the_reference_per_completion():
    figures = [("a", 2, -1.0, -3.0), ("a", 6, -3.0, -4.0), ("b", 4, -2.0, -1.5), ("b", 4, -2.0, -1.5)]
    rows = [
        make_row(key, "1", place % 2, n_tokens=n, logp=logp, logp_reference=reference)
        for place, (key, n, logp, reference) in enumerate(figures)
    ]
    measured = tabled(rows)
    assert metrics.entropy(measured) == pytest.approx(8 / 16)
    assert metrics.kl(measured) == pytest.approx((2.0 + 1.0 - 0.5 - 0.5) / 4)
    rows[0]["logp_reference"] = None  # one was not measured
    assert metrics.kl(tabled(rows)) is None


def test_shares_of_form_cuts_and_voices():
    samples = make_samples("1d0-")
    assert (metrics.well_formed(samples).tolist(), metrics.truncated(samples).tolist()) == ([0.75], [0.25])
    assert metrics.voice_shares(samples) == {"direct": 0.25, "worked": 0.5, "checked": 0.0, "none": 0.25}


def test_chain_truth_tells_luck_from_reasoning_and_adds_up_to_one():
    shares = metrics.chain_truth(make_samples("1ld0", "?x-1"))
    assert shares == {
        **{"right_by_right": 0.25, "right_by_wrong": 0.125, "right_without": 0.125, "right_unchecked": 0.0},
        **{"wrong_by_right": 0.125, "wrong_by_wrong": 0.125, "wrong_without": 0.25, "wrong_unchecked": 0.0},
    }
    unchecked = metrics.chain_truth(make_samples("10", chain="unchecked", formula=None))
    assert unchecked["right_unchecked"] == unchecked["wrong_unchecked"] == 0.5
