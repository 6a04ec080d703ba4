"""Samples to numbers: pure functions of a checkpoint's tables, one number per problem, (P,).

A score is averaged over the samples of a problem first and over problems second, so each problem counts alike. The
intervals around the means come from stats.py. A new metric is a new function here.
"""

from collections import Counter
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from eval.analysis.stats import Floats
from eval.exam.samples import CHAINS, LANGUAGES, VOICES, Samples


def _mean(table_PN: NDArray) -> Floats:
    return np.asarray(table_PN.mean(axis=1))


def pass_at_1(samples: Samples) -> Floats:
    """Share of correct completions of each problem: avg@n."""
    return _mean(samples.correct_PN)


def lenient(samples: Samples) -> Floats:
    """Share of completions of each problem whose last number is right, in whatever form."""
    return _mean(samples.lenient_PN)


def powers(n: int) -> list[int]:
    """The k of a curve over k: 1, 2, 4, … and n itself."""
    return [*(2**e for e in range(n.bit_length()) if 2**e < n), n]


def pass_at_k(samples: Samples, k: int) -> Floats:
    """Chance that one of k completions, sampled without replacement, is correct (Chen et al. 2021, 2107.03374)."""
    n = samples.n
    assert 1 <= k <= n
    by_count = np.array([1 - comb(n - correct, k) / comb(n, k) for correct in range(n + 1)])
    return np.asarray(by_count[samples.correct_PN.sum(axis=1)])


def maj_at_k(samples: Samples, k: int) -> Floats:
    """Chance that the most frequent answer among k completions, sampled without replacement, is correct.

    Self-consistency (Wang et al. 2022, 2203.11171). A tie counts as the share of the tied answers that is correct.
    Completions without an answer do not vote; if none votes, the vote is wrong.
    """
    assert 1 <= k <= samples.n
    chances = np.zeros(len(samples.questions))
    for problem, (answers, correct) in enumerate(zip(samples.answer_PN, samples.correct_PN, strict=True)):
        if not correct.any():
            continue
        votes = Counter(answers.tolist())
        silent = votes.pop(-1, 0)
        right = votes.pop(int(answers[correct][0]))
        chances[problem] = _majority(right, tuple(sorted(votes.values())), silent, k)
    return chances


@lru_cache(maxsize=65_536)
def _majority(right: int, others: tuple[int, ...], silent: int, k: int) -> float:
    """Chance that `right` equal votes win among k sampled from them, from the `others` and from `silent` abstentions.

    Exact: for each number x of sampled right votes, the ways to sample the rest so that no other answer has more,
    counted by how many others have as many (a tie of t + 1 counts 1 / (t + 1)).
    """
    total = 0.0
    for x in range(1, min(right, k) + 1):
        ways: dict[tuple[int, int], int] = {(k - x, 0): 1}  # (completions still to sample, ties so far)
        for votes in others:
            grown: dict[tuple[int, int], int] = {}
            for (left, ties), count in ways.items():
                for y in range(min(votes, x, left) + 1):
                    state = (left - y, ties + (y == x))
                    grown[state] = grown.get(state, 0) + count * comb(votes, y)
            ways = grown
        total += comb(right, x) * sum(n * comb(silent, left) / (ties + 1) for (left, ties), n in ways.items())
    return total / comb(right + sum(others) + silent, k)


def tokens(samples: Samples) -> Floats:
    """Mean completion length of each problem in tokens."""
    return _mean(samples.tokens_PN)


def entropy(samples: Samples) -> float:
    """Nats per token: mean -log p of the sampled tokens, an unbiased estimate of the policy's entropy."""
    return float(-samples.logp_PN.sum(dtype=float) / samples.tokens_PN.sum())


def kl(samples: Samples) -> float | None:
    """KL divergence of the policy from the one that training started from, nats per completion; None if not measured.

    Mean of log p - log p_start over completions of the policy: Schulman's unbiased k1.
    """
    gaps = samples.logp_PN.astype(float) - samples.reference_PN
    return None if np.isnan(gaps).any() else float(gaps.mean())


def mean_tokens_where(samples: Samples, correct: bool) -> float | None:
    """Mean length of the completions that are right, or wrong; None if there are none."""
    chosen = samples.tokens_PN[samples.correct_PN == correct]
    return float(chosen.mean()) if chosen.size else None


def well_formed(samples: Samples) -> Floats:
    """Share of completions that keep to `<think>…</think><answer>…</answer>` and stop."""
    return _mean(samples.formed_PN)


def truncated(samples: Samples) -> Floats:
    """Share of completions that ran into the token limit."""
    return 1 - _mean(samples.stopped_PN)


def voice_shares(samples: Samples) -> dict[str, float]:
    """Share of completions in each voice; they add up to 1."""
    return {voice: float((samples.voice_PN == voice).mean()) for voice in VOICES}


def language_shares(samples: Samples) -> dict[str, float]:
    """Share of the chains in each language, and of those with steps in both; empty where there is no chain."""
    chains = samples.language_PN[samples.language_PN != ""]
    return {language: float((chains == language).mean()) for language in LANGUAGES if chains.size}


def chain_truth(samples: Samples) -> dict[str, float]:
    """Shares of all completions by answer and chain, every step checked exactly; they add up to 1.

    `right_by_wrong` is a right answer by a wrong chain: luck, or steps that the model does not rely on.
    """
    labels = {"right": "by_right", "wrong": "by_wrong", "none": "without", "unchecked": "unchecked"}
    shares = {}
    for answer, correct in (("right", True), ("wrong", False)):
        for chain in CHAINS:
            chosen_PN = (samples.correct_PN == correct) & (samples.chain_PN == chain)
            shares[f"{answer}_{labels[chain]}"] = float(chosen_PN.mean())
    return shares
