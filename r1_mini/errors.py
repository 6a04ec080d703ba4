"""Errors for the user: one line that says what is wrong, where, and the fix."""

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

    torch and safetensors wrap the system's error in their own, so the causes and their texts are read too.
    """
    cause: BaseException | None = error
    while cause is not None:
        text, code = str(cause), cause.errno if isinstance(cause, OSError) else None
        if any(sign in text for sign in ("No space left on device", "os error 28", "file write failed")):
            code = errno.ENOSPC
        if code in _DISK:
            return UserError(_DISK[code][0], where=str(getattr(cause, "filename", None) or ""), fix=_DISK[code][1])
        cause = cause.__cause__ or cause.__context__
    return None
