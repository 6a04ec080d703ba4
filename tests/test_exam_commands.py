"""`r1-mini eval` and `r1-mini compare`, the real commands on the smoke run's checkpoints."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from r1_mini import cli
from r1_mini.system.files import read_jsonl, sha256
from tests.commands import Started, launched, r1_mini
from tests.conftest import run, run_until

pytestmark = pytest.mark.slow

QUICK = ("--suite", "smoke", "limit=20", "samples=4")
CPU2 = Path(__file__).parents[1] / "recipes" / "accelerate" / "cpu2.yaml"


def hashes(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*.jsonl"))}


@pytest.fixture(scope="module")
def examined(smoke, tmp_path_factory):
    """Base and RL of the smoke run, examined on demand."""
    out = tmp_path_factory.mktemp("examined") / "exam"
    return out, r1_mini("eval", smoke[0] / "01-base", smoke[0] / "02-grpo", *QUICK, "--out", out)


def test_eval_says_the_verdict_and_the_same_exam_again_is_the_same_files(examined, smoke, tmp_path):
    out, done = examined
    said = " ".join(done.stdout.split())
    assert "Asked once, run.01-base gets " in said and " points (95% interval +" in said and done.stderr == ""
    assert (out / "comparison.csv").stat().st_size and (out / "report.html").stat().st_size
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["names"]) == ["run.01-base", "run.01-base+worked", "run.02-grpo"]
    assert summary["comparisons"][0]["estimate"] > 0.1
    before = hashes(out)
    for folder in (out, tmp_path / "again"):
        r1_mini("eval", smoke[0] / "01-base", smoke[0] / "02-grpo", *QUICK, "--out", folder)
        assert hashes(folder) == before


def test_an_exam_killed_half_way_or_of_two_processes_ends_in_the_same_bytes(smoke, tmp_path):
    asked = ("eval", smoke[0] / "02-grpo", "--suite", "smoke", "samples=100", "--out")
    r1_mini(*asked, tmp_path / "whole")
    parts = tmp_path / "cut" / ".work-run.02-grpo" / ".resume" / "samples"
    started = Started(*asked, tmp_path / "cut").when(lambda: list(parts.glob("0-*.jsonl")))
    started.signal(signal.SIGKILL).done()
    assert 0 < len(list(parts.glob("*.jsonl"))) < 8
    r1_mini(*asked, tmp_path / "cut")
    launched(CPU2, *asked, tmp_path / "two")
    assert hashes(tmp_path / "whole") == hashes(tmp_path / "cut") == hashes(tmp_path / "two")


def test_compare_recomputes_a_run_to_the_last_digit(smoke, tmp_path):
    out, _ = smoke
    r1_mini("compare", out, "--out", tmp_path / "again")
    for name in ("summary.json", "comparison.csv", "report.html"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes(), name


def test_a_run_examines_on_dev_while_it_trains_and_keeps_the_best(smoke):
    short = "grpo.trainer.max_steps=6"
    out = smoke[0].parent / "with-dev"  # beside the smoke run, whose base it takes over
    run_until("02-grpo", out, short, "grpo.dev={every: 2, suite: smoke, limit: 30}")
    rows = read_jsonl(out / "02-grpo" / "metrics.jsonl")
    scores = {row["step"]: row["dev_pass_at_1"] for row in rows if "dev_pass_at_1" in row}
    best = json.loads((out / "02-grpo" / "best.json").read_text())
    assert list(scores) == [2, 4, 6]
    assert best == {"step": max(scores, key=lambda step: (scores[step], -step)), "dev_pass_at_1": max(scores.values())}
    plain = smoke[0].parent / "without-dev"
    run_until("02-grpo", plain, short)
    rewards = [[row["reward"] for row in read_jsonl(each / "02-grpo" / "metrics.jsonl")] for each in (out, plain)]
    assert rewards[0] == rewards[1]  # looking does not change what is trained
    looked = smoke[0].parent / "only-looked"
    keep = "grpo.dev={every: 2, suite: smoke, limit: 30, keep: last}"
    run(looked, short, keep, "evaluate.limit=30", "evaluate.columns=[base,grpo]", "evaluate.many=3")
    weights = [each / "02-grpo" / "model.safetensors" for each in (looked, plain)]
    assert sha256(weights[0]) == sha256(weights[1]) and not (looked / "02-grpo" / "best.json").exists()
    summary = json.loads((looked / "summary.json").read_text())
    assert [point["k"] for point in summary["scores"]["grpo"]["many"]] == [1, 2, 3] and summary["n_many"] == 30
    assert (summary["sharpened"]["n"], summary["sharpened"]["n_problems"]) == (3, 30)


def test_a_checkpoint_that_cannot_be_examined_is_one_line(smoke, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(smoke[0] / "02-grpo", broken)
    os.truncate(broken / "model.safetensors", 1000)
    done = r1_mini("eval", broken, *QUICK, "--out", tmp_path / "out", code=2)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "broken" in done.stderr


@pytest.mark.parametrize(
    "arguments,line",
    [
        (["--suite", "arithmetik"], "--suite: no suite is called 'arithmetik'; did you mean 'arithmetic'?"),
        (["--suite", "smoke", "temperature=0"], "4 samples at temperature 0 are all alike; add samples=1"),
        (["--suite", "smoke", "split=train"], "'split=train': split: \"train\" is not a choice; known: dev, test"),
        (["--suite", "smoke", "sampels=3"], "no key and no stage is called 'sampels'; did you mean 'samples'?"),
        (["--suite", "smoke", "--voice", "loud"], "Invalid value for '--voice'"),
    ],
)
def test_a_wrong_option_is_one_line(smoke, tmp_path, capsys, arguments, line):
    assert cli.main(["eval", str(smoke[0] / "02-grpo"), *arguments, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_edited_samples_file_is_refused_by_compare_and_moved_aside_by_eval(examined, smoke, tmp_path):
    edited = tmp_path / "exam"
    shutil.copytree(examined[0], edited)
    path = edited / "run.02-grpo" / "samples.jsonl"
    text = path.read_text().replace('"correct": false', '"correct": true', 1)
    path.write_text(text)
    refused = r1_mini("compare", edited, "--out", tmp_path / "both", code=2)
    assert "changed since it was written" in refused.stderr and not (tmp_path / "both").exists()
    done = r1_mini("eval", smoke[0] / "01-base", smoke[0] / "02-grpo", *QUICK, "--out", edited)
    assert "its files are not those that were written" in done.stdout
    assert path.read_bytes() == (examined[0] / "run.02-grpo" / "samples.jsonl").read_bytes()
    assert [aside.read_text() for aside in edited.glob("run.02-grpo.*/samples.jsonl")] == [text]


def test_export_writes_tasks_for_the_other_harness(smoke, tmp_path):
    done = r1_mini("eval", smoke[0] / "02-grpo", *QUICK[:3], "--export-lm-eval", tmp_path / "tasks")
    assert "lm_eval --model hf" in done.stdout
    assert sum(1 for _ in (tmp_path / "tasks" / "r1_mini_smoke_sum.jsonl").open()) == 20
