"""A finished sweep compared: every figure by hand, files that open, one command from end to end."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
from optuna.trial import TrialState
from rich.console import Console

from eval.report import page
from eval.report.words import shortened, sweep_sentences
from eval.sweep.summary import compare_sweep, summarize
from r1_mini.errors import UserError
from tests.conftest import SMOKE
from tests.eval.sweep.conftest import MARKS, start_worker, study_of


@pytest.fixture
def finished(grid):
    """The folder of the grid's sweep, all trials done."""
    worker = start_worker(grid)
    worker.join(120)
    study = study_of(grid)
    study.write_trials()
    return study.folder


def test_a_sweep_is_summarized_from_the_samples_of_its_trials(finished):
    summary, curves = summarize(finished)
    scores = {each["name"]: each["score"]["estimate"] for each in summary["settings"]}
    assert scores == {
        f"learning_rate={rate}": pytest.approx(sum(marks.count("1") for marks in pair) / 8)
        for rate, pair in MARKS.items()
    }
    assert summary["settings"][0]["name"] == "learning_rate=0.2"  # the best first
    assert summary["default"] == "learning_rate=0.1"  # the first
    best = summary["settings"][0]
    assert [each["score"] for each in best["seeds"]] == [0.75, 1.0]
    assert best["against_default"]["difference"]["estimate"] == pytest.approx(0.5)  # 0.25 and 0.75
    assert best["against_default"]["improvement"]["estimate"] == 1.0
    assert [start["name"] for start in summary["starts"]] == ["base", "base, forced"]
    assert set(curves) == set(scores)


def test_the_files_of_a_comparison_agree_with_each_other(finished, capsys):
    compare_sweep(finished, None, Console(width=120))
    summary = json.loads((finished / "summary.json").read_text())
    with (finished / "comparison.csv").open() as file:
        header, *rows = csv.reader(file)
    assert [row[0] for row in rows] == [each["name"] for each in summary["settings"]]
    assert float(rows[0][header.index("pass_at_1")]) == summary["settings"][0]["score"]["estimate"]
    page = (finished / "report.html").read_text()
    assert "<script" not in page and "learning_rate=0.2" in page
    (recipe,) = (finished / "recipes").iterdir()
    assert f"r1-mini run {recipe} grpo.trainer.learning_rate=0.2" in page
    assert "Not told apart from 'learning_rate=0.1'" in " ".join(capsys.readouterr().out.split())


def test_what_the_policies_are_like_is_told_beside_how_they_score(finished):
    summary, _ = summarize(finished)
    best = summary["settings"][0]  # 1110 and 1111: seven worked chains of eight completions are right
    assert best["changes"] == {"grpo.trainer.learning_rate": 0.2}
    assert best["right_and_sound"] == pytest.approx(7 / 8)
    assert best["entropy"] == pytest.approx(0.5)  # the rows say -0.5 nats a token
    assert best["kl"] is None
    assert best["voices"]["worked"] == 1.0
    assert summary["space"] == {"grpo.trainer.learning_rate": {"log": False, "choices": True}}
    html = page.render_sweep(summary, {each["name"]: [[], []] for each in summary["settings"]})
    assert "grpo.trainer.learning_rate: a point for each training" in html


def test_a_setting_that_stops_at_its_base_is_shown_forced_too(grid, tmp_path):
    for seed in (0, 1):
        run = tmp_path / "templates" / f"0.2-{seed}"
        shutil.rmtree(run / "eval" / "arithmetic" / "02-grpo")
    worker = start_worker(grid)
    worker.join(120)
    study = study_of(grid)
    study.write_trials()
    summary, curves = summarize(study.folder)
    assert [start["name"] for start in summary["starts"]] == ["base", "base, forced", "learning_rate=0.2, forced"]
    stopped = next(each for each in summary["settings"] if each["name"] == "learning_rate=0.2")
    assert stopped["score"]["estimate"] == 0.25 and stopped["cells_before"] == []
    assert "learning_rate=0.2, forced" in page.render_sweep(summary, curves)


def test_trials_that_ran_on_another_machine_are_asked_for(finished):
    shutil.rmtree(next((finished / "trials").glob("learning_rate=0.3-*-seed1")))
    with pytest.raises(UserError, match=r"1 finished trials are not here, .*they ran on another machine; copy their"):
        summarize(finished)


def test_an_unfinished_setting_is_left_out_and_said(grid):
    worker = start_worker(grid)
    worker.join(120)
    study = study_of(grid)
    study.write_trials()
    path = study.folder / "trials.json"
    trials = json.loads(path.read_text())
    for trial in trials:
        if trial["setting"] == "learning_rate=0.4":
            trial |= {"state": TrialState.FAIL.name, "reason": "ended by SIGKILL: out of memory?"}
    path.write_text(json.dumps(trials))
    summary, _ = summarize(study.folder)
    assert summary["unfinished"] == ["learning_rate=0.4"]
    assert summary["failures"][0]["reason"] == "ended by SIGKILL: out of memory?"
    early = [{**trial, "state": "PRUNED"} if trial["setting"] == "learning_rate=0.4" else trial for trial in trials]
    path.write_text(json.dumps(early))
    summary, _ = summarize(study.folder)
    assert (summary["unfinished"], summary["pruned"]) == ([], 2)
    assert "Stopped early, because worse on dev than the median so far: 2 trainings." in sweep_sentences(summary)
    path.write_text(json.dumps([trial for trial in trials if trial["setting"] != "learning_rate=0.1"]))
    summary, _ = summarize(study.folder)
    assert summary["default"] == "learning_rate=0.2"
    path.write_text(json.dumps([{**trial, "state": "FAIL"} for trial in trials]))
    with pytest.raises(UserError, match="has no finished trial"):
        summarize(study.folder)


@pytest.mark.slow
def test_the_command_trains_a_sweep_with_one_base_notes_a_failure_and_compares_the_rest(tmp_path):
    (tmp_path / "sweep.yaml").write_text(
        f"name: s\nrecipe: {SMOKE}\nset: {{base.trainer.max_steps: 20, evaluate.limit: 20, evaluate.samples: 2}}\n"
        "settings:\n"
        "  short: {grpo.trainer.max_steps: 1}\n"
        "  long: {grpo.trainer.max_steps: 2}\n"
        "  broken: {grpo.trainer.report_to: wandb}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "r1_mini", "sweep", "sweep.yaml", "--workers", "2", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    trials = {trial["setting"]: trial for trial in json.loads((tmp_path / "out" / "trials.json").read_text())}
    assert {name: trial["state"] for name, trial in trials.items()} == {
        "short": "COMPLETE",
        "long": "COMPLETE",
        "broken": "FAIL",
    }
    assert trials["broken"]["reason"]
    bases = [
        json.loads((tmp_path / "out" / "trials" / trials[name]["folder"] / "manifest.json").read_text())["stages"]
        for name in ("short", "long")
    ]
    assert sum(stages["01-base"]["copied_from"] is None for stages in bases) <= 1  # trained once, by one of the three
    assert bases[0]["01-base"]["sha256"] == bases[1]["01-base"]["sha256"]
    assert "Failed: broken" in " ".join(done.stdout.split())
    assert (tmp_path / "out" / "report.html").is_file()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert again.returncode == 0, again.stderr


def test_the_command_says_in_one_line_what_is_wrong(tmp_path):
    (tmp_path / "sweep.yaml").write_text(
        f"name: s\nrecipe: {SMOKE}\nspace: {{grpo.trainer.beta: {{low: 1.0, high: 0.0, steps: 2}}}}\n", encoding="utf-8"
    )
    command = [sys.executable, "-m", "r1_mini", "sweep", "sweep.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr == (
        "error: sweep.yaml: space.grpo.trainer.beta.low: the range from 1 to 0 is empty; let low be less than high\n"
    )
    assert not (tmp_path / "runs").exists()


def test_settings_with_long_names_are_called_by_their_rank_and_the_page_says_which_is_which(finished):
    summary, curves = summarize(finished)
    assert shortened(summary) == (summary, {each["name"]: each["name"] for each in summary["settings"]})
    long = {each["name"]: f"{each['name']}, and a good many other keys of the space" for each in summary["settings"]}
    named = {
        **summary,
        "default": long[summary["default"]],
        "settings": [{**each, "name": long[each["name"]]} for each in summary["settings"]],
    }
    ranked, ranks = shortened(named)
    assert [each["name"] for each in ranked["settings"]] == [f"#{n}" for n in range(1, len(long) + 1)]
    assert ranked["default"] == ranks[long[summary["default"]]]
    html = page.render_sweep(named, {long[name]: curve for name, curve in curves.items()})
    assert f"<li>#1: {named['settings'][0]['name']}</li>" in html
