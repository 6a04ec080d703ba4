"""A sweep whose trials are copies of prepared runs: the machinery without the training."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.sweep import worker
from eval.sweep.command import open_study
from eval.sweep.spec import read
from eval.sweep.study import Study
from tests.conftest import TINY
from tests.eval.conftest import write_run

MARKS = {0.1: ("1100", "1000"), 0.2: ("1110", "1111"), 0.3: ("0000", "1000"), 0.4: ("1100", "1100")}
"""Learning rate -> what the last checkpoint gets right with each of two seeds, of four samples a problem."""

FAKE = """
import shutil, sys, time
overrides = dict(each.split("=", 1) for each in sys.argv[1:] if "=" in each)
time.sleep(0.3)
rate, seed = float(overrides["grpo.trainer.learning_rate"]), overrides["seed"]
shutil.copytree(f"{TEMPLATES}/{rate}-{seed}", sys.argv[sys.argv.index("--out") + 1], dirs_exist_ok=True)
"""


@pytest.fixture
def sweep_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sweep beside a recipe; the keyword arguments are its text."""

    def write(**parts: str) -> Path:
        (tmp_path / "recipe.yaml").write_text(TINY, encoding="utf-8")
        path = tmp_path / "sweep.yaml"
        lines = {"name": "s", "recipe": "recipe.yaml", **parts}
        path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()), encoding="utf-8")
        return path

    return write


@pytest.fixture
def grid(sweep_file: Callable[..., Path], tmp_path: Path) -> Path:
    """A sweep of four learning rates with two seeds, and its trials' runs in `templates`."""
    for rate, marks in MARKS.items():
        for seed, rl in enumerate(marks):
            write_run(tmp_path / "templates" / f"{rate}-{seed}", seed, "1000", "1000", rl)
    return sweep_file(
        space=f"{{grpo.trainer.learning_rate: {{choices: {list(MARKS)}}}}}", seeds="{key: seed, values: [0, 1]}"
    )


def expected() -> set[tuple[str, int, float]]:
    """(setting, seed, score) of every trial of `grid`."""
    return {
        (f"learning_rate={rate}", seed, rl.count("1") / 4)
        for rate, marks in MARKS.items()
        for seed, rl in enumerate(marks)
    }


def results(study: Study) -> list[tuple[str, int, float | None]]:
    return [(trial.setting, trial.seed, trial.value) for trial in study.trials()]


def study_of(path: Path, url: str | None = None) -> Study:
    return open_study(read(path), path.parent / "out", url)


def _work(path: Path, url: str | None) -> None:
    script = f"TEMPLATES = {str(path.parent / 'templates')!r}\n{FAKE}"
    worker.COMMAND = (sys.executable, "-c", script)
    worker.work(study_of(path, url), {})


def start_worker(path: Path, url: str | None = None) -> multiprocessing.process.BaseProcess:
    """A worker in a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(path, url))
    process.start()
    return process
