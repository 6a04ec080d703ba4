"""A model is a folder or an id on the Hub; what is neither is one line with the likely fix. What is saved is loaded."""

from pathlib import Path

import huggingface_hub
import pytest

from r1_mini.errors import UserError
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer


def test_a_path_that_is_no_checkpoint_gets_the_likely_fix(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "run" / "01-base"
    folder.mkdir(parents=True)
    (folder / "node.json").touch()
    for path, line in (
        (tmp_path / "nowhere", "nowhere: no such folder; give the folder of a checkpoint"),
        (tmp_path / "file", "file: not a checkpoint; give the folder"),
        (tmp_path / "run", f"run: not a checkpoint; did you mean {folder}?"),
    ):
        with pytest.raises(UserError, match=line):
            find_checkpoint(path)
    (folder / "config.json").touch()
    (folder / "model.safetensors").touch()
    assert find_checkpoint(folder) == folder


def test_a_model_on_the_hub_is_its_local_copy_and_one_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    def download(model, **_):
        if model == "someone/no-such-model":
            raise OSError("Repository Not Found\nand a page of advice")
        return str(tmp_path / model)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_checkpoint(Path("someone/model")) == tmp_path / "someone" / "model"
    with pytest.raises(UserError, match=r"^someone/no-such-model: cannot be used \(Repository Not Found\); give a"):
        find_checkpoint(Path("someone/no-such-model"))


def test_a_saved_checkpoint_loads_as_it_was(tmp_path):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=None, seed=0)
    save_checkpoint(model, tokenizer, tmp_path)
    again, words = load_checkpoint(tmp_path)
    assert all((p == q).all() for p, q in zip(model.parameters(), again.parameters(), strict=True))
    text = "<think>1+2=3</think><answer>3</answer>"
    assert words(text)["input_ids"] == tokenizer(text)["input_ids"]
