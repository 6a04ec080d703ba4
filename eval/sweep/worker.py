"""A worker takes trials of a study, one after the other, and runs each as a process of its own.

So a crash, also for want of memory, ends one trial and not the sweep, and the trial's folder is an ordinary run, which
resumes. A worker that dies takes its trial's process along.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from optuna.trial import TrialState

from eval.analysis.columns import BASE, RL, columns_of_runs
from eval.exam.samples import at_axis
from eval.sweep.objective import OBJECTIVES
from eval.sweep.study import Study, Trial, recipe_file
from r1_mini.errors import UserError
from r1_mini.system.files import read_jsonl
from r1_mini.train.dev_exam import FIELD

COMMAND: tuple[str, ...] = (sys.executable, "-m", "r1_mini")
_BEAT = 15.0
"""Seconds between two signs of life."""
_PATIENCE = 60.0
"""Seconds to wait for the process of a killed worker to leave a trial's folder."""
_PR_SET_PDEATHSIG = 1


def work(study: Study, environment: Mapping[str, str]) -> None:
    """Run trials until nothing is left, for anybody. `environment`: variables of the trials' processes."""
    while True:
        claimed = study.claim()
        if claimed is None:
            if study.is_finished:
                return
            time.sleep(0.5)
            continue
        trial, held = claimed
        with held:
            begun = time.monotonic()
            state, value, reason = _run(study, trial, environment)
            study.end(trial, state, value, reason, time.monotonic() - begun)


def _run(study: Study, trial: Trial, environment: Mapping[str, str]) -> tuple[TrialState, float | None, str | None]:
    """How the trial ended: its state, and its value or the reason of its failure."""
    folder = study.folder / "trials" / trial.folder
    log = folder.with_suffix(".txt")
    command = [*COMMAND, "run", str(recipe_file(study.folder, trial.recipe)), *trial.overrides]
    give_up = time.monotonic() + _PATIENCE
    while True:
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(
                [*command, "--out", str(folder)],
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        try:
            pruned = _watch(study, trial, process, folder)
        except BaseException:
            process.kill()
            process.wait()
            raise
        if pruned:
            return TrialState.PRUNED, None, None
        if process.returncode == 0:
            return _judged(study, folder)
        reason = _last_line(log)
        if "is running in this folder" not in reason or time.monotonic() > give_up:
            break
        time.sleep(1.0)
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        hint = ": out of memory?" if name == "SIGKILL" else ""
        reason = f"ended by {name}{hint}"
    return TrialState.FAIL, None, reason


def _watch(study: Study, trial: Trial, process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait for the end of the process, giving signs of life; True if it was ended because others do better."""
    told, last_beat = 0, time.monotonic()
    while process.poll() is None:
        time.sleep(0.2)
        if time.monotonic() - last_beat > _BEAT:
            last_beat = time.monotonic()
            study.beat(trial)
        if not study.plan.sweep.prune:
            continue
        for step, value in _dev_scores(folder)[told:]:
            told += 1
            if study.report(trial, step, value):
                process.kill()
                process.wait()
                return True
    return False


def _dev_scores(run: Path) -> list[tuple[int, float]]:
    """(step, score) of the examinations on dev so far in the last stage."""
    found = sorted(run.glob(".work-*/metrics.jsonl"))
    records = read_jsonl(found[-1]) if found else []
    return [(record["step"], record[FIELD]) for record in records if FIELD in record]


def _judged(study: Study, folder: Path) -> tuple[TrialState, float | None, str | None]:
    """The objective, from the samples that the run has left."""
    try:
        columns = columns_of_runs([folder])
    except UserError as error:
        return TrialState.FAIL, None, str(error)
    samples = at_axis(columns[RL if RL in columns else BASE].pooled, None)
    value = float(OBJECTIVES[study.plan.sweep.objective].score(samples).mean())
    if not math.isfinite(value):
        return TrialState.FAIL, None, f"{study.plan.sweep.objective} is {value}"
    return TrialState.COMPLETE, value, None


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ")[:300] if lines else "ended without a word"


def _die_with_parent() -> None:
    """In the child on Linux: be killed when the parent ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
