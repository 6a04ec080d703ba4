"""`r1-mini` in a process of its own, forked from one that has imported torch and TRL, which would take seconds each."""

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["eval.commands", "r1_mini.train.grpo", "r1_mini.rollout.ask"])


def _main(arguments: list[str], output: str, cwd: str, env: Mapping[str, str], text: str) -> None:
    """What the forked process does: exactly what the console script does, with its output in files."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{output}/{name}", flags), descriptor)
    sys.stdin = io.StringIO(text)
    sys.argv = ["r1-mini", *arguments]
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    from r1_mini.cli import main

    sys.exit(main(arguments))


class Started:
    """A command that runs; its output so far is in the files `stdout` and `stderr` of a folder."""

    def __init__(self, *arguments: object, cwd: Path | None = None, text: str = "") -> None:
        self.output = tempfile.mkdtemp(prefix="r1-mini-")
        asked = (list(map(str, arguments)), self.output, str(cwd or Path.cwd()), dict(os.environ), text)
        self.process = CONTEXT.Process(target=_main, args=asked)
        self.process.start()
        self.pid = self.process.pid or 0

    def when(self, is_time: Callable[[], bool], seconds: float = 120) -> "Started":
        """Wait for a moment while the command runs."""
        deadline = time.monotonic() + seconds
        while not is_time():
            assert self.process.is_alive(), "the command ended before:\n" + self.done().stderr
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self

    def signal(self, number: int) -> "Started":
        os.kill(self.pid, number)
        return self

    def done(self, timeout: float = 300) -> "subprocess.CompletedProcess[str]":
        """Wait for the end."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "the command does not end"
        out, err = (Path(self.output, name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([], self.process.exitcode, out, err)


def r1_mini(
    *arguments: object, cwd: Path | None = None, text: str = "", code: int = 0
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, which exits with this code."""
    done = Started(*arguments, cwd=cwd, text=text).done()
    assert done.returncode == code, done.stderr
    return done
