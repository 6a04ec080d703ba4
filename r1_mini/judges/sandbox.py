"""Verifiers of other packages: each in a process of its own, which is used again, and replaced when it has died."""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

from r1_mini.errors import UserError

PACKAGES = {"latex": ("math_verify", "math"), "reasoning_gym": ("reasoning_gym", "gym")}
"""The package that a verifier comes from, and the extra of ours that installs it."""
LONGEST_SAID = 10_000  # characters
START = 300.0  # seconds until the packages are imported
WAIT = 120.0  # seconds for a verdict; the process itself ends a question after 5 of processor time

_CODE = Path(__file__).with_name("sandbox_process.py")


def require(name: str) -> None:
    """UserError with the extra to install if the package of a verifier is missing; other names need none."""
    if name in PACKAGES:
        package, extra = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package} is not installed", where=name, fix=f"pip install 'r1-mini[{extra}]'")


class Verifier:
    """Asks one verifier; False for what it refuses, cannot read, raises on, crashes on, or is too long about.

    UserError if its package cannot be imported.
    """

    def __init__(self, name: str, wait: float = WAIT) -> None:
        self.name, self.wait = name, wait
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # a fork does not share its parent's process
        self._asked = 0
        self._lock = threading.Lock()

    def __call__(self, said: str, right: str) -> bool:
        if len(said) > LONGEST_SAID:
            return False
        line = json.dumps([said, right]).encode() + b"\n"
        with self._lock:
            for _ in range(2):  # again if the process was dead already, killed from outside for one
                process = self._started()
                try:
                    assert process.stdin is not None
                    process.stdin.write(line)
                    process.stdin.flush()
                except OSError:
                    self._stop()
                    continue
                reply = _line(process, self.wait)
                if reply not in (f"{self._asked} 0", f"{self._asked} 1"):
                    self._stop()
                    return False
                self._asked += 1
                return reply.endswith("1")
            return False

    def _started(self) -> subprocess.Popen[bytes]:
        """The process, ready to be asked."""
        if self._process is not None and self._owner == os.getpid():
            return self._process
        require(self.name)
        process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(_CODE), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; it ends when its input does
        )
        self._process, self._owner, self._asked = process, os.getpid(), 0
        reply = _line(process, START)
        if reply != "ready":
            self._stop()
            package, extra = PACKAGES[self.name]
            what = f"{package} does not start: {reply or 'no reply'}"
            raise UserError(what, where=self.name, fix=f"install it again: pip install 'r1-mini[{extra}]'")
        atexit.register(process.kill)
        return process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            atexit.unregister(self._process.kill)
            self._process = None


def _line(process: subprocess.Popen[bytes], seconds: float) -> str | None:
    """The next line of a process's output; None if it ends or is silent for so long."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    text = b""
    while not text.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(process.stdout.fileno(), 4096) if ready else b""
        if not piece:
            return None
        text += piece
    return text.decode(errors="replace").strip()


_VERIFIERS = {name: Verifier(name) for name in PACKAGES}


@lru_cache(maxsize=16_384)  # rewards and metrics ask the same, and samples of one problem are often alike
def verified(name: str, said: str, right: str) -> bool:
    """Whether a verifier holds the answer right."""
    return _VERIFIERS[name](said, right)
