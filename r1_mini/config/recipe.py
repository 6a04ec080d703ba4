"""A recipe: YAML and `key=value` overrides become frozen, validated settings.

Everything a run depends on stands in here, validated before anything is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from r1_mini.config import yaml_file
from r1_mini.config.base import Families, Seed, Several, Strict, explain, wrong
from r1_mini.data.source import Source
from r1_mini.model.template import PromptStyle
from r1_mini.train import AnyStage
from r1_mini.train.stage import Problems, StageSettings


class Evaluate(Strict):
    """The exam at the end of a run; null takes the suite's own value."""

    suite: str = "arithmetic"
    """Name of a suite in eval/exam/suites, or the path of one; `own` asks the problems of the recipe."""
    families: Families | None = None
    """Those of the suite's families to ask; null is all."""
    limit: int | None = Field(None, ge=2, le=1_000_000)
    """Ask the first so many problems, evenly from all entries of the suite."""
    split: Literal["dev", "test"] | None = None
    """Settings are chosen on dev; test is for the figures that are reported."""
    samples: int | None = Field(None, ge=1, le=10_000)
    """Completions per problem."""
    greedy: bool | None = None
    """Whether each problem is also answered once at temperature 0."""
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=100_000)
    """Longest completion, tokens."""
    rows: int | None = Field(None, ge=1, le=1_000_000)
    """Most completions in work at once."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of every checkpoint that is examined, however it was saved."""
    seed: Seed | None = None


class Recipe(Strict):
    """One run: problems, stages in order, the exam."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Also the name of the run folder."""
    seed: Seed = 0
    model: str | None = None
    """The model that the first stage starts from, a folder or an id on the Hub; null when that stage is `base`."""
    prompt: PromptStyle = "auto"
    """How that model is asked: by its `chat` template, or as R1-Zero asked `base` models; `auto` is chat where there is
    a template, which some base models have too. What is trained is saved with the template it was trained on."""
    problems: Problems = ()
    stages: Annotated[Several[AnyStage], Field(min_length=1)]
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        for index, stage in enumerate(self.stages):
            if not (stage.problems or self.problems):
                raise wrong(
                    "no problems here nor at the top", "add for example `- {family: sum}`", f"stages.{index}.problems"
                )
            unworked = next((each for each in self.problems_of(stage) if not each.worked), None)
            if not stage.reinforces and unworked is not None:
                raise wrong(
                    f"'{unworked.name}' has no worked solutions to learn from",
                    f"give the {stage.kind} stage `problems` of a family",
                    f"stages.{index}.problems",
                )
            if stage.from_scratch and index > 0:
                raise wrong(
                    "a base stage starts from random weights", "make it the first stage", f"stages.{index}.kind"
                )
        starts_random = self.stages[0].from_scratch
        if starts_random and self.model is not None:
            raise wrong(
                "given, but the base stage starts from random weights", "remove `model` or the base stage", "model"
            )
        if not starts_random and self.model is None:
            raise wrong("missing, and no base stage makes one", "add `model: <folder>` or a base stage", "model")
        return self

    def seed_of(self, stage: StageSettings) -> int:
        """The stage's own seed, else the recipe's."""
        return self.seed if stage.seed is None else stage.seed

    def problems_of(self, stage: StageSettings) -> tuple[Source, ...]:
        """What a stage draws from: its own problems, else the recipe's."""
        return stage.problems or self.problems


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `key=value` overrides applied in order; UserError if anything is wrong."""
    values = yaml_file.read_mapping(Path(path))
    overridden = yaml_file.apply_overrides(values, overrides, Recipe.model_fields)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise explain(error, str(path), overridden) from None


def dump(recipe: Recipe) -> str:
    """The recipe with every default written out, as YAML that `load` reads back as an equal recipe."""
    return yaml_file.dump(recipe.model_dump(mode="json"))


def fingerprint(value: Any) -> str:
    """sha256, hex, of `value` as canonical JSON: equal for equal settings whatever the order of their keys."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """What json cannot write by itself, as something it can."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no fingerprint of a {type(value).__name__}")
