"""The settings of each stage: what it trains on, and how.

`trainer:` takes any field of trl.SFTConfig (base, sft, rejection) or trl.GRPOConfig (grpo) under its own name, `peft:`
any of peft.LoraConfig.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, PlainValidator, SerializeAsAny, field_validator, model_validator

from r1_mini.config.base import Families, Seed, Several, Strict, wrong
from r1_mini.config.trl_fields import TrainerError, check_peft, check_trainer
from r1_mini.data.mix import AnySource
from r1_mini.errors import nearest, shown

Problems = Several[AnySource]


class ModelSettings(Strict):
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


class Voices(Strict):
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


class StageSettings(Strict):
    """What every stage has."""

    kind: str
    problems: Problems = ()
    """Empty: the recipe's own `problems`."""
    seed: Seed | None = None
    """Null is the recipe's. Another here trains this stage again on the same start."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Fields of trl.GRPOConfig in a `grpo` stage, else of trl.SFTConfig."""

    @field_validator("trainer")
    @classmethod
    def _trl_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        (kind,) = get_args(cls.model_fields["kind"].annotation)
        return _known(check_trainer, kind, values)


class TuningStage(StageSettings):
    """What a stage has that starts from a model."""

    peft: dict[str, Any] | None = None
    """Fields of peft.LoraConfig, such as `{r: 16, target_modules: all-linear}`; null trains all weights."""

    @field_validator("peft")
    @classmethod
    def _peft_knows(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        return values if values is None else _known(check_peft, values)


class BaseStage(StageSettings):
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
    optimizer: Literal["muon", "adamw"] = "muon"

    @model_validator(mode="after")
    def _muon_has_no_such_field(self) -> Self:
        for name in self.trainer if self.optimizer == "muon" else ():
            if name.startswith(("adam_", "optim")):
                fix = "set `optimizer: adamw` of the stage, or leave it out"
                raise wrong("has no effect beside the stage's optimizer, muon", fix, f"trainer.{name}")
        return self


class DevExam(Strict):
    """Examination on the dev split while a stage trains; the stage's checkpoint is then the best one examined."""

    every: int = Field(ge=1)
    """Steps between two examinations; the last step is always examined."""
    suite: str = "quick"
    families: Families | None = None
    limit: int | None = Field(None, ge=2, le=1_000_000)
    """Ask the first so many problems, evenly from all entries of the suite."""


class GrpoStage(TuningStage):
    """Reinforcement learning on rule rewards, through TRL's GRPOTrainer."""

    kind: Literal["grpo"]
    rewards: dict[str, float] = Field(default_factory=lambda: {"accuracy": 1.0, "format": 0.1})
    """Name of a rule or control in r1_mini.rewards -> weight."""
    baseline: Literal["group", "batch"] = "group"
    """What a reward is compared with: the mean of its group (GRPO), or of the whole batch (REINFORCE)."""
    rows: int = Field(1024, ge=1, le=1_000_000)
    """Most completions that the sampler has in work at once; the others wait. Bounds the memory of its cache."""
    dev: DevExam | None = None
    """Examine while training, such as `{every: 25, families: [sum]}`, and keep the best checkpoint, not the last."""

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

    @model_validator(mode="after")
    def _batches_hold_whole_groups(self) -> Self:
        if not self.trainer:  # a validator does not see a default
            _known(check_trainer, "grpo", {})
        if self.baseline == "batch" and self.trainer.get("scale_rewards", "none") != "none":
            fix = "leave scale_rewards out"
            raise wrong("a batch as baseline is not divided by a spread", fix, "trainer.scale_rewards")
        return self


class RejectionStage(TuningStage):
    """Expert iteration: sample, keep the right completions, train on them through TRL's SFTTrainer, and again."""

    kind: Literal["rejection"]
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


class SftStage(TuningStage):
    """Next-token training of a model on worked problems, through TRL's SFTTrainer: R1's cold start."""

    kind: Literal["sft"]
    voices: Voices = Voices(direct=0.0, worked=1.0, checked=0.0)
    wording: Literal["list", "restate"] = "list"
    """How a step is written: `12+7=19` or the whole expression after the step."""


Stage = BaseStage | GrpoStage | RejectionStage | SftStage
STAGES: dict[str, type[Stage]] = {"base": BaseStage, "grpo": GrpoStage, "rejection": RejectionStage, "sft": SftStage}


def stage_of(entry: Any) -> Any:
    """The settings of the stage that an entry of `stages:` describes."""
    if isinstance(entry, StageSettings):
        return entry
    if not isinstance(entry, Mapping):
        raise wrong(f"should be keys and values, got {shown(entry)}", "write {kind: grpo}")
    kind = entry.get("kind")
    if kind not in STAGES:
        raise wrong("missing" if kind is None else f"no stage is called '{kind}'", nearest(str(kind), STAGES), "kind")
    return STAGES[kind].model_validate(entry)


AnyStage = Annotated[SerializeAsAny[Stage], PlainValidator(stage_of)]
"""The type of a stage in a pydantic model."""


def _known(check: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What `check` returns; its error as one of settings."""
    try:
        return check(*arguments)
    except TrainerError as error:
        raise wrong(error.what, error.fix, error.key) from None
