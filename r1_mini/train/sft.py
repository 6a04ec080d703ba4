"""The SFT stage: worked solutions in the form that rewards ask for, before RL (R1's cold start, 2501.12948, 2.3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig

from r1_mini.completion import begun
from r1_mini.config.stages import SftStage
from r1_mini.data.source import Source
from r1_mini.model.template import PromptStyle
from r1_mini.rollout.generate import prompt_for
from r1_mini.train.corpus import corpus
from r1_mini.train.supervised import train_on_texts
from r1_mini.train.trainer import adapter, arguments, load


def train_sft(
    stage: SftStage,
    sources: tuple[Source, ...],
    start: Path,
    prompt: PromptStyle,
    seed: int,
    work: Path,
    out: Path,
    console: Console,
) -> None:
    """Train the checkpoint `start` and save the result in the folder `out`; `work` holds what resuming needs."""
    model, tokenizer = load(start, stage.trainer, prompt)
    config = SFTConfig(**arguments("sft", stage.trainer, work, seed))
    texts = texts_of(stage, sources, tokenizer, seed)
    train_on_texts("sft", texts, model, tokenizer, config, seed, work, out, console, peft_config=adapter(stage.peft))


def texts_of(
    stage: SftStage, sources: tuple[Source, ...], tokenizer: PreTrainedTokenizerBase, seed: int
) -> Iterator[tuple[str, str]]:
    """The (prompt, completion) pairs that the stage trains on, in order, without end."""
    texts = corpus(sources, stage.voices.model_dump(), stage.wording, f"{seed} sft", partial(prompt_for, tokenizer))
    return ((prompt, completion.removeprefix(begun(prompt))) for prompt, completion in texts)
