"""Rewards: rules that score one completion, controls that score a batch, the adapter to TRL, and metrics of a batch.

A rule is a pure function of a graded completion, which has its problem. A new one is a function here and a line in
`RULES`; a recipe then weighs it by name. Only answer and format are rewarded, neither the length nor the steps.
A reward of the user's own is a function in a file of theirs (`own_reward.py`).

A control is a reward that must not teach arithmetic, for the sceptic who asks whether any reward would have done the
same (Spurious Rewards, 2506.10947). It sees a whole batch: what is right in it, and how long each completion is.

Not here: advantages (`train/advantages.py`), and how a completion is read and judged (`completion.py`).
"""

import random
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field
from transformers import TrainerState

from r1_mini.completion import Graded, Voice
from r1_mini.config.base import Strict, known_name
from r1_mini.judges.sandbox import timeouts
from r1_mini.own_reward import own_reward
from r1_mini.problems.languages import Language
from r1_mini.problems.problem import Problem
from r1_mini.system import distributed as processes
from r1_mini.system import plugin

Rule = Callable[[Graded], float | None]
"""A graded completion -> reward; None, which adds nothing, where the rule does not apply."""


def accuracy(graded: Graded) -> float:
    """1 if the completion is finished and its answer is right, else 0."""
    return float(graded.correct)


def mentioned(graded: Graded) -> float:
    """1 if the completion is finished and the right answer occurs anywhere in it, as a whole number or word, else 0."""
    whole = rf"(?<!\w)(?<!\d[.,])(?<![=>\s]-){re.escape(graded.problem.answer)}(?!\w|[.,]\d)"
    return float(graded.correct or (graded.finish == "stop" and re.search(whole, graded.text) is not None))


def well_formed(graded: Graded) -> float:
    """1 if the completion is finished and is `<think>…</think><answer>…</answer>`, whatever its text, else 0."""
    return float(graded.well_formed)


def in_language(wanted: Language, graded: Graded) -> float | None:
    """The share of the steps that are in the wanted language (2501.12948, section 2.3.2); None if no step has one."""
    languages = graded.languages
    return languages.count(wanted) / len(languages) if languages else None


def brief(graded: Graded) -> float | None:
    """1 if a problem of one operation is answered at once, 0 if with steps; None for longer problems."""
    return float(graded.voice == "direct") if graded.problem.difficulty["depth"] == 1 else None


RULES: dict[str, Rule] = {
    "accuracy": accuracy,
    "format": well_formed,
    "language_signs": partial(in_language, "signs"),
    "language_words": partial(in_language, "words"),
    "brief": brief,
}

Strictness = Literal["exact", "weak"]
ACCURACY: dict[Strictness, Rule] = {"exact": accuracy, "weak": mentioned}
"""What `accuracy` pays by the `judge` of a stage; a weak one is there to study what RL makes of it."""


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


class Late(Strict):
    """A weight that counts only in the last part of the training, as R1's second RL weighs preferences."""

    weight: float
    from_step: int = Field(ge=0)
    """Steps that are trained before it counts."""


def _known(weights: dict[str, float | Late]) -> dict[str, float | Late]:
    for name in weights:
        if not plugin.is_own(name):
            known_name(name, [*RULES, *CONTROLS], key=name)
    return weights


Weights = Annotated[dict[str, float | Late], AfterValidator(_known), Field(min_length=1)]
"""Name of a rule, a control or a function of the user's own -> its weight in the sum."""


def as_trl_reward(name: str, from_step: int = 0, judge: Strictness = "exact") -> Callable[..., Sequence[float | None]]:
    """The rule, control or own function as one of TRL's `reward_funcs`, which counts from a step on. It needs a column
    beside TRL's own arguments: `graded`."""
    own = own_reward(name) if plugin.is_own(name) else None
    rule = (RULES | {"accuracy": ACCURACY[judge]}).get(name, accuracy)  # a control sees each completion's accuracy

    def reward(
        prompts: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        graded: Sequence[Graded],
        trainer_state: TrainerState | None = None,
        **columns: Any,
    ) -> Sequence[float | None]:
        if trainer_state is not None and trainer_state.global_step < from_step:
            return [None] * len(completions)
        if own is not None:
            columns_B = {"prompts": prompts, "completions": completions, "completion_ids": completion_ids}
            return own(graded, columns_B, trainer_state)
        scores = list(map(rule, graded))
        if name in RULES:
            return scores
        rng = random.Random(repr((name, prompts, completions)))  # of the batch alone: the same when a run resumes
        return CONTROLS[name]([score or 0.0 for score in scores], [len(ids) for ids in completion_ids], rng)

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
        "verifier_timeouts": float(sum(processes.gather([timeouts()]))),  # so far; after the grading above
    }


MOST_KINDS = 16
"""A problem's kind has a metric of its own where there are not more of them."""


def kind_of(problem: Problem) -> str:
    """The metric of a problem's family and depth: `accuracy_sum_3`, and `accuracy_mine` where depth is unknown."""
    depth = problem.difficulty.get("depth", 0)
    return f"accuracy_{problem.family}_{depth}" if depth else f"accuracy_{problem.family}"


def kinds_of(problems: Sequence[Problem]) -> tuple[str, ...]:
    """The kinds of problems that have a metric each; none if there are too many."""
    kinds = sorted(set(map(kind_of, problems)))
    return tuple(kinds) if len(kinds) <= MOST_KINDS else ()


def accuracy_by_kind(graded: Sequence[Graded], kinds: Sequence[str]) -> dict[str, float]:
    """The share of right completions of each kind; NaN for one that was not asked."""
    asked = [(kind_of(each.problem), float(each.correct)) for each in graded] if kinds else []
    return {kind: _mean([right for mine, right in asked if mine == kind]) for kind in kinds}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
