"""Trackers of TRL's `report_to`: their names, their packages, and what TensorBoard gets beside our own JSONL."""

from __future__ import annotations

import importlib.util

import pytest

from r1_mini import cli
from r1_mini.config import trl_fields as trainer_fields
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import load
from r1_mini.system.files import read_jsonl
from tests.conftest import SMOKE, TINY, run


@pytest.mark.slow
def test_tensorboard_gets_the_curves_that_our_jsonl_has(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small = ("base.trainer.max_steps=20", "grpo.trainer.max_steps=3", "evaluate.limit=4", "evaluate.samples=1")
    done = run(tmp_path / "run", *small, "grpo.trainer.report_to=tensorboard")
    assert done.returncode == 0, done.stderr
    stage = tmp_path / "run" / "02-grpo"
    (events,) = stage.rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events.parent))
    board.Reload()
    ours = [row["reward"] for row in read_jsonl(stage / "metrics.jsonl")]
    assert [scalar.value for scalar in board.Scalars("train/reward")] == pytest.approx(ours)
    assert not list((tmp_path / "run" / "01-base").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize("said", ["tensorbord", "[wandb, tensorbord]"])
def test_a_tracker_that_nobody_knows_is_refused_with_the_nearest_name(said, recipe_file):
    with pytest.raises(UserError, match=r"no tracker is called 'tensorbord'; did you mean .*tensorboard"):
        load(recipe_file(TINY), [f"grpo.trainer.report_to={said}"])


def test_a_tracker_without_its_package_is_one_line_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        trainer_fields.importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else found(name, *a)
    )
    arguments = ["run", str(SMOKE), "grpo.trainer.report_to=[tensorboard, wandb]", "--out", str(tmp_path / "run")]
    assert cli.main(arguments) == 2
    line = "error: stages.1.trainer.report_to: needs the package wandb; pip install 'r1-mini[wandb]', or leave it out\n"
    assert capsys.readouterr().err == line
    assert not (tmp_path / "run").exists()
