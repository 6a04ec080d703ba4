"""`r1-mini sweep`: Optuna hands out trials, and each trial runs the recipe into a folder of its own.

The run folder is the truth: it is named by what is trained, resumes, and returns at once when it is finished. So a
trial whose process was killed is retried by Optuna (its heartbeat has stopped) and goes on where it was. Settings that
are known beforehand are queued, a trial for each seed; a search has one trial for each setting, its seeds in turn.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import fmean
from threading import Event
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, TrialPruned, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from eval.analysis.columns import columns_of_runs
from eval.sweep.spec import OBJECTIVES, Setting, Sweep, Training, name_of, overrides, read
from eval.sweep.summary import TRIALS, compare_sweep
from r1_mini.config.yaml_file import dump as dump_yaml
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import Recipe, dump
from r1_mini.pipeline.store import fingerprint
from r1_mini.system.environment import kind, machine
from r1_mini.system.files import read_jsonl, require_without, write_json_atomic, write_text_atomic
from r1_mini.text import secrets
from r1_mini.train.callbacks import DEV_SCORE, progress_bar

COMMAND: tuple[str, ...] = (sys.executable, "-m", "r1_mini")
HEARTBEAT, GRACE, RETRIES = 10, 60, 3
"""Seconds between two heartbeats of a trial; seconds without one after which it is retried; how often that is done."""
_LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
"""On Linux the sweep's processes ask the system to kill them when the sweep ends, however it ends."""


class RunFailed(Exception):
    """A trial's run ended with an error or was interrupted."""


def sweep(path: Path, out: Path | None, url: str | None, workers: int, console: Console) -> bool:
    """Start a sweep, or join it or go on with it, with workers on this machine; True if a trial of it is complete."""
    with console.status("checking the sweep"):
        plan, recipes = read(path)
        folder = require_without(out or Path("runs") / plan.name, "manifest.json", "columns.json")
        study = Study(plan, recipes, folder, url)
    with ThreadPoolExecutor(workers) as pool, progress_bar(console) as progress:
        bar = progress.add_task(plan.name, note="")
        futures = [pool.submit(study.work, environment(index, workers)) for index in range(workers)]
        try:
            while wait(futures, timeout=2).not_done:
                study.write()  # `compare` shows what is finished so far
                states = Counter(trial.state.name.lower() for trial in study.trials())
                done = states.total() - states["waiting"] - states["running"]
                note = ", ".join(f"{count} {state}" for state, count in states.items())
                progress.update(bar, total=states.total(), completed=done, note=note)
        finally:
            study.stopping.set()
            wait(futures)
            study.write()
    for future in futures:
        future.result()  # raises what went wrong
    if not any(training.state == "COMPLETE" for training in study.trainings()):
        console.print(f"no trial is complete; their reasons: {study.folder / TRIALS}", soft_wrap=True)
        return False
    try:
        compare_sweep(study.folder, None, console)
    except UserError as error:  # the trials are done all the same
        console.print(f"not compared: {error}", soft_wrap=True)
    return True


class Study:
    """A sweep's trials in Optuna's storage, and its folder. A sweep that is changed is another study."""

    def __init__(self, sweep: Sweep, recipes: Mapping[str, Recipe], folder: Path, url: str | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep, self.folder, self.stopping = sweep, folder, Event()
        self.recipes: dict[str, str] = {}
        storage = None if url is None else open_storage(url)
        for name in ("trials", "recipes"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / ".lock")
        with self.lock:
            for name, recipe in recipes.items():
                self.recipes[name] = f"recipes/{Path(name).stem}-{fingerprint(recipe)[:6]}.yaml"
                write_text_atomic(folder / self.recipes[name], dump(recipe))
            write_text_atomic(folder / "sweep.yaml", dump_yaml(sweep.model_dump(mode="json")))
            identity = fingerprint([sweep.model_copy(update={"trials": 0}), recipes])  # more trials: a search goes on
            self.study = optuna.create_study(
                storage=storage or open_storage(f"sqlite:///{folder.resolve()}/sweep.db"),
                study_name=f"{sweep.name}-{identity[:12]}",
                direction=sweep.direction,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
                load_if_exists=True,
            )
            self._queue()
            self.write()
        if sweep.searches:
            seed = sweep.sampler_seed + sum(trial.state != TrialState.WAITING for trial in self.trials())
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=8)

    def _queue(self) -> None:
        """Queue the trials that are not there: one for each seed of each known setting, or those of a search."""
        sweep, known = self.sweep, self.sweep.known()
        there = [trial.user_attrs["queued"] for trial in self.trials()]
        trials: list[tuple[str, int]] = [(name, seed) for name in known for seed in sweep.seeds.values]
        for name, number in trials or [("", number) for number in range(sweep.trials)]:
            if [name, number] not in there:
                trainings = self._trainings_of(name, known[name], [number]) if name else []
                self.study.enqueue_trial({}, user_attrs={"queued": [name, number], "trainings": trainings})

    def _trainings_of(self, name: str, setting: Setting, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """What a trial of a setting trains, one for each seed."""
        changes, key = {"recipe": self.sweep.recipe, **setting}, self.sweep.seeds.key
        recipe = self.recipes[changes.pop("recipe")]
        return [asdict(Training(name, recipe, {**changes, key: seed}, seed)) for seed in seeds]

    def trials(self) -> list[FrozenTrial]:
        """Those that were queued: Optuna makes a new one for a worker that comes too late for the last of them."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if "queued" in trial.user_attrs]

    def trainings(self) -> list[Training]:
        """Each setting with each seed once, in order: of trials that were retried, the complete one, or the last."""
        found: dict[str, Training] = {}
        for trial in self.trials():
            notes, state = trial.user_attrs, trial.state
            for place, entry in enumerate(notes["trainings"]):
                value = notes["values"][place] if state == TrialState.COMPLETE else None
                reason = notes.get("reason", "killed again and again") if state == TrialState.FAIL else None
                training = Training(**{**entry, "state": state.name, "value": value, "reason": reason})
                if training.folder not in found or found[training.folder].state != "COMPLETE":
                    found[training.folder] = training
        return list(found.values())

    def write(self) -> None:
        """Write trials.json for `compare`; another process may do the same."""
        with self.lock:
            write_json_atomic(self.folder / TRIALS, list(map(asdict, self.trainings())))

    def work(self, environment: Mapping[str, str]) -> None:
        """Run trials until none is left for anybody. `environment`: variables of the trials' processes."""
        objective = partial(self._run, environment=environment)
        while not self.stopping.is_set():
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                fail_stale_trials(self.study)
                self._retry_unstarted()
            states = [trial.state for trial in self.trials()]
            if TrialState.WAITING in states:
                with contextlib.suppress(UpdateFinishedTrialError):  # this process stood still, and another retried it
                    self.study.optimize(objective, n_trials=1, catch=(RunFailed, UserError))
            elif TrialState.RUNNING in states:
                self.stopping.wait(1.0)
            else:
                return

    def _retry_unstarted(self) -> None:
        """Retry trials whose worker was killed before their first heartbeat, which Optuna would wait for."""
        latest = datetime.now() - timedelta(seconds=GRACE)
        for trial in self.trials():
            is_unstarted = trial.state == TrialState.RUNNING and trial.user_attrs.get("started") != trial.number
            if is_unstarted and trial.datetime_start and trial.datetime_start < latest:
                self.study.tell(trial.number, state=TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback(RETRIES)(self.study, trial)

    def _run(self, trial: optuna.Trial, environment: Mapping[str, str]) -> float:
        """Run a trial's trainings, one after the other; their mean score."""
        if "queued" not in trial.user_attrs:
            raise RunFailed("another worker took the last trial")
        self.stopping.wait(0.1)  # for the first heartbeat, which another thread sends
        trial.set_user_attr("started", trial.number)
        if self.sweep.searches:
            point = self.sweep.suggest(trial)
            trial.set_user_attr("trainings", self._trainings_of(name_of(point), point, self.sweep.seeds.values))
        scores: list[float] = []
        try:
            for place, entry in enumerate(trial.user_attrs["trainings"]):
                training = Training(**entry)
                folder = self.folder / training.folder
                with FileLock(f"{folder}.lock"):  # another trial of a search may have this setting too
                    self._train(trial, training, 1_000_000 * place, environment)
                    final = columns_of_runs([folder]).final.at(None)
                scores.append(float(OBJECTIVES[self.sweep.objective](final.pooled).mean()))
        except (RunFailed, UserError) as error:
            trial.set_user_attr("reason", str(error))
            raise
        trial.set_user_attr("values", scores)
        return fmean(scores)

    def _train(self, trial: optuna.Trial, training: Training, steps: int, environment: Mapping[str, str]) -> None:
        """Run the recipe of a training. RunFailed if it fails, TrialPruned if the other trials do better.

        `steps`: those of the trial's earlier seeds.
        """
        folder, reported = self.folder / training.folder, 0
        command = [*COMMAND, "run", str(self.folder / training.recipe), *overrides(training.changes)]
        log = Path(f"{folder}.txt")
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [
                    *command,
                    "evaluate.split=dev",
                    "evaluate.many=null",
                    "--out",
                    str(folder),
                ],  # whatever the setting says
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                start_new_session=True,  # the terminal's Ctrl-C ends the sweep, and the sweep ends this
                preexec_fn=partial(_LIBC.prctl, PR_SET_PDEATHSIG, signal.SIGKILL) if sys.platform == "linux" else None,
            )
        try:
            while process.poll() is None:
                if self.stopping.wait(0.2):
                    self.study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
                    raise RunFailed("interrupted")
                for step, value in _dev_scores(folder)[reported:] if self.sweep.prune else []:
                    reported += 1
                    trial.report(value if self.sweep.direction == "maximize" else -value, steps + step)
                    if trial.should_prune():
                        raise TrialPruned
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            lines = ["ended without a word", *log.read_text(encoding="utf-8", errors="replace").splitlines()]
            last = [line for line in lines if line.strip()][-1].removeprefix("error: ")[:300]
            raise RunFailed(last if process.returncode > 0 else f"ended by {signal.Signals(-process.returncode).name}")


def open_storage(url: str) -> RDBStorage:
    """Optuna's database at a URL, with its tables; UserError if it does not answer, or if the URL has a password."""
    if any(secrets({"url": url})):
        fix = "leave it out; put it into ~/.pgpass or PGPASSWORD (PostgreSQL), or ~/.my.cnf (MySQL)"
        raise UserError("a password here stands in lists of processes", where=f"--storage {url}", fix=fix)
    is_sqlite = url.startswith("sqlite")
    for _ in range(4):  # of machines that make the tables at once, all but one fail, and find them the next time
        try:
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                storage = RDBStorage(
                    url,
                    engine_kwargs={"connect_args": {"timeout": 120}} if is_sqlite else {},
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
                )
        except Exception as error:  # SQLAlchemy's own, the driver's, a missing driver, a URL that is none
            reason = str(error).partition("\n")[0][:150]
            time.sleep(0.5)
        else:
            if is_sqlite:  # which would lock only what is written: two workers could take one trial
                sqlalchemy.event.listen(storage.engine, "begin", lambda own: own.exec_driver_sql("BEGIN IMMEDIATE"))
            return storage
    raise UserError(f"the storage does not answer ({reason})", where=url, fix="correct it, or leave --storage out")


def environment(index: int, workers: int) -> dict[str, str]:
    """Variables of a worker's trials: its share of the cores, and one GPU of those that are visible."""
    import torch  # takes a second

    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, machine()["cores"] // workers))}
    if kind() == "cuda":
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = given.split(",") if given else list(map(str, range(torch.cuda.device_count())))
        share["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    return share


def _dev_scores(run: Path) -> list[tuple[int, float]]:
    """(step, score) of the exams on dev so far in the last stage."""
    found = sorted(run.glob(".work-*/metrics.jsonl"))
    records = read_jsonl(found[-1]) if found else []
    return [(record["step"], record[DEV_SCORE]) for record in records if DEV_SCORE in record]
