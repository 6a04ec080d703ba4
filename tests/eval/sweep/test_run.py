"""Every training is finished once, whatever is killed and whoever works; a storage is not mistaken for another."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import psycopg
import pytest
import torch

from eval.sweep import run
from eval.sweep.run import environment, open_storage
from r1_mini.errors import UserError
from tests.conftest import SMOKE
from tests.eval.sweep.conftest import SCORES, fake, results, start_worker, study_of


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_finish_every_trial_once_and_find_the_same_however_many_they_are(grid, workers):
    study = study_of(grid)
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(study.work, {}) for _ in range(workers)]:
            done.result(60)
    assert results(study) == SCORES
    assert all(path.read_text() == "started\n" for path in study.folder.glob("trials/*/starts"))
    study_of(grid).work({})  # the same command again: nothing is left to do
    assert len([trial for trial in study.trials() if "setting" in trial.user_attrs]) == 8


def kill_workers(grid, url, kills):
    """Two workers, of which one is killed several times in a row and started again; the study that they leave."""
    study, rng = study_of(grid, url), random.Random(0)
    processes, finished = [start_worker(grid, url) for _ in range(2)], {}
    while len(list(study.folder.glob("trials/*/starts"))) < 2:  # both are at a trial
        time.sleep(0.1)
    for _ in range(kills):
        victim = rng.randrange(2)
        processes[victim].kill()
        processes[victim].join()
        for training in study.trainings():  # what is finished stays as it is
            if training.state == "COMPLETE":
                assert finished.setdefault(training.folder, training) == training
        processes[victim] = start_worker(grid, url)
        time.sleep(rng.uniform(3.0, 6.0))  # a worker takes some seconds to begin
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return study


@pytest.mark.slow
def test_two_workers_that_are_killed_again_and_again_leave_every_training_complete_exactly_once(grid):
    study = kill_workers(grid, None, kills=5)
    assert results(study) == SCORES
    complete = [trial for trial in study.trials() if trial.state.name == "COMPLETE"]
    assert len(complete) == len(SCORES)
    starts = [path.read_text().count("started") for path in study.folder.glob("trials/*/starts")]
    assert len(starts) == len(SCORES)
    assert max(starts) > 1  # a retried trial goes on in the folder where it was


@pytest.mark.filterwarnings("ignore:Heartbeat")
def test_a_trial_whose_worker_was_killed_before_the_first_heartbeat_is_retried(grid, monkeypatch):
    study = study_of(grid)
    study.study.ask()
    monkeypatch.setattr(run, "GRACE", 1)
    study.work({})
    assert results(study) == SCORES


@pytest.mark.slow
def test_a_trial_that_takes_its_worker_down_more_often_than_it_is_retried_has_failed(grid):
    *python, script = fake(grid)
    deadly = "import os, sys\nif 'grpo.trainer.learning_rate=0.3' in sys.argv: os.kill(os.getppid(), 9)\n"
    exits = []
    while 0 not in exits:
        worker = start_worker(grid, None, (*python, deadly + script), retries=1)
        worker.join(60)
        exits.append(worker.exitcode)
    study = study_of(grid)
    reasons = {training.setting.name: training.reason for training in study.trainings() if training.reason}
    assert reasons == {"learning_rate=0.3": "killed again and again"}
    assert exits == [-9] * 4 + [0]  # both seeds, twice each


def test_a_failed_trial_keeps_its_reason_and_the_others_go_on(grid, monkeypatch):
    *python, script = fake(grid)
    diverging = "import sys\nif 'seed=1' in sys.argv: sys.exit('error: diverged: loss is not a number at step 3')\n"
    monkeypatch.setattr(run, "COMMAND", (*python, diverging + script))
    study = study_of(grid)
    study.work({})
    reasons = {training.seed: training.reason for training in study.trainings()}
    assert reasons == {0: None, 1: "diverged: loss is not a number at step 3"}
    assert [training.state for training in study.trainings()] == ["COMPLETE", "FAIL"] * 4


def test_a_trial_below_the_median_of_the_others_on_dev_is_ended_early_and_called_pruned(grid, monkeypatch):
    grid.write_text(grid.read_text() + "prune: true\nset: {grpo.dev: {every: 1}}\n")
    monkeypatch.setattr(run, "COMMAND", fake(grid, 0.4))
    study = study_of(grid)
    study.work({})
    # dev is 0.9, 0.9, 0.8, 0.8, ...: three trials are waited for, then each is below the median of those before it
    assert [training.state for training in study.trainings()] == ["COMPLETE"] * 3 + ["PRUNED"] * 5
    assert all(training.value is None for training in study.trainings()[3:])
    ended = [(study.folder / training.folder / "manifest.json").exists() for training in study.trainings()]
    assert ended == [True] * 3 + [False] * 5


def test_a_search_tries_as_many_settings_as_it_says_each_with_every_seed(grid, monkeypatch):
    grid.write_text(grid.read_text() + "sampler: tpe\ntrials: 4\n")
    study = study_of(grid)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(study.work, {}) for _ in range(2)]:
            done.result(60)
    trials = [trial for trial in study.trials() if trial.state.name == "COMPLETE"]
    assert len(trials) == 4
    assert all(trial.value == sum(trial.user_attrs["values"]) / 2 for trial in trials)
    assert results(study).items() <= SCORES.items()


def test_a_trial_gets_the_variables_of_its_worker(grid, monkeypatch):
    script = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['HOME']); sys.exit(1)"
    monkeypatch.setattr(run, "COMMAND", (sys.executable, "-c", script))
    study = study_of(grid)
    study.work({"CUDA_VISIBLE_DEVICES": "5"})
    assert {training.reason for training in study.trainings()} == {f"5 {os.environ['HOME']}"}


def test_each_worker_has_a_gpu_of_its_own_and_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("eval.sweep.run.machine", lambda: {"cores": 8})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [environment(index, 3)["CUDA_VISIBLE_DEVICES"] for index in range(3)] == ["0", "1", "0"]
    assert environment(0, 3)["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")  # what the user has given
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment(1, 2) == {"CUDA_VISIBLE_DEVICES": "5"}


def test_a_changed_sweep_or_recipe_under_an_old_study_is_refused(grid):
    study = study_of(grid)
    grid.write_text(grid.read_text().replace("[0, 1]", "[0, 2]"))
    with pytest.raises(UserError, match="holds another sweep of this name, which differs in seeds"):
        study_of(grid)
    grid.write_text(grid.read_text().replace("[0, 2]", "[0, 1]"))
    recipe = grid.parent / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("max_steps: 3", "max_steps: 4"))
    with pytest.raises(UserError, match=r"differs in recipe recipe\.yaml"):
        study_of(grid)
    assert len(study.trials()) == 8


def test_a_storage_that_does_not_answer_is_one_line(grid):
    for url in ("postgresql+psycopg://nobody@127.0.0.1:1/none", "no url"):
        with pytest.raises(UserError, match="the storage does not answer"):
            study_of(grid, url)


@pytest.fixture
def postgres():
    """The URL of a PostgreSQL server that lives as long as the test."""
    found = shutil.which("postgres")
    if found is None or (os.geteuid() == 0 and subprocess.run(["id", "postgres"], capture_output=True).returncode):
        pytest.skip("no PostgreSQL on this machine, or no user postgres that may run it")
    binaries, home = os.path.dirname(os.path.realpath(found)), f"/tmp/r1-mini-postgres-{os.getpid()}"
    os.makedirs(home)
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(home, "postgres", "postgres")
    calls = {"cwd": home, "check": True, "capture_output": True, **user}
    subprocess.run([f"{binaries}/initdb", "-D", f"{home}/data", "-A", "trust", "-U", "sweeper"], **calls)
    control = [f"{binaries}/pg_ctl", "-D", f"{home}/data"]
    options = f"-k {home} -c listen_addresses= -c fsync=off"
    subprocess.run([*control, "-l", f"{home}/log", "-w", "-o", options, "start"], **calls)
    try:
        yield f"postgresql+psycopg://sweeper@/postgres?host={home}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **calls)
        shutil.rmtree(home)


@pytest.mark.slow
def test_workers_may_begin_at_once_on_an_empty_database_and_meet_there(grid, postgres):
    with psycopg.connect(f"user=sweeper dbname=postgres host={postgres.split('host=')[1]}", autocommit=True) as own:
        own.execute("CREATE DATABASE empty")
    with ThreadPoolExecutor(8) as pool:
        storages = list(pool.map(open_storage, [postgres.replace("/postgres?", "/empty?")] * 8))
    assert [optuna.get_all_study_names(storage) for storage in storages] == [[]] * 8
    assert results(kill_workers(grid, postgres, kills=1)) == SCORES
    assert not (grid.parent / "out" / "sweep.db").exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_trials_and_the_same_command_goes_on(tmp_path):
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
    while not list(tmp_path.glob("out/trials/*/.work-01-base/**/checkpoint-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(30) == 130
    assert not subprocess.run(["pgrep", "-f", f"{tmp_path}|out/trials"], capture_output=True, text=True).stdout
    trials = json.loads((tmp_path / "out" / "trials.json").read_text())
    assert {trial["state"] for trial in trials} == {"WAITING"}
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    trials = json.loads((tmp_path / "out" / "trials.json").read_text())
    assert [(trial["seed"], trial["state"]) for trial in trials] == [(0, "COMPLETE"), (1, "COMPLETE")]
