"""The process in which programs of other packages read what a model wrote. Run by `sandbox.py`; imports none of ours.

Such a program may hang, crash, use up the memory, or call `eval` on the text. Here each question has its share of
processor time, the memory is limited, no file can be written, no process or connection started. That stops accidents
and cheap tricks; it is no jail. Questions and replies are JSON; the first reply says whether the import succeeded.
"""

import ast
import contextlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any

SECONDS = 5.0  # of processor time per question: the same verdict on a busy machine
MEMORY = 4 << 30  # bytes of address space
Functions = dict[str, Callable[..., Any]]

_EVALUATES = (
    "algorithmic.binary_matrix",
    "algorithmic.spiral_matrix",
    "algorithmic.string_insertion",
    "games.n_queens",
)
"""Modules of reasoning-gym that call `eval` on the answer, in whose scope the right one lies."""
_FORBIDDEN = ("os.", "shutil.", "socket.", "subprocess.", "ctypes.", "pty.", "signal.", "syslog.", "webbrowser.")
"""How audit events begin that are refused: programs, files, connections, the memory past every check here."""
_ALLOWED = {
    *("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr"),  # these only read
    "ctypes.cdata/buffer",  # numpy's view of memory that it has already
}


def gym() -> Functions:
    """reasoning-gym: its problems and their verifiers. A problem is JSON of task, config and seed."""
    from reasoning_gym.factory import create_dataset

    for name in _EVALUATES:
        vars(importlib.import_module(f"reasoning_gym.{name}"))["eval"] = ast.literal_eval

    @lru_cache(maxsize=64)
    def scorer(task: str, config: str) -> Any:
        return create_dataset(task, seed=0, size=1, **json.loads(config))

    @lru_cache(maxsize=16_384)
    def whole(problem: str) -> dict[str, Any]:
        wanted = json.loads(problem)
        return dict(create_dataset(wanted["task"], seed=wanted["seed"], size=1, **wanted["config"])[0])

    def entry(problem: str) -> dict[str, Any]:
        made = whole(problem)
        return {"question": made["question"], "answer": None if made["answer"] is None else str(made["answer"])}

    def judge(answer: str, problem: str) -> bool:
        wanted = json.loads(problem)
        score = scorer(wanted["task"], json.dumps(wanted["config"])).score_answer
        return "__" not in answer and bool(score(answer, whole(problem)) == 1.0)

    return {"entry": entry, "judge": judge}


def latex() -> Functions:
    """math-verify: whether two formulas, without `$`, have equal values."""
    from math_verify import LatexExtractionConfig, parse, verify

    @lru_cache(maxsize=4096)
    def read(text: str) -> list[Any]:
        return parse(f"${text}$", [LatexExtractionConfig()], parsing_timeout=None)  # type: ignore[no-any-return]

    def differ(left: Any, right: Any, percent: bool) -> bool:
        """Whether two numbers are told apart, which math-verify, rounding to six digits, may not do."""
        if not (getattr(left, "is_number", False) and getattr(right, "is_number", False)):
            return False
        one, other = left.doit().evalf(40), right.doit().evalf(40)
        sizes = (one, one * 100, one / 100) if percent else (one,)
        return not any(abs(size - other) <= abs(other) * 1e-12 for size in sizes)

    def judge(answer: str, gold: str) -> bool:
        if answer == gold:  # comparing intervals or matrices takes ten times as long as reading them
            return any(not isinstance(value, str) for value in read(gold))
        percent = ("%" in answer) != ("%" in gold)
        if any(differ(left, right, percent) for left, right in zip(read(gold), read(answer), strict=False)):
            return False
        return bool(verify(read(gold), read(answer), timeout_seconds=None))

    return {"judge": judge}


def confine() -> None:
    """From here on: limited memory, and no writing, processes or connections for this process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or (event.startswith(_FORBIDDEN) and event not in _ALLOWED):
        raise PermissionError(event)


def _attempt(function: Callable[..., Any], *arguments: str) -> dict[str, Any]:
    try:
        return {"result": function(*arguments)}
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: all may come from the text
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def main(load: Callable[[], Functions], pipe: Connection) -> None:
    loaded = _attempt(load)
    functions = loaded.pop("result", {})
    confine()
    pipe.send_bytes(json.dumps(loaded).encode())
    with contextlib.suppress(EOFError):
        while True:
            function, *arguments = json.loads(pipe.recv_bytes())
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # SIGPROF ends the process, whatever it is doing
            reply = _attempt(functions[function], *arguments)
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send_bytes(json.dumps(reply).encode())


if __name__ == "__main__":
    main({"latex": latex, "reasoning_gym": gym}[sys.argv[1]], Connection(int(sys.argv[2])))
