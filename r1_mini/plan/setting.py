"""What the parts of a plan share: the recipe's model, how it is run, and what is said of each part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.start import Start
from r1_mini.plan.dry_run import DryModel, Size
from r1_mini.plan.lengths import Lengths
from r1_mini.plan.memory import Phase, Share
from r1_mini.plan.prompts import Shown
from r1_mini.train.base import BaseStage
from r1_mini.train.grpo import GrpoStage
from r1_mini.train.sft import SftStage
from r1_mini.train.stage import StageSettings, TuningStage


@dataclass(frozen=True, slots=True)
class Part:
    """One stage, or the exam."""

    name: str
    phases: Sequence[Phase]
    counts: Mapping[str, int]
    """What is done, in words -> how often."""
    disk: int
    """Bytes that stay."""
    disk_meanwhile: int
    """Bytes beside them while it runs."""
    prompts: Sequence[Shown]
    lengths: Lengths
    completion: int | None = None
    """Longest completion, tokens; None where nothing is sampled."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all stages share."""

    recipe: Recipe
    start: Start
    exam_dtype: str
    share: Share
    cpu: bool
    framework: Size
    memory: int
    """Bytes of the device."""
    vllm: Size = field(default_factory=Size)
    """What vLLM holds, from the stage that started it to the end."""
    made: dict[Any, DryModel] = field(default_factory=dict)

    @property
    def standing(self) -> dict[str, Size]:
        return {"framework": self.framework, "vLLM": self.vllm}

    def from_stage(self, stage: StageSettings) -> Setting:
        """As it is from this stage on."""
        if not isinstance(stage, GrpoStage):
            return self
        fields = stage.fields
        if not fields["use_vllm"] or fields["vllm_mode"] != "colocate":
            return self
        return replace(self, vllm=Size(round(fields["vllm_gpu_memory_utilization"] * self.memory)))

    @property
    def wording(self) -> str:
        """How the recipe's models write a step."""
        said = (stage.wording for stage in self.recipe.stages if isinstance(stage, BaseStage | SftStage))
        return next(said, "list")

    def dry(self, stage: StageSettings) -> DryModel:
        """The model as a stage trains it: in fp32 if it does not say otherwise, with its adapter."""
        if isinstance(stage, BaseStage):
            return self._dry(torch.float32, None)
        assert isinstance(stage, TuningStage)
        return self._dry(self.dtype_of(stage), stage.peft)

    def dtype_of(self, stage: StageSettings) -> torch.dtype:
        """Of the weights that a stage trains, and saves."""
        said = (stage.trainer.get("model_init_kwargs") or {}).get("dtype", "float32")
        return self.start.saved if said == "auto" else getattr(torch, said)

    @property
    def of_exam(self) -> DryModel:
        """The model as the exam asks it, whichever checkpoint it is."""
        return self._dry(getattr(torch, self.exam_dtype), None)

    def _dry(self, dtype: torch.dtype, peft: Mapping[str, Any] | None) -> DryModel:
        key = (dtype, json.dumps(peft, default=str))
        if key not in self.made:
            self.made[key] = DryModel(self.start.config, dtype, peft)
        return self.made[key]
