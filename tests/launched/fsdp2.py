"""Run by the launcher: the command line, with FSDP2 on a CPU, which accelerate leaves to GPUs. It is told that gloo's
processes are such; torch itself shards on a CPU as on a GPU."""

import os
import sys

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from r1_mini.cli import main

os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)

if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    sys.exit(main(sys.argv[1:]))
