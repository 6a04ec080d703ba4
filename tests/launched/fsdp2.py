"""Run by every process: the command line, with FSDP2 on a CPU, which accelerate leaves to GPUs. It is told that gloo's
processes are such; torch itself shards on a CPU as on a GPU."""

import os

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from tests.commands import command


def main(arguments: list[str]) -> int:
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    torch.distributed.init_process_group("gloo")
    return command(arguments)
