"""The base stage: next-token training of random weights on worked arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from rich.console import Console
from trl import SFTConfig

from r1_mini.config.stages import BaseStage
from r1_mini.data.source import Source
from r1_mini.model.architecture import make_model
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.train.corpus import corpus
from r1_mini.train.supervised import rows_of, train_on_texts
from r1_mini.train.trainer import arguments


def train_base(
    stage: BaseStage, sources: tuple[Source, ...], seed: int, work: Path, out: Path, console: Console
) -> None:
    """Train and save the checkpoint in the folder `out`; `work` holds what resuming needs."""
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, **stage.model.model_dump(), seed=seed)
    fields = arguments("base", stage.trainer, work, seed)
    if fields["lr_scheduler_type"] == "warmup_stable_decay":
        half = {"num_decay_steps": fields["max_steps"] // 2, "decay_type": "linear"}
        fields["lr_scheduler_kwargs"] = half | (fields.get("lr_scheduler_kwargs") or {})
    config = SFTConfig(**fields)
    texts = texts_of(stage, sources, rows_of(config), seed)
    optimizer = None
    if stage.optimizer == "muon":
        optimizer = MuonAdamW(model, lr=config.learning_rate, weight_decay=config.weight_decay)
    train_on_texts("base", texts, model, tokenizer, config, seed, work, out, console, optimizer=optimizer)


def texts_of(stage: BaseStage, sources: tuple[Source, ...], rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """The (prompt, completion) pairs that the stage trains on, in order: the early mixture, then the last."""
    early = round(stage.early_share * rows)
    first = corpus(sources, (stage.early_voices or stage.voices).model_dump(), stage.wording, f"{seed} early")
    last = corpus(sources, stage.voices.model_dump(), stage.wording, f"{seed} late")
    return chain(islice(first, early), islice(last, rows - early))
