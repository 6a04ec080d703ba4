"""The processes of one run, as `accelerate launch` starts them: one looks, writes and speaks, the others follow."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def count() -> int:
    """How many processes the launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def on_main(work: Callable[[], T]) -> T:
    """What `work` returns on the main process, on all of them; the others wait for it.

    If it raises, the main process does; the launcher then ends the others.
    """
    if count() == 1:
        return work()
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState()  # which makes the processes know each other
    result = [work() if is_main() else None]
    return broadcast_object_list(result)[0]  # type: ignore[no-any-return]


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
