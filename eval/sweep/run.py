"""`r1-mini sweep`: Optuna hands out trials, and each trial runs the recipe into a folder of its own.

The run folder is the truth: it is named by setting and seed, resumes, and returns at once when it is finished. So a
trial whose process was killed is retried by Optuna (its heartbeat has stopped) and goes on where it was. Settings that
are known beforehand are queued, a trial for each seed; a search has one trial for each setting, its seeds in turn.
"""

import contextlib
import ctypes
import itertools
import math
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import fmean
from threading import Event

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, TrialPruned, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eval.analysis.columns import columns_of_runs
from eval.sweep.spec import OBJECTIVES, Plan, Setting, Training, read, recipe_file
from eval.sweep.summary import TRIALS, compare_sweep
from r1_mini.config.yaml_file import dump as dump_yaml
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import dump
from r1_mini.system.environment import machine
from r1_mini.system.files import read_jsonl, write_json_atomic, write_text_atomic
from r1_mini.train.callbacks import DEV_SCORE

COMMAND: tuple[str, ...] = (sys.executable, "-m", "r1_mini")
HEARTBEAT, GRACE, RETRIES = 10, 60, 3
"""Seconds between two heartbeats of a trial; seconds without one after which it is retried; how often that is done."""
_LIBC, PR_SET_PDEATHSIG = ctypes.CDLL(None), 1
"""On Linux the sweep's processes ask the system to kill them when the sweep ends, however it ends."""


class RunFailed(Exception):
    """A trial's run ended with an error or was interrupted, or its score is no number."""


def sweep(path: Path, out: Path | None, url: str | None, workers: int, console: Console) -> bool:
    """Start a sweep, or join it or go on with it, with workers on this machine; True if a trial of it is complete."""
    with console.status("checking the sweep"):
        plan = read(path)
        study = Study(plan, out or Path("runs") / plan.sweep.name, url)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        with ThreadPoolExecutor(workers) as pool, Live(console=console, refresh_per_second=2) as live:
            futures = [pool.submit(study.work, environment(index, workers)) for index in range(workers)]
            try:
                while wait(futures, timeout=0.5).not_done:
                    live.update(_screen(study, workers, time.monotonic() - started))
            finally:
                study.stopping.set()
    finally:
        trainings = study.write()
    for future in futures:
        future.result()  # raises what went wrong
    if not any(training.state == "COMPLETE" for training in trainings):
        console.print(f"no trial is complete; their reasons: {study.folder / TRIALS}", soft_wrap=True)
        return False
    try:
        compare_sweep(study.folder, None, console)
    except UserError as error:  # the trials are done all the same
        console.print(f"not compared: {error}", soft_wrap=True, markup=False)
    return True


class Study:
    """A sweep's trials in Optuna's storage, and its folder. UserError if the storage holds another sweep."""

    def __init__(self, plan: Plan, folder: Path, url: str | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.plan, self.folder, self.stopping = plan, folder, Event()
        for name in ("trials", "recipes"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            self.study = optuna.create_study(
                storage=open_storage(url or f"sqlite:///{folder.resolve()}/sweep.db"),
                study_name=plan.sweep.name,
                direction=plan.sweep.direction,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=3),
                load_if_exists=True,
            )
            self._note(url)
            self._queue()
        if plan.sweep.proposals:
            seed = plan.sweep.sampler_seed + len(self.trials())
            self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=8)

    def _note(self, url: str | None) -> None:
        """Note the sweep in the study and the folder; UserError if the study is another's."""
        recipes = {f"recipe {name}": recipe.model_dump(mode="json") for name, recipe in self.plan.recipes.items()}
        ours = self.plan.sweep.model_dump(mode="json") | recipes
        if not self.study.user_attrs:
            self.study.set_user_attr("plan", ours)
        there = self.study.user_attrs["plan"]
        if changed := [key for key in {**ours, **there} if ours.get(key) != there.get(key)]:
            what = f"holds another sweep of this name, which differs in {', '.join(changed)}"
            raise UserError(what, where=url or str(self.folder), fix="choose another folder with --out, or rename it")
        write_text_atomic(self.folder / "sweep.yaml", dump_yaml(self.plan.sweep.model_dump(mode="json")))
        for name, recipe in self.plan.recipes.items():
            write_text_atomic(recipe_file(self.folder, name), dump(recipe))

    def _queue(self) -> None:
        """Queue a trial for each seed of each setting that is known beforehand, except for those that are there."""
        there = {(training.setting.name, training.seed) for training in self.trainings()}
        for setting, seed in itertools.product(self.plan.settings(), self.plan.sweep.seeds.values):
            if (setting.name, seed) not in there:
                notes = {"setting": asdict(setting), "seeds": [seed]}
                self.study.enqueue_trial({**setting.params, "seed": seed}, user_attrs=notes)

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def trainings(self) -> list[Training]:
        """Each setting with each seed once, in order: of trials that were retried, the complete one, or the last."""
        found: dict[str, Training] = {}
        for trial in self.trials():
            notes, state = trial.user_attrs, trial.state
            for place, seed in enumerate(notes.get("seeds", [])):
                value = notes["values"][place] if state == TrialState.COMPLETE else None
                reason = notes.get("reason", "killed again and again") if state == TrialState.FAIL else None
                seconds = trial.duration.total_seconds() / len(notes["seeds"]) if trial.duration else None
                training = Training(Setting(**notes["setting"]), seed, state.name, value, reason, seconds)
                if training.folder not in found or found[training.folder].state != "COMPLETE":
                    found[training.folder] = training
        return list(found.values())

    def write(self) -> list[Training]:
        """Write trials.json for `compare`; what it says."""
        trainings = self.trainings()
        write_json_atomic(self.folder / TRIALS, list(map(asdict, trainings)))
        return trainings

    def work(self, environment: Mapping[str, str]) -> None:
        """Run trials until none is left for anybody. `environment`: variables of the trials' processes."""
        while not self.stopping.is_set():
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                fail_stale_trials(self.study)
                self._retry_unstarted()
            states = [trial.state for trial in self.trials()]
            if TrialState.WAITING in states or len(self._proposed()) < self.plan.sweep.proposals:
                with contextlib.suppress(UpdateFinishedTrialError):  # this process stood still, and another retried it
                    self.study.optimize(lambda trial: self._run(trial, environment), n_trials=1, catch=(RunFailed,))
            elif TrialState.RUNNING in states:
                self.stopping.wait(1.0)
            else:
                return

    def _retry_unstarted(self) -> None:
        """Retry trials whose worker was killed before their first heartbeat, which Optuna would wait for."""
        for trial in self.trials():
            is_unstarted = trial.state == TrialState.RUNNING and trial.user_attrs.get("started") != trial.number
            if (
                is_unstarted
                and trial.datetime_start
                and datetime.now() - trial.datetime_start > timedelta(seconds=GRACE)
            ):
                self.study.tell(trial.number, state=TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback(RETRIES)(self.study, trial)

    def _proposed(self) -> list[int]:
        """Numbers of the trials that come from the sampler: those that were neither queued nor retried."""
        known = {"fixed_params", "failed_trial"}
        return [trial.number for trial in self.trials() if not known & trial.system_attrs.keys()]

    def _run(self, trial: optuna.Trial, environment: Mapping[str, str]) -> float:
        """Train a trial's setting with its seeds, one after the other; its mean score."""
        sweep, scores = self.plan.sweep, list[float]()
        if trial.number in self._proposed()[sweep.proposals :]:
            raise TrialPruned  # another worker was faster in taking the last one
        setting = self.plan.suggest(trial)
        seeds = sweep.seeds.values if sweep.proposals else [trial.suggest_categorical("seed", sweep.seeds.values)]
        trial.set_user_attr("setting", asdict(setting))
        trial.set_user_attr("seeds", seeds)
        try:
            for place, seed in enumerate(seeds):
                training = Training(setting, seed, "RUNNING", None, None, None)
                self._train(trial, training, 1_000_000 * place, environment)
                scores.append(_score(self.folder / training.folder, sweep.objective))
        except RunFailed as error:
            trial.set_user_attr("reason", str(error))
            raise
        trial.set_user_attr("values", scores)
        return fmean(scores)

    def _train(self, trial: optuna.Trial, training: Training, steps: int, environment: Mapping[str, str]) -> None:
        """Run the recipe of a training. RunFailed if it fails, TrialPruned if the other trials do better.

        `steps`: those of the trial's earlier seeds.
        """
        sweep, folder, reported = self.plan.sweep, self.folder / training.folder, 0
        command = [*COMMAND, "run", str(recipe_file(self.folder, training.setting.recipe))]
        command += [*training.setting.overrides(**{sweep.seeds.key: training.seed}), "--out", str(folder)]
        log = folder.with_suffix(".txt")
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                start_new_session=True,  # the terminal's Ctrl-C ends the sweep, and the sweep ends this
                preexec_fn=partial(_LIBC.prctl, PR_SET_PDEATHSIG, signal.SIGKILL) if sys.platform == "linux" else None,
            )
        try:
            trial.set_user_attr("started", trial.number)
            while process.poll() is None:
                if self.stopping.wait(0.2):
                    self.study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)
                    raise RunFailed("interrupted")
                for step, value in _dev_scores(folder)[reported:] if sweep.prune else []:
                    reported += 1
                    trial.report(value if sweep.direction == "maximize" else -value, steps + step)
                    if trial.should_prune():
                        raise TrialPruned
        finally:
            process.kill()
            process.wait()
        if process.returncode < 0:
            name = signal.Signals(-process.returncode).name
            raise RunFailed(f"ended by {name}{': out of memory?' if name == 'SIGKILL' else ''}")
        if process.returncode:
            lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            raise RunFailed(lines[-1].removeprefix("error: ")[:300] if lines else "ended without a word")


def open_storage(url: str) -> RDBStorage:
    """Optuna's database at a URL, with its tables; UserError if it does not answer."""
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
            reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
            time.sleep(0.5)
        else:
            if is_sqlite:  # which would lock only what is written: two workers could take one trial
                sqlalchemy.event.listen(storage.engine, "begin", lambda own: own.exec_driver_sql("BEGIN IMMEDIATE"))
            return storage
    raise UserError(f"the storage does not answer ({reason})", where=url, fix="check the URL and the server")


def environment(index: int, workers: int) -> dict[str, str]:
    """Variables of a worker's trials: its share of the cores, and one GPU of those that are visible."""
    share: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, machine()["cores"] // workers))
    import torch  # takes a second

    if torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
        share["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    return share


def _score(run: Path, objective: str) -> float:
    """The objective, from the samples that a run has left; RunFailed if there is none."""
    try:
        columns = columns_of_runs([run])
    except UserError as error:
        raise RunFailed(str(error)) from None
    value = float(OBJECTIVES[objective](columns.final.at(None).pooled).mean())
    if not math.isfinite(value):
        raise RunFailed(f"{objective} is {value}")
    return value


def _dev_scores(run: Path) -> list[tuple[int, float]]:
    """(step, score) of the exams on dev so far in the last stage."""
    found = sorted(run.glob(".work-*/metrics.jsonl"))
    records = read_jsonl(found[-1]) if found else []
    return [(record["step"], record[DEV_SCORE]) for record in records if DEV_SCORE in record]


def _screen(study: Study, workers: int, elapsed: float, most: int = 20) -> Group:
    """How the sweep goes: counts, and settings with what their seeds have reached, the best first."""
    sweep, trainings = study.plan.sweep, study.trainings()
    states = [training.state for training in trainings]
    counts = ", ".join(f"{states.count(state.name)} {state.name.lower()}" for state in TrialState)
    left = (states.count("WAITING") + states.count("RUNNING") / 2) / workers
    seconds = [training.seconds for training in trainings if training.seconds and training.state == "COMPLETE"]
    rest = f", about {fmean(seconds) * left / 60:.0f} min left" if seconds and left else ""
    sign, ranked = -1.0 if sweep.direction == "maximize" else 1.0, list[tuple[float, str, str]]()
    for name in dict.fromkeys(training.setting.name for training in trainings):
        seeds = [training for training in trainings if training.setting.name == name]
        values = [training.value for training in seeds if training.value is not None]
        written = [
            f"{each.value:.4f}" if each.value is not None else each.reason or each.state.lower() for each in seeds
        ]
        ranked.append((sign * fmean(values) if values else math.inf, name, "  ".join(each[:60] for each in written)))
    table = Table("setting", f"mean {sweep.objective}", "seeds", box=box.SIMPLE_HEAD)
    for rank, name, cells in sorted(ranked)[:most]:
        table.add_row(Text(name), f"{sign * rank:.4f}" if rank < math.inf else "-", Text(cells))
    return Group(Text(f"{sweep.name}: {len(states)} trainings: {counts}; {elapsed / 60:.1f} min{rest}"), table)
