"""Next-token training on texts, through TRL's SFTTrainer: what the stages that read texts share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from r1_mini.train.callbacks import Reporter, progress_bar
from r1_mini.train.corpus import tokenized
from r1_mini.train.packing import pack
from r1_mini.train.stage import EVERY_STAGE, Job, Work
from r1_mini.train.trainer import open_metrics, resumed_step, save, train

TEXT_STAGE: dict[str, Any] = {
    **EVERY_STAGE,
    "max_length": None,
    "train_sampling_strategy": "sequential",  # the texts are in the order of training already
    "dataset_kwargs": {"skip_prepare_dataset": True},  # and tokenized
}
"""Default fields of SFTConfig."""
LOGGED = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
}
"""The trainer's name of a metric -> ours."""


def text_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SFTConfig,
    examples: Dataset,
    peft_config: Any = None,
    optimizer: Any = None,
) -> SFTTrainer:
    """A trainer on `input_ids` and `labels`, free of padding; without an optimizer TRL makes its AdamW."""
    return SFTTrainer(
        model=model,
        args=config,
        train_dataset=examples,
        processing_class=tokenizer,
        peft_config=peft_config,
        data_collator=partial(pack, pad=tokenizer.pad_token_id),
        optimizers=(optimizer, None),
    )


def text_work(fields: Mapping[str, Any], processes: int) -> Work:
    """The work of next-token training with these fields of an SFTConfig."""
    batch, accumulation = fields["per_device_train_batch_size"], fields["gradient_accumulation_steps"]
    steps = fields["max_steps"]
    return Work(steps, batch, accumulation, texts=steps * batch * accumulation * processes)


def train_on_texts(
    title: str,
    texts: Iterator[tuple[str, str]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SFTConfig,
    job: Job,
    peft_config: Any = None,
    optimizer: Any = None,
) -> None:
    """Train on (prompt, completion) pairs and save the result in `job.out`."""
    rows, seed = int(config.max_steps) * _per_step(config), job.seed
    with progress_bar(job.console) as bar:
        task = bar.add_task("corpus", total=rows, note="")
        examples = tokenized(
            texts, tokenizer, rows, config.per_device_train_batch_size, seed, lambda count: bar.advance(task, count)
        )
    trainer = text_trainer(model, tokenizer, config, examples, peft_config, optimizer)
    tokens = list(accumulate(map(len, examples["input_ids"])))  # TRL would count those of packed rows wrongly

    def record(logs: Mapping[str, Any], step: int) -> dict[str, Any]:
        named = {ours: logs[theirs] for theirs, ours in LOGGED.items() if theirs in logs}
        return {**named, "tokens": tokens[step * _per_step(config) - 1]}

    metrics = open_metrics(job.work / "metrics.jsonl", resumed_step(job.work))
    train(trainer, Reporter(title, metrics, job.console, record, note), job.work)
    save(trainer, tokenizer, job.out)


def note(record: Mapping[str, Any]) -> str:
    """What the bar says of a step."""
    return f"loss {record['loss']:.3f}"


def _per_step(config: SFTConfig) -> int:
    return int(config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size)
