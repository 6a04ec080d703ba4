"""Every recipe in the repository loads, and runs for a step of each stage up to the report."""

from pathlib import Path

import pytest

from eval.sweep.spec import read
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.pipeline.recipe import dump, load
from r1_mini.system.files import read_jsonl
from tests.commands import r1_mini

FOLDER = Path(__file__).parents[1] / "recipes"
SWEEPS = sorted((FOLDER / "sweeps").glob("*.yaml"))
RECIPES = sorted((FOLDER / "tiny").glob("*.yaml"))


def test_there_are_recipes():
    assert {path.stem for path in RECIPES} >= {"r1_zero", "expression", "smoke"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_resolved_form_loads_as_the_same(path, tmp_path):
    recipe = load(path)
    (tmp_path / "resolved.yaml").write_text(dump(recipe))
    assert load(tmp_path / "resolved.yaml") == recipe


def test_there_are_sweeps():
    assert {path.stem for path in SWEEPS} >= {"controls", "kl", "exposure", "curriculum", "algorithms"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_loads_and_trains_one_base_where_the_base_is_not_what_it_varies(path):
    sweep, recipes = read(path)
    assert sweep.name == path.stem
    if path.stem == "exposure":
        return
    assert sweep.seeds.key == "grpo.seed" or sweep.set["base.seed"] == 0
    bases = {repr(recipe.stages[0]) for recipe in recipes.values() if len(recipe.stages) > 1}
    assert len(bases) == 1
    for name, setting in sweep.known().items():
        assert name == "more base" or not any(key.startswith("base.") for key in setting)


@pytest.mark.parametrize("name", ["r1_literal", "dr_grpo", "dapo", "gspo", "cispo", "reinforce", "expert_iteration"])
def test_the_papers_settings_start_from_the_base_of_the_default_recipe_and_see_as_many_completions(name):
    ours, theirs = (load(FOLDER / "tiny" / f"{each}.yaml") for each in ("r1_zero", name))
    assert (theirs.problems, theirs.stages[0], theirs.evaluate) == (ours.problems, ours.stages[0], ours.evaluate)
    assert [_seen(recipe.stages[1]) for recipe in (ours, theirs)] == [(128_000, 16)] * 2


def _seen(stage):
    """Completions in all, and of each problem."""
    if stage.kind == "rejection":
        return stage.rounds * stage.prompts * stage.samples, stage.samples
    trainer = stage.trainer
    return trainer["max_steps"] * trainer["per_device_train_batch_size"], trainer["num_generations"]


def test_the_base_trained_longer_differs_in_its_steps_alone():
    base, more = (load(FOLDER / "tiny" / f"{each}.yaml").stages[0] for each in ("r1_zero", "more_base"))
    assert more.model_copy(update={"trainer": base.trainer}) == base
    assert more.trainer == base.trainer | {"max_steps": 4100}


def test_a_curriculum_adds_an_operation_at_a_time_and_takes_as_many_steps_as_its_rivals():
    sweep, recipes = read(FOLDER / "sweeps" / "curriculum.yaml")
    stages = recipes["curriculum"].stages[1:]
    assert [stage.problems[0].axes.terms for stage in stages] == [(2, most) for most in range(7, 12)]
    steps = sum(stage.trainer["max_steps"] for stage in stages)
    rivals = [setting for setting in sweep.known().values() if "recipe" not in setting]
    assert [setting["grpo.trainer.max_steps"] for setting in rivals] == [steps] * 2


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_for_a_step_of_each_stage(path, tmp_path):
    kinds = [stage.kind for stage in load(path).stages]
    short = ["evaluate.limit=8", "evaluate.samples=1"]
    short += [f"stages.{place}.trainer.max_steps=1" for place, kind in enumerate(kinds) if kind == "grpo"]
    if "rejection" in kinds:  # which needs a base that is right now and then
        short += ["base.trainer.max_steps=300", "rejection.rounds=1", "rejection.prompts=50"]
    else:
        short += ["base.trainer.max_steps=10"]
    done = r1_mini("run", str(path), *short, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").is_file() or len(kinds) == 1


WORDS = """
name: words
problems:
  - {family: word, depth: [1, 2], distractors: [0, 1]}
  - {family: countdown, numbers: [2, 3], largest_number: 9, largest: 20}
stages:
  - kind: base
    model: {hidden_size: 32, layers: 1, heads: 2}
    voices: {direct: 0.3, worked: 0.4, checked: 0.3}
    wording: restate
    trainer: {max_steps: 4, per_device_train_batch_size: 8}
  - kind: grpo
    trainer: {max_steps: 2, per_device_train_batch_size: 16, num_generations: 4, max_completion_length: 24}
evaluate: {suite: own, limit: 8, samples: 2, max_tokens: 24}
"""


@pytest.mark.slow
def test_a_recipe_of_stories_and_countdowns_runs_from_random_weights_to_the_report(tmp_path):
    (tmp_path / "words.yaml").write_text(WORDS)
    out = tmp_path / "run"
    done = r1_mini("run", str(tmp_path / "words.yaml"), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert (out / "report.html").is_file()
    rows = read_jsonl(out / "eval" / "own" / "02-grpo" / "samples.jsonl")
    assert {(row["family"], row["judge"]) for row in rows} == {("word", "number"), ("countdown", "countdown")}
    assert not any("<unk>" in row["prompt"] for row in rows)
    known = load_checkpoint(out / "02-grpo")[1].get_vocab()
    assert {character for row in rows for character in row["question"]} <= known.keys()
