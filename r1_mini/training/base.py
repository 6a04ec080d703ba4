"""The base stage: next-token training of random weights on worked arithmetic, through TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from trl import SFTConfig, SFTTrainer

from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.sources import Source
from r1_mini.recipe import BaseStage
from r1_mini.training.callbacks import Reporter, progress_bar
from r1_mini.training.corpus import corpus, tokenized
from r1_mini.training.packing import pack
from r1_mini.training.stage import arguments, open_metrics, train

DEFAULTS: dict[str, Any] = {
    "max_steps": 1000,
    "per_device_train_batch_size": 64,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "warmup_stable_decay",
    "warmup_steps": 50,
    "save_steps": 500,
    "logging_steps": 10,
    "max_length": None,
    "train_sampling_strategy": "sequential",  # the corpus is already in the order of training
    "dataset_kwargs": {"skip_prepare_dataset": True},
}


def train_base(
    stage: BaseStage, sources: tuple[Source, ...], seed: int, work: Path, out: Path, console: Console
) -> None:
    """Train and save the checkpoint in the folder `out`; `work` holds what resuming needs."""
    tokenizer = make_tokenizer("".join(source.letters for source in sources))
    model = make_model(tokenizer, **stage.model.model_dump(), seed=seed)
    fields = arguments(DEFAULTS, stage.trainer, work, seed)
    if fields["lr_scheduler_type"] == "warmup_stable_decay":
        half = {"num_decay_steps": fields["max_steps"] // 2, "decay_type": "linear"}
        fields["lr_scheduler_kwargs"] = half | (fields.get("lr_scheduler_kwargs") or {})
    config = SFTConfig(**fields)
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    rows = config.max_steps * per_step
    with progress_bar(console) as bar:
        task = bar.add_task("corpus", total=rows, note="")
        texts = texts_of(stage, sources, rows, seed)
        dataset = tokenized(
            texts, tokenizer, rows, config.per_device_train_batch_size, seed, lambda count: bar.advance(task, count)
        )
    optimizer = None  # TRL makes its AdamW
    if stage.optimizer == "muon":
        optimizer = MuonAdamW(model, lr=config.learning_rate, weight_decay=config.weight_decay)
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        data_collator=partial(pack, pad=tokenizer.pad_token_id),
        optimizers=(optimizer, None),
    )
    tokens = list(accumulate(map(len, dataset["input_ids"])))  # TRL would count those of packed rows wrongly

    def record(logs: Mapping[str, Any], step: int) -> dict[str, Any]:
        named = {ours: logs[theirs] for theirs, ours in _NAMES.items() if theirs in logs}
        return {**named, "tokens": tokens[step * per_step - 1]}

    train(trainer, Reporter("base", open_metrics(work), console, record, _note), work)
    save_checkpoint(model, tokenizer, out)


def texts_of(stage: BaseStage, sources: tuple[Source, ...], rows: int, seed: int) -> Iterator[tuple[str, str]]:
    """The (prompt, completion) pairs that the stage trains on, in order: the early mixture, then the last."""
    early = round(stage.early_share * rows)
    first = corpus(sources, (stage.early_voices or stage.voices).model_dump(), stage.wording, f"{seed} early")
    last = corpus(sources, stage.voices.model_dump(), stage.wording, f"{seed} late")
    return chain(islice(first, early), islice(last, rows - early))


_NAMES = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
}


def _note(record: Mapping[str, Any]) -> str:
    return f"loss {record['loss']:.3f}"
