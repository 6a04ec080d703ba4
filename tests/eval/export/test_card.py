"""A card says what the run's own numbers say, and is what goes to the Hub with the checkpoint."""

import json
import re

import huggingface_hub
import pytest
import yaml
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
    machine = {"cpu": "A Processor"}
    manifest = {"stages": {}, "seconds": {"total": 9.0}, "machine": machine, "versions": {"torch": "2.0", "x": None}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    compare([folder], None, None, QUIET)
    return folder


def test_a_card_has_the_table_the_verdict_and_the_recipe(run):
    front, text = card(run)[0].removeprefix("---\n").split("---\n", 1)
    header = yaml.safe_load(front)
    assert header["tags"] == ["r1-mini", "trl", "base", "grpo"]
    assert header["model-index"][0]["results"][0]["metrics"] == [{"type": "pass@1", "value": 75.0}]
    assert "base_model" not in header
    assert "| pass@1 | 50.0 [" in text and "| 75.0 [" in text
    assert re.search(r"pass@1 \w+ from 50.0% \(base\) to 75.0% \(after RL\)", text)
    assert "Seed 3; total 9 s, on A Processor." in text
    assert "Versions: torch 2.0." in text
    assert '"seed": 3' in text  # the recipe


def test_what_is_pushed_is_the_last_checkpoint_with_the_card(run, monkeypatch):
    calls = []

    class Api:
        def __getattr__(self, name):
            def called(*args, **kwargs):
                calls.append((name, args, kwargs))

            return called

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    push(run, "me/model", True, QUIET)
    assert [name for name, _, _ in calls] == ["create_repo", "upload_folder", "upload_file"]
    assert calls[0][1:] == (("me/model",), {"private": True, "exist_ok": True})
    assert calls[1][2]["folder_path"] == run / "02-grpo"
    assert calls[2][2]["path_or_fileobj"].decode() == card(run)[0]


def test_what_hinders_a_push_is_one_line_with_the_fix(run, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fails)
    with pytest.raises(UserError, match=r"me/model: not pushed \(no network here\); .*hf auth login"):
        push(run, "me/model", False, QUIET)
    (run / "summary.json").unlink()
    for folder in (run, tmp_path):
        with pytest.raises(UserError, match="no finished run; give the folder of a run"):
            card(folder)
