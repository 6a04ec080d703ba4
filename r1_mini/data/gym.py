"""Problems from reasoning-gym: `reasoning_gym: NAME`, any of its tasks, with the task's own verifier.

That package draws item i of seed s from `Random(s + i)`, so a data set of seed 2 is that of seed 1 shifted by one: 999
of 1,000 items alike. Here the split is by the question, as everywhere, and no seed can put a problem into two splits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random
from collections.abc import Container
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from pydantic import ConfigDict, Field, field_validator

from r1_mini.data.source import PATIENCE, Source
from r1_mini.errors import UserError, nearest, shown
from r1_mini.judges.sandbox import require, verified
from r1_mini.judges.sandbox_process import packed
from r1_mini.problems.problem import Problem, Split, is_held_out, split_of
from r1_mini.problems.wording import canonical_text

_PROVED = 8  # problems that a verifier is tried on
_NONSENSE = "no answer"


class GymTask(Source):
    """A task of reasoning-gym, such as `{reasoning_gym: chain_sum, config: {max_terms: 4}}`."""

    model_config = ConfigDict(serialize_by_alias=True)

    KEY = "reasoning_gym"

    reasoning_gym: str = Field(min_length=1)
    """Name of the task."""
    config: dict[str, Any] = Field({})
    """The task's own settings, but `seed` and `size`, which are ours."""
    label: str | None = Field(None, alias="name", min_length=1, max_length=60)
    """What its problems are called in an exam; null is the name of the task."""

    @field_validator("config")
    @classmethod
    def _seed_is_ours(cls, config: dict[str, Any]) -> dict[str, Any]:
        for key in ("seed", "size"):
            if key in config:
                raise ValueError(f"config.{key} is not for you to set: problems are drawn by our split; remove it")
        return config

    @property
    def name(self) -> str:
        return self.label or self.reasoning_gym

    def draw(self, split: Split, rng: random.Random) -> Problem:
        return self._draw_one(split, rng, ())

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        """As every source; depth is not known."""
        rng = random.Random(f"exam {split} {seed}")
        drawn: dict[str, Problem] = {}
        while len(drawn) < n:
            problem = self._draw_one(split, rng, drawn, used)
            drawn[problem.key] = problem
        return list(drawn.values())

    def content_hash(self) -> str:
        """The version of the package: another may draw and judge otherwise. UserError if the verifier is no judge."""
        _prove(self.reasoning_gym, json.dumps(self.config, sort_keys=True))
        return version("reasoning_gym")

    def _draw_one(self, split: Split, rng: random.Random, *used: Container[str]) -> Problem:
        for _ in range(PATIENCE):
            entry = self.entry(rng.getrandbits(31))
            key = canonical_text(entry["question"])
            if self._split_for(key) == split and not any(key in keys for keys in used):
                return Problem(
                    family=self.name,
                    question=entry["question"],
                    answer=self.gold(entry),
                    steps=(),
                    restated=(),
                    difficulty={"depth": 0},
                    key=key,
                    inside=frozenset(),
                    judge="reasoning_gym",
                )
        raise ValueError(f"{self.name}: no further {split} problem in {PATIENCE} draws; ask for fewer problems")

    def _split_for(self, key: str) -> Split:
        """As `split_of`, but what would be for a base stage trains too: there is no worked text that it could use."""
        return split_of(key) if is_held_out(key) else "train"

    def gold(self, entry: dict[str, Any]) -> str:
        """What the verifier needs, as JSON."""
        gold = {"task": self.reasoning_gym, "config": packed(self.config), "entry": packed(entry)}
        try:
            return json.dumps(gold, ensure_ascii=False)
        except (TypeError, ValueError):
            what = "its problems hold what cannot be saved as JSON"
            raise UserError(what, where=self._place, fix="choose another task") from None

    def entry(self, seed: int) -> dict[str, Any]:
        """The task's problem of a seed: question, answer (None where many are right) and what its verifier needs."""
        make, settings = _task(self.reasoning_gym)
        for key in self.config:
            if key not in settings:
                raise UserError(
                    f"no setting is called '{key}'", where=f"{self._place}.config", fix=nearest(key, settings)
                )
        with contextlib.redirect_stdout(io.StringIO()):  # some tasks print
            try:
                return dict(make(self.reasoning_gym, seed=seed, size=1, **self.config)[0])
            except (AssertionError, TypeError, ValueError) as error:
                raise UserError(
                    f"its settings are refused: {error}", where=f"{self._place}.config", fix="change them"
                ) from None

    @property
    def _place(self) -> str:
        return f"reasoning_gym: {self.reasoning_gym}"


@lru_cache(maxsize=64)
def _prove(name: str, config: str) -> None:
    """Ask the verifier of a task what it has to know; UserError if it holds nonsense right or its own answer wrong."""
    task = GymTask(reasoning_gym=name, config=json.loads(config))
    for seed in range(_PROVED):
        entry = task.entry(seed)
        own, gold = entry["answer"], task.gold(entry)
        if verified("reasoning_gym", _NONSENSE, gold):
            what = "its verifier holds nonsense right"
        elif own is not None and not verified("reasoning_gym", str(own).strip(), gold):
            what = f"its verifier holds its own answer {shown(own)} wrong"
        else:
            continue
        raise UserError(what, where=f"reasoning_gym: {name}", fix="choose another task")


@lru_cache(maxsize=64)
def _task(name: str) -> tuple[Any, frozenset[str]]:
    """The function that makes a data set of a task, and the task's settings."""
    require("reasoning_gym")
    from reasoning_gym.factory import DATASETS, create_dataset

    if name not in DATASETS:
        raise UserError(f"no task is called '{name}'", where="reasoning_gym", fix=nearest(name, DATASETS))
    fields = {field.name for field in dataclasses.fields(DATASETS[name][1])}
    return create_dataset, frozenset(fields - {"seed", "size"})
