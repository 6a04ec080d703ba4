"""A sweep whose runs are copies of prepared ones: the machinery without the training."""

import sys

import pytest

from eval.sweep import run
from eval.sweep.run import Study
from eval.sweep.spec import read
from tests.commands import CONTEXT
from tests.conftest import TINY
from tests.eval.conftest import write_run

RATE = "grpo.trainer.learning_rate"
MARKS = {0.1: ("1100", "1000"), 0.2: ("1110", "1111"), 0.3: ("0000", "1000"), 0.4: ("1100", "1100")}
"""Learning rate -> what the last checkpoint gets right with each of two seeds, of four samples a problem."""
EACH = [(rate, seed, marks) for rate, pair in MARKS.items() for seed, marks in enumerate(pair)]
SCORES = {(f"learning_rate={rate}", seed): marks.count("1") / 4 for rate, seed, marks in EACH}

FAKE = """
import json, pathlib, shutil, sys, time
overrides = dict(each.split("=", 1) for each in sys.argv[1:] if "=" in each)
rate, seed = float(overrides["grpo.trainer.learning_rate"]), overrides["seed"]
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
work = out / ".work-02-grpo"
work.mkdir(parents=True, exist_ok=True)
with (out / "starts").open("a") as file:
    print("started", file=file)
if f"{rate}-{seed}" in HANG and (out / "starts").read_text() == "started\\n":
    time.sleep(600)
with (work / "metrics.jsonl").open("w") as file:
    for step in range(1, 4):
        print(json.dumps({"step": step, "dev_pass_at_1": 1 - rate}), file=file, flush=True)
        time.sleep(PAUSE)
shutil.copytree(f"{TEMPLATES}/{rate}-{seed}", out, dirs_exist_ok=True)
"""
"""Instead of a run: it notes that it was started and scores on dev, and leaves the prepared run."""


def fake(path, pause=0.02, before="", hang=()):
    """The command that a sweep next to `templates` runs instead of `r1-mini`.

    before: code that it runs first. hang: the trials, such as "0.1-0", that stand still when they are first started.
    """
    constants = f"TEMPLATES, PAUSE, HANG = {str(path.parent / 'templates')!r}, {pause}, {list(hang)}"
    script = f"import os, sys\n{constants}\n{before}\n{FAKE}"
    return (sys.executable, "-c", script)


@pytest.fixture
def sweep_file(tmp_path):
    """Writes a sweep next to a recipe; the keyword arguments are its text."""

    def write(**keys):
        (tmp_path / "recipe.yaml").write_text(TINY, encoding="utf-8")
        text = [f"{key}: {value}\n" for key, value in {"name": "s", "recipe": "recipe.yaml", **keys}.items()]
        (tmp_path / "sweep.yaml").write_text("".join(text), encoding="utf-8")
        return tmp_path / "sweep.yaml"

    return write


@pytest.fixture
def grid(sweep_file, tmp_path, monkeypatch):
    """A sweep of four learning rates with two seeds, and its trials' runs in `templates`."""
    for rate, seed, marks in EACH:
        write_run(tmp_path / "templates" / f"{rate}-{seed}", seed, "1000", "1000", marks)
    path = sweep_file(space={RATE: {"choices": list(MARKS)}}, seeds="{key: seed, values: [0, 1]}")
    monkeypatch.setattr(run, "COMMAND", fake(path))
    return path


def study_of(path, url=None):
    return Study(*read(path), path.parent / "out", url)


def results(study):
    """(setting, seed) -> score of every training; none comes twice."""
    trainings = study.trainings()
    found = {(training.setting, training.seed): training.value for training in trainings}
    assert len(found) == len(trainings)
    return found


def _work(path, url, command, retries):
    run.COMMAND, run.HEARTBEAT, run.GRACE, run.RETRIES = command, 1, 3, retries
    study_of(path, url).work({})


def start_worker(path, url=None, command=None, retries=3):
    """A worker in a process of its own, which counts as gone after three seconds."""
    process = CONTEXT.Process(target=_work, args=(path, url, command or fake(path), retries))
    process.start()
    return process
