"""The processes of one run, as `accelerate launch` starts them: one looks, writes and speaks, the others follow."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def count() -> int:
    """How many processes the launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def state() -> PartialState:
    """What accelerate knows of them; on the first call they get to know each other. On a CPU they talk by gloo."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())


def on_main(work: Callable[[], T]) -> T:
    """What `work` returns on the main process, on all of them; the others wait for it.

    If it raises, the main process does; the launcher then ends the others.
    """
    if count() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    state()
    result = [work() if is_main() else None]
    return broadcast_object_list(result)[0]  # type: ignore[no-any-return]


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        state().wait_for_everyone()
