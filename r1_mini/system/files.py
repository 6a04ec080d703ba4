"""Files and folders that appear whole or not at all, and the metrics file, which survives a kill."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from difflib import SequenceMatcher
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from pydantic_core import to_json

from r1_mini.errors import UserError, explained

ASIDE = ".aside-"  # begins the name of what is being written or replaced; only a killed process leaves one
_OLD = f"{ASIDE}old-"


def sha256(path: Path) -> str:
    """Hash of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_replaceable(path: Path, *, folder: bool = False) -> None:
    """UserError unless a file (or a folder) of ours can be at `path`: a device, a link and the like are never replaced.

    Looks at the path and changes nothing; OSError for a name that is too long, or below a file.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(mode):
        what = f"is there and not a {'folder' if folder else 'regular file'}"
        raise UserError(what, where=str(path), fix="choose another name")


def require_without(folder: Path, *marks: str) -> Path:
    """The folder, for a command to write into; UserError if it has one of these files, which other commands write."""
    for mark in marks:
        if (folder.resolve() / mark).exists():
            what = f"another command has written there ({Path(mark).name}), and its page would be lost"
            raise UserError(what, where=str(folder), fix="choose another folder with --out")
    return folder


def require_place(path: Path, *, folder: bool = False) -> None:
    """As `require_replaceable`, and UserError if nothing is at `path` and nothing can be made there, as below /proc."""
    require_replaceable(path, folder=folder)
    if path.exists():
        return
    try:
        TemporaryFile(dir=next(above for above in path.absolute().parents if above.is_dir())).close()
    except OSError as error:
        what = f"nothing can be made there ({error.strerror})"
        raise UserError(what, where=str(path), fix="choose another name") from None


OURS = (".lock", "recipe.yaml", "columns.json", "comparison.csv", "sweep.yaml", ".index", ".work-*", "*/node.json")
"""Patterns of what a folder has that one of the commands has made, or begun."""


def require_ours(path: Path | None) -> Path | None:
    """The folder to write, which may be a link to one; refused if something else, or of others, is there."""
    if path is not None:
        require_place(path.resolve(), folder=True)
        if path.exists() and any(path.iterdir()) and not any(any(path.glob(each)) for each in OURS):
            raise UserError("not a folder of r1-mini, and not empty", where=str(path), fix="choose another one")
    return path


def example(path: Path, *signs: str, otherwise: str) -> str:
    """A folder with files of these patterns, in or near `path` or in runs/, its name most like path's: to be named."""
    near = [place for place in (path, *list(path.parents)[:3]) if place != Path("/")]
    for place in (*near, Path("runs"), *Path("runs").glob("*")):
        files = (file for depth in ("", "*/") for file in place.glob(depth + signs[0]) if file.is_file())
        found = {file.parent for file in files if all(any(file.parent.glob(sign)) for sign in signs)}
        if found:
            return str(max(sorted(found), key=lambda each: SequenceMatcher(None, each.name, path.name).ratio()))
    return otherwise


@contextlib.contextmanager
def named(path: object) -> Iterator[None]:
    """Within the block, an OSError without a file name (a write to an open file) gets this one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def reading(path: Path, fix: str = "run the command that wrote it again") -> AbstractContextManager[None]:
    """Within the block, which reads a file that a command wrote, whatever it lacks is one line for the user."""
    lacks = (OSError, ValueError, LookupError, TypeError, AttributeError)
    return explained("is damaged or not what it should be", path, fix, lacks)


@contextlib.contextmanager
def if_writable() -> Iterator[None]:
    """Within the block, a read-only disk is no error: who only reads needs no lock and no log."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise


def write_text_atomic(path: Path, text: str) -> None:
    """Write to a temporary file, flush to the disk, rename: a reader sees the old text or the new one, never a half.

    A file that holds this text already is left alone, so that a finished run can be opened on a read-only disk.
    """
    require_replaceable(path)
    if path.exists() and path.read_bytes() == text.encode():
        return
    aside = path.parent / f"{ASIDE}{path.name}"
    remove(aside)
    try:
        with named(path), aside.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def write_json_atomic(path: Path, value: Any) -> None:
    """`value` as indented JSON, written whole or not at all. NaN and infinities become null."""
    write_text_atomic(path, _json(value, indent=2))


@contextlib.contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """A folder to fill, which replaces `path` when the block ends well, and is removed when it does not."""
    aside = path.parent / f"{ASIDE}{path.name}"
    remove(aside)
    aside.mkdir(parents=True)
    try:
        yield aside
        take_place(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(aside)
        raise


def take_place(source: Path, target: Path) -> None:
    """Rename `source` to `target` and remove the folder that was there."""
    require_replaceable(target, folder=True)
    old = target.parent / f"{_OLD}{target.name}"
    remove(old)
    if target.exists():
        target.rename(old)
    source.rename(target)
    remove(old)


def remove(path: Path) -> None:
    """Delete a regular file, or a folder with all it holds, if it is there; UserError for anything else."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):  # a read-only disk refuses to remove even what is not there
        require_replaceable(path)
        path.unlink(missing_ok=True)


class Metrics:
    """metrics.jsonl: one object per step, flushed at once. Without a path nothing is written: another process does."""

    def __init__(self, path: Path | None, keep_through: int = -1) -> None:
        """Open for appending; drop records of steps after `keep_through`, and a line that a kill cut in half."""
        self._file = None
        if path is not None:
            with reading(path, "remove it, and run the same command again"):
                rows = read_jsonl(path) if path.exists() else []
                kept = [_json(row) for row in rows if row["step"] <= keep_through]
            write_text_atomic(path, "".join(kept))
            self._file = path.open("a", encoding="utf-8", newline="\n")

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record, which has a `step`. NaN and infinities become null."""
        if self._file is not None:
            with named(self._file.name):
                self._file.write(_json(record))
                self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every record of a JSONL file but a last line that was cut in half."""
    with path.open(encoding="utf-8", errors="replace") as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def _json(value: Any, indent: int | None = None) -> str:
    """A value as JSON and the end of a line, with null for NaN and infinities, which JSON lacks."""
    return to_json(value, indent=indent, inf_nan_mode="null").decode() + "\n"


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed process was writing below `folder`; bring back a folder that it was replacing."""
    for leftover in sorted(folder.rglob(f"{ASIDE}*")):
        original = leftover.with_name(leftover.name.removeprefix(_OLD))
        if leftover.name.startswith(_OLD) and not original.exists():
            leftover.rename(original)
        else:
            remove(leftover)
