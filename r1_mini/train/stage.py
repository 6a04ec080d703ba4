"""What every kind of stage has: its settings, the job that it is given, and the work that it announces.

A new kind of stage is one file in this folder: a subclass of `StageSettings` with its defaults, `train` and `work`, and
one line in `STAGES` (`r1_mini/train/__init__.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import trl
from pydantic import Field, field_validator
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from r1_mini.config.base import Seed, Several, Strict
from r1_mini.config.trl_fields import check_peft, check_trainer, resolved
from r1_mini.data.collected import Collected
from r1_mini.data.mix import AnySource
from r1_mini.data.source import Source
from r1_mini.model.templates import PromptStyle
from r1_mini.problems.problem import Problem, Split
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import environment

Problems = Several[AnySource]
Sharding = Literal["none", "fsdp", "zero2", "zero3"]

EVERY_STAGE: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,  # a loss that is NaN must be visible
    "save_steps": 50,
    "save_total_limit": 1,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
}
"""Default fields of every TRL config."""


def arguments(defaults: Mapping[str, Any], fields: Mapping[str, Any], work: Path, seed: int) -> dict[str, Any]:
    """The fields for the TRL config of a stage: the defaults of its kind, overridden by the recipe's fields."""
    ours = {"output_dir": str(work), "seed": seed, "data_seed": seed, "use_cpu": environment.kind() == "cpu"}
    return {**defaults, **fields, **ours}


@dataclass(frozen=True)
class Job:
    """One stage of a run, ready to be trained."""

    name: str
    settings: "StageSettings"
    start: Path | None
    """Folder of the checkpoint that it starts from; None for random weights."""
    problems: Sequence[Source]
    """Without the problems of the exam."""
    prompt: PromptStyle
    seed: int
    work: Path
    """Folder for what resuming needs; it survives a kill."""
    out: Path
    """Folder for the finished checkpoint and its metrics.jsonl; it survives a kill too."""
    console: Console
    read: Mapping[str, Path] = field(default_factory=dict)
    """Name of a stage that it reads -> its folder."""
    dev_score: Callable[[PreTrainedModel, PreTrainedTokenizerBase], float] | None = None
    """pass@1 on dev problems."""
    watch: Callable[[Mapping[str, Any]], str] = lambda record: ""
    """Told each record of metrics; what is gravely wrong by now, in a few words, or nothing."""


@dataclass(frozen=True)
class Work:
    """What a stage computes, known from its settings and the number of processes; the planner reads it too.

    In a `rejection` stage `steps` and `texts` are those of a round, if every completion is right.
    """

    steps: int  # optimizer steps
    micro_batch: int  # texts that one process passes through the model at once
    accumulation: int  # micro-batches of an optimizer step
    texts: int  # texts that training reads in all, each time counted
    rounds: int = 1  # how often it samples and then trains from the last result; 1 for all kinds but `rejection`
    rollouts: int = 0  # how often it samples in all
    prompts: int = 0  # prompts that it samples from in all
    micro_steps_per_rollout: int = 1  # micro-batches that are trained on one rollout
    sampling: SamplingParams | None = None  # None if it does not sample
    in_flight: int = 0  # most completions that a process samples at once
    batching: Literal["packed", "padded", "by length", "in backward"] = "packed"
    """How texts pass through the model: `packed` into few rows, `padded` to the longest, `by length` in several passes
    whose activations all wait for the backward pass, or in such passes one at a time, `in backward`."""
    reference: bool = False  # a copy of the starting model is kept for a KL term


class StageSettings(Strict):
    """Settings that every kind of stage has. A kind sets the class variables."""

    VERSION: ClassVar[int]
    """Raised by hand when the same settings begin to give other results."""
    CONFIG: ClassVar[str]
    """The TRL config of `trainer`, such as GRPOConfig."""
    DEFAULTS: ClassVar[Mapping[str, Any]]
    """Fields of that config that differ from TRL's defaults."""
    FIXED: ClassVar[Mapping[str, str]] = {"num_train_epochs": "problems are sampled without end; set max_steps"}
    """Fields of that config that the stage sets itself -> what a user can do instead."""
    RATES: ClassVar[Mapping[str, float]] = {}
    """Default learning rate of a stage that trains all weights of a foreign "model", or an "adapter". The one in
    DEFAULTS is for models of our own, of less than a million parameters."""
    reinforces: ClassVar[bool]
    """True if it samples completions; else it reads worked solutions."""
    trains: ClassVar[bool] = True
    """False if its result is a data set, not a checkpoint."""
    LENGTH_KEY: ClassVar[str] = "problems"
    """The key that bounds the length of what it samples, to be named when prompts leave no room for it."""
    from_scratch: ClassVar[bool] = False
    """True if it starts from random weights, not from a checkpoint."""

    kind: str
    name: str | None = Field(None, max_length=60, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name of the stage in its recipe; null is its kind."""
    start: str | None = Field(None, alias="from")
    """Name of the stage that it starts from; null is the one above it."""
    problems: Problems = ()
    """Empty: the recipe's `problems`."""
    seed: Seed | None = None
    """Null: the recipe's. Another seed trains this stage again on the same start."""
    trainer: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    """Fields of trl.GRPOConfig in a `grpo` stage, trl.DistillationConfig in `distill`, else trl.SFTConfig."""

    @field_validator("trainer")
    @classmethod
    def _trl_knows(cls, values: dict[str, Any]) -> dict[str, Any]:
        return check_trainer(cls.CONFIG, values, cls.DEFAULTS, cls.FIXED)

    @property
    def reads(self) -> tuple[tuple[str, str, bool], ...]:
        """What it reads besides its start: the key that names a stage, the name, and whether that makes a data set."""
        return tuple(("problems", each.collected, True) for each in self.problems if isinstance(each, Collected))

    @property
    def split(self) -> Split:
        """The split that its problems come from."""
        return "train" if self.reinforces else "base"

    @property
    def fields(self) -> dict[str, Any]:
        """Every field of its TRL config: TRL's default, overridden by ours, overridden by the recipe's."""
        return resolved(self.CONFIG, self.DEFAULTS, self.trainer)

    def started_from(self, kind: str) -> Self:
        """The stage with the default learning rate for what it trains, if the recipe sets none.

        `kind`: "random weights"; "model" or "our model" of a recipe's `model`. The folder of that may be gone when
        recipe.yaml is read again, so the rate is written there.
        """
        rates = {"our model": self.DEFAULTS.get("learning_rate"), **self.RATES}
        rate = rates.get("adapter" if getattr(self, "peft", None) is not None else kind)
        if rate is None or "learning_rate" in self.trainer:
            return self
        return self.model_copy(update={"trainer": {**self.trainer, "learning_rate": rate}})

    def config(self, work: Path, seed: int) -> Any:
        """The TRL config that it trains with; `work` is the trainer's folder."""
        return getattr(trl, self.CONFIG)(**arguments(self.DEFAULTS, self.trainer, work, seed))

    def rehearse(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: Any, problem: Problem
    ) -> Trainer | None:
        """The trainer that `train` builds, with one row of data; None if it builds none."""
        return None

    def train(self, job: Job) -> None:
        """Fill `job.out` with a checkpoint; resume from `job.work` if an earlier attempt was interrupted."""
        raise NotImplementedError

    def work(self, processes: int = 1, sharding: Sharding = "none") -> Work:
        """What `train` computes on so many processes; here, for next-token training.

        `sharding`: what a process holds only a part of: of optimizer and gradients under zero2, else of weights too.
        """
        fields = self.fields
        batch, accumulation = fields["per_device_train_batch_size"], fields["gradient_accumulation_steps"]
        steps = fields["max_steps"]
        return Work(steps, batch, accumulation, texts=steps * batch * accumulation * processes)


class TuningStage(StageSettings):
    """A stage that starts from a checkpoint."""

    peft: dict[str, Any] | None = None
    """Fields of peft.LoraConfig, such as `{r: 16, target_modules: all-linear}`; null trains all weights."""

    @field_validator("peft")
    @classmethod
    def _peft_knows(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        return values if values is None else check_peft(values)


class OnlineStage(TuningStage):
    """A stage that learns from what the model itself samples, as it is at each step."""

    DEFAULTS: ClassVar = {
        **EVERY_STAGE,
        "max_steps": 150,
        "max_completion_length": 128,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "disable_dropout": True,  # the sampler has none, and both must be one policy
        "shuffle_dataset": False,  # the problems come in a random order already
    }
    RATES: ClassVar = {"model": 1e-6, "adapter": 2e-5}
    LENGTH_KEY = "trainer.max_completion_length"
    reinforces = True

    rows: int = Field(1024, ge=1, le=1_000_000)
    """Most completions in progress at once; the others wait. Bounds the memory of the sampler's cache."""
