"""Fields of TRL's configs as each kind of stage has them if the recipe does not say otherwise."""

from __future__ import annotations

from typing import Any

_EVERY: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "logging_strategy": "steps",
    "logging_steps": 1,
    "logging_nan_inf_filter": False,  # a loss that is no number is to be seen
    "save_strategy": "steps",
    "save_steps": 50,
    "save_total_limit": 1,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "weight_decay": 0.0,
}
_TEXT: dict[str, Any] = {
    "max_length": None,
    "train_sampling_strategy": "sequential",  # examples are in the order of training already
    "dataset_kwargs": {"skip_prepare_dataset": True},  # and tokenized
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "base": {
        **_EVERY,
        **_TEXT,
        "max_steps": 1000,
        "per_device_train_batch_size": 64,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "warmup_stable_decay",
        "warmup_steps": 50,
        "save_steps": 500,
        "logging_steps": 10,
    },
    "sft": {
        **_EVERY,
        **_TEXT,
        "max_steps": 100,
        "per_device_train_batch_size": 16,
        "learning_rate": 2e-5,
        "lr_scheduler_type": "cosine",
    },
    "rejection": {
        **_EVERY,
        **_TEXT,
        "per_device_train_batch_size": 256,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
    },
    "grpo": {
        **_EVERY,
        "max_steps": 150,
        "per_device_train_batch_size": 512,
        "num_generations": 16,
        "max_completion_length": 128,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "scale_rewards": "none",  # Dr. GRPO, 2503.20783: centered, not divided by the group's spread
        "loss_type": "dapo",  # DAPO, 2503.14476: mean over the tokens of the batch
        "beta": 0.0,
        "disable_dropout": True,  # the sampler has none, and both are to have one policy
        "shuffle_dataset": False,  # the problems come in a random order already
    },
}
"""Kind of stage -> fields of trl.GRPOConfig for `grpo`, else of trl.SFTConfig."""
