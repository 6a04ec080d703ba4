"""The run folder: whose it is, what is finished in it, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from r1_mini.config import yaml_file as settings_file
from r1_mini.config.recipe import Recipe, dump, fingerprint
from r1_mini.errors import UserError, disk_error, shown
from r1_mini.system.environment import commit, machine, versions
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


def first_difference(old: Any, new: Any, key: str = "") -> tuple[str, str, str] | None:
    """(dotted key, old value, new value) where two trees of plain data first differ, else None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(name for name in old if name not in new)]:
            if name not in old or name not in new:
                return _dotted(key, name), _short(old, name), _short(new, name)
            if difference := first_difference(old[name], new[name], _dotted(key, name)):
                return difference
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return next((found for i, (a, b) in pairs if (found := first_difference(a, b, _dotted(key, str(i))))), None)
    return None if old == new and isinstance(old, bool) == isinstance(new, bool) else (key, shown(old), shown(new))


def _dotted(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _short(values: dict[str, Any], name: str) -> str:
    return shown(values[name]) if name in values else "not set"


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
