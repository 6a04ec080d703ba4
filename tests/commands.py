"""`r1-mini` in a process of its own, forked from one that has imported torch and TRL, which would take seconds each."""

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import wait
from pathlib import Path

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["eval.commands", "eval.sweep.run", "eval.bench.run", "r1_mini.cli", "r1_mini.rollout.ask"]
)


def command(arguments: list[str]) -> int:
    """What the console script does."""
    from r1_mini.cli import main

    return main(arguments)


Main = Callable[[list[str]], "int | None"]


def _main(main: Main, arguments: list[str], output: str, cwd: str, env: Mapping[str, str], text: str) -> None:
    """What the forked process does: exactly what a new one would, with its output in files."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{output}/{name}", flags), descriptor)
    sys.stdin = io.StringIO(text)
    sys.argv = ["r1-mini", *arguments]
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.exit(main(arguments))


class Started:
    """A command that runs; its output so far is in the files `stdout` and `stderr` of a folder.

    main: a function of a module that runs instead of the command.
    """

    def __init__(
        self,
        *arguments: object,
        cwd: Path | None = None,
        text: str = "",
        env: Mapping[str, str] | None = None,
        main: Main = command,
    ) -> None:
        self.output = tempfile.mkdtemp(prefix="r1-mini-")
        asked = (list(map(str, arguments)), self.output, str(cwd or Path.cwd()), {**os.environ, **(env or {})}, text)
        self.process = CONTEXT.Process(target=_main, args=(main, *asked))
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


def launched(config: Path, *arguments: object, main: Main = command) -> "subprocess.CompletedProcess[str]":
    """Run a command in as many processes as a configuration of accelerate says; the end of the main one.

    They have the variables that `accelerate launch` gives to its processes, which would import torch and TRL anew.
    """
    asked = launch_command_parser().parse_args(["--config_file", str(config), "script.py"])
    asked = _validate_launch_command(asked)[0]
    env, count = prepare_multi_gpu_env(asked), asked.num_processes
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": asked.master_port}
    env |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    own = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    started = [Started(*arguments, env={**env, **each}, main=main) for each in own]
    try:
        while running := [each.process.sentinel for each in started if each.process.is_alive()]:
            assert wait(running, 300), "the processes do not end"
            for each in started:
                assert not each.process.exitcode, each.done().stderr
    finally:
        for each in started:
            each.process.kill()
    return started[0].done()
