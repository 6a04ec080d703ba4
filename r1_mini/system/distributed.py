"""The processes of one run, as `accelerate launch` starts them: the main one writes and speaks, the others follow.

Ranks are read from the launcher's variables, because the command line needs them before torch is imported.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from r1_mini.errors import UserError
from r1_mini.system import environment

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")


def count() -> int:
    """Number of processes that the launcher has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    return rank() == 0


def sharded() -> bool:
    """Whether FSDP or DeepSpeed distributes the run, so that a process may hold only a part of the weights."""
    return "true" in (os.environ.get("ACCELERATE_USE_FSDP"), os.environ.get("ACCELERATE_USE_DEEPSPEED"))


def require_launched() -> None:
    """UserError if a launcher was asked for several processes, and this one was not told of the others.

    Of `accelerate launch --cpu --num_processes 2` there are none, it starts one process; MPI starts them, but sets no
    variables of torch.
    """
    sizes = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ  # if asked for several
    asked = by_accelerate or any(int(os.environ.get(name, "1")) > 1 for name in sizes)
    if asked and not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        what = "several processes were asked for, and this one was not told of the others"
        raise UserError(what, where="launch", fix="use accelerate launch --multi_gpu --num_processes N, also on a CPU")


def state() -> "PartialState":
    """Return accelerate's PartialState. The first call initializes the process group (gloo on a CPU)."""
    from accelerate import PartialState

    return PartialState(cpu=environment.kind() == "cpu")


def on_main(work: Callable[[], T]) -> T:
    """Call `work` on the main process only and return its result on all processes.

    If it raises, the main process raises, and the launcher ends the others.
    """
    if count() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    state()
    return broadcast_object_list([work() if is_main() else None])[0]  # type: ignore[no-any-return]


def gather(items: Sequence[T]) -> list[T]:
    """The items of all processes, on each of them: those of the main process first."""
    if count() == 1:
        return list(items)
    from accelerate.utils import gather_object

    state()
    return gather_object(list(items))  # type: ignore[no-any-return]


def wait() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        state().wait_for_everyone()
