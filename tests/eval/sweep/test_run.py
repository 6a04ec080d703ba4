"""Every training is finished once, whatever is killed and whoever works; an interrupted sweep goes on."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import psycopg
import pytest
import torch

from eval.sweep import run
from eval.sweep.run import environment, open_storage
from r1_mini.errors import UserError
from tests.commands import Started, r1_mini
from tests.conftest import SMOKE, leaks, secrets_around
from tests.eval.sweep.conftest import SCORES, fake, results, start_worker, study_of

SCORES_1 = {key: score for key, score in SCORES.items() if key[1] == 1}


def work_together(study, workers):
    with ThreadPoolExecutor(workers) as pool:
        for done in [pool.submit(study.work, {}) for _ in range(workers)]:
            done.result(60)


def keep_seed_1(grid):
    grid.write_text(grid.read_text().replace("[0, 1]", "[1]"))
    return study_of(grid)


def test_workers_finish_every_trial_once_and_a_changed_sweep_keeps_their_runs(grid):
    study = study_of(grid)
    work_together(study, 3)
    assert results(study) == SCORES
    assert all(path.read_text() == "started\n" for path in study.folder.glob("trials/*/starts"))
    study_of(grid).work({})  # the same command again: nothing is left to do
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE"] * 8
    folders = {training.folder for training in study.trainings()}
    changed = keep_seed_1(grid)
    assert {training.state for training in changed.trainings()} == {"WAITING"}
    assert {training.folder for training in changed.trainings()} < folders
    recipe = grid.parent / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("max_steps: 3", "max_steps: 4"))
    assert folders.isdisjoint(training.folder for training in study_of(grid).trainings())


def test_a_worker_that_comes_too_late_for_the_last_trial_leaves_none_of_its_own(grid, monkeypatch):
    study = keep_seed_1(grid)
    waiting, now = study.trials(), study.trials
    study.work({})
    seen = [waiting, waiting]  # what it has seen before the others took the rest
    monkeypatch.setattr(study, "trials", lambda: seen.pop() if seen else now())
    study.work({})
    assert not seen
    assert results(study_of(grid)) == SCORES_1


def kill_workers(grid, url, hang):
    """The study that two workers leave which are killed in turn, each at a trial that stands still, and started again.

    hang: an even number of the first trials, such as "0.1-0".
    """
    study, command = study_of(grid, url), fake(grid, hang=hang)
    workers, finished = [start_worker(grid, url, command) for _ in range(2)], {}
    for kill in range(len(hang)):
        deadline = time.monotonic() + 60
        while len(list(study.folder.glob("trials/*/starts"))) < min(kill + 2, len(hang)):  # both stand still
            assert time.monotonic() < deadline
            time.sleep(0.1)
        workers[kill % 2].kill()
        workers[kill % 2].join()
        for training in study.trainings():  # what is finished stays as it is
            if training.state == "COMPLETE":
                assert finished.setdefault(training.folder, training) == training
        workers[kill % 2] = start_worker(grid, url, command)
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    return study


@pytest.mark.slow
def test_two_workers_that_are_killed_again_and_again_leave_every_training_complete_exactly_once(grid):
    hang = ["0.1-0", "0.1-1", "0.2-0", "0.2-1"]
    study = kill_workers(grid, None, hang)
    assert results(study) == SCORES
    assert [trial.state.name for trial in study.trials()].count("COMPLETE") == len(SCORES)
    starts = sorted(path.read_text().count("started") for path in study.folder.glob("trials/*/starts"))
    assert starts == [1, 1, 1, 1, 2, 2, 2, 2]  # a trial that was killed goes on in the folder where it was


@pytest.mark.filterwarnings("ignore:Heartbeat")
def test_a_trial_whose_worker_was_killed_before_the_first_heartbeat_is_retried(grid, monkeypatch):
    study = keep_seed_1(grid)
    study.study.ask()
    monkeypatch.setattr(run, "GRACE", 1)
    study.work({})
    assert results(study) == SCORES_1


@pytest.mark.slow
def test_a_trial_that_takes_its_worker_down_more_often_than_it_is_retried_has_failed(grid):
    keep_seed_1(grid)
    deadly = fake(grid, before="if 'grpo.trainer.learning_rate=0.3' in sys.argv: os.kill(os.getppid(), 9)")
    exits = []
    while 0 not in exits:
        worker = start_worker(grid, None, deadly, retries=1)
        worker.join(60)
        exits.append(worker.exitcode)
    reasons = {training.setting: training.reason for training in study_of(grid).trainings() if training.reason}
    assert reasons == {"learning_rate=0.3": "killed again and again"}
    assert exits == [-9, -9, 0]


def test_a_failed_trial_keeps_its_reason_and_the_others_go_on_with_the_variables_of_their_worker(grid, monkeypatch):
    diverging = "if 'seed=1' in sys.argv: sys.exit('error: diverged on GPU ' + os.environ['CUDA_VISIBLE_DEVICES'])"
    monkeypatch.setattr(run, "COMMAND", fake(grid, before=diverging))
    study = study_of(grid)
    study.work({"CUDA_VISIBLE_DEVICES": "5"})
    found = [(training.state, training.reason) for training in study.trainings()]
    assert found == [("COMPLETE", None), ("FAIL", "diverged on GPU 5")] * 4


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


def test_a_search_tries_as_many_settings_as_it_says_each_with_every_seed_and_goes_on_if_it_says_more(grid):
    text = grid.read_text()
    for count in (3, 5):
        grid.write_text(f"{text}sampler: tpe\ntrials: {count}\n")
        study = study_of(grid)
        work_together(study, 2)
        trials = [trial for trial in study.trials() if trial.state.name == "COMPLETE"]
        assert len(trials) == count
    assert all(trial.value == sum(trial.user_attrs["values"]) / 2 for trial in trials)
    assert all(list(trial.params) == ["grpo.trainer.learning_rate"] for trial in trials)
    assert results(study).items() <= SCORES.items()


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
    assert environment(1, 2) == {"CUDA_VISIBLE_DEVICES": "5", "OMP_NUM_THREADS": "7"}


@pytest.mark.parametrize("url", ["postgresql+psycopg://nobody@127.0.0.1:1/none", "no url"])
def test_a_storage_that_does_not_answer_is_one_line(url, monkeypatch):
    monkeypatch.setattr(run.time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match="the storage does not answer"):
        open_storage(url)


@pytest.fixture
def postgres():
    """The URL of a PostgreSQL server that lives as long as the test."""
    found, is_root = shutil.which("postgres"), os.geteuid() == 0
    if found is None or (is_root and subprocess.run(["id", "postgres"], capture_output=True).returncode):
        pytest.skip("no PostgreSQL on this machine, or no user postgres that may run it")
    home = tempfile.mkdtemp(prefix="r1-mini-postgres-")
    user = {"user": "postgres", "group": "postgres"} if is_root else {}
    if is_root:
        shutil.chown(home, "postgres", "postgres")

    def call(program, *arguments):
        command = [f"{os.path.dirname(os.path.realpath(found))}/{program}", "-D", f"{home}/data", *arguments]
        subprocess.run(command, cwd=home, check=True, capture_output=True, **user)

    call("initdb", "-A", "trust", "-U", "sweeper")
    call("pg_ctl", "-l", f"{home}/log", "-w", "-o", f"-k {home} -c listen_addresses= -c fsync=off", "start")
    yield f"postgresql+psycopg://sweeper@/postgres?host={home}"
    call("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(home)


@pytest.mark.slow
def test_workers_may_begin_at_once_on_an_empty_database_and_meet_there(grid, postgres):
    with psycopg.connect(f"user=sweeper dbname=postgres host={postgres.split('host=')[1]}", autocommit=True) as own:
        own.execute("CREATE DATABASE empty")
    with ThreadPoolExecutor(8) as pool:
        storages = list(pool.map(open_storage, [postgres.replace("/postgres?", "/empty?")] * 8))
    assert [optuna.get_all_study_names(storage) for storage in storages] == [[]] * 8
    assert results(kill_workers(grid, postgres, ["0.1-0", "0.1-1"])) == SCORES
    assert not (grid.parent / "out" / "sweep.db").exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_trials_and_the_same_command_trains_one_base_and_compares_what_was_trained(tmp_path):
    (tmp_path / "sweep.yaml").write_text(
        f"name: s\nrecipe: {SMOKE}\n"
        "set: {base.trainer.max_steps: 40, base.trainer.save_steps: 10, grpo.trainer.per_device_train_batch_size: 32, "
        "evaluate.limit: 20, evaluate.samples: 2, evaluate.columns: [base, grpo]}\n"
        "settings: {short: {grpo.trainer.max_steps: 1}, long: {grpo.trainer.max_steps: 2}}\n"
    )
    command = ("sweep", tmp_path / "sweep.yaml", "--workers", "2", "--out", tmp_path / "out")

    def trials():
        return {trial["setting"]: trial for trial in json.loads((tmp_path / "out" / "trials.json").read_text())}

    sweep = Started(*command).when(lambda: list(tmp_path.glob("out/trials/*/.work-01-base/**/checkpoint-*")))
    assert sweep.signal(signal.SIGINT).done(30).returncode == 130
    assert not subprocess.run(["pgrep", "-f", f"{tmp_path}/out/trials"], capture_output=True, text=True).stdout
    assert trials()["short"]["state"] == trials()["long"]["state"] == "WAITING"

    with secrets_around(tmp_path / "home"):
        again = r1_mini(*command)
    assert leaks(tmp_path / "home") and not leaks(tmp_path / "out")
    assert again.returncode == 0, again.stderr
    assert {name: trial["state"] for name, trial in trials().items()} == {"short": "COMPLETE", "long": "COMPLETE"}
    bases = list((tmp_path / "out" / "trials").glob("*-seed0/01-base/model.safetensors"))
    assert len(bases) == 2
    assert len({path.stat().st_ino for path in bases}) == 1  # trained once, by one of the two
    assert (tmp_path / "out" / "report.html").is_file()
