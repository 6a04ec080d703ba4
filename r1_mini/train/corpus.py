"""The text that a base model reads: worked arithmetic in several voices.

Not here: the problems and their solutions (`problems/`), the training on them (`sft.py`).
"""

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal, Self

from datasets import Dataset
from pydantic import Field, model_validator
from transformers import PreTrainedTokenizerBase

from r1_mini.completion import write
from r1_mini.config.base import Strict
from r1_mini.data.mix import draw
from r1_mini.data.source import Source
from r1_mini.model.prompts import encode
from r1_mini.problems.arithmetic import canonical_key, operations, parse
from r1_mini.problems.languages import written
from r1_mini.problems.problem import Problem, is_held_out

_NUMBER = re.compile(r"\d+")
WINDOW = 64
"""Batches that are sorted together, by the length of the prompt: little padding, a random order of batches, and mixed
voices within a batch. Sorted by the whole length, short answers would fill batches of their own, where a token weighs
more, and the model would learn a larger share of them than the corpus has."""


Wording = Literal["list", "restate"]
"""How a step is written: `12+7=19`, or the whole expression after the step."""


class Shares(Strict):
    """Shares of a mixture, which sum to 1."""

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        shares = self.model_dump()
        total = math.fsum(shares.values())
        if abs(total - 1) > 1e-6:
            *names, last = shares
            raise ValueError(f"{', '.join(names)} and {last} sum to {total:g}, not 1")
        return self


class Voices(Shares):
    """Shares of the styles of answer."""

    direct: float = Field(0.60, ge=0, le=1)
    worked: float = Field(0.35, ge=0, le=1)
    checked: float = Field(0.05, ge=0, le=1)


class Languages(Shares):
    """Shares of the languages of chains; a `mixed` one adds in signs and subtracts in words."""

    signs: float = Field(1.0, ge=0, le=1)
    words: float = Field(0.0, ge=0, le=1)
    mixed: float = Field(0.0, ge=0, le=1)


IN_SIGNS = Languages().model_dump()


def corpus(
    sources: Sequence[Source],
    voices: Mapping[str, float],
    wording: str,
    seed: int | str,
    ask: Callable[[str], str],
    languages: Mapping[str, float] = IN_SIGNS,
    as_given: bool = False,
) -> Iterator[tuple[str, str]]:
    """An endless stream of (prompt, completion) over the base split. The answer always follows from the chain.

    `voices` and `languages` are shares; `ask` makes the prompt of a question. `as_given`: a solution that a problem
    brings is written in every voice.
    """
    rng = random.Random(f"corpus {seed}")
    names, shares = list(voices), list(voices.values())
    for problem in draw(sources, "base", seed):
        (voice,) = rng.choices(names, shares)
        voice = "worked" if as_given and problem.solution else voice
        yield ask(problem.question), completion(problem, voice, wording, rng, languages)


def completion(
    problem: Problem, voice: str, wording: str, rng: random.Random, languages: Mapping[str, float] = IN_SIGNS
) -> str:
    """A right answer to a problem in a voice; a solution that the problem brings is both worked and checked."""
    if voice == "direct":
        return write((), problem.answer)
    if problem.solution is not None:
        return problem.solution
    lines = problem.restated if wording == "restate" and problem.restated else problem.steps
    if voice == "checked":
        lines = with_retraction(lines, rng)
    if languages != IN_SIGNS:
        (language,) = rng.choices(list(languages), list(languages.values()))
        lines = written(lines, language)
    return write(lines, problem.answer)


def with_retraction(lines: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """The steps, one of which is first wrong, then taken back with `wait`, and done again."""
    index = rng.randrange(len(lines))
    return (*lines[:index], _spoiled(lines[index], rng), "wait", *lines[index:])


def _spoiled(line: str, rng: random.Random) -> str:
    """The step with one digit of its result changed; where the line restates the expression, of its first number.

    A line that would state a held-out problem of two or more operations is not written.
    """
    number = _NUMBER.search(line, line.rfind("=") + 1)
    assert number is not None
    while True:
        place = rng.randrange(*number.span())
        leads = place == number.start() and len(number[0]) > 1
        digit = rng.choice([d for d in "0123456789"[leads:] if d != line[place]])
        spoiled = line[:place] + digit + line[place + 1 :]
        if "=" in spoiled or operations(tree := parse(spoiled)) < 2 or not is_held_out(canonical_key(tree)):
            return spoiled


def tokenized(
    texts: Iterator[tuple[str, str]],
    tokenizer: PreTrainedTokenizerBase,
    rows: int,
    batch_size: int,
    seed: int,
    progress: Callable[[int], None] = lambda count: None,
) -> Dataset:
    """`rows` examples in the order of training: `input_ids` and `labels`, which are -100 on the prompt."""
    rng = random.Random(f"order {seed}")
    window = WINDOW * batch_size
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for start in range(0, rows, window):
        pairs = list(islice(texts, min(window, rows - start)))
        prompts, completions = (encode(tokenizer, side) for side in zip(*pairs, strict=True))
        examples = [(p, [*c, tokenizer.eos_token_id]) for p, c in zip(prompts, completions, strict=True)]
        examples.sort(key=lambda example: len(example[0]))
        batches = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
        rng.shuffle(batches)
        for p, c in (example for batch in batches for example in batch):
            columns["input_ids"].append(p + c)
            columns["labels"].append([-100] * len(p) + c)
        progress(len(examples))
    return Dataset.from_dict(columns)
