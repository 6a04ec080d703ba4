"""Problems from reasoning-gym: `reasoning_gym: NAME`, any of its tasks, with the task's own verifier.

That package samples item i of seed s from `Random(s + i)`, so data sets of neighboring seeds share almost all items.
Here the split is by the question, as everywhere. A problem's `answer` is its task, settings and seed; the process that
judges makes the rest again.
"""

import json
import random
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from pydantic import Field

from r1_mini.data.source import PATIENCE, Source
from r1_mini.errors import UserError, shown
from r1_mini.judges.sandbox import gym_entry, verified
from r1_mini.problems.problem import Problem, Split, is_held_out, split_of
from r1_mini.problems.wording import canonical_text

_PROVED = 8  # problems that a verifier is tried on


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
        refused = 0
        while refused < PATIENCE:
            gold, question, _ = self.entry(rng.getrandbits(31))
            key = canonical_text(question)
            # what would be for a base stage trains too: there is no worked text that a base stage could use
            own = split_of(key) if is_held_out(key) else "train"
            refused = 0 if own == split else refused + 1
            if own == split:
                yield Problem(
                    family=self.name,
                    question=question,
                    answer=gold,
                    difficulty={"depth": 0},  # not known
                    key=key,
                    judge="reasoning_gym",
                )

    def entry(self, seed: int) -> tuple[str, str, str | None]:
        """The task's problem of a seed: what its verifier needs, the question, and an answer if there is only one."""
        gold = json.dumps({"task": self.reasoning_gym, "config": self.config, "seed": seed})
        try:
            entry = gym_entry(gold)
        except ValueError as error:
            where = f"reasoning_gym: {self.reasoning_gym}"
            raise UserError(f"refused: {error}", where=where, fix="correct its name or its `config`") from None
        return gold, entry["question"], entry["answer"]

    def _data_hash(self) -> str:
        """The hash of the first problems: another version of the package may sample others.

        UserError if their verifier holds nonsense right, or its own answer wrong.
        """
        digest = sha256()
        for seed in range(_PROVED):
            gold, question, answer = self.entry(seed)
            digest.update(json.dumps([question, answer]).encode())
            accepts_nonsense = verified("reasoning_gym", "no answer", gold)
            if accepts_nonsense or (answer is not None and not verified("reasoning_gym", answer.strip(), gold)):
                what = "nonsense right" if accepts_nonsense else f"its own answer {shown(answer)} wrong"
                where = f"reasoning_gym: {self.reasoning_gym}"
                raise UserError(f"its verifier holds {what}", where=where, fix="choose another task")
        return digest.hexdigest()
