"""Errors for the user: one line that says what is wrong, where, and the fix."""

import difflib
import errno
import json
import re
import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from r1_mini.text import masked, visible


class UserError(Exception):
    """The user's input or machine is at fault, not the program: exit code 2, one line, no traceback."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        line = f"{where}: {what}" if where else what
        super().__init__(one_line(f"{line}; {fix}" if fix else line))


class Stopped(UserError):
    """A run that was ended because it could not come to anything: exit code 1."""

    exit_code = 1


@contextmanager
def explained(
    what: str, where: object, fix: str, errors: type[Exception] | tuple[type[Exception], ...] = Exception
) -> Iterator[None]:
    """Within the block, what libraries raise, in many ways, is one line: `what`, and their first in parentheses."""
    try:
        yield
    except UserError:
        raise
    except errors as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        raise UserError(f"{what} ({reason})", where=str(where), fix=fix) from error


def one_line(text: str) -> str:
    """An error's text for the screen: one line, no escape codes, no passwords."""
    return visible(masked(" ".join(text.split())))


def nearest(name: str, known: Iterable[str], many: str = "") -> str:
    """The fix for an unknown name: the known one most like it, else all of them; if they are many, eight or `many`."""
    names = {each.lower(): each for each in sorted(known)}
    if close := difflib.get_close_matches(name.lower(), names, n=1):
        return f"did you mean '{names[close[0]]}'?"
    if len(names) > 16:
        like = difflib.get_close_matches(name.lower(), names, n=8, cutoff=0)
        return many or f"known: {', '.join(names[each] for each in like)}, …"
    return f"known: {', '.join(names.values())}" if names else "leave it out"


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
    errno.EFBIG: ("longer than files may be here", "raise the limit (`ulimit -f`) and run the same command again"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ENOTDIR: ("lies in a file, not in a folder", "choose another name"),
    errno.EEXIST: ("is there and not a folder", "choose another name, or move it away"),
    errno.EISDIR: ("is a folder where a file belongs", "choose another name, or move it away"),
    errno.ELOOP: ("links lead in a circle", "choose another name"),
    errno.EROFS: ("the disk is read-only", "choose another folder with --out"),
    errno.EACCES: ("permission denied", "choose another folder with --out or change the permissions"),
    errno.EPERM: ("permission denied", "choose another folder with --out or change the permissions"),
}


def disk_error(error: BaseException, folder: object = "") -> UserError | None:
    """What the disk or a path refuses as a UserError; None if `error` and its causes are something else.

    torch and safetensors wrap the system's error in their own, or lose it, so the causes and their texts are read too.
    `folder`: where the file is, if the error does not name it.
    """
    cause: BaseException | None = error
    while cause is not None:
        text, code = str(cause), cause.errno if isinstance(cause, OSError) else None
        if found := re.search(r"os error (\d+)", text):  # of Rust, so of safetensors and tokenizers
            code = int(found[1])
        elif code is None and any(sign in text for sign in ("inline_container.cc", "PytorchStreamWriter")):
            limited = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
            code = errno.EFBIG if limited else errno.ENOSPC  # torch says only that less was written than it wrote
        if code in _DISK:
            where = str(getattr(cause, "filename", None) or (folder and f"a file in {folder}"))
            return UserError(_DISK[code][0], where=where, fix=_DISK[code][1])
        cause = cause.__cause__ or cause.__context__
    return None
