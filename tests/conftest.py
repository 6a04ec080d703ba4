"""Shared by all tests: a recipe to start from, a finished smoke run, and GPU tests skipped where there is no GPU."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
    """A finished run of the smoke recipe, and what it printed; nobody may change it."""
    out = tmp_path_factory.mktemp("smoke") / "run"
    done = run(out)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a recipe's text to a file; with no text, a small one that is right."""

    def write(text: str = TINY) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not on_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
