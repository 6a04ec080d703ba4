"""A launch that asked for several processes and did not get them is refused."""

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from r1_mini.errors import UserError
from r1_mini.system.distributed import require_launched


@pytest.fixture
def launched_with(monkeypatch):
    """Sets the variables that a launcher gives to a process, beside which there are no others."""
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)

    def set_all(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(("number", "refused"), [("1", False), ("2", True)])
def test_the_single_process_that_accelerate_starts_on_a_cpu_for_several_is_refused(launched_with, number, refused):
    arguments = launch_command_parser().parse_args(["--cpu", "--num_processes", number, "script.py"])
    launched_with(prepare_simple_launcher_cmd_env(_validate_launch_command(arguments)[0])[1])
    if not refused:
        return require_launched()
    with pytest.raises(UserError, match=r"several processes were asked for.*--multi_gpu --num_processes N"):
        require_launched()


@pytest.mark.parametrize(
    ("variables", "refused"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),  # mpirun, whose processes do not know of each other
        ({"WORLD_SIZE": "2"}, True),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_MIXED_PRECISION": "no"}, False),
        ({"MASTER_ADDR": "127.0.0.1"}, False),  # a cluster's, beside no launcher
        ({}, False),
    ],
)
def test_processes_that_were_not_told_of_each_other_are_refused(launched_with, variables, refused):
    launched_with(variables)
    if not refused:
        return require_launched()
    with pytest.raises(UserError, match="launch: several processes were asked for"):
        require_launched()
