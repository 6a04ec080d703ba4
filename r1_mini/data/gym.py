"""Problems from reasoning-gym: `reasoning_gym: NAME`, any of its tasks, with the task's own verifier.

That package samples item i of seed s from `Random(s + i)`, so a data set of seed 2 is that of seed 1 shifted by one:
999 of 1,000 items alike. Here the split is by the question, as everywhere, and no seed can put a problem into two
splits. A problem is a function of task, settings and seed: its `answer` is those three, and the process that judges
makes the rest again.
"""

import json
import random
from collections.abc import Container, Iterator
from functools import lru_cache
from hashlib import sha256
from typing import Any

from pydantic import Field

from r1_mini.data.source import PATIENCE, Source
from r1_mini.errors import UserError, shown
from r1_mini.judges.sandbox import gym_entry, verified
from r1_mini.problems.problem import Problem, Split, is_held_out, split_of
from r1_mini.problems.wording import canonical_text

_PROVED = 8  # problems that a verifier is tried on
_NONSENSE = "no answer"


class GymTask(Source):
    """A task of reasoning-gym, such as `{reasoning_gym: chain_sum, config: {max_terms: 4}}`."""

    KEYS = ("reasoning_gym",)

    reasoning_gym: str = Field(min_length=1)
    """Name of the task."""
    config: dict[str, Any] = Field({})
    """The task's own settings, but `seed` and `size`, which are ours."""
    label: str | None = Field(None, alias="name", min_length=1, max_length=60)
    """What its problems are called in an exam; null is the name of the task."""

    @property
    def name(self) -> str:
        return self.label or self.reasoning_gym

    def _stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        while True:
            yield self._sample(split, rng)

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        """As every source; depth is not known."""
        rng = random.Random(f"exam {split} {seed}")
        problems: dict[str, Problem] = {}
        while len(problems) < n:
            problem = self._sample(split, rng, problems, used)
            problems[problem.key] = problem
        return list(problems.values())

    def _data_hash(self) -> str:
        """Of the first problems: another version of the package may sample others."""
        return _prove(self.reasoning_gym, json.dumps(self.config, sort_keys=True))

    def _sample(self, split: Split, rng: random.Random, *used: Container[str]) -> Problem:
        for _ in range(PATIENCE):
            gold, question, _ = self.entry(rng.getrandbits(31))
            key = canonical_text(question)
            # what would be for a base stage trains too: there is no worked text that a base stage could use
            own = split_of(key) if is_held_out(key) else "train"
            if own == split and not any(key in keys for keys in used):
                return Problem(
                    family=self.name,
                    question=question,
                    answer=gold,
                    difficulty={"depth": 0},
                    key=key,
                    judge="reasoning_gym",
                )
        raise self.exhausted(f"no further {split} problem in {PATIENCE:,} samples")

    def entry(self, seed: int) -> tuple[str, str, str | None]:
        """The task's problem of a seed: what its verifier needs, the question, and an answer if there is only one."""
        gold = json.dumps({"task": self.reasoning_gym, "config": self.config, "seed": seed})
        try:
            if taken := {"seed", "size"} & self.config.keys():
                raise ValueError(f"`{min(taken)}` is not for you to set")
            entry = gym_entry(gold)
        except ValueError as error:
            where = f"reasoning_gym: {self.reasoning_gym}"
            raise UserError(f"refused: {error}", where=where, fix="correct its name or its `config`") from None
        return gold, entry["question"], entry["answer"]


@lru_cache(maxsize=64)
def _prove(name: str, config: str) -> str:
    """Ask the verifier of a task what it has to know; the hash of the problems that it was asked.

    UserError if it holds nonsense right, or its own answer wrong.
    """
    task = GymTask(reasoning_gym=name, config=json.loads(config))
    digest = sha256()
    for seed in range(_PROVED):
        gold, question, answer = task.entry(seed)
        digest.update(json.dumps([question, answer]).encode())
        accepts_nonsense = verified("reasoning_gym", _NONSENSE, gold)
        if accepts_nonsense or (answer is not None and not verified("reasoning_gym", answer.strip(), gold)):
            what = "nonsense right" if accepts_nonsense else f"its own answer {shown(answer)} wrong"
            where = f"reasoning_gym: {name}"
            raise UserError(f"its verifier holds {what}", where=where, fix="choose another task")
    return digest.hexdigest()
