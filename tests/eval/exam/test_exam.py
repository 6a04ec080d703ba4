"""The exam of a run before any training: what it asks, and what it refuses."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from eval.exam import exam as module
from eval.exam.exam import TEMPERATURES, Exam
from eval.exam.lineup import COOLED, Lineup, lineup_of
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import Recipe
from r1_mini.problems.problem import split_of
from r1_mini.system import environment
from tests.eval.conftest import make_rows, write_exam

BASE, SFT, GRPO = {"kind": "base"}, {"kind": "sft"}, {"kind": "grpo", "trainer": {}}


def recipe(*stages, **evaluate):
    problems = [{"family": "sum", "terms": [2, 6], "largest": 99}]
    values = {"name": "x", "problems": problems, "stages": [BASE, *stages], "evaluate": evaluate}
    return Recipe.model_validate(values)


def test_a_recipe_can_change_its_exam_and_the_same_exam_is_drawn_again():
    exam = Exam(recipe(suite="own", limit=40, samples=2, split="dev"))
    assert {(each.problem.family, split_of(each.problem.key)) for each in exam.questions} == {("sum", "dev")}
    assert (len(exam.questions), exam.suite.samples, exam.suite.split) == (40, 2, "dev")
    first, again, other = (Exam(recipe(suite="smoke", limit=20, seed=seed)).questions for seed in (0, 0, 9))
    assert first == again != other


def test_a_suite_on_test_is_drawn_from_dev_during_training():
    exam = Exam(recipe({**GRPO, "dev": {"every": 5, "suite": "smoke"}}, suite="smoke"))
    assert exam.suite.split == "test"
    assert {split_of(problem.key) for problem in exam.problems()[len(exam.questions) :]} == {"dev"}


def test_an_exam_that_cannot_be_held_or_that_the_model_could_not_read_is_refused_before_training(tmp_path):
    path = tmp_path / "words.yaml"
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "Où est {n}?", "answer": "1"}}\n' for n in range(60)))
    path.write_text(f"samples: 1\nmax_tokens: 9\nproblems: [{{jsonl: {tmp_path / 'q.jsonl'}, number: 2}}]\n")
    letter = "has 'ù', which the model's tokenizer cannot write"
    for wrong, line in (
        (recipe(families=["summ"]), "^evaluate.suite: the suite has no family 'summ'; did you mean 'sum'"),
        (recipe({**GRPO, "dev": {"every": 5, "suite": "quik"}}), "^dev.suite: no suite is called 'quik'"),
        (recipe(suite=str(path)), letter),
        (recipe({**GRPO, "dev": {"every": 5, "suite": str(path)}}, suite="smoke"), letter),
    ):
        with pytest.raises(UserError, match=line):
            Exam(wrong)


def test_a_recipe_that_trains_in_16_bits_is_examined_in_them_on_a_gpu(monkeypatch):
    half = {**GRPO, "trainer": {"bf16": True}}
    told = {"suite": "smoke", "limit": 4}
    assert Exam(recipe(half, **told)).suite.dtype == "float32"
    monkeypatch.setattr(environment, "kind", lambda: "cuda")
    exams = [recipe(half, **told), recipe(half, **told, dtype="float32"), recipe(GRPO, **told)]
    assert [Exam(each).suite.dtype for each in exams] == ["bfloat16", "float32", "float32"]


def columns(lineup):
    return {key: (each.label, each.folder, each.reference) for key, each in lineup.columns.items()}


def test_by_default_rl_is_compared_with_what_it_started_from_and_with_that_forced(tmp_path):
    lineup = lineup_of(recipe(GRPO))
    assert columns(lineup) == {
        "base": ("base", "01-base", None),
        "forced_worked": ("base, forced", "01-base-worked", None),
        "forced_cooled": ("base, forced, best T", "01-base-worked-cooled", None),
        "rl": ("after RL", "02-grpo", "01-base"),
    }
    rivals = [(key, "rl") for key in ("base", "forced_worked", "forced_cooled")]
    assert lineup.pairs == [*rivals, ("base", "forced_worked"), ("forced_worked", "forced_cooled")]
    assert (lineup.final, lineup.columns["rl"].start) == ("rl", "base")
    lineup.write(tmp_path)
    assert Lineup.read(tmp_path) == lineup


def test_every_stage_has_a_column_and_is_credited_with_what_it_made_of_the_one_before_it():
    lineup = lineup_of(recipe(SFT, GRPO))
    assert columns(lineup) == {
        "base": ("base", "01-base", None),
        "02-sft": ("after SFT", "02-sft", None),
        "forced_worked": ("after SFT, forced", "02-sft-worked", None),
        "forced_cooled": ("after SFT, forced, best T", "02-sft-worked-cooled", None),
        "rl": ("after RL", "03-grpo", "02-sft"),
    }
    rivals = [(key, "rl") for key in ("02-sft", "forced_worked", "forced_cooled")]
    assert lineup.pairs == [
        *rivals,
        ("base", "02-sft"),
        ("02-sft", "forced_worked"),
        ("forced_worked", "forced_cooled"),
    ]
    without = lineup_of(recipe(SFT), cooled=False)
    assert [each.label for each in without.columns.values()] == ["base", "base, forced", "after SFT"]
    assert without.pairs[:2] == [("base", "02-sft"), ("forced_worked", "02-sft")]
    assert COOLED in lineup_of(recipe(SFT)).columns and COOLED not in lineup_of(recipe()).columns
    assert lineup_of(recipe(GRPO, GRPO)).pairs[0] == ("base", "rl")  # what both stages of RL have made
    assert lineup_of(recipe(GRPO, SFT)).pairs[0] == ("02-grpo", "03-sft")


def test_a_recipe_of_five_stages_names_its_columns_and_pairs():
    stages = {"base": BASE, "cold": {**SFT, "from": "base"}, "rl1": {**GRPO, "from": "cold"}}
    stages |= {"sft2": {**SFT, "from": "base"}, "rl2": {**GRPO, "from": "sft2"}}
    asked = {"columns": ["base", "base+worked", "rl1", "rl2"], "pairs": [["base", "rl1"], ["rl1", "rl2"]]}
    whole = {"name": "x", "problems": [{"family": "sum"}], "stages": stages, "evaluate": asked}
    lineup = lineup_of(Recipe.model_validate(whole))
    assert columns(lineup) == {
        "base": ("base", "base", None),
        "base+worked": ("base, forced", "base-worked", None),
        "rl1": ("rl1", "rl1", "base"),
        "rl2": ("rl2", "rl2", "base"),
    }
    assert lineup.pairs == [("base", "rl1"), ("rl1", "rl2")]
    assert [each.start for each in lineup.columns.values()] == [None, None, "base", "base"]
    every = lineup_of(Recipe.model_validate({**whole, "evaluate": {}}))
    assert columns(every)["rl2"] == ("rl2", "rl2", "sft2")
    assert list(every.columns)[:2] == ["base", "base+worked"]
    edges = {("base", "cold"), ("cold", "rl1"), ("base", "sft2"), ("sft2", "rl2")}
    assert every.pairs[0] == ("base", list(every.columns)[-1])
    assert {*every.pairs[1:]} == {*edges, ("base", "base+worked"), ("base+worked", "cold"), ("base+worked", "sft2")}
    only_pairs = lineup_of(Recipe.model_validate({**whole, "evaluate": {"pairs": [["sft2", "rl1"]]}}))
    assert list(only_pairs.columns) == ["sft2", "rl1"]
    assert only_pairs.columns["rl1"].reference is None  # rl1 is not made from sft2


def test_runs_that_differ_in_name_seeds_and_rows_are_of_one_setting():
    one, other = recipe({**GRPO, "seed": 4}), recipe({**GRPO, "seed": 5}, rows=16)
    other = other.model_copy(update={"name": "y", "seed": 3})
    assert lineup_of(one).setting == lineup_of(other).setting != lineup_of(recipe(SFT)).setting
    assert (lineup_of(one).seed, lineup_of(other).seed) == (4, 5)


RIGHT = {0.1: 3, 0.2: 5, 0.3: 4, 0.5: 5, 0.7: 2, 1.0: 1}
"""Temperature -> how many of six problems of dev are right."""


def test_the_start_is_cooled_to_the_temperature_that_is_best_on_dev_and_of_two_to_the_higher(tmp_path, monkeypatch):
    asked = {}

    def examine(checkpoint, suite, problems, folder, store, console, voice, reference):
        name = folder.relative_to(tmp_path / "eval").as_posix()
        asked[name] = (checkpoint.name, suite.temperature, suite.samples, suite.greedy, voice)
        splits = {split_of(each.problem.key) for each in problems}
        assert splits == {"dev" if name.startswith("smoke-dev") else "test"} and len(problems) == 40
        marks = "1" * RIGHT[suite.temperature] + "0" * (6 - RIGHT[suite.temperature])
        write_exam(folder, make_rows({str(place): mark for place, mark in enumerate(marks)}))
        return {"seconds": 1.0, "files": {}}

    monkeypatch.setattr(module, "examine", examine)
    sat, out = Exam(recipe(GRPO, suite="smoke", limit=40)), io.StringIO()
    run = SimpleNamespace(path=tmp_path, store=None, update_manifest=lambda **_: None)
    checkpoints = {name: Path(name) for name in ("01-base", "02-grpo")}
    sat(run, checkpoints, {}, Console(file=out, width=200))
    assert asked["smoke/01-base-worked-cooled"] == ("01-base", 0.5, 4, True, "worked")
    assert asked["smoke/01-base-worked"] == ("01-base", 1.0, 4, True, "worked")
    tried = [f"smoke-dev/01-base-worked-{temperature:g}" for temperature in TEMPERATURES]
    assert [asked[name] for name in tried] == [("01-base", each, 1, False, "worked") for each in TEMPERATURES]
    assert set(asked) == {*tried, *(f"smoke/{each.folder}" for each in sat.lineup.columns.values())}
    assert "base, forced, best T: temperature 0.5, by pass@1 on dev: 50.0% at 0.1, 83.3% at 0.2" in out.getvalue()
    plan, _ = sat.planned()
    assert (plan.columns, plan.more) == (4, 6 * 40)


def test_nothing_is_cooled_in_an_exam_with_a_temperature_or_columns_of_its_own_or_too_few_problems_on_dev(tmp_path):
    for name, first in (("train", 0), ("test", 9)):
        lines = (f'{{"question": "{n}+{n}", "answer": "{2 * n}"}}\n' for n in range(first, first + 9))
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    path, table = (
        tmp_path / "small.yaml",
        {"jsonl": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
    )
    path.write_text(json.dumps({"samples": 1, "max_tokens": 9, "problems": [{**table, "number": 9}]}))
    named = {"columns": ["base", "grpo"]}
    for changes in ({"temperature": 0.6}, {"temperature": 0.0, "samples": 1}, named):
        exam = Exam(recipe(GRPO, suite="smoke", limit=10, **changes))
        assert COOLED not in exam.lineup.columns and exam.planned()[0].more == 0
    assert COOLED not in Exam(recipe(GRPO, suite=str(path), limit=40)).lineup.columns
