"""Every recipe in the repository loads, and runs for a step of each stage up to the report."""

import runpy
import shutil
from pathlib import Path

import pytest

from eval import commands
from eval.exam.lineup import lineup_of
from eval.sweep.spec import read
from r1_mini import cli
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.pipeline.recipe import dump, load
from r1_mini.system.files import read_jsonl
from tests.commands import r1_mini

FOLDER = Path(__file__).parents[1] / "recipes"
SWEEPS = sorted((FOLDER / "sweeps").glob("*.yaml"))
RECIPES = sorted((FOLDER / "tiny").glob("*.yaml"))


@pytest.mark.parametrize("path", [*RECIPES, *(FOLDER / "laptop").glob("*.yaml")], ids=lambda path: path.stem)
def test_a_recipe_loads_and_its_resolved_form_loads_as_the_same(path, tmp_path):
    recipe = load(path)
    (tmp_path / "resolved.yaml").write_text(dump(recipe))
    assert load(tmp_path / "resolved.yaml") == recipe


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


PAPERS = ("r1_zero", "r1_literal", "dr_grpo", "dapo", "gspo", "cispo", "reinforce", "expert_iteration")


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_settings_start_from_the_base_of_the_default_recipe_and_see_as_many_completions(name):
    ours, theirs = (load(FOLDER / "tiny" / f"{each}.yaml") for each in ("r1_zero", name))
    assert (theirs.problems, theirs.stages[0]) == (ours.problems, ours.stages[0])
    assert theirs.evaluate == ours.evaluate.model_copy(update={"many": theirs.evaluate.many})
    stage = theirs.stages[1]
    if stage.kind == "rejection":
        seen, group = stage.rounds * stage.prompts * stage.samples, stage.samples
    else:
        seen = stage.trainer["max_steps"] * stage.trainer["per_device_train_batch_size"]
        group = stage.trainer["num_generations"]
    assert (seen, group) == (250 * 512, 16)  # those of r1_zero


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


SHORT = {
    "base": ["max_steps=2", "per_device_train_batch_size=4"],
    "grpo": ["max_steps=1", "per_device_train_batch_size=8", "num_generations=2", "max_completion_length=12"],
    "rejection": ["per_device_train_batch_size=8"],
    "sft": ["max_steps=1", "per_device_train_batch_size=4"],
    "distill": ["max_steps=1", "per_device_train_batch_size=4", "max_completion_length=12"],
    "collect": [],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs, in which a base that several recipes share is trained once."""
    return tmp_path_factory.mktemp("runs")


def page_of(path):
    """What decides which parts a report has."""
    recipe = load(path)
    exams = [(stage.kind, getattr(stage, "dev", None) is not None) for stage in recipe.stages]
    families = {source.name for source in recipe.problems}
    return str((exams, recipe.evaluate.suite, [*lineup_of(recipe, cooled=True).columns], sorted(families)))


PAGES = {page_of(path): path for path in RECIPES}.values()  # one recipe of each kind of report


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs_for_a_step_of_each_stage(path, runs, monkeypatch, capsys):
    """Of recipes whose reports have the same parts one has it made; of the others it is seen that it would be."""
    stages = load(path).stages
    kinds = [stage.kind for stage in stages]
    short = ["base.model.hidden_size=48", "base.model.layers=1"]
    short += ["evaluate.limit=4", "evaluate.samples=1", "evaluate.max_tokens=12", "evaluate.many=null"]
    for place, stage in enumerate(stages):
        short += [f"{stage.name or f'stages.{place}'}.trainer.{field}" for field in SHORT[stage.kind]]
    if {"rejection", "collect"} & set(kinds):  # which need a base that is right now and then
        short += ["problems=[{family: sum, terms: 2, digits: 1, largest: 3}]", "base.problems=[]"]
        short += ["base.trainer.max_steps=100", "base.early_voices=null"]
        short += ["base.voices={direct: 1, worked: 0, checked: 0}"]
    if "rejection" in kinds:
        short += ["rejection.rounds=1", "rejection.prompts=20"]
    if "collect" in kinds:
        short += ["data.prompts=60", "cold.voices={direct: 1, worked: 0, checked: 0}"]
    published = []
    if path not in PAGES:
        monkeypatch.setattr(commands, "publish", lambda columns, folder, *_: published.append(folder))
    assert cli.main(["run", str(path), *short, "--out", str(runs / path.stem)]) == 0, capsys.readouterr().err
    compared = len(kinds) > 1
    assert published == ([runs / path.stem] if compared and path not in PAGES else [])
    assert (runs / path.stem / "report.html").is_file() is (compared and path in PAGES)
    assert ("nothing to compare" in capsys.readouterr().out) is not compared


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
    trainer: {max_steps: 2, per_device_train_batch_size: 8}
  - kind: grpo
    trainer: {max_steps: 1, per_device_train_batch_size: 8, num_generations: 2, max_completion_length: 12}
evaluate: {suite: own, limit: 6, samples: 1, max_tokens: 12}
"""


@pytest.mark.slow
def test_a_recipe_of_stories_and_countdowns_runs_from_random_weights_to_the_report(tmp_path):
    (tmp_path / "words.yaml").write_text(WORDS)
    out = tmp_path / "run"
    r1_mini("run", tmp_path / "words.yaml", "--out", out)
    assert (out / "report.html").is_file()
    rows = read_jsonl(out / "eval" / "own" / "02-grpo" / "samples.jsonl")
    assert {(row["family"], row["judge"]) for row in rows} == {("word", "number"), ("countdown", "countdown")}
    assert not any("<unk>" in row["prompt"] for row in rows)
    known = load_checkpoint(out / "02-grpo")[1].get_vocab()
    assert {character for row in rows for character in row["question"]} <= known.keys()


def test_the_cold_start_is_what_its_script_writes(tmp_path):
    script = Path(shutil.copy(FOLDER / "tiny" / "cold_start.py", tmp_path))
    runpy.run_path(str(script), run_name="__main__")
    assert script.with_suffix(".jsonl").read_bytes() == (FOLDER / "tiny" / "cold_start.jsonl").read_bytes()
