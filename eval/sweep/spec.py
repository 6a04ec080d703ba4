"""A sweep: YAML becomes a list of trials, each a setting of a recipe and a training seed.

Settings are named one by one (`settings:`), or drawn from ranges over recipe keys (`space:`): all of them, some at
random, or as Optuna's TPE proposes. Everything is checked before anything runs.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, ValidationError, model_validator

from eval.sweep.objective import OBJECTIVES
from r1_mini.config import yaml_file as settings_file
from r1_mini.config.base import Seed, Several, Strict, explain, wrong
from r1_mini.errors import UserError, nearest
from r1_mini.pipeline.recipe import Recipe, load

Scalar = bool | int | float | str | None
SETTING = "setting"
"""Optuna's name for the parameter that a named setting is."""


class Range(Strict):
    """What a recipe key may be: one of `choices`, or a number from `low` to `high`."""

    choices: Several[Any] = ()
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Whether numbers are drawn evenly by their logarithm."""
    steps: int | None = Field(None, ge=2, le=1000)
    """How many values a grid takes from `low` to `high`."""
    when: dict[str, Several[Any]] = Field(default_factory=dict)
    """Other keys of the space and their values with which this key is set; else it stays as the recipe has it."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.choices:
            if self.low is not None or self.high is not None or self.log or self.steps:
                raise wrong("both choices and a range", "keep one of the two")
            if len({json.dumps(choice) for choice in self.choices}) < len(self.choices):
                raise wrong("a choice comes twice", "drop one", "choices")
            return self
        if self.low is None or self.high is None:
            raise wrong("neither choices nor a range", "write {choices: [...]} or {low: ..., high: ...}")
        if self.low >= self.high:
            raise wrong(f"the range from {self.low:g} to {self.high:g} is empty", "let low be less than high", "low")
        if self.log and self.low <= 0:
            raise wrong(f"a log scale cannot begin at {self.low:g}", "let low be more than 0", "low")
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def distribution(self) -> BaseDistribution:
        """The range as Optuna's. Choices that are no plain values are chosen by their JSON."""
        if self.choices:
            return CategoricalDistribution([as_choice(choice) for choice in self.choices])
        assert self.low is not None and self.high is not None
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def grid(self) -> list[Any]:
        """The values of a grid, in order."""
        if self.choices:
            return list(self.choices)
        assert self.low is not None and self.high is not None and self.steps is not None
        ends = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        places = [ends[0] + (ends[1] - ends[0]) * step / (self.steps - 1) for step in range(self.steps)]
        values = [float(f"{math.exp(place) if self.log else place:.6g}") for place in places]
        return list(dict.fromkeys(round(value) for value in values)) if self.is_whole else values

    def value(self, drawn: Any) -> Any:
        """The recipe's value for what Optuna has drawn."""
        return next((choice for choice in self.choices if as_choice(choice) == drawn), drawn)


class Seeds(Strict):
    """Training seeds: each setting is trained with each of them."""

    key: str = "seed"
    """The recipe key that they set. `grpo.seed` trains the same base once, and RL again for each seed."""
    values: Annotated[Several[Seed], Field(min_length=1)] = (0,)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if len(set(self.values)) < len(self.values):
            raise wrong("a seed comes twice", "drop one", "values")
        return self


class Sweep(Strict):
    """What is compared, with how many seeds, by what, and for how long."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    recipe: str
    """Path of the recipe, from the folder of this file."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe keys that differ from the recipe in all settings."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Name of a setting -> its recipe keys; `recipe` among them names another recipe."""
    space: dict[str, Range] = Field(default_factory=dict)
    """Recipe key -> range, instead of `settings`."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """How settings come from the space: all combinations, drawn evenly, or where earlier ones did well."""
    trials: int | None = Field(None, ge=1, le=100_000)
    """How many settings `random` and `tpe` try."""
    seeds: Seeds = Seeds()
    sampler_seed: Seed = 0
    objective: str = "pass_at_1"
    """A score of the exam on dev, of the last checkpoint."""
    direction: Literal["maximize", "minimize"] = "maximize"
    default: str | None = None
    """The setting that the others are compared with; null is the first."""
    hours: float | None = Field(None, gt=0)
    """No trial begins later than this after the sweep was begun."""
    prune: bool = False
    """Whether a trial ends early when its score on dev during training (`grpo.dev`) is below the others' median."""

    @model_validator(mode="after")
    def _has_settings(self) -> Self:
        if bool(self.settings) == bool(self.space):
            raise wrong("give either settings or a space", "keep one of the two", "settings")
        if self.space and self.sampler != "grid" and self.trials is None:
            raise wrong(f"the {self.sampler} sampler has no end", "set how many settings to try", "trials")
        if self.trials is not None and (self.settings or self.sampler == "grid"):
            raise wrong("the settings are given, or a grid counts them", "drop it, or choose random or tpe", "trials")
        if self.default is not None and self.default not in self.settings:
            raise wrong(f"no setting is called '{self.default}'", f"name one of {', '.join(self.settings)}", "default")
        for key, spread in self.space.items():
            if self.sampler == "grid" and not spread.choices and spread.steps is None:
                raise wrong("a grid needs to know how many values", "set steps, or give choices", f"space.{key}")
            for other in spread.when:
                if other not in list(self.space)[: list(self.space).index(key)]:
                    fix = f"let {other} stand before {key} in the space"
                    raise wrong(f"depends on {other}, which is not set before it", fix, f"space.{key}.when")
        return self


@dataclass(frozen=True, slots=True)
class Setting:
    """A point of a sweep: the recipe, what differs from it, and the same as Optuna's parameters."""

    name: str
    recipe: str
    changes: Mapping[str, Any]
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]

    def overrides(self, seeds: Seeds, seed: int) -> list[str]:
        """`key=value` of a trial."""
        return [f"{key}={json.dumps(value)}" for key, value in {**self.changes, seeds.key: seed}.items()]


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep and the recipes that its settings start from, by name."""

    sweep: Sweep
    recipes: Mapping[str, Recipe]

    def settings(self) -> list[Setting]:
        """Every setting that is known beforehand; none for `tpe`."""
        sweep = self.sweep
        if sweep.settings:
            names = CategoricalDistribution(list(sweep.settings))
            return [
                Setting(name, str(changes.get("recipe", sweep.recipe)), _without_recipe(changes), {SETTING: name},
                        {SETTING: names})
                for name, changes in sweep.settings.items()
            ]  # fmt: skip
        if sweep.sampler == "grid":
            return list(self._grid())
        if sweep.sampler == "random":
            return [self.drawn(trial) for trial in _random_trials(sweep)]
        return []

    def _grid(self) -> Iterator[Setting]:
        seen = set()
        for values in itertools.product(*(spread.grid() for spread in self.sweep.space.values())):
            changes = _active(self.sweep.space, dict(zip(self.sweep.space, values, strict=True)))
            if (key := json.dumps(changes)) not in seen:  # those that differ in what is not set are one
                seen.add(key)
                yield self._of(changes, {key: as_choice(value) for key, value in changes.items()})

    def drawn(self, trial: optuna.Trial) -> Setting:
        """The setting that Optuna proposes."""
        changes: dict[str, Any] = {}
        for key, spread in self.sweep.space.items():
            if _applies(spread, changes):
                changes[key] = spread.value(_suggested(trial, key, spread))
        return self._of(changes, trial.params)

    def _of(self, changes: Mapping[str, Any], params: Mapping[str, Any]) -> Setting:
        name = ", ".join(f"{key.rsplit('.', 1)[-1]}={_short(value)}" for key, value in changes.items())
        distributions = {key: self.sweep.space[key].distribution() for key in params}
        return Setting(name or "as the recipe", self.sweep.recipe, changes, params, distributions)


def read(path: Path) -> Plan:
    """The sweep in a YAML file, its recipes loaded and each of its values tried on them; UserError if one is wrong."""
    values = settings_file.read_mapping(path)
    try:
        sweep = Sweep.model_validate(values)
    except ValidationError as error:
        raise explain(error, str(path)) from None
    names = {sweep.recipe, *(str(changes.get("recipe", sweep.recipe)) for changes in sweep.settings.values())}
    common = [f"{key}={json.dumps(value)}" for key, value in sweep.set.items()]
    recipes = {name: _recipe(path, name, common) for name in sorted(names)}
    if sweep.objective not in OBJECTIVES:
        fix = nearest(sweep.objective, OBJECTIVES)
        raise UserError(f"nothing measures '{sweep.objective}'", where=f"{path}: objective", fix=fix)
    plan = Plan(sweep, recipes)
    for setting in plan.settings() if sweep.settings else _extremes(plan):
        for seed in sweep.seeds.values[:1]:
            _recipe(path, setting.recipe, [*common, *setting.overrides(sweep.seeds, seed)])
    if sweep.prune and not all(getattr(recipe.stages[-1], "dev", None) for recipe in recipes.values()):
        fix = "set for example `set: {grpo.dev: {every: 25}}`"
        raise UserError("pruning needs scores on dev during training", where=f"{path}: prune", fix=fix)
    return plan


def _recipe(path: Path, name: str, overrides: Sequence[str]) -> Recipe:
    """A recipe of the sweep with overrides, examined on dev."""
    try:
        recipe = load(path.parent / name, overrides)
    except UserError as error:
        raise UserError(str(error).replace("override", f"{path}: in"), where="") from None
    if recipe.evaluate.split == "test":
        fix = "leave it out: settings are chosen on dev"
        raise UserError("a sweep never looks at test", where=f"{path}: evaluate.split", fix=fix)
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"split": "dev"})})


def _extremes(plan: Plan) -> Iterator[Setting]:
    """Settings that together have every choice and both ends of every range, one key at a time."""
    for key, spread in plan.sweep.space.items():
        for value in spread.choices or (spread.low, spread.high):
            yield Setting(key, plan.sweep.recipe, {key: value}, {}, {})


def _random_trials(sweep: Sweep) -> Iterator[optuna.Trial]:
    """As many trials as the sweep asks for, drawn evenly from its space: the same for the same sampler seed."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=sweep.sampler_seed))
    for _ in range(sweep.trials or 0):
        yield study.ask()


def _suggested(trial: optuna.Trial, key: str, spread: Range) -> Any:
    if spread.choices:
        return trial.suggest_categorical(key, [as_choice(choice) for choice in spread.choices])
    assert spread.low is not None and spread.high is not None
    if spread.is_whole:
        return trial.suggest_int(key, int(spread.low), int(spread.high), log=spread.log)
    return trial.suggest_float(key, spread.low, spread.high, log=spread.log)


def _active(space: Mapping[str, Range], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are set, given the others."""
    active: dict[str, Any] = {}
    for key, spread in space.items():
        if _applies(spread, active):
            active[key] = values[key]
    return active


def _applies(spread: Range, changes: Mapping[str, Any]) -> bool:
    return all(other in changes and changes[other] in allowed for other, allowed in spread.when.items())


def _without_recipe(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key != "recipe"}


def as_choice(choice: Any) -> Scalar:
    """A choice as Optuna takes it: one that is no plain value as its JSON."""
    return choice if choice is None or isinstance(choice, bool | int | float | str) else json.dumps(choice)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
