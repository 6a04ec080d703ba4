"""The launch configurations say what accelerate knows, and divide a run as their names say."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from r1_mini.config.packaged import recipes

CONFIGS = {name.partition("/")[2]: path for name, path in recipes("accelerate").items()}
CONFIGS["fsdp2_cpu"] = Path(__file__).parent / "launched" / "fsdp2_cpu.yaml"
OPTIONS = {action.dest for action in launch_command_parser()._actions}
EXPECTED = {
    "one_gpu": ("NO", 1), "ddp": ("MULTI_GPU", 8), "fsdp2": ("FSDP", 8), "zero2": ("DEEPSPEED", 8), "zero3": ("DEEPSPEED", 8),
    "multi_node": ("MULTI_GPU", 16), "cpu2": ("MULTI_GPU", 2), "fsdp2_cpu": ("FSDP", 2),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(EXPECTED.keys() | CONFIGS.keys()))
def test_accelerate_knows_every_key_and_divides_a_run_as_the_name_says(name):
    config = load_config_from_file(str(CONFIGS[name]))  # refuses unknown keys at the top
    for section in ("fsdp_config", "deepspeed_config"):
        assert set(getattr(config, section) or {}) <= OPTIONS
    kind, processes = EXPECTED[name]
    assert str(config.distributed_type).endswith(kind)
    assert config.num_processes == processes
    assert config.use_cpu is ("cpu" in name)
    assert kind != "FSDP" or config.fsdp_config["fsdp_version"] == 2
    assert kind != "DEEPSPEED" or config.deepspeed_config["zero_stage"] == int(name[-1])
