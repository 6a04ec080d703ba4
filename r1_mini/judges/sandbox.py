"""Programs of other packages that read what a model wrote: each runs in a process of its own (`sandbox_process.py`).

The process is used again for the next question, and replaced when it has died.
"""

import importlib.util
import json
import os
import subprocess
import sys
from functools import lru_cache
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from r1_mini.errors import UserError

PACKAGES = {"latex": ("math_verify", "math"), "reasoning_gym": ("reasoning_gym", "gym")}
"""Judge -> the package that it needs, and the extra of ours that installs the package."""
LONGEST_ANSWER = 10_000  # characters
WAIT = 300.0  # seconds for a reply, the first after the import; the process itself ends a question after 5 of CPU time
PATIENCE, REGAINED = 6.0, 0.05
"""Questions without a reply that may follow each other, and the part of one that each question gives back."""

_CODE = Path(__file__).with_name("sandbox_process.py")


def require(judge: str) -> None:
    """Raise UserError if the package of a judge is missing; judges of our own need none."""
    if judge in PACKAGES:
        package, extra = PACKAGES[judge]
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package} is not installed", where=judge, fix=f"pip install 'r1-mini[{extra}]'")


class Sandbox:
    """The package of one judge in a process apart, which ends with ours. UserError if it is not installed."""

    def __init__(self, judge: str) -> None:
        self.judge = judge
        self.process: subprocess.Popen[bytes] | None = None
        self.timeouts = 0
        self.patience = PATIENCE

    def call(self, function: str, *arguments: str) -> dict[str, Any]:
        """Call a function of the process: {"result": …}, or {"error": …} if it raised, crashed or took too long."""
        if self.process is None or self.process.poll() is not None:
            self._start()
        try:
            self.pipe.send_bytes(json.dumps([function, *arguments]).encode())
            return self._reply()
        except (EOFError, OSError, ValueError) as error:
            self.stop()
            self.timeouts += 1
            self.patience -= 1
            return {"error": f"no reply: {error!r}"}

    def _start(self) -> None:
        require(self.judge)
        self.pipe, theirs = Pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-W", "ignore", str(_CODE), self.judge, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONHASHSEED": "0"},  # some tasks of reasoning-gym depend on the order of sets
            start_new_session=True,  # Ctrl-C is for us; the process ends when its pipe is closed
        )
        theirs.close()
        if "error" in (reply := self._reply()):
            self.stop()
            raise ImportError(f"{self.judge}: {reply['error']}")

    def _reply(self) -> dict[str, Any]:
        """The next reply: JSON, since a pickle of a process that has read hostile text could run code here."""
        if not self.pipe.poll(WAIT):
            raise EOFError(f"silent for {WAIT:g} s")
        return dict(json.loads(self.pipe.recv_bytes()))

    def stop(self) -> None:
        """End the process; the next call starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


_SANDBOXES = {judge: Sandbox(judge) for judge in PACKAGES}


def verified(judge: str, answer: str, gold: str) -> bool:
    """Whether the judge's package holds an answer right; False for all that it raises on or takes too long about.

    A question without a reply costs patience, which comes back slowly: a batch of them would take half an hour.
    """
    sandbox = _SANDBOXES[judge]
    sandbox.patience = min(PATIENCE, sandbox.patience + REGAINED)
    if len(answer) > LONGEST_ANSWER or sandbox.patience < 1:
        return False
    return _reply_to(judge, answer, gold).get("result") is True


@lru_cache(maxsize=16_384)  # rewards and metrics ask the same, and samples of one problem are often alike
def _reply_to(judge: str, answer: str, gold: str) -> dict[str, Any]:
    return _SANDBOXES[judge].call("judge", answer, gold)


def timeouts() -> int:
    """How many questions have had no reply so far."""
    return sum(sandbox.timeouts for sandbox in _SANDBOXES.values())


def gym_entry(task: str) -> dict[str, Any]:
    """Question and answer of a reasoning-gym problem. `task` is JSON: name, settings, seed. ValueError if refused."""
    reply = _SANDBOXES["reasoning_gym"].call("entry", task)
    if "error" in reply:
        raise ValueError(reply["error"])
    return dict(reply["result"])
