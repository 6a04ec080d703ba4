"""The real command, from random weights to the report."""

import importlib.metadata
import json
import math
import os
import shutil
import signal
import subprocess
import sys

import pytest

from eval.exam.exam import TEMPERATURES
from r1_mini.system.files import read_jsonl, sha256
from tests.commands import Started, r1_mini
from tests.conftest import EXAMINED, SMOKE, arguments, run, run_until

ROOT = SMOKE.parents[2]

pytestmark = pytest.mark.slow


def weights(out):
    return {stage.parent.name: sha256(stage) for stage in sorted(out.glob("0*/model.safetensors"))}


def samples(out):
    return {path.parent.name: sha256(path) for path in sorted(out.glob("eval/smoke*/*/samples.jsonl"))}


def test_the_smoke_recipe_leaves_every_file_that_the_readme_names_and_logs_every_step(smoke):
    out, printed = smoke
    log = (out / "log.txt").read_text()
    assert "FutureWarning" not in log and "matplotlib" not in log
    assert "Warning" not in printed and "shown" in printed
    files = ["recipe.yaml", "manifest.json", "log.txt", "summary.json", "report.html"]
    for stage in ("01-base", "02-grpo"):
        made = ("model.safetensors", "config.json", "tokenizer.json", "metrics.jsonl", "node.json")
        files += [f"{stage}/{name}" for name in made]
    assert all((out / name).stat().st_size > 0 for name in files)
    tried = {f"01-base-worked-{temperature:g}" for temperature in TEMPERATURES}
    assert set(samples(out)) == {"01-base", "01-base-worked", "01-base-worked-cooled", "02-grpo", *tried}
    assert not [path for path in out.iterdir() if path.name.startswith((".work", ".aside"))]
    rows = read_jsonl(out / "02-grpo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    for name in ("reward", "accuracy", "format", "length", "truncated", "voice_direct", "voice_worked", "entropy"):
        assert all(math.isfinite(row[name]) for row in rows), name
    assert max(row["logp_gap_max"] for row in rows if "logp_gap_max" in row) < 1e-4


def test_reinforcement_raises_the_accuracy_and_the_summary_agrees_with_the_saved_samples(smoke):
    out, _ = smoke
    summary = json.loads((out / "summary.json").read_text())
    assert summary["rl"]["pass_at_1"] > summary["base"]["pass_at_1"] + 0.1
    assert summary["verdict"] == "shown"
    assert summary["rl"]["mean_tokens"] > summary["base"]["mean_tokens"]
    for name, folder in (("base", "01-base"), ("forced_worked", "01-base-worked"), ("rl", "02-grpo")):
        rows = read_jsonl(out / "eval" / "smoke" / folder / "samples.jsonl")
        deep = [row for row in rows if row["difficulty"]["depth"] >= 2]
        assert summary[name]["pass_at_1"] == pytest.approx(sum(row["correct"] for row in deep) / len(deep))
        assert summary[name]["mean_tokens"] == pytest.approx(sum(row["n_tokens"] for row in deep) / len(deep))
    hashes = json.loads((out / "manifest.json").read_text())["samples"]
    assert hashes["smoke/02-grpo"]["samples.jsonl"] == samples(out)["02-grpo"]
    total = summary["seconds"]
    assert total["total"] == round(total["base"] + total["grpo"] + total["exam"], 2)


def test_a_finished_run_started_again_repeats_no_work(smoke):
    out, _ = smoke
    before = weights(out), samples(out), (out / "summary.json").read_bytes()
    assert run(out).stdout.count("skipped") == 2
    assert (weights(out), samples(out), (out / "summary.json").read_bytes()) == before


SHORT = (
    *("base.trainer.max_steps=60", "base.trainer.save_steps=15"),  # no multiple of its logging_steps, 10
    *("grpo.trainer.max_steps=12", "grpo.trainer.per_device_train_batch_size=64", "grpo.trainer.save_total_limit=2"),
    *("evaluate.limit=20", "evaluate.samples=2", "evaluate.columns=[base,grpo]"),
)
"""The smoke recipe in seconds, for tests that need no result."""


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """An examined short run, which nobody may change; the folder beside it has its index."""
    out = tmp_path_factory.mktemp("short") / "run"
    run_until(EXAMINED, out, *SHORT)
    return out


def test_the_same_recipe_and_seed_give_the_same_bits_and_another_seed_others(short, tmp_path):
    run_until(EXAMINED, tmp_path / "again", *SHORT)
    assert weights(tmp_path / "again") == weights(short)
    assert samples(tmp_path / "again") == samples(short)
    run_until("01-base", tmp_path / "other", *SHORT, "seed=1")
    assert weights(tmp_path / "other")["01-base"] != weights(short)["01-base"]


def has_logged(metrics, lines):
    return metrics.exists() and len(metrics.read_bytes().splitlines()) >= lines


def kill_when(work, stage, lines):
    """Start the short run and kill it when a stage has logged so many lines."""
    metrics = work / f".work-{stage}" / "metrics.jsonl"
    started = Started(*arguments(work, *SHORT)).when(lambda: has_logged(metrics, lines))
    assert started.signal(signal.SIGKILL).done().returncode == -signal.SIGKILL


def test_a_run_killed_in_each_stage_ends_in_the_same_bits_and_falls_back_from_a_damaged_checkpoint(short, tmp_path):
    work = tmp_path / "run"
    kill_when(work, "01-base", 5)  # at steps 10, 15, 20, 30 and 40
    assert not (work / "01-base").exists()
    (work / ".work-01-base" / ".resume" / "checkpoint-999").mkdir()  # a kill while a checkpoint was being written
    kill_when(work, "02-grpo", 9)
    file = work / ".work-02-grpo" / ".resume" / "checkpoint-8" / "optimizer.pt"
    file.write_bytes(file.read_bytes()[:-100])
    assert "checkpoint-8 is damaged (" in run_until(EXAMINED, work, *SHORT).stdout
    assert weights(work) == weights(short)
    assert samples(work) == samples(short)
    for stage in ("01-base", "02-grpo"):
        rows = [read_jsonl(out / stage / "metrics.jsonl") for out in (work, short)]
        for row in (*rows[0], *rows[1]):
            del row["seconds"]
            row.pop("seconds_rollout", None)
        assert rows[0] == rows[1]


DIFFERENCE = f"was made with other code, numpy {importlib.metadata.version('numpy')} (now 9.9); it is used as it is"


def test_after_an_edit_and_an_upgrade_finished_work_is_used_and_interrupted_work_goes_on(short, tmp_path):
    """In a copy of the program with another comment in it, and with another version of numpy."""
    for package in ("r1_mini", "eval"):
        shutil.copytree(ROOT / package, tmp_path / "program" / package)
    with (tmp_path / "program" / "r1_mini" / "errors.py").open("a") as file:
        file.write("# a comment\n")
    (tmp_path / "program" / "numpy-9.9.dist-info").mkdir()
    (tmp_path / "program" / "numpy-9.9.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 9.9\n")
    edited = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(tmp_path / "program")}}
    work = tmp_path / "runs" / "run"
    kill_when(work, "02-grpo", 6)
    shutil.rmtree(work.parent / ".index")  # as in a folder that was copied alone
    before = {path: (path.stat().st_ino, path.stat().st_mtime) for path in sorted(work.glob("01-base/*"))}
    first = read_jsonl(work / ".work-02-grpo" / "metrics.jsonl")[:4]
    command = [sys.executable, "-m", "r1_mini", *arguments(work, *SHORT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **edited)
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(said) for said in ("done before, skipped", DIFFERENCE)] == [1, 1]
    assert {path: (path.stat().st_ino, path.stat().st_mtime) for path in sorted(work.glob("01-base/*"))} == before
    assert read_jsonl(work / "02-grpo" / "metrics.jsonl")[:4] == first  # with their seconds: not trained again
    assert weights(work) == weights(short)


def test_interrupting_says_so_in_one_line_and_leaves_a_run_that_resumes(short, tmp_path):
    work = tmp_path / "run"
    metrics = work / ".work-01-base" / "metrics.jsonl"
    for number, lines in ((signal.SIGTERM, 1), (signal.SIGINT, 4)):
        started = Started(*arguments(work, *SHORT)).when(lambda lines=lines: has_logged(metrics, lines))
        done = started.signal(number).done(60)
        assert done.returncode == 128 + number
        assert done.stderr.strip().splitlines()[-1].startswith("interrupted")
        assert "Traceback" not in done.stderr
    run_until("02-grpo", work, *SHORT)
    assert weights(work) == weights(short)


def test_questions_are_asked_again_and_again_until_the_input_ends(smoke):
    done = r1_mini("sample", smoke[0] / "02-grpo", text="4+3\n4+\n2+2\n")
    assert done.stderr == "" and all(part in done.stdout for part in ("4+3", "2+2", "answer", "no reference answer"))
