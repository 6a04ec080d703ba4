"""What a run depends on besides its recipe: the machine, the installed versions, the commit."""

import contextlib
import ctypes
import gc
import hashlib
import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psutil

_PACKAGES = ("r1_mini", "torch", "transformers", "trl", "datasets", "accelerate", "tokenizers", "safetensors", "numpy")


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GiB, system."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):  # only Linux names the model there
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    return {"cpu": name, "cores": cores, "memory_gib": round(memory, 1), "system": platform.platform()}


Kind = Literal["cpu", "cuda", "mps"]


def kind() -> Kind:
    """Where tensors are computed: a GPU that torch sees, Apple's, or the processor.

    ACCELERATE_USE_CPU, which `accelerate launch --cpu` sets, chooses the processor.
    """
    import torch

    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


@dataclass(frozen=True, slots=True)
class Device:
    """What a process computes on."""

    kind: Kind
    name: str
    memory: int
    """Bytes in all; in a container with a limit, that limit."""
    free: int
    """Bytes that are not in use now."""

    @property
    def is_cpu(self) -> bool:
        return self.kind == "cpu"


def device() -> Device:
    """The first GPU, where there is one, else the processor with its memory."""
    import torch

    if kind() == "cuda":
        free, memory = torch.cuda.mem_get_info(0)  # after this process has made its CUDA context
        return Device("cuda", torch.cuda.get_device_name(0), memory, free)
    if kind() == "mps":
        memory = torch.mps.recommended_max_memory()
        return Device("mps", "Apple GPU", memory, memory - torch.mps.driver_allocated_memory())
    memory, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    v1 = ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")
    for limit, used in (("memory.max", "memory.current"), v1):
        with contextlib.suppress(OSError, ValueError):  # a container's limit, cgroup v2 and v1; "max" is no limit
            most, now = (int((Path("/sys/fs/cgroup") / name).read_text(encoding="ascii")) for name in (limit, used))
            memory, free = min(memory, most), min(free, most - now)
    return Device("cpu", str(machine()["cpu"]), memory, max(0, free))


def on(processes: int, dtype: str = "") -> str:
    """What a command computes on, such as `CPU, 2 cores, 1 process`; and why not on a GPU that is here."""
    here, cores = device(), machine()["cores"]
    name = f"CPU, {cores} core{'s' * (cores > 1)}" if here.is_cpu else here.name
    several = f"{processes} process{'es' * (processes > 1)}"
    return ", ".join(filter(None, [name, dtype, several])) + (f"; {why}" if (why := why_no_gpu()) else "")


def why_no_gpu() -> str:
    """Why torch sees no GPU beside an NVIDIA driver, in torch's words; empty without a driver, or with a GPU."""
    import torch

    if not (Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")):
        return ""
    try:
        torch.cuda.init()
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].partition(" Please ")[0].rstrip(".")
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        by = "" if hidden is None else f" with CUDA_VISIBLE_DEVICES={hidden!r}"
        return f"an NVIDIA driver is here, but torch {torch.__version__} says{by}: {reason} (docs/GPU.md)"
    return ""


def gpu_of(gib: float) -> Device:
    """Describe a GPU with so much memory; this machine need not have one."""
    memory = int(gib * 2**30)
    return Device("cuda", f"a GPU of {gib:g} GiB", memory, memory)


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(psutil.Process().memory_info().rss)


def return_freed_blocks() -> None:
    """Make glibc return each block of a MiB and more to the system when it is freed.

    By default it keeps those below 32 MiB in a heap, where the tensors of a larger model leave gaps that the next ones
    do not fit: GRPO of an adapter for 135 M parameters took 9.6 GiB instead of 5.4. It costs the tiny model no time.
    """
    with contextlib.suppress(AttributeError, OSError):  # only glibc has it
        ctypes.CDLL(None).mallopt(-3, 2**20)  # M_MMAP_THRESHOLD


def free_memory() -> None:
    """Return to the system, and to other programs on the GPU, the memory that nothing refers to any more."""
    import torch

    gc.collect()  # a trainer and its model refer to each other in a circle
    if kind() != "cpu":
        torch.accelerator.empty_cache()
    with contextlib.suppress(AttributeError, OSError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def peak() -> int:
    """Most bytes of memory that this process has had."""
    with contextlib.suppress(OSError, StopIteration):  # Linux, where ru_maxrss is not less than the parent's
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


@cache
def versions() -> dict[str, str | None]:
    """Installed versions of Python and of what the results depend on; None for a package that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), **dict.fromkeys(_PACKAGES)}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def source(package: Path = Path(__file__).parents[1]) -> str:
    """sha256 of a package's code, to note which program made a result."""
    files = sorted(package.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def commit() -> str | None:
    """The commit of this repository, with `+` if files differ from it; None outside a repository."""
    folder = str(Path(__file__).parents[1])
    command = ["git", "-C", folder, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
