"""What the parts of a plan share: the recipe's model, how it is run, and what is said of each part."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.model.architecture import make_config
from r1_mini.model.checkpoint import load_shape
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.plan.dry_run import DryModel, Size
from r1_mini.plan.lengths import Lengths
from r1_mini.plan.memory import Phase, Share
from r1_mini.plan.prompts import Shown
from r1_mini.recipe import Recipe
from r1_mini.runs import find_checkpoint
from r1_mini.sampling.cache import RolloutCache
from r1_mini.stages import BaseStage, SftStage, Stage
from r1_mini.training.stage import adapter


@dataclass(frozen=True)
class Model:
    """The model of a recipe as far as its configuration tells."""

    where: str
    config: PretrainedConfig
    generation: GenerationConfig | None
    tokenizer: PreTrainedTokenizerBase
    saved: torch.dtype = torch.float32
    """How its weights lie on the disk."""


def model_of(recipe: Recipe) -> Model:
    """The model that the recipe trains; of one on the Hub only the small files are fetched.

    UserError if there is none, or the sampler cannot draw from it.
    """
    first = recipe.stages[0]
    if isinstance(first, BaseStage):
        tokenizer = make_tokenizer("".join(source.letters for source in recipe.problems_of(first)))
        return Model("random weights", make_config(tokenizer, **first.model.model_dump()), None, tokenizer)
    assert recipe.model is not None, "a recipe starts from a model or a base stage"
    config, generation, tokenizer = load_shape(find_checkpoint(Path(recipe.model), weights=False), recipe.prompt)
    RolloutCache(config, 1, 1)  # takes no memory, and refuses what the sampler does not know
    return Model(recipe.model, config, generation, tokenizer, config.dtype or torch.float32)


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
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Setting:
    """What all stages share."""

    recipe: Recipe
    model: Model
    share: Share
    cpu: bool
    framework: Size
    made: dict[Any, DryModel] = field(default_factory=dict)

    @property
    def standing(self) -> dict[str, Size]:
        return {"framework": self.framework}

    @property
    def wording(self) -> str:
        """How the recipe's models write a step."""
        said = (stage.wording for stage in self.recipe.stages if isinstance(stage, BaseStage | SftStage))
        return next(said, "list")

    def dry(self, stage: Stage) -> DryModel:
        """The model as a stage trains it: in fp32 if it does not say otherwise, with its adapter."""
        if isinstance(stage, BaseStage):
            return self._dry(torch.float32, None)
        return self._dry(self.dtype_of(stage), stage.peft)

    def dtype_of(self, stage: Stage) -> torch.dtype:
        """Of the weights that a stage trains, and saves."""
        said = (stage.trainer.get("model_init_kwargs") or {}).get("dtype", "float32")
        return self.model.saved if said == "auto" else getattr(torch, said)

    @property
    def of_exam(self) -> DryModel:
        """The model as the exam asks it: on a CPU in fp32, elsewhere as it was saved."""
        return self._dry(torch.float32 if self.cpu else self.dtype_of(self.recipe.stages[-1]), None)

    @property
    def of_start(self) -> DryModel:
        """The model that the first stage starts from, or makes, as the exam has it beside the last."""
        return self._dry(torch.float32 if self.cpu else self.model.saved, None)

    def _dry(self, dtype: torch.dtype, peft: Mapping[str, Any] | None) -> DryModel:
        key = (dtype, json.dumps(peft, default=str))
        if key not in self.made:
            self.made[key] = DryModel(self.model.config, dtype, adapter(peft))
        return self.made[key]
