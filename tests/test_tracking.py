"""What TensorBoard gets by TRL's `report_to` beside our own JSONL."""

import pytest

from r1_mini.system.files import read_jsonl
from tests.conftest import EXAMINED, run_until


@pytest.mark.slow
def test_tensorboard_gets_the_curves_that_our_jsonl_has(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    small = ("base.trainer.max_steps=20", "grpo.trainer.max_steps=3", "grpo.trainer.report_to=tensorboard")
    exam = ("evaluate.limit=4", "evaluate.samples=1", "evaluate.columns=[base,grpo]")
    run_until(EXAMINED, tmp_path / "run", *small, *exam)
    stage = tmp_path / "run" / "02-grpo"
    (events,) = stage.rglob("events.out.tfevents.*")
    board = EventAccumulator(str(events.parent))
    board.Reload()
    ours = [row["reward"] for row in read_jsonl(stage / "metrics.jsonl")]
    assert [scalar.value for scalar in board.Scalars("train/reward")] == pytest.approx(ours)
    assert not list((tmp_path / "run" / "01-base").rglob("events.out.tfevents.*"))
