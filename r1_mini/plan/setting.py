"""What the parts of a plan share: the recipe's model, how it is run, and what is said of each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.model.architecture import make_config
from r1_mini.model.checkpoint import load_shape
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.plan.dry_run import DryModel, Size
from r1_mini.plan.lengths import Lengths
from r1_mini.plan.memory import Phase, Share
from r1_mini.plan.prompts import Shown
from r1_mini.recipe import BaseStage, Recipe
from r1_mini.runs import find_checkpoint
from r1_mini.sampling.cache import RolloutCache


@dataclass(frozen=True)
class Model:
    """The model of a recipe as far as its configuration tells."""

    where: str
    config: PretrainedConfig
    generation: GenerationConfig | None
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def dry(self) -> DryModel:
        return DryModel(self.config)


def model_of(recipe: Recipe) -> Model:
    """The model that the recipe trains; of one on the Hub only the small files are fetched.

    UserError if there is none, or the sampler cannot draw from it.
    """
    first = recipe.stages[0]
    if isinstance(first, BaseStage):
        tokenizer = make_tokenizer()
        return Model("random weights", make_config(tokenizer, **first.model.model_dump()), None, tokenizer)
    assert recipe.model is not None, "a recipe starts from a model or a base stage"
    config, generation, tokenizer = load_shape(find_checkpoint(Path(recipe.model), weights=False))
    RolloutCache(config, 1, 1)  # takes no memory, and refuses what the sampler does not know
    return Model(recipe.model, config, generation, tokenizer)


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

    @property
    def standing(self) -> dict[str, Size]:
        return {"framework": self.framework}

    @property
    def wording(self) -> str:
        first = self.recipe.stages[0]
        return first.wording if isinstance(first, BaseStage) else "list"
