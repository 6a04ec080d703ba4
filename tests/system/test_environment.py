"""What a run computes on, and what is said about it."""

import pytest
import torch

from r1_mini.system import environment
from r1_mini.system.environment import Device, kind, on, why_no_gpu


@pytest.fixture
def gpus(monkeypatch):
    """Sets which kinds of GPU torch sees."""
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)

    def seen(*kinds):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return seen


def test_a_gpu_is_used_where_torch_sees_one_unless_the_launcher_wants_the_processor(gpus, monkeypatch):
    for seen, expected in (((), "cpu"), (("cuda",), "cuda"), (("mps",), "mps")):
        gpus(*seen)
        assert kind() == expected
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # of `accelerate launch --cpu`
    assert kind() == "cpu"


def test_what_a_run_computes_on_is_one_line(gpus, monkeypatch):
    gpus()
    monkeypatch.setattr(environment, "why_no_gpu", lambda: "")
    monkeypatch.setattr(environment, "machine", lambda: {"cpu": "A Processor", "cores": 2})
    assert on(1) == "CPU, 2 cores, 1 process"
    monkeypatch.setattr(environment, "device", lambda: Device("cuda", "NVIDIA H100 80GB HBM3", 80, 80))
    assert on(8, "bf16") == "NVIDIA H100 80GB HBM3, bf16, 8 processes"


@pytest.mark.parametrize(
    ("hidden", "error", "says"),
    [
        (None, AssertionError("Torch not compiled with CUDA enabled"), " says: Torch not compiled with CUDA enabled"),
        (
            "",
            RuntimeError("No CUDA GPUs are available"),
            " says with CUDA_VISIBLE_DEVICES='': No CUDA GPUs are available",
        ),
        (
            None,
            RuntimeError("The NVIDIA driver on your system is too old (found version 12020). Please update your GPU"),
            " says: The NVIDIA driver on your system is too old (found version 12020)",
        ),
    ],
)
def test_a_driver_whose_card_torch_does_not_see_is_named_with_torchs_reason(monkeypatch, hidden, error, says):
    def init():
        raise error

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    said = f"an NVIDIA driver is here, but torch {torch.__version__}{says} (docs/GPU.md)"
    assert why_no_gpu() == said
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert why_no_gpu() == ""
