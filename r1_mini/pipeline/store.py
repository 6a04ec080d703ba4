"""The store of finished work: a node is a stage or an exam, and its key is the hash of all that went into it.

A node's files lie in the run that made them, so a run folder can be copied elsewhere alone. An index beside the runs
says where a key was finished, so that other runs take it from there. Source code, library versions and threads are not
in the key: they are recorded in node.json, and a difference is printed. Editing the code never throws training away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel
from rich.console import Console

from r1_mini.config import yaml_file as settings_file
from r1_mini.errors import UserError, disk_error, shown
from r1_mini.pipeline.recipe import Recipe, dump
from r1_mini.system import distributed as processes
from r1_mini.system.environment import commit, machine, source, versions
from r1_mini.system.files import (
    ASIDE,
    clear_leftovers,
    folder_atomic,
    read_jsonl,
    remove,
    sha256,
    sha256_of_files,
    take_place,
    write_json_atomic,
    write_text_atomic,
)
from r1_mini.system.locks import holding, locked

NOTE = "node.json"
SCRATCH = ".resume"
PACKAGE = Path(__file__).parents[1]
NOT_SET = object()


@dataclass(frozen=True)
class Node:
    """A stage or an exam. It is made in `work`, which survives a kill and becomes `folder` when it is finished."""

    key: str
    folder: Path
    work: Path
    finished: bool

    @property
    def scratch(self) -> Path:
        """A folder for what only resuming needs, such as a trainer's checkpoints; removed when the node is finished."""
        return self.work / SCRATCH


class Store:
    """All finished nodes below `root`, the folder that holds the runs."""

    def __init__(self, root: Path) -> None:
        self.root, self.index = root.resolve(), root.resolve() / ".index"
        self._differences: set[str] = set()  # that were printed

    @contextmanager
    def open(self, identity: Mapping[str, Any], folder: Path, console: Console) -> Iterator[Node]:
        """The node with this identity, in `folder`. If it is not finished, the block fills `node.work`.

        A node that is finished elsewhere below the root is linked into `folder`. While another process works on the
        node, this one waits. What an error or a kill leaves in `work` is there again the next time. Nothing is deleted:
        a node or work of another identity is moved aside. Of several processes the main one writes.
        """
        with ExitStack() as locks:
            node = processes.on_main(lambda: self._begin(plain(identity), folder, console, locks))
            yield node
            if not node.finished:
                processes.wait()
                processes.on_main(lambda: self._finish(node, console))

    def _begin(self, identity: Any, folder: Path, console: Console, locks: ExitStack) -> Node:
        key = fingerprint(identity)
        node = Node(key, folder, folder.with_name(f".work-{folder.name}"), finished=False)
        self.index.mkdir(parents=True, exist_ok=True)
        for name in (fingerprint(str(folder.resolve())), key):
            locks.callback(self._lock(name, folder, console).release)
        if found := self._find(node):
            if found != folder:
                self._move_aside(folder, identity, console)
                _link(found, folder)
            self._compare(folder, console)
            self._place(node)
            return replace(node, finished=True)
        note, spent = read_note(node.work), 0.0
        if note.get("key") != key:
            self._move_aside(node.work, identity, console)
            before = _aside(node.work, key)  # from when the settings were these
            if before.is_dir():
                before.rename(node.work)
            note = read_note(node.work)
        if note:
            self._compare(node.work, console)
            last = max(path.stat().st_mtime for path in node.work.rglob("*") if path.is_file())
            spent = note["seconds"] + max(0.0, last - note["begun"])
        node.scratch.mkdir(parents=True, exist_ok=True)
        new = {"key": key, "identity": identity, "made_with": made_with(), "begun": time.time(), "seconds": spent}
        write_json_atomic(node.work / NOTE, new)
        return node

    def _finish(self, node: Node, console: Console) -> None:
        note = read_note(node.work)
        paths = sorted(path for path in node.work.rglob("*") if path.is_file() and node.scratch not in path.parents)
        files = {path.relative_to(node.work).as_posix(): sha256(path) for path in paths if path.name != NOTE}
        seconds = round(note["seconds"] + time.time() - note["begun"], 3)
        write_json_atomic(node.work / NOTE, {**note, "seconds": seconds, "files": files})
        self._move_aside(node.folder, note["identity"], console)
        node.work.rename(node.folder)
        self._place(node)

    def _lock(self, name: str, folder: Path, console: Console) -> FileLock:
        lock = FileLock(self.index / f"{name}.lock", preserve_lock_file=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(console, f"{folder.name}: another process is working on it; waiting")
            lock.acquire()
        return lock

    def _find(self, node: Node) -> Path | None:
        """Where the node is finished and intact: here, or in a run whose threads and processes give the same bits."""
        if is_intact(node.folder, node.key):
            return node.folder
        entry, now = self.index / node.key, made_with()
        place = self.root / entry.read_text() if entry.exists() else node.folder
        made = read_note(place).get("made_with", {})
        same = all(made.get(name) == now[name] for name in ("threads", "processes"))
        return place if same and is_intact(place, node.key) else None

    def _place(self, node: Node) -> None:
        """Remove what only resuming needed, and say in the index where the node is."""
        remove(node.folder / SCRATCH)
        (self.index / node.key).write_text(os.path.relpath(node.folder.resolve(), self.root))

    def _move_aside(self, path: Path, identity: Any, console: Console) -> None:
        """Rename a folder that this identity cannot use to `<name>.<start of its own key>`, and say why."""
        if not path.exists():
            return
        note = read_note(path)
        key = note.get("key", "unknown")
        aside = _aside(path, key)
        while aside.exists():
            aside = aside.with_name(f"{aside.name}+")
        path.rename(aside)
        if "files" in note:
            (self.index / key).write_text(os.path.relpath(aside.resolve(), self.root))
        changed = first_difference(note.get("identity", {}), identity)
        why = "{} is {} there and {} now".format(*changed) if changed else "its files are not those that were written"
        say(console, f"{path.name}: moved to {aside.name}, because {why}")

    def _compare(self, folder: Path, console: Console) -> None:
        """Print one line, once for all nodes, if other code or libraries made what is in the folder."""
        made, now = read_note(folder)["made_with"], made_with()
        changed = [name for name in now if made.get(name) != now[name]]
        words = [
            f"{name} {made.get(name)} (now {now[name]})" if name != "program" else "other code" for name in changed
        ]
        line = f"was made with {', '.join(words)}; it is used as it is"
        if words and line not in self._differences:
            self._differences.add(line)
            say(console, f"{folder.name}: {line}")


def made_with() -> dict[str, Any]:
    """What a node's bits depend on besides its identity: source code, threads, processes, versions."""
    program = source(PACKAGE) + source(PACKAGE.with_name("eval"))
    return {"program": program, "threads": torch.get_num_threads(), "processes": processes.count(), **versions()}


def read_note(folder: Path) -> dict[str, Any]:
    """node.json of a node: key, identity, made_with, seconds, files and their sha256. Empty if there is none."""
    try:
        return dict(json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def is_intact(folder: Path, key: str) -> bool:
    """Whether the node is finished in this folder, and each of its files is as it was written."""
    note = read_note(folder)
    try:
        return note.get("key") == key and all(sha256(folder / name) == was for name, was in note["files"].items())
    except (OSError, KeyError):
        return False


def fingerprint(value: Any) -> str:
    """sha256, hex, of `value` as canonical JSON: the same for the same settings in any order of their keys."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(value: Any) -> Any:
    """`value` as JSON has it: settings as mappings, tuples as lists, paths as text."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return json.loads(json.dumps(value, default=lambda part: str(part) if isinstance(part, Path) else plain(part)))


def first_difference(old: Any, new: Any, key: str = "") -> tuple[str, str, str] | None:
    """(dotted key, old value, new value) where two trees of plain data first differ, else None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(name for name in old if name not in new)]:
            place = f"{key}.{name}" if key else str(name)
            if difference := first_difference(old.get(name, NOT_SET), new.get(name, NOT_SET), place):
                return difference
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return first_difference(dict(enumerate(old)), dict(enumerate(new)), key)
    was, now = ("not set" if value is NOT_SET else shown(value) for value in (old, new))
    return None if was == now else (key, was, now)


def say(console: Console, line: str) -> None:
    """Print one line as it is."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _aside(path: Path, key: str) -> Path:
    return path.with_name(f"{path.name}.{key[:8]}")


def _link(found: Path, folder: Path) -> None:
    """Make `folder` with the files of `found`: hard links, or copies where the file system has none."""

    def link_or_copy(old: str, new: str) -> None:
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)

    half = folder.with_name(f".copy-{folder.name}")
    remove(half)
    shutil.copytree(found, half, copy_function=link_or_copy)
    half.rename(folder)


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WORK = ".work-"  # a stage in progress; survives a kill, so that the stage can resume


class Inputs(NamedTuple):
    """Fingerprints of what goes into a stage."""

    settings: str
    """Of all that is said to train: settings, problems, start, program."""
    exact: str
    """And of how many processes and threads do it, which decide the last bits."""


class RunFolder:
    """One recipe's folder, held by one process at a time.

    `with RunFolder(out, recipe) as run:` makes or reopens it; UserError if another recipe or process has it.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe
        self._lock = contextlib.ExitStack()

    def __enter__(self) -> Self:
        _claim(self.path)
        self._lock.enter_context(locked(self.path))
        try:
            self._check_recipe()
            clear_leftovers(self.path)
            write_text_atomic(self.path / "recipe.yaml", dump(self.recipe))
            self.update_manifest(
                started=self.manifest.get("started", _now()),
                opened=_now(),
                seed=self.recipe.seed,
            )
            if "commit" not in self.manifest:
                self._note_origin()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    def _check_recipe(self) -> None:
        """UserError if the recipe.yaml here trains something else, naming the first key. The exam may change."""
        path = self.path / "recipe.yaml"
        if not path.exists():
            return
        there, ours = settings_file.read_mapping(path), self.recipe.model_dump(mode="json")
        difference = first_difference({**there, "evaluate": None}, {**ours, "evaluate": None})
        if difference:
            key, old, new = difference
            raise UserError(
                f"belongs to another recipe: {key} is {old} there and {new} now",
                where=str(self.path),
                fix="choose another folder with --out, or delete this one",
            )

    @property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json holds."""
        path = self.path / "manifest.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def update_manifest(self, **changes: Any) -> None:
        """Set keys of manifest.json; a mapping is merged into the mapping that is there."""
        write_json_atomic(self.path / "manifest.json", _merged(self.manifest, changes))

    def begin_stage(self, name: str, inputs: Inputs) -> tuple[Path, Path | None]:
        """The work folder for stage `name`, and the folder of the finished stage if it is done already.

        While a run beside this one is at a stage with exactly the same inputs, this one waits for it. The work folder
        holds what resuming needs, also on another number of processes; it is emptied if other settings left it.
        """
        folder = self.path / f"{_WORK}{name}"
        while True:
            with holding(self.path.resolve().parent):  # one at a time looks and begins
                found = self.stage_done(inputs)
                if found is None and not self._is_begun_beside(name, inputs):
                    _prepare(folder, inputs)
                    self._lock.enter_context(holding(folder, wait=False))
                    return folder, None
            if found is not None:
                return folder, found
            time.sleep(0.5)

    def _is_begun_beside(self, name: str, inputs: Inputs) -> bool:
        """Whether a process is at a stage with these inputs in a run beside this one."""
        here = self.path.resolve()
        for marker in here.parent.glob(f"*/{_WORK}*/inputs"):
            with contextlib.suppress(OSError):  # it may be finished by now
                if marker.parent != here / f"{_WORK}{name}" and marker.read_text(encoding="utf-8") == inputs.exact:
                    with holding(marker.parent, wait=False) as was_free:
                        if not was_free:
                            return True
        return False

    def finish_stage(self, name: str, inputs: Inputs, checkpoint: Path, seconds: float) -> Path:
        """Give the filled folder `checkpoint` its place as stage `name`, with its stage.json; the work folder goes."""
        target = self.path / name
        files = sha256_of_files(checkpoint)
        note = {"settings": inputs.settings, "fingerprint": inputs.exact, "seconds": round(seconds, 3), "files": files}
        write_json_atomic(checkpoint / "stage.json", note)
        take_place(checkpoint, target)
        remove(self.path / f"{_WORK}{name}")
        self._note_stage(name, inputs.exact, seconds, files, None)
        self._note_origin()
        return target

    def _note_origin(self) -> None:
        """What the work here was done with: noted when a run begins or a stage is finished, not on reopening."""
        command = shlex.join(["r1-mini", *sys.argv[1:]])
        self.update_manifest(command=command, commit=commit(), versions=versions(), machine=machine())

    def adopt_stage(self, name: str, found: Path) -> Path:
        """Copy a finished stage of another run into this one; one of this run stays where it is."""
        target = self.path / name
        if found.resolve() != target.resolve():
            with folder_atomic(target) as aside:
                shutil.copytree(found, aside, dirs_exist_ok=True)
        remove(self.path / f"{_WORK}{name}")
        stage = json.loads((target / "stage.json").read_text(encoding="utf-8"))
        source = None if found.resolve() == target.resolve() else str(found)
        if source or name not in self.manifest.get("stages", {}):
            self._note_stage(name, stage["fingerprint"], stage["seconds"], stage["files"], source)
        return target

    def seconds_of(self, name: str) -> float:
        """What a finished stage of this run took."""
        return float(self.manifest["stages"][name]["seconds"])

    def _note_stage(self, name: str, inputs: str, seconds: float, files: dict[str, str], source: str | None) -> None:
        entry = {
            "dir": name,
            "fingerprint": inputs,
            "seconds": round(seconds, 3),
            "sha256": files,
            "copied_from": source,
        }
        self.update_manifest(stages={name: entry})

    def stage_done(self, inputs: Inputs) -> Path | None:
        """The folder of a finished stage with these inputs, in this run or exactly in one beside it, else None.

        Its files are hashed again: one that was damaged or changed by hand does not count.
        """
        here = self.path.resolve()
        for run in [here, *sorted(beside for beside in here.parent.iterdir() if beside != here)]:
            with contextlib.suppress(OSError):
                for note in sorted(run.glob("[!.]*/stage.json")) if (run / "recipe.yaml").is_file() else ():
                    wanted = ("settings", inputs.settings) if run == here else ("fingerprint", inputs.exact)
                    if _is_finished(note, *wanted):
                        return note.parent
        return None


def _prepare(folder: Path, inputs: Inputs) -> None:
    """Make a stage's work folder, or empty one that other settings left."""
    marker = folder / "settings"
    if not marker.exists() or marker.read_text(encoding="utf-8") != inputs.settings:
        remove(folder)
        folder.mkdir()
        write_text_atomic(marker, inputs.settings)
    write_text_atomic(folder / "inputs", inputs.exact)


def _is_finished(note: Path, key: str, fingerprint: str) -> bool:
    """Does this stage.json belong to an undamaged stage, and is its `key` this fingerprint?"""
    try:
        stage = json.loads(note.read_text(encoding="utf-8"))
        return bool(stage[key] == fingerprint) and sha256_of_files(note.parent) == stage["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def stage_metrics(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Kind of stage -> its metrics, in order; steps of several stages of a kind go on counting."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(run.glob("[0-9][0-9]-*/metrics.jsonl")):
        rows = found.setdefault(path.parent.name.split("-", 1)[1], [])
        before = rows[-1]["step"] if rows else 0
        rows += [{**row, "step": before + row["step"]} for row in read_jsonl(path)]
    return found


def checkpoint_hash(checkpoint: Path) -> str:
    """One hash of a checkpoint folder: weights, shape, tokenizer and its template, whatever else lies in it."""
    names = ("*.safetensors", "config.json", "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "*.jinja")
    kept = {path for glob in names for path in checkpoint.glob(glob) if path.is_file()}
    return fingerprint({path.name: sha256(path) for path in sorted(kept)})


def find_checkpoint(path: Path, weights: bool = True) -> Path:
    """The folder of a model: `path` itself, or the local copy of the Hub's model of that id, fetched if need be.

    Without `weights` those of the Hub stay there, and a folder need not have any. UserError with the likely fix if
    there is no such model.
    """
    if not path.exists() and _HUB_ID.fullmatch(str(path)) and not path.parent.exists():
        return _from_hub(str(path), weights)
    if not path.exists():
        raise UserError(
            "no such folder", where=str(path), fix="give the folder of a checkpoint, such as runs/tiny-r1-zero/02-grpo"
        )
    if not (path / "config.json").is_file() or (weights and not any(path.glob("*.safetensors"))):
        inside = sorted(note.parent.name for note in path.glob("*/stage.json")) if path.is_dir() else []
        fix = f"did you mean {path / inside[-1]}?" if inside else "give a folder with config.json and model.safetensors"
        raise UserError("not a checkpoint", where=str(path), fix=fix)
    return path


def _from_hub(model: str, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    kept = ["*.json", "*.model", "*.txt", "*.jinja", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(model, allow_patterns=kept))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        fix = (
            "give a folder; or fetch it into HF_HOME where there is a network; a gated model needs a token in HF_TOKEN"
        )
        raise UserError(f"no such folder, nor model on the Hub ({reason})", where=model, fix=fix) from None


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(old)
    for key, value in new.items():
        there = both.get(key)
        both[key] = _merged(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return both


def _claim(path: Path) -> None:
    """Make the folder; UserError if something that is not a run stands in its place."""
    fix = "choose another folder with --out"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError("a file is where this folder or one above it should be", where=str(path), fix=fix) from None
    except OSError as error:
        raise disk_error(error) or UserError(f"cannot be made: {error.strerror}", where=str(path), fix=fix) from None
    if (path / "recipe.yaml").exists():
        return
    strangers = sorted(
        entry.name for entry in path.iterdir() if entry.name != ".lock" and not entry.name.startswith(ASIDE)
    )
    if strangers:
        raise UserError(f"not a run folder, and not empty (it holds {strangers[0]})", where=str(path), fix=fix)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
