"""What is said while a stage trains."""

import math

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments

from r1_mini.errors import UserError
from r1_mini.system.files import Metrics, read_jsonl
from r1_mini.train.callbacks import Reporter


@pytest.fixture
def reporter(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl")
    yield Reporter("grpo", metrics, Console(quiet=True), lambda logs, step: dict(logs), lambda record: "")
    metrics.close()


def log(reporter, folder, step, fp16=False, **logs):
    args = TrainingArguments(output_dir=str(folder), learning_rate=0.5)
    args.fp16 = fp16
    reporter.on_log(args, TrainerState(global_step=step), TrainerControl(), logs=logs)


def test_each_step_is_a_line_and_the_trainers_own_summary_is_none(reporter, tmp_path):
    log(reporter, tmp_path, 1, loss=0.5)
    log(reporter, tmp_path, 2, loss=0.25, grad_norm=1.0)
    log(reporter, tmp_path, 2, train_runtime=3.0)
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.25)]


@pytest.mark.parametrize("logs", [{"loss": math.nan}, {"loss": 0.1, "grad_norm": math.nan}])
def test_training_that_diverged_ends_with_the_step_and_the_fix(reporter, tmp_path, logs):
    name = next(key for key, value in logs.items() if math.isnan(value))
    with pytest.raises(
        UserError, match=f"grpo: diverged: {name} is not a number at step 7; lower learning_rate, now 0.5"
    ):
        log(reporter, tmp_path, 7, **logs)
    log(reporter, tmp_path, 7, fp16=True, **logs)  # the scaler of fp16 skips such a step
