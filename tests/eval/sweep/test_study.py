"""Every trial is finished once, whatever is killed and whoever works; a storage is not mistaken for another."""

import os
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import psycopg
import pytest
from optuna.trial import TrialState

from eval.sweep import storage as storage_module
from eval.sweep import study as study_module
from eval.sweep.command import open_study
from eval.sweep.spec import read
from r1_mini.errors import UserError
from tests.eval.sweep.conftest import expected, results, start_worker, study_of


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_finish_every_trial_once_and_find_the_same_however_many_they_are(grid, workers):
    processes = [start_worker(grid) for _ in range(workers)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    study = study_of(grid)
    assert sorted(results(study)) == sorted(expected())
    assert study.is_finished and study.claim() is None
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        study.storage.set_trial_state_values(study.trials()[0].id, TrialState.FAIL)


@pytest.mark.slow
def test_workers_killed_ten_times_in_a_row_leave_every_trial_complete_exactly_once(grid):
    rng = random.Random(0)
    study = study_of(grid)
    study.write_plan()
    processes = [start_worker(grid) for _ in range(2)]
    finished = {}
    for kill in range(10):
        time.sleep(rng.uniform(2.5, 4.5))  # a worker takes about three seconds to begin
        victim = rng.randrange(2)
        processes[victim].kill()
        processes[victim].join()
        for trial in study.trials():  # what is finished stays as it is
            if trial.state == TrialState.COMPLETE:
                assert finished.setdefault(trial.number, trial) == trial
        assert kill < 3 or finished
        processes[victim] = start_worker(grid)
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert sorted(results(study)) == sorted(expected())
    assert all(trial == finished.get(trial.number, trial) for trial in study.trials())
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials())


def test_a_trial_whose_worker_is_gone_is_taken_over_and_one_at_work_is_not(grid):
    study, other = study_of(grid), study_of(grid)
    trial, held = study.claim()
    second, second_held = other.claim()
    assert second.number != trial.number
    held.close()  # what the end of a process does
    again, again_held = other.claim()
    assert again.number == trial.number
    assert again.state == TrialState.RUNNING
    second_held.close()
    again_held.close()


def test_a_trial_on_another_machine_is_taken_over_after_a_time_without_a_beat(grid, monkeypatch):
    study, other = study_of(grid), study_of(grid)
    monkeypatch.setattr(study_module, "_machine", lambda: "far away")
    trial, held = study.claim()
    monkeypatch.undo()
    monkeypatch.setattr(study_module, "STALE", 0.5)
    others = [other.claim()[0].number for _ in range(2)]
    assert trial.number not in others
    time.sleep(0.3)
    study.beat(trial)
    time.sleep(0.3)
    assert other.claim()[0].number != trial.number  # it has beaten in between
    held.close()
    time.sleep(0.6)
    assert other.claim()[0].number == trial.number


def test_a_setting_that_two_workers_planned_at_once_is_run_once(grid):
    study = study_of(grid)
    study.write_plan()
    setting = study.plan.settings()[0]
    study._add(setting, 0, TrialState.WAITING)  # as if the other had not seen it
    taken = []
    while claimed := study.claim():
        trial, held = claimed
        with held:
            taken.append((trial.setting, trial.seed))
            study.end(trial, TrialState.COMPLETE, 0.5, None, 1.0)
    assert len(taken) == len(set(taken)) == 8
    assert len(study.trials()) == 8


def test_a_line_that_a_kill_cut_in_half_is_dropped_from_the_journal(grid):
    study = study_of(grid)
    study.write_plan()
    with (study.folder / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code":5,"trial')
    trial, held = study_of(grid).claim()
    with held:
        study.end(trial, TrialState.COMPLETE, 1.0, None, 1.0)
    assert study_of(grid).trials()[trial.number].value == 1.0


def test_a_failed_trial_keeps_its_reason_and_the_next_one_is_taken(grid):
    study = study_of(grid)
    trial, held = study.claim()
    with held:
        study.end(trial, TrialState.FAIL, None, "ended by SIGKILL: out of memory?", 2.0)
    after, held = study.claim()
    held.close()
    assert after.number == trial.number + 1
    assert study.trials()[trial.number].reason == "ended by SIGKILL: out of memory?"


def test_a_changed_sweep_or_recipe_under_an_old_study_is_refused_and_the_study_untouched(grid):
    study = study_of(grid)
    study.write_plan()
    journal = (study.folder / "journal.log").read_bytes()
    grid.write_text(grid.read_text().replace("[0, 1]", "[0, 2]"))
    with pytest.raises(UserError, match=r"holds another sweep: sweep\.seeds\.values\.1 is 1 there and 2 now"):
        study_of(grid)
    grid.write_text(grid.read_text().replace("[0, 2]", "[0, 1]"))
    recipe = grid.parent / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("max_steps: 3", "max_steps: 4"))
    with pytest.raises(UserError, match=r"max_steps is 3 there and 4 now"):
        study_of(grid)
    assert (study.folder / "journal.log").read_bytes() == journal


def test_tpe_proposes_as_many_settings_as_asked_each_with_every_seed(sweep_file):
    path = sweep_file(
        space="{grpo.trainer.learning_rate: {low: 1.0e-4, high: 1.0e-2, log: true}}",
        sampler="tpe",
        trials="12",
        seeds="{values: [3, 4]}",
    )
    study = study_of(path)
    while not study.is_finished:
        trial, held = study.claim()
        rate = float(trial.overrides[0].split("=")[1])
        with held:
            study.end(trial, TrialState.COMPLETE, -abs(rate - 3e-3), None, 1.0)
    settings = {trial.setting for trial in study.trials()}
    assert len(settings) == 12
    assert sorted(trial.seed for trial in study.trials()) == [3] * 12 + [4] * 12


def test_a_storage_that_does_not_answer_is_one_line(grid):
    with pytest.raises(UserError, match=r"the storage does not answer"):
        study_of(grid, "postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(UserError, match=r"the storage does not answer"):
        study_of(grid, "no url")


@pytest.fixture
def postgres(tmp_path):
    """The URL of a PostgreSQL server that lives as long as the test."""
    found = shutil.which("postgres")
    if found is None:
        pytest.skip("no PostgreSQL on this machine")
    binaries = os.path.dirname(os.path.realpath(found))
    user = {}
    if os.geteuid() == 0:  # which it refuses to run as
        if subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        user = {"user": "postgres", "group": "postgres"}
    home = f"/tmp/r1-mini-postgres-{os.getpid()}"
    os.makedirs(home)
    if user:
        shutil.chown(home, "postgres", "postgres")
    calls = {"cwd": home, "check": True, "capture_output": True, **user}
    subprocess.run([f"{binaries}/initdb", "-D", f"{home}/data", "-A", "trust", "-U", "sweeper"], **calls)
    options = f"-k {home} -c listen_addresses= -c fsync=off"
    start = [f"{binaries}/pg_ctl", "-D", f"{home}/data", "-l", f"{home}/log", "-w", "-o", options]
    subprocess.run([*start, "start"], **calls)
    try:
        yield f"postgresql+psycopg://sweeper@/postgres?host={home}"
    finally:
        subprocess.run([f"{binaries}/pg_ctl", "-D", f"{home}/data", "-m", "immediate", "stop"], **calls)
        shutil.rmtree(home)


@pytest.mark.slow
def test_workers_may_begin_at_once_in_a_folder_that_is_not_there(grid):
    plan = read(grid)

    def open_it(folder):
        return open_study(plan, folder, None).folder

    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            folder = grid.parent / f"out-{number}"
            assert list(pool.map(open_it, [folder] * 8)) == [folder] * 8


def test_workers_may_begin_at_once_on_an_empty_database(postgres):
    for attempt in range(3):
        name = f"empty{attempt}"
        with psycopg.connect(f"user=sweeper dbname=postgres host={postgres.split('host=')[1]}", autocommit=True) as own:
            own.execute(f"CREATE DATABASE {name}")
        url = postgres.replace("/postgres?", f"/{name}?")
        with ThreadPoolExecutor(8) as pool:
            storages = list(pool.map(storage_module._opened, [url] * 8))
        assert [optuna.get_all_study_names(storage) for storage in storages] == [[]] * 8
        for storage in storages:
            storage.engine.dispose()


@pytest.mark.slow
def test_two_workers_meet_in_a_postgresql_and_one_is_killed(grid, postgres):
    processes = [start_worker(grid, postgres) for _ in range(2)]
    time.sleep(5.0)
    processes[0].kill()
    processes[1].join(120)
    assert processes[1].exitcode == 0
    assert sorted(results(study_of(grid, postgres))) == sorted(expected())
    assert not (grid.parent / "out" / "journal.log").exists()
    grid.write_text(grid.read_text().replace("[0, 1]", "[0, 2]"))
    with pytest.raises(UserError, match="holds another sweep"):
        study_of(grid, postgres)
    assert read(grid).sweep.name == "s"
