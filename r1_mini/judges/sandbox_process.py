"""The process in which verifiers of other packages read what a model wrote. Run by `verifier.py`; imports none of ours.

Such a verifier may hang, crash, use up the memory, or call `eval` on the text, as four of reasoning-gym do, in whose
scope the right answer lies. Here each question has its share of processor time, the memory is limited, no file can be
written, no process or connection started. That stops accidents and cheap tricks; it is no jail.

On standard input a line of JSON per question, [what was answered, the right answer]; on standard output first `ready`
or the reason why not, then a line per question: its number, counted from 0, and 1 or 0. SIGPROF ends the process when
the time is up, whatever it is doing.
"""

from __future__ import annotations

import ast
import importlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

SECONDS = 5.0  # of processor time per question: the same verdict on a busy machine
MEMORY = 4 << 30  # bytes of address space

_EVALUATES = (
    "algorithmic.binary_matrix",
    "algorithmic.spiral_matrix",
    "algorithmic.string_insertion",
    "games.n_queens",
)
"""Modules of reasoning-gym that call `eval` on what was answered."""
_FORBIDDEN = ("os.", "shutil.", "socket.", "subprocess.", "ctypes.", "pty.", "signal.", "syslog.", "webbrowser.")
_ALLOWED = {"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr", "ctypes.cdata/buffer"}


def gym() -> Callable[[str, str], bool]:
    """The verifiers of reasoning-gym; the right answer is JSON: task, its settings, the entry (see `packed`)."""
    from reasoning_gym.factory import create_dataset

    for name in _EVALUATES:
        vars(importlib.import_module(f"reasoning_gym.{name}"))["eval"] = ast.literal_eval
    tasks: dict[str, Any] = {}

    def verify(said: str, right: str) -> bool:
        gold = json.loads(right)
        settings = {"size": 1, "seed": 0, **unpacked(gold["config"])}
        key = json.dumps([gold["task"], gold["config"]])
        if key not in tasks:
            tasks[key] = create_dataset(gold["task"], **settings)
        return "__" not in said and bool(tasks[key].score_answer(said, unpacked(gold["entry"])) == 1.0)

    return verify


def latex() -> Callable[[str, str], bool]:
    """Whether two formulas, without `$`, have equal values by math-verify's rules."""
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.ERROR)

    @lru_cache(maxsize=4096)
    def read(text: str) -> list[Any]:
        return parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[no-any-return]

    def same(said: str, right: str) -> bool:
        if said == right:  # comparing intervals or matrices takes ten times as long as reading them
            return any(not isinstance(value, str) for value in read(right))
        return bool(verify(read(right), read(said), timeout_seconds=None))

    return same


def packed(value: Any) -> Any:
    """A value as JSON can hold it: tuples, fractions and mappings with other keys than text are marked."""
    if isinstance(value, Fraction):
        return {"fraction": str(value)}
    if isinstance(value, tuple):
        return {"tuple": [packed(item) for item in value]}
    if isinstance(value, list):
        return [packed(item) for item in value]
    if isinstance(value, dict):
        if len(value) != 1 and all(isinstance(key, str) for key in value):
            return {key: packed(item) for key, item in value.items()}
        return {"mapping": [[packed(key), packed(item)] for key, item in value.items()]}
    return value


def unpacked(value: Any) -> Any:
    """What `packed` was given."""
    if isinstance(value, list):
        return [unpacked(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"fraction"}:
        return Fraction(value["fraction"])
    if value.keys() == {"tuple"}:
        return tuple(unpacked(item) for item in value["tuple"])
    if value.keys() == {"mapping"}:
        return {unpacked(key): unpacked(item) for key, item in value["mapping"]}
    return {key: unpacked(item) for key, item in value.items()}


def confine() -> None:
    """From here on: limited memory, and no writing, processes or connections for this process."""
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or (event.startswith(_FORBIDDEN) and event not in _ALLOWED):
        raise PermissionError(event)


VERIFIERS: dict[str, Callable[[], Callable[[str, str], bool]]] = {"latex": latex, "reasoning_gym": gym}


def main(name: str) -> None:
    replies = os.dup(1)
    os.dup2(2, 1)  # what a verifier prints is no reply
    try:
        verify = VERIFIERS[name]()
    except Exception as error:
        os.write(replies, f"{type(error).__name__}: {error}".replace("\n", " ")[:200].encode() + b"\n")
        return
    confine()
    os.write(replies, b"ready\n")
    for number, line in enumerate(sys.stdin):
        said, right = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            verdict = verify(said, right)
        except BaseException:  # SystemExit and KeyboardInterrupt too: all come from the text
            verdict = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(replies, f"{number} {verdict:d}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
