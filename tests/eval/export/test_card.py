"""A card says what the run's own numbers say, and is what goes to the Hub with the checkpoint."""

import io
import json
from unittest.mock import Mock, call

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import HTTPError
from rich.console import Console

from eval.commands import compare
from eval.export.card import card, push
from r1_mini.errors import UserError
from tests.eval.conftest import write_run

QUIET = Console(quiet=True)


@pytest.fixture
def run(tmp_path):
    """A compared run whose base is right in two samples of four, and RL in three."""
    folder = write_run(tmp_path / "run", 3, "1100", "1110", "1110", model=None)
    about = {"machine": {"cpu": "A Processor"}, "versions": {"torch": "2.0", "x": None}}
    (folder / "manifest.json").write_text(json.dumps({"stages": {}, "seconds": {"total": 9.0}, **about}))
    compare([folder], None, None, QUIET)
    return folder


def test_a_card_has_the_table_the_verdict_and_the_recipe(run):
    front, text = card(run)[0].removeprefix("---\n").split("---\n", 1)
    header = yaml.safe_load(front)
    assert header["tags"] == ["r1-mini", "trl", "base", "grpo"]
    assert header["model-index"][0]["results"][0]["metrics"] == [{"type": "pass@1", "value": 75.0}]
    assert "base_model" not in header
    assert "* Asked once, the base gets 50 of 100 right, after RL 75." in text
    for part in ("| pass@1 | 50.0 [", "| 75.0 [", "Seed 3; total 9 s, on A Processor.", "Versions: torch 2.0."):
        assert part in text
    assert '"seed": 3' in text  # the recipe


def test_what_is_pushed_is_the_last_checkpoint_with_the_card(run, monkeypatch):
    api = Mock()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    push(run, "me/model", True, False, QUIET)
    to, text = {"repo_id": "me/model"}, card(run)[0].encode()
    assert api.method_calls == [
        call.create_repo("me/model", private=True, exist_ok=True),
        call.upload_folder(**to, folder_path=run / "02-grpo", ignore_patterns=["node.json"]),
        call.upload_file(**to, path_or_fileobj=text, path_in_repo="README.md"),
    ]


def test_a_dry_run_prints_the_card_and_the_files_and_sends_nothing(run, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", None)
    (run / "02-grpo").mkdir(exist_ok=True)
    for name, size in (("model.safetensors", 2000), ("node.json", 3)):
        (run / "02-grpo" / name).write_bytes(b" " * size)
    screen = io.StringIO()
    push(run, "me/model", True, True, Console(file=screen, width=40, markup=False, highlight=False))
    text = card(run)[0]
    assert screen.getvalue().startswith(text)
    files = ["me/model/README.md: the card above", "me/model/model.safetensors: 2,000 bytes"]
    assert screen.getvalue().removeprefix(text).split("\n") == ["", *files, ""]


@pytest.mark.parametrize("error", [OSError, HTTPError])
def test_what_hinders_a_push_is_one_line_with_the_fix(run, tmp_path, monkeypatch, error):
    def fails(*args, **kwargs):
        raise error("no network here")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fails)
    with pytest.raises(UserError, match=r"me/model: not pushed \(no network here\); .*hf auth login"):
        push(run, "me/model", False, False, QUIET)
    (run / "summary.json").unlink()
    for folder in (run, tmp_path):
        with pytest.raises(UserError, match="no finished run; give one, such as"):
            card(folder)
