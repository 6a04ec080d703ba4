"""What all stages share: loading, training from the last checkpoint, saving.

Not here: what a stage trains on and its loss (a file for each kind), and which stages a run has (`pipeline/run.py`).
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, Trainer

from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.system import distributed as processes
from r1_mini.system.files import Metrics, sha256, write_text_atomic
from r1_mini.train.callbacks import FILES, Reporter, checkpoints, step_of
from r1_mini.train.logps import narrow_tiles
from r1_mini.train.stage import Job


def load(job: Job) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that a stage starts from, on this process's device.

    fp32 by default, as in TRL: bf16 would round small optimizer steps away.
    """
    assert job.start is not None
    options = job.settings.trainer.get("model_init_kwargs") or {}
    model, tokenizer = load_checkpoint(job.start, processes.state().device, job.prompt, **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # as TRL does; padding is masked, EOS is not
    return model, tokenizer


def train(
    trainer: Trainer,
    job: Job,
    names: Mapping[str, str],
    more: Callable[[int], dict[str, Any]] = lambda step: {},
    done_before: int = 0,
) -> None:
    """Train from the last checkpoint in `job.work`, or from the start.

    Each step has a line in metrics.jsonl: what the trainer logs, `names` being its names -> ours, and `more` of the
    step. `done_before`: steps in that file that were done before this training.
    """
    last = last_checkpoint(job.work, job.console)
    path = job.out / "metrics.jsonl" if processes.is_main() else None
    metrics = Metrics(path, keep_through=done_before + step_of(last))
    keep = trainer.args.save_total_limit
    reporter = Reporter(job.name, metrics, job.console, names, more, keep, job.watch)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(reporter)
    if processes.is_main():
        write_text_atomic(job.work / "trainer.json", trainer.args.to_json_string())
    trainer.args.save_total_limit = None  # transformers removes a checkpoint before ours has its list of files
    try:
        with narrow_tiles(trainer.model.config.get_text_config(decoder=True).vocab_size):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    finally:
        reporter.progress.stop()
        metrics.close()


def save(trainer: Trainer, folder: Path) -> None:
    """Save the whole trained model and its tokenizer, from the main process; sharded weights are gathered first."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(folder))  # with its tokenizer
    elif not all(weights.isfinite().all() for weights in trainer.model.parameters()):
        raise UserError(
            "diverged: the weights are not finite", where=folder.name.removeprefix(".work-"), fix="lower learning_rate"
        )
    elif processes.is_main():
        save_checkpoint(trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class, folder)
    processes.wait()


def last_checkpoint(work: Path, console: Console) -> Path | None:
    """The newest intact checkpoint of a trainer in `work`; None is the start.

    A damaged one is moved aside, and that is said: training goes on from the one before it.
    """

    def newest() -> Path | None:
        for folder in checkpoints(work):
            try:
                _require_intact(folder)
                return folder
            except (OSError, ValueError) as error:
                aside = folder.rename(work / f"damaged-{folder.name}-{time.time_ns()}")
                console.print(f"{folder.name} is damaged ({error}); moved to {aside}, going on from the one before")
        return None

    return processes.on_main(newest)


def _require_intact(checkpoint: Path) -> None:
    """Raise an error if a file of a trainer's checkpoint is missing, or not as it was written."""
    files = json.loads((checkpoint / FILES).read_text(encoding="utf-8"))
    if not files or not isinstance(files, dict):
        raise ValueError(f"{FILES} lists no files")
    for name, digest in files.items():
        if sha256(checkpoint / name) != digest:
            raise ValueError(f"{name} is not as it was written")
