"""What a user is told: one line that says what is wrong, where, and how to put it right."""

from __future__ import annotations

import difflib
import errno
import json
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """The user's input or machine is at fault, not the program: exit code 2, one line, no traceback."""

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        line = f"{where}: {what}" if where else what
        super().__init__(" ".join((f"{line}; {fix}" if fix else line).split()))


def nearest(name: str, known: Iterable[str]) -> str:
    """The fix for an unknown name: the known one most like it, or all of them if they are few."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if len(names) <= 16 else "see the documentation"


def shown(value: Any) -> str:
    """A value as a recipe would write it, at most 60 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_DISK = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the disk is read-only", "choose another folder with --out"),
    errno.EACCES: ("permission denied", "choose another folder with --out or change the permissions"),
    errno.EPERM: ("permission denied", "choose another folder with --out or change the permissions"),
}


def disk_error(error: BaseException) -> UserError | None:
    """A full, read-only or forbidden disk as a UserError; None if `error` and its causes are something else.

    torch and safetensors wrap the system's error in their own, so the chain of causes and the text are read too.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK:
            what, fix = _DISK[cause.errno]
            return UserError(what, where=str(cause.filename or ""), fix=fix)
        if "No space left on device" in str(cause) or "os error 28" in str(cause) or "file write failed" in str(cause):
            what, fix = _DISK[errno.ENOSPC]
            return UserError(what, fix=fix)
        cause = cause.__cause__ or cause.__context__
    return None
