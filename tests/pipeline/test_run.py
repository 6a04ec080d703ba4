"""The real command, from random weights to the report."""

import importlib.metadata
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from r1_mini import cli
from r1_mini.system.files import read_jsonl, sha256
from tests.commands import Started, r1_mini
from tests.conftest import SMOKE, arguments, run

ROOT = SMOKE.parents[2]

pytestmark = pytest.mark.slow


def weights(out):
    return {stage.parent.name: sha256(stage) for stage in sorted(out.glob("0*/model.safetensors"))}


def samples(out):
    return {path.parent.name: sha256(path) for path in sorted(out.glob("eval/smoke/*/samples.jsonl"))}


def test_the_smoke_recipe_leaves_every_file_that_the_readme_names(smoke):
    out, _ = smoke
    for name in ("recipe.yaml", "manifest.json", "log.txt", "summary.json", "report.html"):
        assert (out / name).stat().st_size > 0, name
    for stage in ("01-base", "02-grpo"):
        for name in ("model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl", "node.json"):
            assert (out / stage / name).stat().st_size > 0, name
    assert set(samples(out)) == {"01-base", "01-base-worked", "02-grpo"}
    assert not [path for path in out.iterdir() if path.name.startswith((".work", ".aside"))]


def test_reinforcement_raises_the_accuracy_of_the_smoke_model(smoke):
    out, done = smoke
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rl"]["pass_at_1"] > summary["base"]["pass_at_1"] + 0.1
    assert summary["verdict"] == "shown"
    assert summary["rl"]["mean_tokens"] > summary["base"]["mean_tokens"]
    assert "shown" in done.stdout


def test_the_summary_agrees_with_the_saved_samples(smoke):
    out, _ = smoke
    summary = json.loads((out / "summary.json").read_text())
    for name, folder in (("base", "01-base"), ("forced_worked", "01-base-worked"), ("rl", "02-grpo")):
        rows = read_jsonl(out / "eval" / "smoke" / folder / "samples.jsonl")
        deep = [row for row in rows if row["difficulty"]["depth"] >= 2]
        assert summary[name]["pass_at_1"] == pytest.approx(sum(row["correct"] for row in deep) / len(deep))
        assert summary[name]["mean_tokens"] == pytest.approx(sum(row["n_tokens"] for row in deep) / len(deep))
    hashes = json.loads((out / "manifest.json").read_text())["samples"]
    assert hashes["smoke/02-grpo"]["samples.jsonl"] == samples(out)["02-grpo"]
    total = summary["seconds"]
    assert total["total"] == round(total["base"] + total["grpo"] + total["exam"], 2)


def test_every_step_is_logged_with_every_metric(smoke):
    out, _ = smoke
    rows = read_jsonl(out / "02-grpo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    for name in ("reward", "accuracy", "format", "length", "truncated", "voice_direct", "voice_worked", "entropy"):
        assert all(math.isfinite(row[name]) for row in rows), name
    assert max(row["logp_gap_max"] for row in rows if "logp_gap_max" in row) < 1e-4


def test_the_screen_shows_no_library_warnings(smoke):
    _, done = smoke
    assert done.stderr == ""
    assert "Warning" not in done.stdout


def test_a_finished_run_started_again_repeats_no_work(smoke):
    out, _ = smoke
    before = weights(out), samples(out), (out / "summary.json").read_bytes()
    began = time.monotonic()
    done = run(out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("skipped") == 2
    assert (weights(out), samples(out), (out / "summary.json").read_bytes()) == before
    assert time.monotonic() - began < 60


def test_the_same_recipe_and_seed_give_the_same_bits_and_another_seed_others(smoke, tmp_path):
    out, _ = smoke
    assert run(tmp_path / "again").returncode == 0
    assert weights(tmp_path / "again") == weights(out)
    assert samples(tmp_path / "again") == samples(out)
    assert run(tmp_path / "other", "seed=1", "base.trainer.max_steps=40", "grpo.trainer.max_steps=2").returncode == 0
    assert weights(tmp_path / "other")["01-base"] != weights(out)["01-base"]


def has_logged(metrics, lines):
    return metrics.exists() and len(metrics.read_bytes().splitlines()) >= lines


def kill_when(asked, metrics, lines):
    """Start a run and kill it when its stage has logged so many lines."""
    started = Started(*asked).when(lambda: has_logged(metrics, lines))
    assert started.signal(signal.SIGKILL).done().returncode == -signal.SIGKILL


@pytest.mark.parametrize("stage,lines", [("01-base", 6), ("02-grpo", 6)])  # the base stage logs every tenth step
def test_a_run_killed_in_a_stage_and_started_again_ends_in_the_same_bits(smoke, tmp_path, stage, lines):
    out, _ = smoke
    work = tmp_path / "run"
    kill_when(arguments(work), work / f".work-{stage}" / "metrics.jsonl", lines)
    assert not (work / stage).exists()
    (work / f".work-{stage}" / ".resume" / "checkpoint-999").mkdir()  # a kill while a checkpoint was being written
    done = run(work)
    assert done.returncode == 0, done.stderr
    assert "checkpoint-999 is damaged (" in done.stdout
    assert weights(work) == weights(out)
    assert samples(work) == samples(out)
    assert [row["step"] for row in read_jsonl(work / stage / "metrics.jsonl")] == [
        row["step"] for row in read_jsonl(out / stage / "metrics.jsonl")
    ]


@pytest.mark.parametrize("damaged,kept", [("optimizer.pt", 2), ("model.safetensors", 3)])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_it_and_says_so(smoke, damaged, kept):
    out, _ = smoke
    work = out.parent / damaged
    two = f"grpo.trainer.save_total_limit={kept}"
    kill_when(arguments(work, two), work / ".work-02-grpo" / "metrics.jsonl", 10)
    file = work / ".work-02-grpo" / ".resume" / "checkpoint-8" / damaged
    file.write_bytes(file.read_bytes()[:-100])
    done = run(work, two)
    assert done.returncode == 0, done.stderr
    assert "checkpoint-8 is damaged (" in done.stdout
    assert weights(work) == weights(out)


@pytest.fixture
def edited(tmp_path):
    """The environment of a copy of the program with another comment in it, and with another version of numpy."""
    for package in ("r1_mini", "eval"):
        shutil.copytree(ROOT / package, tmp_path / "program" / package)
    with (tmp_path / "program" / "r1_mini" / "plan" / "table.py").open("a") as file:
        file.write("# a comment\n")
    (tmp_path / "program" / "numpy-9.9.dist-info").mkdir()
    (tmp_path / "program" / "numpy-9.9.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 9.9\n")
    return {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path / "program")}}


DIFFERENCE = f"was made with other code, numpy {importlib.metadata.version('numpy')} (now 9.9); it is used as it is"


def test_after_an_edit_and_an_upgrade_a_finished_run_is_used_and_the_difference_is_said(smoke, tmp_path, edited):
    out, _ = smoke
    work = tmp_path / "runs" / "run"
    shutil.copytree(out, work)  # alone, without the index beside it
    before = {path: (path.stat().st_ino, path.stat().st_mtime) for path in sorted(work.glob("0*/*"))}
    done = subprocess.run(
        [sys.executable, "-m", "r1_mini", *arguments(work)], capture_output=True, text=True, timeout=300, **edited
    )
    assert done.returncode == 0, done.stderr
    assert {path: (path.stat().st_ino, path.stat().st_mtime) for path in sorted(work.glob("0*/*"))} == before
    assert done.stdout.count("done before, skipped") == 2
    assert done.stdout.count(DIFFERENCE) == 1


def test_after_an_edit_and_an_upgrade_an_interrupted_run_goes_on_from_its_checkpoint(smoke, tmp_path, edited):
    out, _ = smoke
    work = tmp_path / "run"
    kill_when(arguments(work), work / ".work-02-grpo" / "metrics.jsonl", 6)
    before = {path.name for path in (work / ".work-02-grpo" / ".resume").iterdir()}
    assert "checkpoint-4" in before
    first = read_jsonl(work / ".work-02-grpo" / "metrics.jsonl")[:4]
    done = subprocess.run(
        [sys.executable, "-m", "r1_mini", *arguments(work)], capture_output=True, text=True, timeout=300, **edited
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(DIFFERENCE) == 1
    assert read_jsonl(work / "02-grpo" / "metrics.jsonl")[:4] == first  # with their seconds: not trained again
    assert weights(work) == weights(out)


def test_interrupting_says_so_in_one_line_and_leaves_a_run_that_resumes(tmp_path):
    work = tmp_path / "run"
    metrics = work / ".work-01-base" / "metrics.jsonl"
    done = Started(*arguments(work)).when(lambda: has_logged(metrics, 1)).signal(signal.SIGINT).done(60)
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1].startswith("interrupted")
    assert "Traceback" not in done.stderr
    assert run(work, "evaluate.limit=30").returncode == 0


def test_a_stage_is_found_again_from_another_run(smoke, tmp_path):
    out, _ = smoke
    other = out.parent / "longer"
    done = run(other, "grpo.trainer.max_steps=3")
    assert done.returncode == 0, done.stderr
    assert "01-base    done before, skipped" in done.stdout
    assert weights(other)["01-base"] == weights(out)["01-base"]


def test_a_seed_of_the_grpo_stage_trains_that_stage_again_on_the_same_base(smoke, tmp_path):
    out, _ = smoke
    folder = out.parent / "grpo-seed"
    done = run(folder, "grpo.seed=1", "grpo.trainer.max_steps=3", "grpo.rewards={random: 1.0}")
    assert done.returncode == 0, done.stderr
    assert "01-base    done before, skipped" in done.stdout
    assert samples(folder)["01-base"] == samples(out)["01-base"]
    plain = out.parent / "grpo-plain"
    assert run(plain, "grpo.trainer.max_steps=3", "grpo.rewards={random: 1.0}").returncode == 0
    assert weights(plain)["02-grpo"] != weights(folder)["02-grpo"]


def test_a_recipe_that_starts_from_a_folder_examines_that_model_as_the_base(smoke, tmp_path):
    out, _ = smoke
    recipe = tmp_path / "from-base.yaml"
    recipe.write_text(
        f"name: from-base\nmodel: {out / '01-base'}\n"
        "problems: [{family: sum, terms: [2, 4], digits: 1, largest: 9}]\n"
        "stages: [{kind: grpo, trainer: {max_steps: 10, per_device_train_batch_size: 128}}]\n"
        "evaluate: {suite: smoke}\n"
    )
    done = r1_mini("run", str(recipe), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    before = json.loads((out / "summary.json").read_text())
    assert summary["base"]["pass_at_1"] == before["base"]["pass_at_1"]
    assert summary["rl"]["pass_at_1"] > summary["base"]["pass_at_1"]


def test_a_recipe_without_reinforcement_writes_samples_and_says_that_nothing_is_compared(tmp_path):
    recipe = tmp_path / "only-base.yaml"
    recipe.write_text(
        "name: only-base\nproblems: [{family: sum, terms: [2, 4], digits: 1, largest: 9}]\n"
        "stages: [{kind: base, trainer: {max_steps: 10}}]\nevaluate: {suite: smoke}\n"
    )
    done = r1_mini("run", str(recipe), "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "nothing to compare" in done.stdout
    assert set(samples(tmp_path / "run")) == {"01-base", "01-base-worked"}


@pytest.mark.parametrize("damage", ["cut", "missing", "not json"])
def test_a_folder_that_is_no_checkpoint_is_one_line_with_the_fix(smoke, tmp_path, damage):
    out, _ = smoke
    broken = tmp_path / "broken"
    shutil.copytree(out / "01-base", broken)
    weights_file = broken / "model.safetensors"
    if damage == "cut":
        weights_file.write_bytes(weights_file.read_bytes()[:1000])
    elif damage == "missing":
        weights_file.unlink()
    else:
        (broken / "config.json").write_text("{")
    done = r1_mini("sample", str(broken), "4+3")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert str(broken) in done.stderr.replace("\n", "")


def test_an_answer_is_printed_with_each_step_judged(smoke):
    out, _ = smoke
    done = r1_mini("sample", str(out / "02-grpo"), "4+3", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "4+3"
    assert done.stderr == ""
    assert "answer" in done.stdout


def test_questions_are_asked_again_and_again_until_the_input_ends(smoke):
    out, _ = smoke
    done = r1_mini("sample", str(out / "02-grpo"), text="4+3\n4+\n2+2\n")
    assert done.returncode == 0
    assert "4+3" in done.stdout
    assert "2+2" in done.stdout
    assert "no reference answer" in done.stdout


def test_several_gpus_for_one_process_are_refused_before_anything_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert cli.main(["run", str(SMOKE), "--out", str(tmp_path / "run")]) == 2
    line = "stages.0.trainer: 2 GPUs are visible, and one process works with one; put CUDA_VISIBLE_DEVICES=0 in front"
    assert capsys.readouterr().err.startswith(f"error: {line}")
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_weights_that_are_spread_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert cli.main(["run", str(SMOKE), "grpo.peft={r: 2}", "--out", str(tmp_path / "run")]) == 2
    assert "stages.1.peft: an adapter of weights that are sharded over processes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_data_set_that_our_own_base_cannot_write_is_refused_before_anything_is_trained(tmp_path, capsys):
    table = tmp_path / "bills.jsonl"
    table.write_text("".join(f'{{"question": "{n}+1", "answer": "{n + 1} é"}}\n' for n in range(40)), encoding="utf-8")
    change = f"grpo.problems=[{{jsonl: {table}, judge: text}}]"
    assert cli.main(["run", str(SMOKE), change, "--out", str(tmp_path / "run")]) == 2
    assert (
        "problems: bills has 'é', which the model's tokenizer cannot write; leave such rows out"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()
