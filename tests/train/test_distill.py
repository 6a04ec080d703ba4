"""On-policy distillation: the loss is the reverse KL from the teacher on what the student wrote, worked out by hand."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

from r1_mini.data.source import FamilySource
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.system.files import read_jsonl
from r1_mini.train.distill import DistillStage, Trainer
from r1_mini.train.stage import Job

SPECS = (FamilySource(family="sum", terms=(2, 3), digits=1, largest=9),)
SHAPE = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32}


@pytest.fixture
def job(tmp_path: Path):
    """A job that distills a random teacher into a random student."""
    tokenizer = make_tokenizer()
    for seed, name in enumerate(("student", "teacher")):
        save_checkpoint(make_model(tokenizer, **SHAPE, seed=seed), tokenizer, tmp_path / name)
    trainer = {"max_steps": 30, "per_device_train_batch_size": 8, "max_completion_length": 12, "learning_rate": 1e-2}
    stage = DistillStage(kind="distill", teacher="big", trainer=trainer)
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    place = (tmp_path / "student", SPECS, "auto", 0, work, out, Console(quiet=True), {"big": tmp_path / "teacher"})
    return Job("distill", stage, *place)


def test_the_loss_is_the_reverse_kl_of_the_students_own_tokens(job: Job, monkeypatch) -> None:
    seen, real = [], Trainer._compute_loss

    def by_hand(self, student, inputs, number):
        found = real(self, student, inputs, number)
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        ours, theirs = (
            model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)[:, inputs["prompt_ids"].shape[1] - 1 : -1]
            for model in (student, self.teacher_model)
        )
        divergence_BT = (ours.exp() * (ours - theirs)).sum(-1)
        kept_BT = inputs["completion_mask"].bool()
        seen.append((float(found[0]), float(divergence_BT[kept_BT].mean()), int(number), int(kept_BT.sum())))
        return found

    monkeypatch.setattr(Trainer, "_compute_loss", by_hand)
    job.settings.train(job)
    for loss, divergence, number, tokens in seen:
        assert number == tokens
        assert loss == pytest.approx(divergence, abs=1e-5)
    losses = [row["loss"] for row in read_jsonl(job.out / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]
    assert load_checkpoint(job.out)[0].config.hidden_size == 16
