"""A recipe's graph: each stage runs once, after the one it starts from; a new kind is a class and one line in STAGES."""

import io
import json
from types import MappingProxyType
from typing import Literal

import pytest
import torch
from rich.console import Console

from r1_mini import cli
from r1_mini.completion import Graded
from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.pipeline.recipe import dump, load
from r1_mini.pipeline.run import run
from r1_mini.pipeline.start import check
from r1_mini.train import STAGES
from r1_mini.train.stage import StageSettings, Work

pytestmark = pytest.mark.slow
RECIPE = """
name: graph
problems: [{family: sum, terms: [2, 4], digits: 1}]
stages:
  right: {kind: scale, from: base, factor: 2.0}
  rl: {kind: grpo, from: half, trainer: {max_steps: 1, per_device_train_batch_size: 8, num_generations: 4}}
  half: {kind: scale, from: base}
  base: {kind: base, model: {hidden_size: 32, heads: 2}, trainer: {max_steps: 2, per_device_train_batch_size: 8}}
  small: {kind: base, model: {hidden_size: 32, heads: 2, layers: 1}, trainer: {max_steps: 1, per_device_train_batch_size: 8}}
evaluate: {suite: smoke, limit: 4, columns: [base, base+worked, rl, right], pairs: [[base, rl], [base, right]]}
"""
STARTED: list[str] = []


class ScaleStage(StageSettings):
    """Multiplies all weights by a factor."""

    VERSION = 1
    CONFIG = "SFTConfig"
    DEFAULTS = MappingProxyType({})
    reinforces = True

    kind: Literal["scale"]
    factor: float = 0.5

    def train(self, job):
        STARTED.append(job.name)
        model, tokenizer = load_checkpoint(job.start, "cpu", job.prompt)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(self.factor)
        save_checkpoint(model, tokenizer, job.out)

    def work(self, processes=1, sharded=False):
        return Work(steps=0, micro_batch=1, accumulation=1, texts=0)


class NoExam:
    """An exam that asks nothing and remembers what it was given."""

    def __call__(self, run, checkpoints, seconds, console):
        self.checkpoints = checkpoints

    def problems(self):
        return []


def train(recipe, out, console, exam):
    run(recipe, None, check(recipe, exam.problems(), console), out, console, exam)


@pytest.fixture
def recipe_file(tmp_path, monkeypatch):
    monkeypatch.setitem(STAGES, "scale", ScaleStage)
    STARTED.clear()
    path = tmp_path / "graph.yaml"
    path.write_text(RECIPE)
    return path


def first_weight(checkpoint):
    return next(load_checkpoint(checkpoint, "cpu")[0].parameters()).detach()


def test_each_stage_of_two_branches_runs_once_after_the_one_it_starts_from(recipe_file, tmp_path, monkeypatch):
    out, printed, exam = tmp_path / "runs" / "a", io.StringIO(), NoExam()
    train(load(recipe_file), out, Console(file=printed, width=200), exam)
    names = list(exam.checkpoints)
    assert sorted(names) == ["base", "half", "right", "rl", "small"]
    starts = {"base": None, "small": None, "half": "base", "right": "base", "rl": "half"}
    assert all(start is None or names.index(start) < names.index(stage) for stage, start in starts.items())
    assert sorted(STARTED) == ["half", "right"]
    assert torch.equal(first_weight(out / "right"), 2 * first_weight(out / "base"))
    assert torch.equal(first_weight(out / "half"), 0.5 * first_weight(out / "base"))
    manifest = json.loads((out / "manifest.json").read_text())["stages"]
    assert {name: stage["from"] for name, stage in manifest.items()} == starts

    other = tmp_path / "runs" / "b"
    train(load(recipe_file, ["right.factor=3.0"]), other, Console(file=printed, width=200), exam)
    assert STARTED[2:] == ["right"]
    assert printed.getvalue().count("done before, skipped") == 4
    assert torch.equal(first_weight(other / "right"), 3 * first_weight(out / "base"))
    assert torch.equal(first_weight(out / "right"), 2 * first_weight(out / "base"))

    monkeypatch.setattr(ScaleStage, "VERSION", ScaleStage.VERSION + 1)
    train(load(recipe_file), out, Console(file=printed, width=200), exam)
    assert sorted(STARTED[3:]) == ["half", "right"]
    assert "right: moved to right." in printed.getvalue()


def test_a_folder_that_holds_another_run_is_refused_and_left_alone(recipe_file, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.yaml").write_text(dump(load(recipe_file)))
    with pytest.raises(UserError, match=r"run: holds another run: seed is 0 there and 1 now; choose another folder"):
        train(load(recipe_file, ["seed=1"]), out, Console(quiet=True), NoExam())
    assert sorted(path.name for path in out.iterdir() if path.name != ".lock") == ["recipe.yaml"]


def test_a_new_kind_of_stage_runs_through_plan_run_and_exam(recipe_file, tmp_path, capsys):
    assert cli.main(["plan", str(recipe_file)]) == 0
    assert cli.main(["run", str(recipe_file), "--out", str(tmp_path / "run")]) == 0, capsys.readouterr()
    assert (tmp_path / "run" / "summary.json").exists()


READS = """
name: reads
problems: [{family: sum, terms: [2, 4], digits: 1}]
stages:
  base: {kind: base, model: {hidden_size: 32, heads: 2}, trainer: {max_steps: 2, per_device_train_batch_size: 8}}
  data: {kind: collect, from: base, prompts: 6, samples: 2, max_tokens: 6}
  again: {kind: sft, from: base, problems: [{collected: data}], trainer: {max_steps: 1}}
  pupil: {kind: distill, from: base, teacher: again, trainer: {max_steps: 1, per_device_train_batch_size: 4, max_completion_length: 6}}
  apart: {kind: sft, from: base, trainer: {max_steps: 1}}
"""


def test_a_changed_collection_redoes_itself_and_what_reads_it_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(Graded, "correct", True)  # random weights are never right
    path, exam = tmp_path / "recipe.yaml", NoExam()
    path.write_text(READS)

    def trained(out, *changes):
        printed = io.StringIO()
        train(load(path, changes), tmp_path / "runs" / out, Console(file=printed, width=200), exam)
        skipped = {line.split()[0] for line in printed.getvalue().splitlines() if "done before" in line}
        return set(exam.checkpoints) - skipped

    assert trained("a") == {"base", "data", "again", "pupil", "apart"}
    data = tmp_path / "runs" / "a" / "data"
    rows = [json.loads(line) for line in (data / "data.jsonl").read_text().splitlines()]
    counts = json.loads((data / "counts.json").read_text())
    assert counts["sampled"] == 12
    assert counts["kept"] == len(rows) == 12 - sum(counts["taken"].values())
    assert trained("b") == set()
    assert trained("c", "data.samples=3") == {"data", "again", "pupil"}
    assert trained("d", "pupil.trainer.max_steps=2") == {"pupil"}
