"""Rollouts that are kept: the same prompts answered again and again while a policy learns, as rows of rollouts.jsonl.

They show one question at step 0, 25, 50 …, and are what a doctor reads. The pilot of a recipe is the first of them,
asked before anything is trained. Not here: the rollouts that are trained on (`grpo.py`).
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, islice, zip_longest
from typing import Any

from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerState

from r1_mini.completion import grade
from r1_mini.config.base import Strict
from r1_mini.problems.problem import Problem
from r1_mini.rewards import kind_of
from r1_mini.rollout.generate import generate_together
from r1_mini.rollout.params import SamplingParams

FILE = "rollouts.jsonl"
POOL = 200
"""Problems of a stage that those to ask are chosen from."""


Weighed = tuple[str, float, Callable[..., Sequence[float | None]]]
"""A reward: its name, its weight, and the function as TRL calls it."""


class Kept(Strict):
    """Which rollouts are kept. They change nothing: a completion depends on seed, prompt and weights alone."""

    every: int = Field(25, ge=1)
    """Steps between two; step 0 and the last one are kept too."""
    problems: int = Field(8, ge=1, le=1000)
    samples: int = Field(4, ge=1, le=1000)
    """Completions of each problem."""


def spread(problems: Iterable[Problem], n: int) -> list[Problem]:
    """`n` different problems, or all there are, the first of each kind and depth in turn, of the first `POOL`."""
    distinct = {each.question: each for each in islice(problems, POOL)}.values()
    ordered = sorted(distinct, key=kind_of)  # those of a kind stay as they were sampled
    groups = [list(group) for _, group in groupby(ordered, key=kind_of)]
    return [each for turn in zip_longest(*groups) for each in turn if each is not None][:n]


def rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    params: SamplingParams,
    rewards: Sequence[Weighed],
    state: TrainerState,
) -> list[dict[str, Any]]:
    """`params.n` graded completions of each problem, with what each reward pays for them."""
    groups = generate_together(model, tokenizer, problems, params)
    flat = [(number, index, sample) for number, group in enumerate(groups) for index, sample in enumerate(group)]
    samples = [sample for _, _, sample in flat]
    batch = {
        "prompts": [each.prompt for each in samples],
        "completions": [each.text for each in samples],
        "completion_ids": [each.tokens for each in samples],
        "graded": [each.graded for each in samples],
        "trainer_state": state,
    }
    parts = {name: function(**batch) for name, _, function in rewards}
    found = []
    for place, (number, index, sample) in enumerate(flat):
        graded, problem = sample.graded, sample.graded.problem
        steps = graded.steps
        if steps is None and sample.finish == "length":  # the lines that are whole
            steps = grade(problem, f"{sample.text.rpartition(chr(10))[0]}</think>", "length").steps
        paid = {name: values[place] for name, values in parts.items()}
        found.append(
            {
                "step": state.global_step,
                "problem": number,
                "sample": index,
                "family": problem.family,
                "depth": problem.difficulty.get("depth", 0),
                "question": problem.question,
                "right": problem.answer,
                "prompt": sample.prompt,
                "text": sample.text,
                "finish": sample.finish,
                "tokens": len(sample.tokens),
                "logp": sample.logp,
                "correct": graded.correct,
                "well_formed": graded.well_formed,
                "voice": graded.voice,
                "language": graded.language,
                "chain": graded.chain,
                "steps": None if steps is None else [[each.text, each.verdict] for each in steps],
                "reward": sum(weight * (paid[name] or 0.0) for name, weight, _ in rewards),
                "rewards": paid,
            }
        )
    return found
