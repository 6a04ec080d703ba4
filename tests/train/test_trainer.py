"""Resuming: the newest intact checkpoint, and what happens to the others."""

import json

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from r1_mini.train.trainer import last_checkpoint, step_of


def checkpoint(work, step):
    folder = work / f"checkpoint-{step}"
    folder.mkdir()
    save_file({"weight": torch.ones(100)}, folder / "model.safetensors")
    torch.save({"state": torch.ones(100)}, folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "trainer_state.json").unlink(),
        lambda folder: cut(folder / "model.safetensors"),
        lambda folder: cut(folder / "optimizer.pt"),
    ],
    ids=["half-written", "weights", "optimizer"],
)
def test_a_damaged_checkpoint_is_moved_aside_and_said_and_the_one_before_it_is_taken(tmp_path, damage):
    console = Console(record=True, width=300)
    before, newest = checkpoint(tmp_path, 90), checkpoint(tmp_path, 100)
    assert last_checkpoint(tmp_path, console) == newest
    damage(newest)
    assert last_checkpoint(tmp_path, console) == before
    (aside,) = tmp_path.glob("damaged-checkpoint-100-*")
    assert "checkpoint-100 is damaged" in console.export_text() and aside.is_dir()
    damage(before)
    assert last_checkpoint(tmp_path, console) is None
    assert (step_of(before), step_of(None)) == (90, 0)
