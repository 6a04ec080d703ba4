"""Rules that score a completion, and the one adapter that hands them to TRL.

A rule is a pure function of a transcript and the right answer. A new one is a function here and a line in `RULES`; a
recipe then weighs it by name. Only the final answer and the form are rewarded: not the length, not the steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

from r1_mini.transcript import Finish, Transcript, is_correct, read

Rule = Callable[[Transcript, str], float]


def accuracy(transcript: Transcript, answer: str) -> float:
    """1 if the completion is finished and its answer has exactly the right value, else 0."""
    return float(is_correct(transcript, answer))


def well_formed(transcript: Transcript, answer: str = "") -> float:
    """1 if the completion is finished and is `<think>…</think><answer>…</answer>`, whatever it says, else 0."""
    return float(transcript.well_formed)


RULES: dict[str, Rule] = {"accuracy": accuracy, "format": well_formed}


def as_trl_reward(name: str) -> Callable[..., list[float]]:
    """The rule as one of TRL's `reward_funcs`: one float for each completion of the batch.

    Beside TRL's own arguments it needs two columns: `answer` from the data set and `finish` from the sampler.
    """
    if name not in RULES:
        raise ValueError(
            f"unknown reward {name!r}; nearest known: {get_close_matches(name, RULES, n=1, cutoff=0)[0]!r}"
        )
    rule = RULES[name]

    def reward(
        prompts: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        answer: Sequence[str],
        finish: Sequence[Finish],
        **columns: Any,
    ) -> list[float]:
        read_all = map(read, completions, finish)
        return [rule(transcript, right) for transcript, right in zip(read_all, answer, strict=True)]

    reward.__name__ = name
    return reward
