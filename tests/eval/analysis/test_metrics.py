"""Metrics against numbers worked out by hand, and by brute force over all subsets."""

from collections import Counter
from itertools import combinations

import pytest

from eval.analysis import metrics
from eval.exam.samples import tabled
from tests.eval.conftest import COMPLETIONS, make_row, make_samples


def test_pass_at_1_is_the_share_of_right_samples_of_each_problem():
    assert metrics.pass_at_1(make_samples("1100", "1000")).tolist() == [0.5, 0.25]


@pytest.mark.parametrize("marks", ["0", "1", "10", "1000", "110000", "10101010", "11111110", "00000000"])
def test_pass_at_k_equals_the_count_over_all_subsets(marks):
    for k in range(1, len(marks) + 1):
        subsets = list(combinations(marks, k))
        expected = sum("1" in subset for subset in subsets) / len(subsets)
        assert metrics.pass_at_k(make_samples(marks), k)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("marks", ["0", "10", "100", "1x0", "1100xx", "11-?00", "---1", "d1x0-l0x", "xx00--11"])
def test_maj_at_k_equals_the_count_over_all_subsets_with_ties_shared(marks):
    for k in range(1, len(marks) + 1):
        subsets = list(combinations(marks, k))
        expected = sum(map(_vote, subsets)) / len(subsets)
        assert metrics.maj_at_k(make_samples(marks), k)[0] == pytest.approx(expected, abs=1e-12)


def _vote(marks):
    votes = Counter(COMPLETIONS[mark][1] for mark in marks if mark not in "-?")
    if not votes:
        return 0.0
    winners = [answer for answer, count in votes.items() if count == max(votes.values())]
    return winners.count("3") / len(winners)


@pytest.mark.parametrize("metric", [metrics.pass_at_k, metrics.maj_at_k])
@pytest.mark.parametrize("k", [0, 3])
def test_a_k_above_the_samples_is_refused_with_the_fix(metric, k):
    with pytest.raises(AssertionError):
        metric(make_samples("10"), k)


@pytest.mark.parametrize("n,ks", [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])])
def test_the_curve_over_k_ends_at_the_number_of_samples(n, ks):
    assert metrics.powers(n) == ks


def test_lengths_are_told_apart_by_right_and_wrong():
    samples = make_samples("1x")
    lengths = [len(COMPLETIONS[mark][0]) for mark in "1x"]
    assert [metrics.mean_tokens_where(samples, right) for right in (True, False)] == lengths
    assert metrics.mean_tokens_where(make_samples("11"), correct=False) is None
    assert metrics.tokens(samples).tolist() == [sum(lengths) / 2]


def test_entropy_is_surprise_per_token_and_kl_the_mean_gap_to_the_reference_per_completion():
    rows = [
        make_row("a", "1", 0, n_tokens=2, logp=-1.0, logp_reference=-3.0),
        make_row("a", "1", 1, n_tokens=6, logp=-3.0, logp_reference=-4.0),
        make_row("b", "1", 0, n_tokens=4, logp=-2.0, logp_reference=-1.5),
        make_row("b", "1", 1, n_tokens=4, logp=-2.0, logp_reference=-1.5),
    ]
    measured = tabled(rows)
    assert metrics.entropy(measured) == pytest.approx(8 / 16)
    assert metrics.kl(measured) == pytest.approx((2.0 + 1.0 - 0.5 - 0.5) / 4)


def test_kl_is_not_told_where_one_completion_was_not_measured():
    rows = [make_row("a", "1", 0, logp=-1.0, logp_reference=-3.0), make_row("a", "1", 1, logp=-1.0)]
    assert metrics.kl(tabled(rows)) is None


def test_shares_of_form_cuts_and_voices():
    samples = make_samples("1d--")
    assert metrics.well_formed(samples).tolist() == [0.5]
    assert metrics.truncated(samples).tolist() == [0.5]
    assert metrics.voice_shares(samples) == {"direct": 0.25, "worked": 0.25, "checked": 0.0, "none": 0.5}


def test_chain_truth_tells_luck_from_reasoning_and_adds_up_to_one():
    shares = metrics.chain_truth(make_samples("1ld0", "?x-1"))
    assert shares == {
        "right_by_right": 0.25,
        "right_by_wrong": 0.125,
        "right_without": 0.125,
        "wrong_by_right": 0.125,
        "wrong_by_wrong": 0.125,
        "wrong_without": 0.25,
        "right_unchecked": 0.0,
        "wrong_unchecked": 0.0,
    }
    assert sum(shares.values()) == 1
    unchecked = metrics.chain_truth(make_samples("10", chain="unchecked", formula=None))
    assert unchecked["right_unchecked"] == unchecked["wrong_unchecked"] == 0.5


def test_the_first_wrong_step_is_counted_over_chains_that_have_one():
    assert metrics.first_wrong_steps(make_samples("0l10")) == {"1": pytest.approx(1 / 3), "2": pytest.approx(2 / 3)}
