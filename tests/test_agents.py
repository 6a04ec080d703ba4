"""AGENTS.md: every command, option, setting and metric in it exists."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from eval import commands
from r1_mini import cli, load_recipe
from r1_mini.system.files import read_jsonl

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
LINES = re.findall(r"^(?:nohup )?(r1-mini .*?)(?:  +#.*| > /dev/null.*)?$", TEXT, re.M) + [
    each for each in re.findall(r"`(r1-mini [^`]*)`", TEXT) if "COMMAND" not in each
]


@pytest.mark.parametrize("line", LINES)
def test_every_command_exists_with_its_options_and_settings(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(cli.app).commands[name]
    given = command.make_context(name, arguments).params
    if name in ("run", "plan"):
        load_recipe(given["recipe"], *given["overrides"] or ())
    if name == "eval":
        _, overrides = commands.separated(given["arguments"])
        assert {each.partition("=")[0] for each in overrides} <= commands.Evaluate.model_fields.keys()


def test_it_has_commands_is_one_page_and_its_links_are_there():
    assert len(LINES) >= 9 and len(TEXT.splitlines()) <= 80
    assert all((ROOT / page).is_file() for page in re.findall(r"\]\(([^)]+)\)", TEXT))


@pytest.mark.slow
def test_the_metrics_that_it_names_are_those_of_a_run(smoke):
    logged = read_jsonl(smoke[0] / "02-grpo" / "metrics.jsonl")[0]
    named = re.findall(r"`(\w+)`", TEXT.split("In a line of GRPO:")[1].split("\n\n")[0])
    assert len(named) >= 9 and {*named} - {*logged} == {"dev_pass_at_1", "dev"}
