"""Rewards: rules that score one completion, controls that score a batch, the adapter to TRL, and metrics of a batch.

A rule is a pure function of a graded completion, which has its problem. A new one is a function here and a line in
`RULES`; a recipe then weighs it by name. Only answer and format are rewarded, neither the length nor the steps.

A control is a reward that must not teach arithmetic, for the sceptic who asks whether any reward would have done the
same (Spurious Rewards, 2506.10947). It sees a whole batch: what is right in it, and how long each completion is.

Not here: advantages (`train/advantages.py`), and how a completion is read and judged (`completion.py`).
"""

import random
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field

from r1_mini.completion import Graded, Voice
from r1_mini.config.base import known_name
from r1_mini.judges.sandbox import timeouts

Rule = Callable[[Graded], float]
"""A graded completion -> reward."""


def accuracy(graded: Graded) -> float:
    """1 if the completion is finished and its answer is right, else 0."""
    return float(graded.correct)


def well_formed(graded: Graded) -> float:
    """1 if the completion is finished and is `<think>…</think><answer>…</answer>`, whatever its text, else 0."""
    return float(graded.well_formed)


RULES: dict[str, Rule] = {"accuracy": accuracy, "format": well_formed}


Control = Callable[[Sequence[float], Sequence[int], random.Random], list[float]]
"""(accuracy of each completion, its tokens, random numbers that depend on the batch alone) -> its reward."""


def at_random(right: Sequence[float], tokens: Sequence[int], rng: random.Random) -> list[float]:
    """1 with the chance that a completion of the batch is right, else 0: the true reward's mean, and nothing else."""
    share = sum(right) / len(right)
    return [float(rng.random() < share) for _ in right]


def shuffled(right: Sequence[float], tokens: Sequence[int], rng: random.Random) -> list[float]:
    """The batch's own rewards, each given to some completion of it."""
    return rng.sample(list(right), len(right))


def inverted(right: Sequence[float], tokens: Sequence[int], rng: random.Random) -> list[float]:
    """1 for what is wrong, 0 for what is right."""
    return [1.0 - value for value in right]


def length(right: Sequence[float], tokens: Sequence[int], rng: random.Random) -> list[float]:
    """The tokens of a completion as a share of the longest in the batch."""
    return [count / max(tokens) for count in tokens]


def constant(right: Sequence[float], tokens: Sequence[int], rng: random.Random) -> list[float]:
    """1 for everything: no completion has an advantage."""
    return [1.0 for _ in right]


CONTROLS: dict[str, Control] = {
    "random": at_random,
    "shuffled": shuffled,
    "inverted": inverted,
    "length": length,
    "constant": constant,
}


def _known(weights: dict[str, float]) -> dict[str, float]:
    for name in weights:
        known_name(name, [*RULES, *CONTROLS], key=name)
    return weights


Weights = Annotated[dict[str, float], AfterValidator(_known), Field(min_length=1)]
"""Name of a rule or control -> its weight in the sum."""


def as_trl_reward(name: str) -> Callable[..., list[float]]:
    """The rule or control as one of TRL's `reward_funcs`. It needs a column beside TRL's own arguments: `graded`."""
    rule = RULES.get(name, accuracy)  # a control sees the accuracy of each completion

    def reward(
        prompts: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        graded: Sequence[Graded],
        **columns: Any,
    ) -> list[float]:
        scores = list(map(rule, graded))
        if name in RULES:
            return scores
        rng = random.Random(repr((name, prompts, completions)))  # of the batch alone: the same when a run resumes
        return CONTROLS[name](scores, [len(ids) for ids in completion_ids], rng)

    reward.__name__ = name
    return reward


def rollout_metrics(graded: Sequence[Graded], lengths: Sequence[int]) -> dict[str, float]:
    """Shares and mean lengths (tokens) of B completions; the mean of nothing is NaN."""
    voices = [each.voice for each in graded]
    return {
        "accuracy": _mean([float(each.correct) for each in graded]),
        "format": _mean([float(each.well_formed) for each in graded]),
        "length_right": _mean([length for length, each in zip(lengths, graded, strict=True) if each.correct]),
        "length_wrong": _mean([length for length, each in zip(lengths, graded, strict=True) if not each.correct]),
        **{f"voice_{voice}": voices.count(voice) / len(voices) for voice in get_args(Voice)},
        "verifier_timeouts": float(timeouts()),  # so far; after the grading above
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
