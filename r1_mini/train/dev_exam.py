"""Examination on dev while a stage trains, and the best checkpoint kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as Arguments

from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.system.files import folder_atomic, write_json_atomic
from r1_mini.train.callbacks import Reporter
from r1_mini.train.stage import Score

FIELD = "dev_pass_at_1"
_NOTE = "best.json"


class BestOnDev(TrainerCallback):
    """Every `every` steps, and at the end, the score goes into the metrics of the step; the best model is kept.

    Of equal scores the first counts. The score does not touch torch's random numbers, so training goes on as without.
    """

    def __init__(self, every: int, score: Score, reporter: Reporter, work: Path, main_process: bool = True) -> None:
        self.every, self.score, self.reporter = every, score, reporter
        self.best, self.main_process = work / "best", main_process

    def on_step_end(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        value = self.score(model, processing_class)
        self.reporter.extra = {FIELD: value}
        if self.main_process and value > self._so_far():
            with folder_atomic(self.best) as folder:
                save_checkpoint(model, processing_class, folder)
                write_json_atomic(folder / _NOTE, {"step": state.global_step, FIELD: value})

    def _so_far(self) -> float:
        note = self.best / _NOTE
        return float(json.loads(note.read_text(encoding="utf-8"))[FIELD]) if note.exists() else -1.0
