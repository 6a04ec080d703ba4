"""A model is a folder or an id on the Hub; what is neither is one line with the likely fix."""

from pathlib import Path

import huggingface_hub
import pytest

from r1_mini.errors import UserError
from r1_mini.model.locate import find_checkpoint


def test_a_path_that_is_no_checkpoint_gets_the_likely_fix(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such folder; give the folder of a checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: not a checkpoint; give a folder with"):
        find_checkpoint(tmp_path / "file")
    folder = tmp_path / "run" / "01-base"
    folder.mkdir(parents=True)
    (folder / "node.json").touch()
    with pytest.raises(UserError, match=f"run: not a checkpoint; did you mean {folder}?"):
        find_checkpoint(tmp_path / "run")
    (folder / "config.json").touch()
    (folder / "model.safetensors").touch()
    assert find_checkpoint(folder) == folder


def test_a_model_that_is_neither_a_folder_nor_on_the_hub_is_one_line(monkeypatch):
    def not_there(*_, **__):
        raise OSError("Repository Not Found\nand a page of advice")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_there)
    with pytest.raises(UserError) as refused:
        find_checkpoint(Path("someone/no-such-model"))
    assert str(refused.value).startswith("someone/no-such-model: no such folder, nor model on the Hub (Repository Not")


def test_a_model_on_the_hub_is_its_local_copy(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda model, **_: str(tmp_path / model))
    assert find_checkpoint(Path("someone/model")) == tmp_path / "someone" / "model"
