"""What all stages share: the newest intact checkpoint, training that diverges, the work that a stage announces."""

import json
import math
from contextlib import closing
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from transformers import TrainerControl, TrainerState, TrainingArguments
from trl import GRPOConfig

from r1_mini.errors import UserError
from r1_mini.system.files import Metrics
from r1_mini.train import stage_of
from r1_mini.train.callbacks import Reporter
from r1_mini.train.trainer import last_checkpoint


def checkpoint(work, step):
    folder = work / f"checkpoint-{step}"
    folder.mkdir()
    save_file({"weight": torch.ones(100)}, folder / "model.safetensors")
    torch.save({"state": torch.ones(100)}, folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    reporter = Reporter("rl", Metrics(None), Console(quiet=True), {}, lambda step: {})
    reporter.on_save(TrainingArguments(output_dir=str(work)), TrainerState(global_step=step), None)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("name", ["files.json", "optimizer.pt", "trainer_state.json", "model.safetensors"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("[]"), cut])
def test_a_damaged_checkpoint_is_moved_aside_and_said_and_the_one_before_it_is_taken(tmp_path, name, damage):
    console = Console(record=True, width=300)
    before, newest = checkpoint(tmp_path, 90), checkpoint(tmp_path, 100)
    assert last_checkpoint(tmp_path, console) == newest
    damage(newest / name)
    assert last_checkpoint(tmp_path, console) == before
    (aside,) = tmp_path.glob("damaged-checkpoint-100-*")
    assert "checkpoint-100 is damaged" in console.export_text() and aside.is_dir()
    damage(before / name)
    assert last_checkpoint(tmp_path, console) is None


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_training_that_diverged_ends_with_the_step_and_the_fix(tmp_path, name):
    args, state = TrainingArguments(output_dir=str(tmp_path), learning_rate=0.5), TrainerState(global_step=7)
    with closing(Metrics(tmp_path / "metrics.jsonl")) as metrics:
        reporter = Reporter("rl", metrics, Console(quiet=True), {}, lambda step: {"loss": 0.1})
        logs = {"loss": 0.1, name: math.nan}
        with pytest.raises(UserError, match=f"rl: diverged: {name} is not a number at step 7; lower learning_rate"):
            reporter.on_log(args, state, TrainerControl(), logs)
        args.fp16 = True  # whose scaler skips such a step
        reporter.on_log(args, state, TrainerControl(), logs)


@pytest.mark.parametrize(
    ("shares", "is_said"), [((1.0, 1.0), True), ((1.0, 0.9), False), ((None,), False), ((), False)]
)
def test_a_training_in_which_no_rewards_differ_says_that_nothing_was_learned(shares, is_said):
    console, state = Console(record=True, width=300), TrainerState(global_step=1)
    reporter = Reporter("rl", Metrics(None), console, {"loss": "loss", "zero": "zero_variance"}, lambda step: {})
    for share in shares:
        reporter.on_log(None, state, None, {"loss": 0.0} | ({} if share is None else {"zero": share}))
    reporter.on_train_end(None, state, None)
    assert ("rl: in no group did the rewards differ" in console.export_text()) == is_said


@pytest.mark.parametrize(
    ("trainer", "rollouts", "prompts", "served"),
    [
        ({}, 10, 10 * 4, 1),
        ({"gradient_accumulation_steps": 2}, 10, 10 * 8, 2),
        ({"num_iterations": 2}, 5, 5 * 4, 2),  # each rollout serves two steps
        ({"steps_per_generation": 3}, 4, 4 * 12, 3),  # 10 steps take 3.3 rollouts of three micro-batches
        ({"generation_batch_size": 64, "gradient_accumulation_steps": 3}, 15, 15 * 8, 2),
    ],
)
def test_the_work_of_grpo_is_that_of_trls_arithmetic(tmp_path, trainer, rollouts, prompts, served):
    fields = {"max_steps": 10, "per_device_train_batch_size": 32, "num_generations": 8, **trainer}
    work = stage_of({"kind": "grpo", "trainer": fields}).work()
    assert (work.rollouts, work.prompts, work.micro_steps_per_rollout) == (rollouts, prompts, served)
    config = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **fields)
    assert served == config.steps_per_generation * config.num_iterations
    assert work.prompts == work.rollouts * config.generation_batch_size // config.num_generations
    aligned = config.gradient_accumulation_steps % served == 0
    assert (work.batching == "in backward") is aligned


@pytest.mark.parametrize(
    ("trainer", "own", "in_backward", "reference"),
    [
        ({}, True, True, False),
        ({"beta": 0.1}, True, False, True),
        ({"entropy_coef": 0.1}, True, False, False),
        ({"top_k": 5}, False, False, False),
    ],
)
def test_which_sampler_which_pass_and_which_models_a_grpo_stage_needs(trainer, own, in_backward, reference):
    work = stage_of({"kind": "grpo", "trainer": trainer, "rows": 100}).work()
    assert (work.batching == "in backward", work.reference) == (in_backward, reference)
    assert work.in_flight == (100 if own else 512)  # where TRL samples, all at once


def test_the_work_of_a_round_of_expert_iteration_by_hand():
    work = stage_of({"kind": "rejection", "rounds": 3, "prompts": 100, "samples": 8}).work(processes=2)
    assert (work.rounds, work.prompts, work.texts, work.steps) == (3, 300, 800, 2)  # 800 texts, 2 x 256 a step
    assert (work.sampling.n, work.sampling.max_tokens, work.in_flight) == (8, 128, 400)
