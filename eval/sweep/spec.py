"""The settings of a sweep: a YAML file becomes a list of settings of a recipe, checked before anything runs.

Settings are named one by one (`settings:`), or come from ranges over recipe keys (`space:`): every combination, random
ones, or those that Optuna's TPE proposes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import BaseTrial
from pydantic import Field, ValidationError, model_validator

from eval.analysis import metrics
from eval.exam.samples import Samples
from r1_mini.config import packaged, yaml_file
from r1_mini.config.base import Seed, Several, Strict, explain, wrong
from r1_mini.errors import UserError, nearest
from r1_mini.pipeline.recipe import Recipe, load

OBJECTIVES: dict[str, Callable[[Samples], NDArray[np.float64]]] = {
    "pass_at_1": metrics.pass_at_1,
    "pass_at_k": lambda samples: metrics.pass_at_k(samples, samples.n),
    "maj_at_k": lambda samples: metrics.maj_at_k(samples, samples.n),
    "mean_tokens": metrics.tokens,
    "well_formed": metrics.well_formed,
    "truncated": metrics.truncated,
}
"""Score of each problem, (P,); a checkpoint's is their mean. k is the number of samples. All but tokens are shares."""


def refuse(*checks: tuple[bool, str, str, str]) -> None:
    """Raise the first of the errors whose condition holds: (condition, what is wrong, the fix, the key)."""
    for is_wrong, what, fix, key in checks:
        if is_wrong:
            raise wrong(what, fix, key)


class Range(Strict):
    """The values of a recipe key: one of `choices`, or a number from `low` to `high`."""

    choices: Several[Any] = ()
    low: int | float = 0
    high: int | float = 0
    log: bool = False
    """Whether the logarithm of the number is sampled evenly."""
    steps: int | None = Field(None, ge=2, le=1000)
    """How many values a grid takes from `low` to `high`."""
    when: dict[str, Several[Any]] = Field(default_factory=dict)
    """Earlier keys of the space and their values with which this key is set; otherwise the recipe's value stays."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        low, high, either = self.low, self.high, "give choices, or let low be less than high"
        refuse(
            (bool(self.choices) and low != high, "both choices and a range", either, "choices"),
            (not self.choices and low >= high, f"the range from {low:g} to {high:g} is empty", either, "low"),
            (self.log and low <= 0, f"a log scale cannot begin at {low:g}", "let low be more than 0", "low"),
        )
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def applies(self, changes: Mapping[str, Any]) -> bool:
        """Whether the key is set, given the keys before it."""
        return all(other in changes and changes[other] in allowed for other, allowed in self.when.items())

    def suggest(self, trial: BaseTrial, key: str) -> Any:
        """The recipe's value in a trial of Optuna."""
        if self.choices:
            return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in self.choices]))
        if self.is_whole:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def param(self, value: Any) -> Any:
        """A recipe's value as Optuna's parameter: of choices the JSON, which may be a mapping's."""
        return json.dumps(value) if self.choices else value

    def grid(self) -> list[Any]:
        """The recipe's values in a grid, in order."""
        if self.choices:
            return list(self.choices)
        values = (np.geomspace if self.log else np.linspace)(self.low, self.high, self.steps or 2)
        numbers = [round(float(value)) if self.is_whole else float(f"{value:.6g}") for value in values]
        return list(dict.fromkeys(numbers))


class Seeds(Strict):
    """Training seeds: each setting is trained with each of them."""

    key: str = "seed"
    """The recipe key that they set. `grpo.seed` trains the same base once, and RL again for each seed."""
    values: Annotated[Several[Seed], Field(min_length=1)] = (0,)


class Sweep(Strict):
    """What is compared, with which seeds, by which score, and for how long."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    recipe: str
    """A recipe: its path from the folder of this file, or the name of a packaged one."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Recipe keys that differ from the recipe in all settings."""
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Name of a setting -> its recipe keys; `recipe` among them names another recipe."""
    space: dict[str, Range] = Field(default_factory=dict)
    """Recipe key -> range, instead of `settings`."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """How settings come from the space: all combinations, random ones, or where earlier ones did well."""
    trials: int | None = Field(None, ge=1, le=100_000)
    """How many settings `random` and `tpe` try."""
    seeds: Seeds = Seeds()
    sampler_seed: Seed = 0
    objective: str = "pass_at_1"
    """A score of the exam on dev, of the last checkpoint: a key of OBJECTIVES."""
    direction: Literal["maximize", "minimize"] = "maximize"
    default: str | None = None
    """The setting that the others are compared with; null is the first."""
    prune: bool = False
    """Whether a trial ends early when its score on dev during training (`grpo.dev`) is below the others' median."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        keys, seeds, sampler = list(self.space), self.seeds.values, self.sampler if self.space else "grid"
        refuse(
            (bool(self.settings) == bool(self.space), "give either settings or a space", "keep one", "settings"),
            ((sampler == "grid") == (self.trials is not None),
             "a grid has as many trials as settings" if self.trials else f"the {sampler} sampler has no end",
             "set how many settings random or tpe try, and only for them", "trials"),
            (self.default is not None and self.default not in self.settings, f"no setting is called '{self.default}'",
             f"name one of {', '.join(self.settings)}", "default"),
            (self.objective not in OBJECTIVES, f"nothing measures '{self.objective}'",
             nearest(self.objective, OBJECTIVES), "objective"),
            (len(set(seeds)) < len(seeds), "a seed comes twice", "drop one", "seeds.values"),
            *((sampler == "grid" and not values.choices and values.steps is None,
               "a grid needs to know how many values", "set steps, or give choices", f"space.{key}")
              for key, values in self.space.items()),
            *((other not in keys[:place], f"depends on {other}, which is not set before it",
               f"let {other} stand before {key}", f"space.{key}.when")
              for place, key in enumerate(keys) for other in self.space[key].when),
        )  # fmt: skip
        return self

    @property
    def proposals(self) -> int:
        """How many settings depend on the results of earlier ones: 0 if all are known beforehand."""
        return self.trials or 0 if self.sampler == "tpe" else 0


@dataclass(frozen=True)
class Setting:
    """What is trained with each seed: a recipe and what differs from it, also as Optuna's parameters."""

    name: str
    recipe: str
    changes: Mapping[str, Any]
    params: Mapping[str, Any]

    def overrides(self, **seed: int) -> list[str]:
        """`key=value` of a training."""
        return [f"{key}={json.dumps(value)}" for key, value in {**self.changes, **seed}.items()]


@dataclass(frozen=True)
class Training:
    """A setting trained with a seed, as far as that is: an entry of trials.json."""

    setting: Setting
    seed: int
    state: str
    """Optuna's: WAITING, RUNNING, COMPLETE, PRUNED or FAIL."""
    value: float | None
    reason: str | None
    """Why it failed."""
    seconds: float | None

    @property
    def folder(self) -> str:
        """Path of the run, from the folder of the sweep."""
        setting = self.setting
        return f"trials/{file_name(setting.name, setting.recipe, setting.changes)}-seed{self.seed}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A sweep and the recipes that its settings start from, by name."""

    sweep: Sweep
    recipes: Mapping[str, Recipe]

    def settings(self) -> list[Setting]:
        """Every setting that is known beforehand; none for `tpe`."""
        sweep = self.sweep
        if sweep.settings:
            return [self._named(name) for name in sweep.settings]
        if sweep.sampler == "grid":
            points: list[dict[str, Any]] = [{}]
            for key, values in sweep.space.items():
                points = [
                    point | change
                    for point in points
                    for change in ([{key: value} for value in values.grid()] if values.applies(point) else [{}])
                ]
            return list(map(self._of, points))
        if sweep.sampler == "random":
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=sweep.sampler_seed))
            return [self.suggest(study.ask()) for _ in range(sweep.trials or 0)]
        return []

    def suggest(self, trial: BaseTrial) -> Setting:
        """The setting of a trial, from the parameters that it has or that Optuna's sampler gives it."""
        if self.sweep.settings:
            return self._named(trial.suggest_categorical("setting", list(self.sweep.settings)))
        changes: dict[str, Any] = {}
        for key, values in self.sweep.space.items():
            if values.applies(changes):
                changes[key] = values.suggest(trial, key)
        return self._of(changes)

    def _named(self, name: str) -> Setting:
        changes = dict(self.sweep.settings[name])
        return Setting(name, str(changes.pop("recipe", self.sweep.recipe)), changes, {"setting": name})

    def _of(self, changes: Mapping[str, Any]) -> Setting:
        name = ", ".join(f"{key.rsplit('.', 1)[-1]}={_short(value)}" for key, value in changes.items())
        params = {key: self.sweep.space[key].param(value) for key, value in changes.items()}
        return Setting(name or "as the recipe", self.sweep.recipe, changes, params)


def read(path: Path) -> Plan:
    """The sweep in a YAML file, its recipes loaded and each of its values tried on them; UserError if one is wrong."""
    values = yaml_file.read_mapping(path)
    try:
        sweep = Sweep.model_validate(values)
    except ValidationError as error:
        raise explain(error, str(path)) from None
    names = {sweep.recipe, *(str(changes.get("recipe", sweep.recipe)) for changes in sweep.settings.values())}
    common = [f"{key}={json.dumps(value)}" for key, value in sweep.set.items()]
    plan = Plan(sweep, {name: _recipe(path, sweep, name, common) for name in sorted(names)})
    for setting in plan.settings() if sweep.settings else _extremes(sweep):
        overrides = setting.overrides(**{sweep.seeds.key: sweep.seeds.values[0]})
        _recipe(path, sweep, setting.recipe, [*common, *overrides])
    return plan


def _recipe(path: Path, sweep: Sweep, name: str, overrides: Sequence[str]) -> Recipe:
    """A recipe of the sweep with overrides, examined on dev."""
    recipe = load(packaged.find(name, "tiny", "gpu", folder=path.parent), overrides)
    if recipe.evaluate.split == "test":
        fix = "leave it out: settings are chosen on dev"
        raise UserError("a sweep never looks at test", where=f"{path}: evaluate.split", fix=fix)
    if sweep.prune and not getattr(recipe.stages[-1], "dev", None):
        fix = "set for example `set: {grpo.dev: {every: 25}}`"
        raise UserError("pruning needs scores on dev during training", where=f"{path}: prune", fix=fix)
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"split": "dev"})})


def _extremes(sweep: Sweep) -> Iterator[Setting]:
    """Settings that together have every choice and both ends of every range, one key at a time."""
    for key, values in sweep.space.items():
        for value in values.choices or (values.low, values.high):
            yield Setting(key, sweep.recipe, {key: value}, {})


def file_name(name: str, *about: Any) -> str:
    """A name that a file may have, with six digits that tell apart what is named alike."""
    kept = "".join(letter if letter.isalnum() or letter in "._=-" else "-" for letter in name).strip("-.")
    return f"{kept[:60]}-{hashlib.sha256(json.dumps([name, *about], sort_keys=True).encode()).hexdigest()[:6]}"


def recipe_file(folder: Path, name: str) -> Path:
    """Where a recipe of a sweep lies in its folder, with what the sweep sets in all settings."""
    return folder / "recipes" / f"{file_name(Path(name).stem, name)}.yaml"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
