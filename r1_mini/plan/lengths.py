"""How long prompts and worked solutions are, from a few drawn problems."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from transformers import PreTrainedTokenizerBase

from r1_mini.data.mix import draw
from r1_mini.data.source import Source
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.problems.problem import Problem, Split
from r1_mini.train.corpus import completion

DRAWN = 200


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of drawn problems; `solutions` is empty where the problems come without steps."""

    prompts: tuple[int, ...]
    solutions: tuple[int, ...]
    """Of the worked solution, its stop token included."""

    def share_longer(self, tokens: int) -> float:
        """Share of the worked solutions that do not fit into so many tokens."""
        return sum(length > tokens for length in self.solutions) / len(self.solutions)


def drawn_lengths(tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], wording: str) -> Lengths:
    """Lengths of these problems, as a stage asks them and the corpus solves them."""
    rng = random.Random("plan")
    solved = [completion(problem, "worked", wording, rng) for problem in problems if problem.steps]
    solutions = tokenizer(solved, add_special_tokens=False)["input_ids"] if solved else []
    return Lengths(
        tuple(map(len, encode(tokenizer, [prompt_for(tokenizer, problem.question) for problem in problems]))),
        tuple(len(ids) + 1 for ids in solutions),
    )


def some_problems(sources: Sequence[Source], split: Split, seed: int) -> list[Problem]:
    """The first problems that a stage draws."""
    return list(islice(draw(sources, split, seed), DRAWN))
