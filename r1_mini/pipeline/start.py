"""What a recipe starts from, as far as its small files tell: configuration and tokenizer, no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.model.architecture import make_config
from r1_mini.model.checkpoint import load_shape
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.store import find_checkpoint
from r1_mini.train.base import BaseStage


@dataclass(frozen=True)
class Start:
    """The model that a recipe trains."""

    where: str
    config: PretrainedConfig
    generation: GenerationConfig | None
    tokenizer: PreTrainedTokenizerBase
    saved: torch.dtype = torch.float32
    """How its weights lie on the disk."""


def start_of(recipe: Recipe) -> Start:
    """Of a model on the Hub only the small files are fetched. UserError if there is no such model."""
    if recipe.model is not None:
        config, generation, tokenizer = load_shape(find_checkpoint(Path(recipe.model), weights=False), recipe.prompt)
        return Start(recipe.model, config, generation, tokenizer, config.dtype or torch.float32)
    base = recipe.stages[0]
    assert isinstance(base, BaseStage), "a recipe starts from a model or a base stage"
    ours = make_tokenizer()
    return Start("random weights", make_config(ours, **base.model.model_dump()), None, ours)
