"""Every recipe in the repository loads, and runs for a step of each stage up to the report."""

import subprocess
import sys
from pathlib import Path

import pytest

from r1_mini.recipe import dump, load

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(FOLDER.rglob("*.yaml"))


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {"r1_zero", "expression", "smoke"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_resolved_form_loads_as_the_same(path, tmp_path):
    recipe = load(path)
    (tmp_path / "resolved.yaml").write_text(dump(recipe))
    assert load(tmp_path / "resolved.yaml") == recipe


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_for_a_step_of_each_stage(path, tmp_path):
    short = ["base.trainer.max_steps=10", "grpo.trainer.max_steps=1", "evaluate.limit=8", "evaluate.samples=1"]
    command = [sys.executable, "-m", "r1_mini", "run", str(path), *short, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
