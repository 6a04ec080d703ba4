"""Shared by all tests: a recipe to start from, a finished smoke run, and GPU tests skipped where there is no GPU."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.commands import r1_mini

TINY = """
name: tiny
problems:
  - {family: sum, terms: [2, 4], digits: 1}
stages:
  - kind: base
    trainer: {max_steps: 3, per_device_train_batch_size: 8, learning_rate: 1e-3}
  - kind: grpo
    trainer: {max_steps: 2, per_device_train_batch_size: 16, num_generations: 4}
"""

SMOKE = Path(__file__).parents[1] / "recipes" / "tiny" / "smoke.yaml"
SAVES = ("base.trainer.save_steps=40", "grpo.trainer.save_steps=4")


def arguments(out, *overrides):
    """Those of the command that runs the smoke recipe into `out`."""
    return ["run", str(SMOKE), *SAVES, *overrides, "--out", str(out)]


def run(out, *overrides):
    return r1_mini(*arguments(out, *overrides))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A finished run of the smoke recipe, and what it printed; all workers have it, and nobody may change it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all workers
    out, printed = folder / "smoke" / "run", folder / "smoke.txt"
    with FileLock(folder / "smoke.lock"):
        if not printed.exists():
            done = run(out)
            assert (done.returncode, done.stderr) == (0, "")
            printed.write_text(done.stdout)
    return out, printed.read_text()


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe's text to a file; with no text, a small one that is right."""

    def write(text: str = TINY) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)  # so that no worker is left alone at the end
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
