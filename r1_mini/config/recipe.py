"""A recipe: YAML and `key=value` overrides become frozen, validated settings.

Everything a run depends on stands in here, validated before anything is computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, Strict, ValidationError, model_validator

from r1_mini.config import yaml_file as settings_file
from r1_mini.config.base import Families, Seed, Settings, wrong
from r1_mini.config.stages import KINDS, Problems, Stage
from r1_mini.data.source import Source
from r1_mini.errors import UserError, nearest, shown
from r1_mini.model.template import PromptStyle


class Evaluate(Settings):
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


class Recipe(Settings):
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
    stages: Annotated[tuple[Annotated[Stage, Field(discriminator="kind")], ...], Strict(False), Field(min_length=1)]
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        for index, stage in enumerate(self.stages):
            if not (stage.problems or self.problems):
                raise wrong(
                    "no problems here nor at the top", "add for example `- {family: sum}`", f"stages.{index}.problems"
                )
            unworked = next((each for each in self.problems_of(stage) if not each.worked), None)
            if stage.kind in ("base", "sft") and unworked is not None:
                raise wrong(
                    f"'{unworked.name}' has no worked solutions to learn from",
                    f"give the {stage.kind} stage `problems` of a family",
                    f"stages.{index}.problems",
                )
            if stage.kind == "base" and index > 0:
                raise wrong(
                    "a base stage starts from random weights", "make it the first stage", f"stages.{index}.kind"
                )
        starts_random = self.stages[0].kind == "base"
        if starts_random and self.model is not None:
            raise wrong(
                "given, but the base stage starts from random weights", "remove `model` or the base stage", "model"
            )
        if not starts_random and self.model is None:
            raise wrong("missing, and no base stage makes one", "add `model: <folder>` or a base stage", "model")
        return self

    @model_validator(mode="after")
    def _base_stage_knows_every_letter(self) -> Self:
        """Its tokenizer is made of what its own problems are written with. Of data only the run knows the letters."""
        if self.stages[0].kind == "base":
            known = {letter for source in self.problems_of(self.stages[0]) for letter in source.letters}
            for index, stage in enumerate(self.stages):
                for source in filter(lambda source: source.worked, self.problems_of(stage)):
                    lacking = [letter for letter in source.letters if letter not in known]
                    if lacking:
                        what = f"the base stage has no {lacking[0]!r}, with which {source.name} is written"
                        fix = f"put {source.name} among the `problems` of the base stage too"
                        raise wrong(what, fix, f"stages.{index}.problems")
        return self

    def seed_of(self, stage: Stage) -> int:
        """The stage's own seed, else the recipe's."""
        return self.seed if stage.seed is None else stage.seed

    def problems_of(self, stage: Stage) -> tuple[Source, ...]:
        """What a stage draws from: its own problems, else the recipe's."""
        return stage.problems or self.problems


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `key=value` overrides applied in order; UserError if anything is wrong."""
    values = settings_file.read_mapping(Path(path))
    overridden = {settings_file.apply_override(values, text, Recipe.model_fields): text for text in overrides}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise explained(error, str(path), overridden) from None
    except RecursionError:
        raise UserError(
            "refers to itself", where=str(path), fix="remove the alias (*) that contains its own anchor (&)"
        ) from None


def dump(recipe: Recipe) -> str:
    """The recipe with every default written out, as YAML that `load` reads back as an equal recipe."""
    return settings_file.dump(recipe.model_dump(mode="json"))


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


def explained(error: ValidationError, path: str, overridden: dict[str, str]) -> UserError:
    """The first thing pydantic found wrong, as one line: what, the file or override and the key, the fix."""
    first = error.errors()[0]
    context = first.get("ctx") or {}
    location = [str(part) for part in first["loc"]]
    if len(location) > 2 and location[0] == "stages" and location[2] in KINDS:
        del location[2]  # pydantic names the chosen kind of stage
    if first["type"] == "recipe":
        what, fix = context["what"], context["fix"]
        location += [context["key"]] if context["key"] else []
    else:
        what, fix = _in_words(first)
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        location.append("kind")
    key = ".".join(location)
    for place, text in overridden.items():
        if key and (f"{key}.".startswith(f"{place}.") or f"{place}.".startswith(f"{key}.")):
            path = f"override {text!r}"
    return UserError(what, where=f"{path}: {key}" if key else path, fix=fix)


def _in_words(first: Any) -> tuple[str, str]:
    """What and fix for an error of pydantic's own."""
    context = first.get("ctx") or {}
    match first["type"]:
        case "missing":
            return "missing", "add it"
        case "union_tag_not_found":
            return "missing", f"set it to {', '.join(KINDS[:-1])} or {KINDS[-1]}"
        case "union_tag_invalid":
            return f"no stage is called '{context['tag']}'", nearest(str(context["tag"]), KINDS)
        case "value_error" | "assertion_error":
            what = str(context.get("error", first["msg"]))
            return what, "" if ";" in what else "change it"
        case "string_pattern_mismatch":
            return f"'{first['input']}' cannot be the name of a folder", "use letters, digits, '.', '_' and '-'"
        case "too_short":
            return "is empty", "add at least one"
        case "tuple_type" | "list_type":
            return f"should be a list, got {shown(first['input'])}", "write [ ... ]"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"should be keys and values, got {shown(first['input'])}", "write {key: value}"
    message = first["msg"].replace("Input should", "should").replace("String should", "should")
    return f"{message}, got {shown(first['input'])}", "change it"
