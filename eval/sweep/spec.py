"""The settings of a sweep: a YAML file becomes settings of a recipe, checked before anything runs.

Settings are named one by one (`settings:`), or come from ranges over recipe keys (`space:`): every combination, random
ones, or those that Optuna's TPE proposes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import BaseTrial, FixedTrial
from pydantic import Field, ValidationError, model_validator

from eval.analysis import metrics
from eval.exam.samples import Samples
from r1_mini.config import packaged, yaml_file
from r1_mini.config.base import Seed, Several, Strict, explain, wrong
from r1_mini.errors import UserError, nearest
from r1_mini.pipeline.recipe import Recipe, load
from r1_mini.pipeline.store import fingerprint

OBJECTIVES: dict[str, Callable[[Samples], NDArray[np.float64]]] = {
    "pass_at_1": metrics.pass_at_1,
    "pass_at_k": lambda samples: metrics.pass_at_k(samples, samples.n),
    "maj_at_k": lambda samples: metrics.maj_at_k(samples, samples.n),
    "mean_tokens": metrics.tokens,
    "well_formed": metrics.well_formed,
    "truncated": metrics.truncated,
}
"""Score of each problem, (P,); a checkpoint's is their mean. k is the number of samples. All but tokens are shares."""
Setting = Mapping[str, Any]
"""Recipe keys and their values; `recipe` among them names another recipe."""


class Range(Strict):
    """The values of a recipe key: one of `choices`, or a number from `low` to `high`."""

    choices: Several[Any] = ()
    low: int | float = 0
    high: int | float = -1  # no number by default
    log: bool = False
    """Whether the logarithm of the number is sampled evenly."""
    steps: int = Field(2, ge=2, le=1000)
    """How many values a grid takes from `low` to `high`."""
    when: dict[str, Several[Any]] = Field(default_factory=dict)
    """Earlier keys of the space and their values with which this key is set; otherwise the recipe's value stays."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        """Optuna's ValueError says what is wrong."""
        self.suggest(FixedTrial({"": self.param(self.choices[0] if self.choices else self.low)}), "")
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def applies(self, setting: Setting) -> bool:
        """Whether the key is set, given the keys before it."""
        return all(other in setting and setting[other] in allowed for other, allowed in self.when.items())

    def suggest(self, trial: BaseTrial, key: str) -> Any:
        """The recipe's value in a trial of Optuna."""
        if self.choices:
            return json.loads(trial.suggest_categorical(key, list(map(self.param, self.choices))))
        if self.is_whole:
            return trial.suggest_int(key, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def param(self, value: Any) -> Any:
        """A recipe's value as Optuna has it: a choice, which may be a mapping, as JSON."""
        return json.dumps(value) if self.choices else value

    def grid(self) -> list[Any]:
        """The recipe's values in a grid, in order."""
        if self.choices:
            return list(self.choices)
        values = (np.geomspace if self.log else np.linspace)(self.low, self.high, self.steps)
        return list(dict.fromkeys(round(float(each)) if self.is_whole else float(f"{each:.6g}") for each in values))


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
    """Settings by name."""
    space: dict[str, Range] = Field(default_factory=dict)
    """Recipe key -> range, instead of `settings`."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """How settings come from the space: all combinations, random ones, or where earlier ones did well."""
    trials: int = Field(20, ge=1, le=100_000)
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
        if bool(self.settings) == bool(self.space):
            raise wrong("both settings and a space, or neither", "give one of them", "settings")
        keys = list(self.space)
        named = [("objective", self.objective, list(OBJECTIVES))]
        named += [("default", self.default, list(self.settings))] if self.default else []
        for place, key in enumerate(keys):
            named += [(f"space.{key}.when", other, keys[:place]) for other in self.space[key].when]
        for key, name, known in named:
            if name not in known:
                raise wrong(f"nothing there is called '{name}'", nearest(name, known), key)
        return self

    @property
    def searches(self) -> bool:
        """Whether settings depend on the results of earlier ones."""
        return self.sampler == "tpe" and not self.settings

    def known(self) -> Mapping[str, Setting]:
        """Every setting that is known beforehand, by name; none if the sweep searches."""
        if self.settings or self.searches:
            return self.settings
        points: list[dict[str, Any]] = [{}]
        if self.sampler == "random":
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.sampler_seed))
            points = [self.suggest(study.ask()) for _ in range(self.trials)]
        else:
            for key, values in self.space.items():
                points = [
                    point | change
                    for point in points
                    for change in ([{key: value} for value in values.grid()] if values.applies(point) else [{}])
                ]
        return {name_of(point): point for point in points}

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """A point of the space, from the parameters that the trial has or that Optuna's sampler gives it."""
        point: dict[str, Any] = {}
        for key, values in self.space.items():
            if values.applies(point):
                point[key] = values.suggest(trial, key)
        return point


@dataclass(frozen=True)
class Training:
    """A setting trained with a seed, as far as that is: an entry of trials.json."""

    setting: str
    recipe: str
    """Path of the recipe, from the folder of the sweep."""
    changes: Mapping[str, Any]
    """What differs from it, the seed included."""
    seed: int
    state: str = "RUNNING"
    """Optuna's: WAITING, RUNNING, COMPLETE, PRUNED or FAIL."""
    value: float | None = None
    reason: str | None = None
    """Why it failed."""

    @property
    def folder(self) -> str:
        """Path of the run, from the folder of the sweep: another for anything else that is trained."""
        name = "".join(letter if letter.isalnum() or letter in "._=-" else "-" for letter in self.setting).strip("-.")
        return f"trials/{name[:60]}-{fingerprint([self.recipe, self.changes])[:6]}-seed{self.seed}"


def read(path: Path) -> tuple[Sweep, dict[str, Recipe]]:
    """The sweep in a YAML file, and its recipes by name; UserError if one of its values does not suit its recipe."""
    values = yaml_file.read_mapping(path, "recipe")
    try:
        sweep = Sweep.model_validate(values)
    except ValidationError as error:
        raise explain(error, str(path)) from None
    tried = list(sweep.settings.values())
    for key, each in sweep.space.items():  # together they have every choice and both ends of every range
        tried += [{key: value} for value in each.choices or (each.low, each.high)]
    recipes = {}
    for setting in tried:
        changes = {"recipe": sweep.recipe, **sweep.set, **setting, sweep.seeds.key: sweep.seeds.values[0]}
        name = changes.pop("recipe")
        file = packaged.find(name, "tiny", "gpu", folder=path.parent)
        recipe = load(file, overrides(changes))
        if sweep.prune and not getattr(recipe.stages[-1], "dev", None):
            fix = "set for example `set: {grpo.dev: {every: 25}}`"
            raise UserError("pruning needs scores on dev during training", where=f"{path}: prune", fix=fix)
        recipes[name] = load(file, overrides({**sweep.set, "evaluate.split": "dev", "evaluate.many": None}))
    return sweep, recipes


def overrides(changes: Mapping[str, Any]) -> list[str]:
    """The `key=value` of a command line."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def name_of(point: Setting) -> str:
    """The name of a point of the space: `learning_rate=0.001, loss_type=grpo`."""

    def short(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)

    return ", ".join(f"{key.rsplit('.', 1)[-1]}={short(value)}" for key, value in point.items())
