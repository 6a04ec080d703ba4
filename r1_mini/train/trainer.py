"""What stages share: the fields of a trainer, resuming from the last checkpoint, saving."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    ProgressCallback,
    Trainer,
)

from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.system import distributed as processes
from r1_mini.system.files import Metrics, NoMetrics, remove, write_text_atomic
from r1_mini.train.callbacks import Reporter
from r1_mini.train.stage import Job


def arguments(defaults: Mapping[str, Any], fields: Mapping[str, Any], work: Path, seed: int) -> dict[str, Any]:
    """The fields for the TRL config of a stage: the defaults of its kind, overridden by the recipe's fields."""
    use_cpu = not torch.cuda.is_available()
    return {
        **defaults,
        **fields,
        "output_dir": str(work),
        "seed": seed,
        "data_seed": seed,
        "use_cpu": use_cpu,
    }


def load(
    job: Job, trainer: Mapping[str, Any], start: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that a stage starts from, on this process's device, with `model_init_kwargs` of its trainer's fields.

    fp32 if they do not say otherwise, as TRL does: an optimizer step can be smaller than bf16 can tell.
    """
    start = start or job.inputs["from"]
    options = trainer.get("model_init_kwargs") or {}
    model, tokenizer = load_checkpoint(start, processes.state().device, job.prompt, **options)
    if tokenizer.eos_token is None:
        raise UserError("the tokenizer has no EOS token", where=str(start), fix="set eos_token in its settings")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # as TRL does; padding is masked, EOS is not
    return model, tokenizer


def adapter(peft: Mapping[str, Any] | None) -> Any:
    """peft.LoraConfig of a stage's `peft`; None trains all weights."""
    if peft is None:
        return None
    from peft import LoraConfig

    return LoraConfig(**{"task_type": "CAUSAL_LM", **peft})


def shape_of(config: PretrainedConfig, dtype: torch.dtype, peft: Mapping[str, Any] | None) -> Any:
    """A model of a configuration with a stage's adapter, all of it on meta: it takes no memory.

    UserError if the adapter fits none of its modules.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if peft is None:
            return model
        from peft import get_peft_model

        try:
            return get_peft_model(model, adapter(peft))
        except (ValueError, TypeError) as error:
            reason = str(error).splitlines()[0][:150]
            fix = "name modules of the model, or set target_modules: all-linear"
            raise UserError(reason, where="peft", fix=fix) from None


def train(trainer: Trainer, reporter: Reporter, work: Path) -> None:
    """Run the trainer from its last checkpoint in `work`, or from the start."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(reporter)
    if processes.is_main():
        write_text_atomic(work / "trainer.json", trainer.args.to_json_string())
    last = processes.on_main(lambda: last_checkpoint(work))
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    finally:
        reporter.progress.stop()
        reporter.metrics.close()


def open_metrics(path: Path, keep_through: int) -> Metrics | NoMetrics:
    """metrics.jsonl, cut back to the step that training resumes from; nothing on a process that does not write."""
    return Metrics(path, keep_through=keep_through) if processes.is_main() else NoMetrics()


def resumed_step(work: Path) -> int:
    """The step that training in `work` goes on from."""
    last = processes.on_main(lambda: last_checkpoint(work))
    return step_of(last) if last else 0


def save(trainer: Trainer, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """The trained model and its tokenizer, whole, by the main process; weights that are spread come together first."""
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(folder))  # with its tokenizer
    elif processes.is_main():
        save_checkpoint(trainer.accelerator.unwrap_model(trainer.model), tokenizer, folder)
    processes.wait()


def last_checkpoint(work: Path) -> Path | None:
    """The newest checkpoint that was saved whole; the trainer writes trainer_state.json last. Halves are removed."""
    whole = []
    for folder in work.glob("checkpoint-*"):
        try:
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            whole.append(folder)
        except (OSError, ValueError):
            remove(folder)
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The step that a trainer's checkpoint was saved at."""
    return int(checkpoint.name.rsplit("-", 1)[1])
