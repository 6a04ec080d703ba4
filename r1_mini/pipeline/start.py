"""What is checked before a run starts: what this machine lacks, and what no machine could do."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from transformers import GenerationConfig, PretrainedConfig, PreTrainedTokenizerBase

from r1_mini.config.trl_fields import require_machine as require_packages
from r1_mini.data.mix import draw
from r1_mini.data.overlap import separated
from r1_mini.data.source import Source
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_config
from r1_mini.model.checkpoint import find_checkpoint, load_shape, shape_of
from r1_mini.model.prompts import encode, prompts_for, require_context
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.store import say
from r1_mini.problems.problem import Problem
from r1_mini.system.logs import silent
from r1_mini.train.sft import BaseStage
from r1_mini.train.stage import TuningStage

TRIED = 100
"""Problems of a source that are sampled to check it; every depth is among them."""


@dataclass(frozen=True)
class Start:
    """The model that a branch of a recipe begins with, as far as its small files tell: no weights."""

    where: str
    config: PretrainedConfig
    generation: GenerationConfig | None
    tokenizer: PreTrainedTokenizerBase
    saved: torch.dtype = torch.float32
    """dtype of the weights on disk."""


def start_of(recipe: Recipe, stage: str = "") -> Start:
    """What the branch of a stage begins with; of the last stage by default. Downloads only small files from the Hub."""
    stage = stage or list(recipe.nodes)[-1]
    while (above := recipe.start_of(stage)) in recipe.nodes:
        stage = str(above)
    if above is not None:
        config, generation, tokenizer = load_shape(
            find_checkpoint(Path(str(recipe.model)), weights=False), recipe.prompt
        )
        return Start(str(recipe.model), config, generation, tokenizer, config.dtype or torch.float32)
    base = recipe.nodes[stage]
    assert isinstance(base, BaseStage)
    tokenizer = make_tokenizer()
    return Start("random weights", make_config(tokenizer, **base.model.model_dump()), None, tokenizer)


@dataclass(frozen=True)
class Checked:
    """What a recipe that can run here runs on."""

    model: Path | None
    """The folder of the recipe's `model`."""
    problems: Mapping[str, tuple[Source, ...]]
    """Those of each stage, without the problems of an exam."""


def check(recipe: Recipe, examined: Sequence[Problem], console: Console) -> Checked:
    """UserError for whatever would keep a recipe from running to its end, before anything is trained or written."""
    require_machine(recipe)
    model = None if recipe.model is None else find_checkpoint(Path(recipe.model))
    with silent():
        require_possible(recipe)
    return Checked(model, training_problems(recipe, examined, console))


def require_machine(recipe: Recipe) -> None:
    """UserError for what a stage needs and this machine, or the way that it is launched, lacks."""
    sharded = "true" in (os.environ.get("ACCELERATE_USE_FSDP"), os.environ.get("ACCELERATE_USE_DEEPSPEED"))
    for place, stage in enumerate(recipe.stages):
        require_packages(stage.trainer, f"stages.{place}.trainer")
        if sharded and isinstance(stage, TuningStage) and stage.peft is not None:
            what = "an adapter of weights that are sharded over processes cannot be merged"
            raise UserError(what, where=f"stages.{place}.peft", fix="launch with recipes/accelerate/ddp.yaml")


def require_possible(recipe: Recipe) -> None:
    """UserError for what no machine could do: an adapter that fits no module of the model, problems that do not exist
    or that the tokenizer cannot write, prompts that leave no room in the model's context."""
    for place, (name, stage) in enumerate(recipe.nodes.items()):
        start = start_of(recipe, name)
        if start.tokenizer.eos_token is None:
            raise UserError("the tokenizer has no EOS token", where=start.where, fix="set eos_token in its settings")
        if isinstance(stage, TuningStage) and stage.peft is not None:
            shape_of(start.config, torch.float32, stage.peft)
        sampling = stage.work().sampling
        for source in recipe.problems_of(stage):
            try:
                some = list(islice(draw([source], stage.split, "possible"), TRIED))
            except ValueError as error:
                raise UserError(str(error), where=f"stages.{place}.problems") from None
            prompts = encode(start.tokenizer, prompts_for(start.tokenizer, source.listed(stage.split) or some))
            longest = sampling.max_tokens if sampling else 0
            require_context(start.config, prompts, longest, f"stages.{place}.{stage.LENGTH_KEY}")


def training_problems(recipe: Recipe, examined: Sequence[Problem], console: Console) -> dict[str, tuple[Source, ...]]:
    """Stage -> its problems without those of an exam. Prints what was left out or is wrong with the data, a line each.

    UserError for data that cannot be read.
    """
    problems, lines = {}, []
    for name, stage in recipe.nodes.items():
        problems[name], overlaps = separated(recipe.problems_of(stage), examined)
        lines += [
            *(note for each in recipe.problems_of(stage) if each.content_hash() for note in each.notes()),
            *overlaps,
        ]
    for line in dict.fromkeys(lines):
        say(console, line)
    return problems
