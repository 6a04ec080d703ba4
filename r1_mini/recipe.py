"""A recipe: YAML and `key=value` overrides become frozen, validated settings.

Everything a run depends on stands in here, validated before anything is computed. `trainer:` takes any field of
trl.SFTConfig (base, sft, rejection) or trl.GRPOConfig (grpo) under its own name.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from r1_mini import settings_file
from r1_mini.errors import UserError, nearest, shown
from r1_mini.problems.source import Source
from r1_mini.problems.sources import AnySource
from r1_mini.trainer_fields import TrainerError, check_peft, check_trainer

Families = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Problems = Annotated[tuple[AnySource, ...], Strict(False)]


def wrong(what: str, fix: str, key: str = "") -> PydanticCustomError:
    """An error of ours inside pydantic's; `key` is the wrong key below the one that is being validated."""
    return PydanticCustomError("recipe", "{what}", {"what": what, "fix": fix, "key": key})


class Settings(BaseModel):
    """Frozen and strict; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                raise wrong("unknown key", nearest(str(key), cls.model_fields), str(key))
        return values


class ModelSettings(Settings):
    """Shape of the from-scratch Llama; about 0.33 M parameters as it stands."""

    hidden_size: int = Field(96, ge=8, le=8192)
    """Width; a multiple of twice the heads (rotary positions pair up the channels of a head)."""
    layers: int = Field(3, ge=1, le=128)
    heads: int = Field(4, ge=1, le=128)
    intermediate_size: int | None = Field(None, ge=8)
    """Width of the MLP; null is Llama's 8/3 of the width, rounded up to a multiple of 16."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.hidden_size % (2 * self.heads):
            step = 2 * self.heads
            raise wrong(
                f"{self.hidden_size} does not divide into {self.heads} heads of even width",
                f"set a multiple of {step}, such as {max(1, round(self.hidden_size / step)) * step}",
                "hidden_size",
            )
        return self


class Voices(Settings):
    """Shares of the styles of answer in the base corpus; they sum to 1."""

    direct: float = Field(0.60, ge=0, le=1)
    worked: float = Field(0.35, ge=0, le=1)
    checked: float = Field(0.05, ge=0, le=1)

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = math.fsum((self.direct, self.worked, self.checked))
        if abs(total - 1) > 1e-6:
            raise wrong(f"direct, worked and checked sum to {total:g}, not 1", "change one of them")
        return self


class BaseStage(Settings):
    """Next-token training from random weights on worked problems, through TRL's SFTTrainer."""

    kind: Literal["base"]
    model: ModelSettings = ModelSettings()
    voices: Voices = Voices()
    """The mixture at the end of training: what the model will say, unforced."""
    early_voices: Voices | None = None
    """The mixture before that; null is the same. Models learn to calculate from worked text, not from bare answers."""
    early_share: float = Field(0.85, ge=0, lt=1)
    """Share of the steps that draw from `early_voices`."""
    wording: Literal["list", "restate"] = "list"
    """How a step is written: `12+7=19` or the whole expression after the step."""
    problems: Problems = ()
    """Empty: the recipe's own `problems`."""
    optimizer: Literal["muon", "adamw"] = "muon"
    seed: Seed | None = None
    """Null is the recipe's. Another here trains this stage again on the same start."""
    trainer: dict[str, Any] = {}
    """Fields of trl.SFTConfig."""

    @field_validator("trainer")
    @classmethod
    def _trl_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _trainer("base", values)

    @model_validator(mode="after")
    def _muon_has_no_such_field(self) -> Self:
        for name in self.trainer if self.optimizer == "muon" else ():
            if name.startswith(("adam_", "optim")):
                fix = "set `optimizer: adamw` of the stage, or leave it out"
                raise wrong("has no effect beside the stage's optimizer, muon", fix, f"trainer.{name}")
        return self


class DevExam(Settings):
    """Examination on the dev split while a stage trains; the stage's checkpoint is then the best one examined."""

    every: int = Field(ge=1)
    """Steps between two examinations; the last step is always examined."""
    suite: str = "quick"
    families: Families | None = None
    limit: int | None = Field(None, ge=2, le=1_000_000)
    """Ask the first so many problems, evenly from all entries of the suite."""


class GrpoStage(Settings):
    """Reinforcement learning on rule rewards, through TRL's GRPOTrainer."""

    kind: Literal["grpo"]
    problems: Problems = ()
    """Empty: the recipe's own `problems`."""
    rewards: dict[str, float] = {"accuracy": 1.0, "format": 0.1}
    """Name of a rule or control in r1_mini.rewards -> weight."""
    baseline: Literal["group", "batch"] = "group"
    """What a reward is compared with: the mean of its group (GRPO), or of the whole batch (REINFORCE)."""
    rows: int = Field(1024, ge=1, le=1_000_000)
    """Most completions that the sampler has in work at once; the others wait. Bounds the memory of its cache."""
    seed: Seed | None = None
    """Null is the recipe's. Another here trains this stage again on the same start."""
    dev: DevExam | None = None
    """Examine while training, such as `{every: 25, families: [sum]}`, and keep the best checkpoint, not the last."""
    peft: dict[str, Any] | None = None
    """Fields of peft.LoraConfig, such as `{r: 16, target_modules: all-linear}`; null trains all weights."""
    trainer: dict[str, Any] = {}
    """Fields of trl.GRPOConfig."""

    @field_validator("rewards")
    @classmethod
    def _rules_are_known(cls, weights: dict[str, float]) -> dict[str, float]:
        from r1_mini.rewards import CONTROLS, RULES

        for name in weights:
            if name not in RULES and name not in CONTROLS:
                raise wrong(f"no reward is called '{name}'", nearest(name, [*RULES, *CONTROLS]), name)
        if not any(weights.values()):
            raise wrong("no reward has a weight", "write for example {accuracy: 1.0, format: 0.1}")
        return weights

    @field_validator("trainer")
    @classmethod
    def _trl_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _trainer("grpo", values)

    @field_validator("peft")
    @classmethod
    def _peft_knows(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        return values if values is None else _trainer("peft", values)

    @model_validator(mode="after")
    def _batches_hold_whole_groups(self) -> Self:
        if not self.trainer:  # a validator does not see a default
            _trainer("grpo", {})
        if self.baseline == "batch" and self.trainer.get("scale_rewards", "none") != "none":
            fix = "leave scale_rewards out"
            raise wrong("a batch as baseline is not divided by a spread", fix, "trainer.scale_rewards")
        return self


class RejectionStage(Settings):
    """Expert iteration: sample, keep the right completions, train on them through TRL's SFTTrainer, and again."""

    kind: Literal["rejection"]
    problems: Problems = ()
    """Empty: the recipe's own `problems`."""
    rounds: int = Field(8, ge=1, le=1000)
    prompts: int = Field(1000, ge=1, le=10_000_000)
    """Problems of a round."""
    samples: int = Field(16, ge=1, le=10_000)
    """Completions of each problem."""
    max_tokens: int = Field(128, ge=1, le=100_000)
    """Longest completion, tokens."""
    distinct: bool = False
    """Whether a completion that comes several times for a problem is kept once (RFT, 2308.01825), or as often."""
    rows: int = Field(1024, ge=1, le=1_000_000)
    """Most completions that the sampler has in work at once; the others wait. Bounds the memory of its cache."""
    seed: Seed | None = None
    """Null is the recipe's. Another here trains this stage again on the same start."""
    peft: dict[str, Any] | None = None
    """Fields of peft.LoraConfig; null trains all weights."""
    trainer: dict[str, Any] = {}
    """Fields of trl.SFTConfig, for each round."""

    @field_validator("trainer")
    @classmethod
    def _trl_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _trainer("rejection", values)

    @field_validator("peft")
    @classmethod
    def _peft_knows(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        return values if values is None else _trainer("peft", values)


class SftStage(Settings):
    """Next-token training of a model on worked problems, through TRL's SFTTrainer: R1's cold start."""

    kind: Literal["sft"]
    voices: Voices = Voices(direct=0.0, worked=1.0, checked=0.0)
    wording: Literal["list", "restate"] = "list"
    """How a step is written: `12+7=19` or the whole expression after the step."""
    problems: Problems = ()
    """Empty: the recipe's own `problems`."""
    seed: Seed | None = None
    """Null is the recipe's. Another here trains this stage again on the same start."""
    peft: dict[str, Any] | None = None
    """Fields of peft.LoraConfig; null trains all weights."""
    trainer: dict[str, Any] = {}
    """Fields of trl.SFTConfig."""

    @field_validator("trainer")
    @classmethod
    def _trl_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _trainer("sft", values)

    @field_validator("peft")
    @classmethod
    def _peft_knows(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        return values if values is None else _trainer("peft", values)


Stage = BaseStage | GrpoStage | RejectionStage | SftStage
KINDS = ("base", "grpo", "rejection", "sft")


class Evaluate(Settings):
    """The exam at the end of a run; null takes the suite's own value."""

    suite: str = "arithmetic"
    """Name of a suite in eval/suites, or the path of one; `own` asks the problems of the recipe."""
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
    seed: Seed | None = None


class Recipe(Settings):
    """One run: problems, stages in order, the exam."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Also the name of the run folder."""
    seed: Seed = 0
    model: str | None = None
    """Folder of the model that the first stage starts from; null when that stage is `base`."""
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


def _trainer(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    try:
        return check_peft(values) if kind == "peft" else check_trainer(kind, values)
    except TrainerError as error:
        raise wrong(error.what, error.fix, error.key) from None


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
