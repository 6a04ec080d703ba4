"""The processes of a speed comparison, seen from the parent: forked from one that has imported the libraries."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from multiprocessing import forkserver, get_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eval.bench.side import serve
from eval.bench.work import Case

_CONTEXT = get_context("forkserver")
_PATIENCE = 10.0
"""Seconds for a side to end by itself, when it was hung up on or has closed its end."""


class SideEnded(RuntimeError):
    """A side is gone before its time."""


class Side:
    """A process that does a step when told to, and else waits."""

    def __init__(self, case: Case, name: str, micro_batch: int, log: Path) -> None:
        self.what, self.log = f"{name} ({case.what}, {case.size})", log
        self.connection, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=serve, args=(case, name, micro_batch, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.first: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Waits until it is ready: `first` is what it says of itself."""
        try:
            self.first = self._answer()
        except BaseException:
            self._end(0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(0 if error else _PATIENCE)

    def step(self) -> dict[str, Any]:
        """Seconds of one step and of its rollouts, the groups it drew, and the peak memory so far, MiB."""
        with contextlib.suppress(OSError):  # if it has ended, there is no answer
            self.connection.send("step")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join(_PATIENCE)
            raise SideEnded(f"{self.what} ended with exit code {self.process.exitcode}; see {self.log}") from None
        return answer

    def _end(self, patience: float) -> None:
        self.connection.close()
        self.process.join(patience)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def start_server(log: Path) -> None:
    """Start the process that imports the libraries and that sides are forked from; what they print goes to the log."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # so that importing them leaves CUDA to the sides
    _CONTEXT.set_forkserver_preload(["eval.bench.side"])
    with log.open("w", encoding="utf-8") as file, _screen_to(file.fileno()):
        forkserver.ensure_running()


@contextlib.contextmanager
def _screen_to(target: int) -> Iterator[None]:
    """Within the block, the descriptors 1 and 2, which a new process inherits, are those of a file."""
    sys.stdout.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in kept:
        os.dup2(target, number)
    try:
        yield
    finally:
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
