"""Locks between processes that the system releases when a process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from r1_mini.errors import UserError


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the folder's lock within the block; a process that ends lets it go, however it ends.

    UserError if another process has it.
    """
    descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "?"
            fix = "wait for it, or choose another folder with --out"
            raise UserError(f"process {holder} is running in this folder", where=str(path), fix=fix) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def holding(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a folder or file within the block: True. Without `wait`, and if another has it, nothing is held: False.

    A process that ends lets it go, however it ends. Where the file system cannot lock, nothing is held.
    """
    access = os.O_RDONLY if path.is_dir() else os.O_RDWR  # which a network file system wants of a file
    descriptor = os.open(path, access | os.O_CLOEXEC)
    try:
        free = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            free = False
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield free
    finally:
        os.close(descriptor)
