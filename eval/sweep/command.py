"""`r1-mini sweep`: workers, kept alive, and a table of how it goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from optuna.trial import TrialState
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eval.sweep.spec import Plan, read
from eval.sweep.study import TRIALS, Study, Trial
from eval.sweep.summary import compare_sweep
from eval.sweep.worker import work
from r1_mini.errors import UserError
from r1_mini.system.environment import machine
from r1_mini.system.locks import holding

_AT_ONCE = 3.0
"""A worker that ends so soon after its start, in seconds, did not begin to work."""


def sweep(path: Path, out: Path | None, url: str | None, workers: int, console: Console) -> bool:
    """Start or join a sweep, with workers on this machine; True if a trial of it is complete."""
    with console.status("checking the sweep"):
        plan = read(path)
    folder = out or Path("runs") / plan.sweep.name
    study = open_study(plan, folder, url)
    study.write_plan()
    command = [sys.executable, "-m", "r1_mini", "sweep", str(path), "--out", str(folder), "--workers", str(workers)]
    command += ["--storage", url] if url else []
    processes: list[subprocess.Popen[bytes] | None] = [None] * workers
    begun, in_vain = [0.0] * workers, 0
    first = time.monotonic()
    try:
        with Live(console=console, refresh_per_second=2) as live:
            while True:
                for index, process in enumerate(processes):
                    if process is not None and process.poll() is None:
                        continue
                    if process is not None and process.returncode == 0:
                        continue  # it found nothing left to do
                    if process is not None and time.monotonic() - begun[index] < _AT_ONCE:
                        in_vain += 1
                        if in_vain >= 3:
                            where = str(folder / f"worker-{index}.txt")
                            raise UserError("workers end at once", where=where, fix="read there why")
                    with (folder / f"worker-{index}.txt").open("a", encoding="utf-8") as log:
                        processes[index] = subprocess.Popen(
                            [*command, "--as-worker", str(index)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
                        )
                    begun[index] = time.monotonic()
                live.update(_screen(study, workers, time.monotonic() - first))
                if all(process is not None and process.poll() == 0 for process in processes):
                    break
                time.sleep(0.5)
    finally:
        for process in processes:
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait()
        study.write_trials()
    if not any(trial.state == TrialState.COMPLETE for trial in study.trials()):
        console.print(f"no trial is complete; their reasons: {folder / TRIALS}", soft_wrap=True)
        return False
    try:
        compare_sweep(folder, None, console)
    except UserError as error:  # the trials are done all the same
        console.print(f"not compared: {error}", soft_wrap=True, markup=False)
    return True


def be_worker(path: Path, folder: Path, url: str | None, index: int, workers: int) -> None:
    """Work for a sweep until it is finished; its log is what this process prints."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that a trial's process ends too
    study = open_study(read(path), folder, url)
    work(study, environment(index, workers))


def open_study(plan: Plan, folder: Path, url: str | None) -> Study:
    """The study of a sweep in its folder, which is made; UserError if another's files or another sweep are there."""
    folder.mkdir(parents=True, exist_ok=True)
    with holding(folder):  # workers that begin at once do not take each other's first files for somebody else's
        if any(folder.iterdir()) and not (folder / "sweep.yaml").exists():
            raise UserError("not a sweep's folder, and not empty", where=str(folder), fix="choose another with --out")
        study = Study(plan, folder, url)
        study.write_files()
    return study


def environment(index: int, workers: int) -> dict[str, str]:
    """Variables of the trials of a worker: its share of the cores, and one GPU of those that are visible."""
    share: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:
        share["OMP_NUM_THREADS"] = str(max(1, machine()["cores"] // workers))
    import torch  # takes a second

    if torch.cuda.is_available():
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]
        share["CUDA_VISIBLE_DEVICES"] = devices[index % len(devices)]
    return share


def _screen(study: Study, workers: int, elapsed: float) -> Group:
    trials = study.trials()
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    seconds = [trial.seconds for trial in trials if trial.state == TrialState.COMPLETE and trial.seconds]
    left = counts[TrialState.WAITING] + counts[TrialState.RUNNING] / 2
    rest = f", about {fmean(seconds) * left / workers / 60:.0f} min left" if seconds and left else ""
    line = (
        f"{study.plan.sweep.name}: {counts[TrialState.COMPLETE]} of {len(trials)} trials complete, "
        f"{counts[TrialState.RUNNING]} running, {counts[TrialState.WAITING]} waiting, "
        f"{counts[TrialState.PRUNED]} pruned, {counts[TrialState.FAIL]} failed; {elapsed / 60:.1f} min{rest}"
    )
    return Group(Text(line), table(study, trials))


def table(study: Study, trials: Sequence[Trial], most: int = 20) -> Table:
    """Settings with what their seeds have reached, the best first; failures with their reasons."""
    settings: dict[str, list[Trial]] = {}
    for trial in trials:
        settings.setdefault(trial.setting, []).append(trial)
    sign = -1.0 if study.plan.sweep.direction == "maximize" else 1.0

    def rank(name: str) -> float:
        values = [trial.value for trial in settings[name] if trial.value is not None]
        return sign * fmean(values) if values else float("inf")

    shown = Table(box=box.SIMPLE_HEAD)
    for heading in ("setting", f"mean {study.plan.sweep.objective}", "seeds"):
        shown.add_column(heading, justify="left" if heading == "setting" else "right")
    for name in sorted(settings, key=rank)[:most]:
        values = [trial.value for trial in settings[name] if trial.value is not None]
        mean = f"{fmean(values):.4f}" if values else "-"
        shown.add_row(Text(name), mean, Text("  ".join(map(_cell, settings[name]))))
    if len(settings) > most:
        shown.add_row(f"and {len(settings) - most} more", "", "")
    return shown


def _cell(trial: Trial) -> str:
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return f"{trial.value:.4f}"
    if trial.state == TrialState.FAIL:
        return f"failed ({(trial.reason or '?')[:60]})"
    return trial.state.name.lower()
