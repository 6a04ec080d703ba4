"""Optuna's storage of a sweep: a journal in its folder, which survives kills, or a database where machines meet."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import DatabaseError

from r1_mini.errors import UserError

JOURNAL = "journal.log"
_OPENINGS = 4
"""So many times a database may fail to open before it counts as one that does not answer."""


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """The storage at a URL, or the journal in a sweep's folder; UserError if it does not answer."""
    if url is None:
        path = folder / JOURNAL
        return JournalStorage(JournalFileBackend(str(path), _Lock(path.with_suffix(".lock"))))
    try:
        return _opened(url)
    except Exception as error:  # SQLAlchemy's own, the driver's, a missing driver, a URL that is none
        reason = (str(error).splitlines() or [type(error).__name__])[0][:150]
        raise UserError(
            f"the storage does not answer ({reason})", where=url, fix="check the URL and the server"
        ) from None


def _opened(url: str) -> RDBStorage:
    """A database with its tables. Of workers that make them at once all but one fail, and find them the next time."""
    for _ in range(_OPENINGS):
        with contextlib.suppress(DatabaseError):
            return RDBStorage(url)
        time.sleep(0.5)
    return RDBStorage(url)


class _Lock(JournalFileOpenLock):
    """The journal's lock as one that the system releases when a process ends, also by kill -9.

    Optuna's own stays behind for 30 seconds. A line that a kill has cut in half goes.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.descriptor = path, -1

    def acquire(self) -> bool:
        self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        _drop_half_line(self.path.with_suffix(".log"))
        return True

    def release(self) -> None:
        os.close(self.descriptor)


def _drop_half_line(journal: Path) -> None:
    with journal.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
