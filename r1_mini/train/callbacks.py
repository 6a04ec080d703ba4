"""What the trainers report: metrics of each step, a progress bar, and the best checkpoint on dev."""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerState
from trl import GRPOTrainer

from r1_mini.errors import UserError
from r1_mini.problems.problem import Problem
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import distributed as processes
from r1_mini.system.files import Metrics, remove, sha256, take_place, write_json_atomic
from r1_mini.train import rollouts
from r1_mini.train.stage import Job

log = logging.getLogger(__name__)

DEV_SCORE = "dev_pass_at_1"
FILES = "files.json"
"""In a checkpoint for resuming: its files and their sha256, written last."""


def progress_bar(console: Console) -> Progress:
    """A bar with the count, the time left and a short note."""
    name, note = (TextColumn(f"{{task.{what}}}", markup=False) for what in ("description:<10", "fields[note]"))
    return Progress(name, BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(), note, console=console)


def checkpoints(work: Path) -> list[Path]:
    """A trainer's checkpoints in `work`, the newest first."""
    numbered = (each for each in work.glob("checkpoint-*") if each.name.rpartition("-")[2].isdecimal())
    return sorted(numbered, key=step_of, reverse=True)


def step_of(checkpoint: Path | None) -> int:
    """The step at which a trainer's checkpoint was saved; 0 for the start."""
    return int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0


class Reporter(TrainerCallback):
    """Moves the bar and writes a line of metrics for each step: what the trainer logs, under our names, and `more`.

    It completes each checkpoint, and only then removes all but the `keep` newest; None keeps all.
    """

    def __init__(
        self,
        title: str,
        metrics: Metrics,
        console: Console,
        names: Mapping[str, str],
        more: Callable[[int], dict[str, Any]],
        keep: int | None = None,
        watch: Callable[[Mapping[str, Any]], str] = lambda record: "",
    ) -> None:
        """`watch` is told every record, and answers with what is gravely wrong, or raises an error that ends it."""
        self.title, self.metrics, self.names, self.more, self.keep = title, metrics, names, more, keep
        self.watch = watch
        self.progress = progress_bar(console)
        self.bar = self.progress.add_task(title, total=None, note="")
        self.last, self.told = 0.0, 0
        self.taught: set[bool] = set()  # whether a step of RL had groups whose rewards differ

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.progress.update(self.bar, total=state.max_steps, completed=state.global_step)
        self.progress.start()
        self.last = time.perf_counter()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Log before each checkpoint, which does not hold the means since the last log."""
        control.should_log |= control.should_save

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """UserError at the step at which training diverges."""
        if not logs or "loss" not in logs:  # the summary that the trainer logs at its end
            return
        now, step = time.perf_counter(), state.global_step
        for name in ("loss", "grad_norm"):
            if math.isnan(logs.get(name, 0.0)) and not args.fp16:  # whose scaler skips such steps
                fix = f"lower learning_rate, now {args.learning_rate:g} at its highest"
                raise UserError(f"diverged: {name} is not a number at step {step}", where=self.title, fix=fix)
        logged = {ours: logs[theirs] for theirs, ours in self.names.items() if theirs in logs}
        record = {"step": step, **logged, **self.more(step), "seconds": round(now - self.last, 4)}
        self.last = now
        self.metrics.append(record)
        self.taught.add(record.get("zero_variance") != 1)
        note = f"loss {record['loss']:.3f}"
        if "accuracy" in record:
            note = f"accuracy {record['accuracy']:.2f}, length {record['length']:.0f}"
        if grave := self.watch(record):
            note += f"  ! {grave}"
        self.progress.update(self.bar, completed=step, note=note)
        if (tenth := 10 * step // max(1, state.max_steps)) > self.told:
            self.told = tenth
            log.info("%s: step %d of %d, %s", self.title, step, state.max_steps, note)

    def on_save(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Write the list of the checkpoint's files, which makes it one to resume from."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        processes.wait()
        if processes.is_main():
            files = {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}
            write_json_atomic(folder / FILES, files)
            for old in checkpoints(folder.parent)[self.keep :] if self.keep and self.keep > 0 else []:
                remove(old)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Say it if no step taught anything."""
        self.progress.stop()
        if self.taught == {False}:
            fix = (
                "train what it starts from longer (an sft stage), or ask easier problems; if all are right, harder ones"
            )
            what = f"{self.title}: in no group did the rewards differ, so nothing was learned; {fix}"
            self.progress.console.print(f"warning: {what}", soft_wrap=True, highlight=False, markup=False)


class OnRollouts(TrainerCallback):
    """Lets the model answer the same problems at the start, every `every` steps and at the end, into rollouts.jsonl.

    The processes share the sampling, and the main one writes. Like exams on dev, this does not change training.
    """

    def __init__(
        self,
        every: int,
        job: Job,
        trainer: GRPOTrainer,
        problems: Sequence[Problem],
        params: SamplingParams,
        rewards: Sequence[rollouts.Weighed],
    ) -> None:
        self.every, self.trainer, self.problems, self.params, self.rewards = every, trainer, problems, params, rewards
        self.path, self.file = job.out / rollouts.FILE if processes.is_main() else None, Metrics(None)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.file = Metrics(self.path, keep_through=state.global_step if state.global_step else -1)
        if not state.global_step:
            self._ask(state)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._ask(state)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.file.close()

    def _ask(self, state: TrainerState) -> None:
        with self.trainer.sampler() as model:
            asked = (model, self.trainer.processing_class, self.problems, self.params)
            for row in rollouts.rows(*asked, self.rewards, state):
                self.file.append(row)


class OnDev(TrainerCallback):
    """Scores the model on dev every `every` steps and at the end, and keeps the best checkpoint in `best`, if given.

    Ties keep the earlier checkpoint. Scoring leaves torch's random state alone, so it does not change training.
    """

    def __init__(
        self, every: int, job: Job, trainer: GRPOTrainer, best: Path | None, save: Callable[[Path], None]
    ) -> None:
        """`save` is called by all processes and saves the whole model in a folder."""
        self.every, self.score, self.trainer, self.best, self.save = every, job.dev_score, trainer, best, save

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        assert self.score is not None
        with self.trainer.sampler() as model:
            value = self.score(model, self.trainer.processing_class)
        self.trainer._metrics["train"][DEV_SCORE].append(value)
        if (best := self.best) is None:
            return
        note, new = best / "best.json", best.with_name("candidate")

        def is_better() -> bool:
            return not note.exists() or value > json.loads(note.read_text())[DEV_SCORE]

        def keep() -> None:
            write_json_atomic(new / note.name, {"step": state.global_step, DEV_SCORE: value})
            take_place(new, best)

        if processes.on_main(is_better):
            self.save(new)
            processes.on_main(keep)
