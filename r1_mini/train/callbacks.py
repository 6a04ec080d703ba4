"""What both trainers tell the outside: one line of metrics a step, and a progress bar with the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from r1_mini.errors import UserError
from r1_mini.system.files import Metrics, NoMetrics


def progress_bar(console: Console) -> Progress:
    """A bar with the count, the time left and room for a few words on how it goes."""
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    return Progress(*columns, console=console)


class Reporter(TrainerCallback):
    """Writes each step's metrics and moves the bar. `rename` makes a record of the trainer's logs and the step.

    UserError at the step at which training has diverged.
    """

    def __init__(
        self,
        title: str,
        metrics: Metrics | NoMetrics,
        console: Console,
        rename: Callable[[Mapping[str, Any], int], dict[str, Any]],
        note: Callable[[Mapping[str, Any]], str],
    ) -> None:
        self.title, self.metrics, self.rename, self.note = title, metrics, rename, note
        self.progress = progress_bar(console)
        self.bar = self.progress.add_task(title, total=None, note="")
        self.last = 0.0
        self.extra: dict[str, Any] = {}  # fields that another callback adds to the next record

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.update(self.bar, total=state.max_steps, completed=state.global_step)
        self.progress.start()
        self.last = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:  # the summary that the trainer logs at its end
            return
        now = time.perf_counter()
        step = state.global_step
        for name in ("loss", "grad_norm"):
            if math.isnan(logs.get(name, 0.0)) and not args.fp16:  # whose scaler skips such steps
                fix = f"lower learning_rate, now {args.learning_rate:g} at its highest"
                raise UserError(f"diverged: {name} is not a number at step {step}", where=self.title, fix=fix)
        record = {"step": step, **self.rename(logs, step), **self.extra, "seconds": round(now - self.last, 4)}
        self.last, self.extra = now, {}
        self.metrics.append(record)
        self.progress.update(self.bar, completed=state.global_step, note=self.note(record))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.progress.stop()
