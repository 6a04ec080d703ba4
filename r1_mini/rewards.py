"""Rules that score a completion, and the one adapter that hands them to TRL.

A rule is a pure function of a transcript and the right answer. A new one is a function here and a line in `RULES`; a
recipe then weighs it by name. Only the final answer and the form are rewarded: not the length, not the steps.

A control is a reward that must not teach arithmetic, for the sceptic who asks whether any reward would have done the
same (Spurious Rewards, 2506.10947). It sees a whole batch: what is right there, and how long it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from r1_mini.completion import Finish, Transcript, is_correct, read

Rule = Callable[[Transcript, str, str], float]
"""(completion, the right answer, its judge) -> reward."""


def accuracy(transcript: Transcript, answer: str, judge: str = "number") -> float:
    """1 if the completion is finished and its answer is right, else 0."""
    return float(is_correct(transcript, answer, judge))


def well_formed(transcript: Transcript, answer: str = "", judge: str = "") -> float:
    """1 if the completion is finished and is `<think>…</think><answer>…</answer>`, whatever it says, else 0."""
    return float(transcript.well_formed)


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


def as_trl_reward(name: str) -> Callable[..., list[float]]:
    """The rule or control as one of TRL's `reward_funcs`: one float for each completion of the batch.

    Beside TRL's own arguments it needs columns: `answer` and `judge` from the data set, `finish` from the sampler.
    """
    known = [*RULES, *CONTROLS]
    if name not in known:
        raise ValueError(
            f"unknown reward {name!r}; nearest known: {get_close_matches(name, known, n=1, cutoff=0)[0]!r}"
        )
    rule = RULES.get(name, accuracy)  # a control looks at accuracy

    def reward(
        prompts: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        answer: Sequence[str],
        judge: Sequence[str],
        finish: Sequence[Finish],
        **columns: Any,
    ) -> list[float]:
        transcripts = map(read, completions, finish, prompts)
        scores = [rule(*one) for one in zip(transcripts, answer, judge, strict=True)]
        if name in RULES:
            return scores
        rng = random.Random(repr((name, prompts, completions)))  # the batch's own: the same when a run resumes
        return CONTROLS[name](scores, [len(ids) for ids in completion_ids], rng)

    reward.__name__ = name
    return reward
