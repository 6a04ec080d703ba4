"""Every recipe in the repository loads, and runs for a step of each stage up to the report."""

import subprocess
import sys
from pathlib import Path

import pytest

from eval.sweep.plan import read
from r1_mini.recipe import dump, load

FOLDER = Path(__file__).parents[1] / "recipes"
SWEEPS = sorted((FOLDER / "sweeps").glob("*.yaml"))
RECIPES = sorted(set(FOLDER.rglob("*.yaml")) - set(SWEEPS))


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {"r1_zero", "expression", "smoke"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_resolved_form_loads_as_the_same(path, tmp_path):
    recipe = load(path)
    (tmp_path / "resolved.yaml").write_text(dump(recipe))
    assert load(tmp_path / "resolved.yaml") == recipe


def test_there_are_sweeps():
    assert {path.stem for path in SWEEPS} >= {"controls", "kl", "exposure", "algorithms"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_loads_and_trains_one_base_where_the_base_is_not_what_it_varies(path):
    plan = read(path)
    assert plan.sweep.name == path.stem
    if path.stem == "exposure":
        return
    assert plan.sweep.seeds.key == "grpo.seed"
    bases = {repr(recipe.stages[0]) for recipe in plan.recipes.values()}
    assert len(bases) == 1
    assert not any(key.startswith("base.") for setting in plan.settings() for key in setting.changes)


@pytest.mark.parametrize("name", ["r1_literal", "dr_grpo", "dapo", "gspo", "cispo", "reinforce"])
def test_the_papers_settings_start_from_the_base_of_the_default_recipe_and_see_as_many_completions(name):
    ours, theirs = (load(FOLDER / "tiny" / f"{each}.yaml") for each in ("r1_zero", name))
    assert (theirs.problems, theirs.stages[0], theirs.evaluate) == (ours.problems, ours.stages[0], ours.evaluate)
    seen = [
        (stage.trainer["max_steps"] * stage.trainer["per_device_train_batch_size"], stage.trainer["num_generations"])
        for stage in (ours.stages[1], theirs.stages[1])
    ]
    assert seen == [(128_000, 16)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_for_a_step_of_each_stage(path, tmp_path):
    short = ["base.trainer.max_steps=10", "grpo.trainer.max_steps=1", "evaluate.limit=8", "evaluate.samples=1"]
    command = [sys.executable, "-m", "r1_mini", "run", str(path), *short, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
