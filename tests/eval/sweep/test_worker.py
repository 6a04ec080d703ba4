"""A worker ends what is hopeless, and leaves what is not its own; nothing goes on after the command ends."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from optuna.trial import TrialState

from eval.sweep import worker
from eval.sweep.command import environment
from tests.conftest import SMOKE
from tests.eval.sweep.conftest import study_of

FAKE = """
import json, pathlib, shutil, sys, time
overrides = dict(each.split("=", 1) for each in sys.argv[1:] if "=" in each)
rate, seed = float(overrides["grpo.trainer.learning_rate"]), overrides["seed"]
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
work = out / ".work-02-grpo"
work.mkdir(parents=True)
with (work / "metrics.jsonl").open("w") as file:
    for step in range(1, 4):
        print(json.dumps({"step": step, "dev_pass_at_1": 1 - rate}), file=file, flush=True)
        time.sleep(0.4)
shutil.rmtree(work)
(out / "worked to its end").touch()
shutil.copytree(f"{TEMPLATES}/{rate}-{seed}", out, dirs_exist_ok=True)
"""


def test_a_trial_below_the_median_of_the_others_on_dev_is_ended_early_and_called_pruned(grid, monkeypatch):
    grid.write_text(grid.read_text() + "prune: true\nset: {grpo.dev: {every: 1}}\n")
    script = f"TEMPLATES = {str(grid.parent / 'templates')!r}\n{FAKE}"
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", script))
    study = study_of(grid)
    worker.work(study, {})
    trials = study.trials()
    # dev is 0.9, 0.9, 0.8, 0.8, ...: three trials are waited for, then each is below the median of those before it
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3 + [TrialState.PRUNED] * 5
    assert all(trial.value is None for trial in trials[3:])
    ended = [(study.folder / "trials" / trial.folder / "worked to its end").exists() for trial in trials]
    assert ended == [True] * 3 + [False] * 5
    assert study.is_finished


def test_a_trial_is_told_the_variables_of_its_worker(grid, monkeypatch):
    script = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['HOME']); sys.exit(1)"
    monkeypatch.setattr(worker, "COMMAND", (sys.executable, "-c", script))
    study = study_of(grid)
    worker.work(study, {"CUDA_VISIBLE_DEVICES": "5"})
    assert {trial.reason for trial in study.trials()} == {f"5 {os.environ['HOME']}"}


def test_each_worker_has_a_gpu_of_its_own_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("eval.sweep.command.machine", lambda: {"cores": 8})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [environment(index, 3)["CUDA_VISIBLE_DEVICES"] for index in range(3)] == ["0", "1", "0"]
    assert environment(0, 3)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")  # what the user has given
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment(1, 2) == {"CUDA_VISIBLE_DEVICES": "5"}


@pytest.mark.slow
def test_ctrl_c_ends_workers_and_trials_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "sweep.yaml").write_text(
        f"name: s\nrecipe: {SMOKE}\nseeds: {{key: grpo.seed, values: [0, 1]}}\n"
        "set: {base.trainer.max_steps: 60, base.trainer.save_steps: 20, grpo.trainer.max_steps: 2,\n"
        "  evaluate.limit: 20, evaluate.samples: 2}\n"
        "settings: {only: {}}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "r1_mini", "sweep", "sweep.yaml", "--out", "out"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/trials/*/.work-01-base/checkpoint-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(30) == 130
    time.sleep(1.0)
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, 0)
    trials = json.loads((tmp_path / "out" / "trials.json").read_text())
    assert {trial["state"] for trial in trials} <= {"RUNNING", "WAITING"}
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    trials = json.loads((tmp_path / "out" / "trials.json").read_text())
    assert [(trial["seed"], trial["state"]) for trial in trials] == [(0, "COMPLETE"), (1, "COMPLETE")]
