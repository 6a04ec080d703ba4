"""The launch configurations say what accelerate knows, and name the command that they are for."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

FOLDER = Path(__file__).parents[1] / "recipes" / "accelerate"
CONFIGS = [*sorted(FOLDER.glob("*.yaml")), Path(__file__).parent / "launched" / "fsdp2_cpu.yaml"]
OPTIONS = {action.dest for action in launch_command_parser()._actions}


def test_there_is_one_for_each_way_to_spread_a_run():
    assert {path.stem for path in CONFIGS} >= {"one_gpu", "ddp", "fsdp2", "zero2", "zero3", "multi_node", "cpu2"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_reads_it_and_knows_every_key(path):
    config = load_config_from_file(str(path))  # refuses unknown keys at the top
    assert config.num_processes >= 1
    for section in ("fsdp_config", "deepspeed_config"):
        unknown = set(getattr(config, section) or {}) - OPTIONS
        assert not unknown, unknown


@pytest.mark.parametrize(
    ("stem", "kind", "processes"),
    [
        ("one_gpu", "NO", 1),
        ("ddp", "MULTI_GPU", 8),
        ("fsdp2", "FSDP", 8),
        ("zero2", "DEEPSPEED", 8),
        ("zero3", "DEEPSPEED", 8),
        ("multi_node", "MULTI_GPU", 16),
        ("cpu2", "MULTI_GPU", 2),
    ],
)
def test_it_spreads_as_its_name_says(stem, kind, processes):
    config = load_config_from_file(str(FOLDER / f"{stem}.yaml"))
    assert str(config.distributed_type).endswith(kind)
    assert config.num_processes == processes
    assert config.use_cpu is (stem == "cpu2")
    if kind == "FSDP":
        assert config.fsdp_config["fsdp_version"] == 2
    if kind == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == int(stem[-1])
