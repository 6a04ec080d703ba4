"""Runs a recipe: every stage of its graph, each after the one that it starts from, then the exam.

A stage is a node of the store: one that is finished is used, an interrupted one resumes. Under `accelerate launch` all
processes train, and the main one writes.
"""

import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from transformers import enable_full_determinism

from r1_mini.data.collected import Collected
from r1_mini.data.source import Source
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import MODEL, Recipe, dump, load
from r1_mini.pipeline.store import Node, Store, checkpoint_hash, first_difference, read_manifest, read_note
from r1_mini.system import distributed as processes
from r1_mini.system import environment, plugin
from r1_mini.system.files import (
    ASIDE,
    clear_leftovers,
    if_writable,
    require_replaceable,
    write_json_atomic,
    write_text_atomic,
)
from r1_mini.system.logs import quiet
from r1_mini.system.terminal import Terminal
from r1_mini.train.grpo import DevExam
from r1_mini.train.stage import Job

log = logging.getLogger(__name__)

LOOK_ON = ("rollouts", "patience")
"""Settings of a stage that change nothing of what it learns; a run may go on with others."""
WRITTEN = (".lock", "recipe.yaml", "manifest.json", "log.txt", "summary.json", "comparison.csv", "report.html")
"""Files that a run writes into its folder."""


Watch = Callable[[str], Callable[[Mapping[str, Any]], str]]
"""Stage -> a function of each record of its metrics; the command line hands it over, as it does the exam."""


class Examiner(Protocol):
    """The exam, which the command line hands over: r1_mini does not import eval."""

    def __call__(
        self, run: "RunFolder", checkpoints: Mapping[str, Path], seconds: Mapping[str, float], console: Console
    ) -> None:
        """Examine a run's checkpoints. `seconds`: what each stage took."""

    def on_dev(self, settings: DevExam) -> Callable[[Any, Any], float]:
        """A function of model and tokenizer: pass@1 on dev, for use during training."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run: recipe.yaml, manifest.json, log.txt, a folder for each stage, and eval/ with the exams."""

    path: Path
    store: Store

    @property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json holds; nothing if it is damaged: the stages are noted in it again, one by one."""
        try:
            return read_manifest(self.path)
        except UserError:
            return {}

    def update_manifest(self, **changes: Any) -> None:
        """Set keys of manifest.json; a mapping is merged into the mapping that is there."""
        old = self.manifest
        merged = {key: {**old.get(key, {}), **new} if isinstance(new, dict) else new for key, new in changes.items()}
        write_json_atomic(self.path / "manifest.json", {**old, **merged})


def run(
    recipe: Recipe,
    pretrained: Path | None,
    problems: Mapping[str, Sequence[Source]],
    out: Path,
    console: Console,
    examine: Examiner,
    watch: Watch = lambda name: lambda record: "",
) -> None:
    """Train every stage of a recipe into the run folder `out`, then examine its checkpoints.

    `pretrained`: the folder of the recipe's model. `problems`: those of each stage, as `start.check` returns them.
    `watch`: what is told each record of a stage's metrics, and says what is gravely wrong.
    """
    checkpoints = {} if pretrained is None else {MODEL: pretrained}
    seconds: dict[str, float] = {}
    if recipe.deterministic:
        enable_full_determinism(recipe.seed)
    with opened(out, dump(recipe)) as folder, quiet(folder.path / "log.txt"):
        _log_origin(recipe)
        if isinstance(console, Terminal):
            console.log_to(log.info)
        for name in recipe.order():
            start = checkpoints.get(recipe.start_of(name) or "")
            read = {as_named: checkpoints[each] for each, as_named in recipe.read_by(recipe.nodes[name]).items()}
            node = train_stage(folder, recipe, name, start, read, problems[name], console, examine, watch(name))
            checkpoints[name], seconds[name] = node.folder, read_note(node.folder)["seconds"]
            environment.free_memory()
        examine(folder, checkpoints, seconds, console)
        if processes.is_main():
            old, peaks = folder.manifest, {"peak_memory_mib": environment.peak() // 2**20}
            if environment.kind() == "cuda":  # of the main process
                peaks["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() // 2**20
            with if_writable():
                folder.update_manifest(**{name: max(peak, old.get(name, 0)) for name, peak in peaks.items()})


def train_stage(
    folder: RunFolder,
    recipe: Recipe,
    name: str,
    start: Path | None,
    read: Mapping[str, Path],
    problems: Sequence[Source],
    console: Console,
    examine: Examiner,
    watch: Callable[[Mapping[str, Any]], str],
) -> Node:
    """The finished node of a stage: found in the store, or trained from the checkpoint `start` on `problems`.

    `read`: the folders of the other stages that it reads.
    """
    stage = recipe.nodes[name]
    seed, left_out = recipe.seed_of(stage), {"kind", "name", "start", "seed", "problems", *LOOK_ON}
    problems = [each.read(read[each.collected]) if isinstance(each, Collected) else each for each in problems]
    others = {each: checkpoint_hash(folder) for each, folder in read.items()}
    identity = {
        "kind": stage.kind,
        "version": stage.VERSION,
        "settings": stage.model_dump(mode="json", exclude_defaults=True, exclude=left_out),
        "seed": seed,
        "problems": [source.model_dump(mode="json") for source in recipe.problems_of(stage)],
        "prompt": recipe.prompt,
        "data": [source.content_hash() for source in problems],
        "from": checkpoint_hash(start) if start else None,
        **({"read": others} if others else {}),
        **({"own": own} if (own := plugin.sources(getattr(stage, "rewards", ()))) else {}),
    }
    with folder.store.open(identity, folder.path / name, console) as node:
        if node.finished:
            console.print(f"{name:<10} done before, skipped")
        else:
            dev = getattr(stage, "dev", None)
            score = None if dev is None else examine.on_dev(dev)
            job = Job(
                name=name,
                settings=stage,
                start=start,
                problems=problems,
                prompt=recipe.prompt,
                seed=seed,
                work=node.scratch,
                out=node.work,
                console=console,
                read=read,
                dev_score=score,
                watch=watch,
            )
            stage.train(job)
            processes.wait()
            processes.on_main(lambda: _keep_logs(node))
    if processes.is_main():
        note, new = read_note(node.folder), {} if node.finished else _origin()
        entry = {"kind": stage.kind, "from": recipe.start_of(name), "key": node.key}
        stages = {name: {**entry, "seconds": note["seconds"], "sha256": note["files"]}}
        folder.update_manifest(stages=stages, **new)
    return node


def _keep_logs(node: Node) -> None:
    """Put the metrics, the trainer's fields, and what TRL wrote for trackers next to the checkpoint."""
    for name in ("metrics.jsonl", "trainer.json", "runs", "completions"):
        source = node.scratch / name
        if source.is_dir():
            shutil.copytree(source, node.work / name, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, node.work / name)


@contextmanager
def opened(path: Path, recipe: str) -> Iterator[RunFolder]:
    """The folder of a run of this recipe, new or opened again; for one process at a time.

    UserError if the folder is something else, or trains something else; its exam may differ.
    """
    folder = RunFolder(path, Store(path.resolve().parent))

    def claim() -> None:
        begun = (".lock", ".recipe.yaml", f"{ASIDE}.recipe.yaml")  # what a run has that was killed as it began
        if path.exists() and not (path / "recipe.yaml").exists() and {each.name for each in path.iterdir()} - {*begun}:
            raise UserError("not a run folder, and not empty", where=str(path), fix="choose another one with --out")
        for name in WRITTEN:
            require_replaceable(path / name)
        require_replaceable((path / "eval").resolve(), folder=True)
        path.mkdir(parents=True, exist_ok=True)
        try:
            with if_writable():
                held.enter_context(FileLock(path / ".lock", timeout=0, preserve_lock_file=True))
        except Timeout:
            fix = "wait for it, or choose another folder with --out"
            raise UserError("another process is running in this folder", where=str(path), fix=fix) from None
        clear_leftovers(path)
        new, there = path / ".recipe.yaml", path / "recipe.yaml"
        if not there.exists() or there.read_bytes() != recipe.encode():
            write_text_atomic(new, recipe)
            settings = [
                load(each).model_dump(mode="json", exclude={"evaluate": True, "stages": {"__all__": {*LOOK_ON}}})
                for each in (there, new)
                if each.exists()
            ]
            if changed := first_difference(settings[0], settings[-1]):
                new.unlink()
                what = "holds another run: {} is {} there and {} now".format(*changed)
                raise UserError(what, where=str(path), fix="choose another folder with --out")
            new.replace(there)
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        write_json_atomic(path / "manifest.json", {"started": now, **_origin(), "stages": {}, **folder.manifest})

    with ExitStack() as held:
        processes.on_main(claim)
        yield folder


def _log_origin(recipe: Recipe) -> None:
    """Begin the story: the command, what it runs, and with what."""
    origin = _origin()
    made_with = {"commit": origin["commit"], **origin["versions"], "on": origin["machine"]["cpu"]}
    log.info("%s", origin["command"])
    log.info("%s, seed %d: %s, exam %s", recipe.name, recipe.seed, ", ".join(recipe.nodes), recipe.evaluate.suite)
    log.info("%s", ", ".join(f"{name} {value}" for name, value in made_with.items() if value))


def _origin() -> dict[str, Any]:
    """What the work is done with: noted when a run begins, and when it has trained a stage."""
    from_python = "r1_mini.api" in sys.modules  # where argv is that of the notebook's kernel
    command = "r1_mini.run(), from Python" if from_python else shlex.join(["r1-mini", *sys.argv[1:]])
    versions, machine = environment.versions(), environment.machine()
    on = environment.on(processes.count())
    return {"command": command, "commit": environment.commit(), "versions": versions, "machine": machine, "on": on}
