"""Plug-ins: what a user wrote, an object in a Python file, named by both as `./mine.py:brevity`.

The path starts at the current folder. A plug-in is a program of the user's own and is run like one; it may import what
stands beside it.
"""

import hashlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from r1_mini.errors import UserError, nearest

_READ: dict[Path, tuple[bytes, ModuleType]] = {}


def is_own(name: str) -> bool:
    """Whether a name is that of a plug-in, not of something of ours."""
    return ".py:" in name


def load(name: str, reread: bool = True) -> Any:
    """The object of that name; UserError if there is none. A file is run once, and again when its text has changed.

    `reread=False` takes the file as it was read before, so that a run goes on with what it began with.
    """
    path, attribute = _place(name)
    if reread or path not in _READ:
        try:
            source = path.read_bytes()
        except OSError as error:
            fix = f"its path starts at the current folder, {Path.cwd()}"
            raise UserError(f"cannot be read ({error.strerror})", where=name, fix=fix) from None
        if path not in _READ or _READ[path][0] != source:
            _READ[path] = source, _imported(name, path, source)
    module = _READ[path][1]
    own = [each for each, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    if attribute not in vars(module):
        raise UserError(f"the file has no '{attribute}'", where=name, fix=nearest(attribute, own))
    return getattr(module, attribute)


def sha256(name: str) -> str:
    """Hash, hex, of the file as it was read; not of what it imports."""
    load(name, reread=False)
    return hashlib.sha256(_READ[_place(name)[0]][0]).hexdigest()


def sources(names: Iterable[str]) -> dict[str, str]:
    """Each plug-in among the names -> its `sha256`."""
    return {name: sha256(name) for name in sorted(set(names)) if is_own(name)}


@contextmanager
def called(name: str, when: str, fix: str) -> Iterator[None]:
    """Within the block, what a plug-in raises is a UserError with the exception, its line, and `when` it was raised."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        file = str(_place(name)[0])
        lines = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == file]
        line = f" in line {lines[-1]}" if lines else ""
        reason = (str(error).strip().splitlines() or [""])[0][:150]
        what = f"raised {type(error).__name__}{line}, {when}" + (f" ({reason})" if reason else "")
        raise UserError(what, where=name, fix=fix) from error


def _place(name: str) -> tuple[Path, str]:
    path, _, attribute = name.rpartition(":")
    return Path(path).resolve(), attribute


def _imported(name: str, path: Path, source: bytes) -> ModuleType:
    """Run the file as a module of its own, under a name that no other module has."""
    module = ModuleType(f"own_{path.stem}_{hashlib.sha256(str(path).encode() + source).hexdigest()[:12]}")
    module.__file__ = str(path)
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    sys.modules[module.__name__] = module  # where dataclasses and pydantic look annotations up
    with called(name, "when it was imported", f"`python {name.rpartition(':')[0]}` shows where"):
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    return module
