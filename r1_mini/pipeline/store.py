"""The store of finished work: a node is a stage or an exam, and its key is the hash of all that went into it.

A node's files lie in the run that made them, so a run folder can be copied elsewhere alone. An index beside the runs
says where a key was finished, so that other runs take it from there. Source code, library versions and threads are not
in the key: they are recorded in node.json, and a difference is printed. Editing the code never throws training away.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel
from rich.console import Console

from r1_mini.errors import shown
from r1_mini.model.checkpoint import FILES
from r1_mini.system import distributed as processes
from r1_mini.system.environment import source, versions
from r1_mini.system.files import if_writable, read_jsonl, reading, remove, sha256, write_json_atomic, write_text_atomic

log = logging.getLogger(__name__)

NOTE = "node.json"
SCRATCH = ".resume"
PACKAGE = Path(__file__).parents[1]
NOT_SET = object()
PATIENCE = 60.0
"""Seconds that the main process waits for a lock before it asks again: gloo ends the others if they wait for long."""


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

        known = plain(identity)
        key = fingerprint(known)
        with ExitStack() as locks:
            for name in (fingerprint(str(folder.resolve())), key):
                lock = FileLock(self.index / f"{name}.lock", preserve_lock_file=True)
                locks.callback(lock.release)
                seconds = 0.0
                while not processes.on_main(partial(self._locks, lock, seconds, folder, console)):
                    seconds = PATIENCE
            node = processes.on_main(partial(self._begin, known, key, folder, console))
            yield node
            if not node.finished:
                processes.wait()
                processes.on_main(partial(self._finish, node, console))

    def _begin(self, identity: Any, key: str, folder: Path, console: Console) -> Node:
        node = Node(key, folder, folder.with_name(f".work-{folder.name}"), finished=False)
        if found := self._find(node):
            if found != folder:
                self._move_aside(folder, identity, console)
                _link(found, folder)
                log.info("%s: taken over from %s", self._name(folder), self._name(found))
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
        log.info("%s: %s", self._name(folder), f"goes on after {spent:.1f} s" if note else "begins")
        return node

    def _finish(self, node: Node, console: Console) -> None:
        note = read_note(node.work)
        self._move_aside(node.folder, note["identity"], console)
        paths = sorted(path for path in node.work.rglob("*") if path.is_file() and node.scratch not in path.parents)
        files = {path.relative_to(node.work).as_posix(): sha256(path) for path in paths if path.name != NOTE}
        seconds = round(note["seconds"] + time.time() - note["begun"], 3)
        write_json_atomic(node.work / NOTE, {**note, "seconds": seconds, "files": files})
        node.work.rename(node.folder)
        self._place(node)
        log.info("%s: done in %.1f s", self._name(node.folder), seconds)

    def _locks(self, lock: FileLock, seconds: float, folder: Path, console: Console) -> bool:
        """Whether no other run works on the node, now or after so many seconds; then none does until it is released."""
        self.index.mkdir(parents=True, exist_ok=True)
        try:
            with if_writable():
                lock.acquire(timeout=seconds)
        except Timeout:
            if not seconds:
                say(console, f"{folder.name}: waiting for another run, which works on the same stage")
            return False
        return True

    def _find(self, node: Node) -> Path | None:
        """Where the node is finished and intact: here, or in a run whose threads and processes give the same bits."""
        if is_intact(node.folder, node.key):
            return node.folder
        entry, now = self.index / node.key, made_with()
        place = self.root / entry.read_text(errors="replace") if entry.exists() else node.folder
        made = read_note(place).get("made_with", {})
        same = all(made.get(name) == now[name] for name in ("threads", "processes"))
        return place if same and is_intact(place, node.key) else None

    def _place(self, node: Node) -> None:
        """Remove what only resuming needed, and say in the index where the node is."""
        remove(node.folder / SCRATCH)
        write_text_atomic(self.index / node.key, self._name(node.folder))

    def _name(self, folder: Path) -> str:
        """Its path from the root."""
        return os.path.relpath(folder.resolve(), self.root)

    def _move_aside(self, path: Path, identity: Any, console: Console) -> None:
        """Rename a folder that this identity cannot use to `<name>.<start of its own key>`, and say why."""
        if path.is_dir() and not any(each.is_file() for each in path.rglob("*")):
            remove(path)  # a process was killed before it wrote anything
        if not path.exists():
            return
        note = read_note(path)
        key = note.get("key", "unknown")
        aside = _aside(path, key)
        while aside.exists():
            aside = aside.with_name(f"{aside.name}+")
        path.rename(aside)
        if "files" in note:
            write_text_atomic(self.index / key, self._name(aside))
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
    """node.json of a node: key, identity, made_with, seconds, files and their sha256. Empty if missing or damaged."""
    kinds = {"key": str, "identity": dict, "made_with": dict, "begun": float, "seconds": float}
    try:
        note = dict(json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    given = {"files": {}, **note}
    return note if all(isinstance(given.get(name), kind) for name, kind in {**kinds, "files": dict}.items()) else {}


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
    return next(all_differences(old, new, key), None)


def all_differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted key, old value, new value) of each place where two trees of plain data differ."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(name for name in old if name not in new)]:
            place = f"{key}.{name}" if key else str(name)
            yield from all_differences(old.get(name, NOT_SET), new.get(name, NOT_SET), place)
        return
    was, now = ("not set" if value is NOT_SET else shown(value) for value in (old, new))
    if was != now:
        yield key, was, now


def say(console: Console, line: str) -> None:
    """Print one line as it is."""
    console.print(line, soft_wrap=True)


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


def read_manifest(run: Path) -> dict[str, Any]:
    """manifest.json of a run: where and with what it was made, and its stages; UserError if that cannot be read."""
    path = run / "manifest.json"
    with reading(path, "run the recipe again: what is finished is not done again"):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        stages = {
            name: {**stage, "kind": stage["kind"], "sha256": {**stage["sha256"]}}
            for name, stage in manifest["stages"].items()
        }
        return {**manifest, "stages": stages}


def stage_metrics(run: Path) -> dict[str, list[dict[str, Any]]]:
    """Stage, called by its kind if it alone is of that kind, -> its metrics. One that starts from a stage of its own
    kind goes on with that: as one, they count their steps together."""
    found: dict[str, list[dict[str, Any]]] = {}
    stages = read_manifest(run)["stages"]
    for name, stage in stages.items():
        path, above = run / name / "metrics.jsonl", stage.get("from")
        if path.exists():  # a stage may have none
            with reading(path):
                records = found.pop(above, []) if stages.get(above, {}).get("kind") == stage["kind"] else []
                before = records[-1]["step"] if records else 0
                found[name] = records + [{**each, "step": before + each["step"]} for each in read_jsonl(path)]
    kinds = [stages[name]["kind"] for name in found]
    return {
        kind if kinds.count(kind) == 1 else name: rows for kind, (name, rows) in zip(kinds, found.items(), strict=True)
    }


def checkpoint_hash(checkpoint: Path) -> str:
    """One hash of a checkpoint folder: every file that a model is loaded from."""
    globs = (*FILES, "additional_chat_templates/*.jinja")
    files = {path for glob in globs for path in checkpoint.glob(glob) if path.is_file()}
    files -= {checkpoint / name for name in (NOTE, "trainer.json")}  # of the stage
    return fingerprint({path.relative_to(checkpoint).as_posix(): sha256(path) for path in sorted(files)})
