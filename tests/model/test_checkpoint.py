"""A model is a folder or an id on the Hub; what is neither is one line with the likely fix. What is saved is loaded."""

import json
from pathlib import Path

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file

from r1_mini.errors import UserError
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.pipeline.store import checkpoint_hash


def test_a_path_that_is_no_checkpoint_or_an_adapter_gets_the_likely_fix(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "run" / "01-base"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).touch()
    for path, line in (
        (tmp_path / "nowhere", "nowhere: no such folder; give the folder of a checkpoint"),
        (tmp_path / "file", "file: not a checkpoint; give the folder"),
        (tmp_path / "run", f"run: not a checkpoint; give the folder of a checkpoint, such as {folder}"),
    ):
        with pytest.raises(UserError, match=line):
            find_checkpoint(path)
    assert find_checkpoint(folder) == folder
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").touch()
    with pytest.raises(UserError, match=rf"adapter: an adapter, not a whole model; did you mean {folder}\?"):
        find_checkpoint(folder / "adapter")


def test_a_model_on_the_hub_is_its_local_copy_and_one_that_is_not_there_is_one_line(monkeypatch, tmp_path):
    def download(model, allow_patterns):
        if model == "someone/no-such-model":
            raise OSError("Repository Not Found\nand a page of advice")
        return str(tmp_path / ("whole" if "*.safetensors" in allow_patterns else "small"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    for file in ("whole/config.json", "whole/model.safetensors", "small/config.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert find_checkpoint(Path("someone/model")) == tmp_path / "whole"
    assert find_checkpoint(Path("someone/model"), weights=False) == tmp_path / "small"
    with pytest.raises(UserError, match=r"^someone/no-such-model: cannot be used \(Repository Not Found\); give a"):
        find_checkpoint(Path("someone/no-such-model"))


@pytest.fixture
def saved(tmp_path):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=16, layers=2, heads=2, intermediate_size=None, seed=0)
    save_checkpoint(model, tokenizer, tmp_path)
    return tmp_path, model, tokenizer


def with_(file, **keys):
    """Changes keys of a file of a checkpoint."""

    def change(folder):
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **keys}))

    return change


def text(file, text):
    return lambda folder: (folder / file).write_text(text)


def not_finite(folder):
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])


DAMAGE = {
    "its weights are not finite": not_finite,
    "has, and its config does not ask for, model.layers.1": with_("config.json", num_hidden_layers=1),
    "it lacks model.layers.2": with_("config.json", num_hidden_layers=3),
    "its config asks for a larger model": with_("config.json", num_hidden_layers=10**5),
    "its config asks for a larger model than": with_("config.json", intermediate_size=10**12),
    "eos_token_id 999 is no token of the model": with_("generation_config.json", eos_token_id=[1, 999]),
    "cannot be used": text("generation_config.json", "{"),
    "config.json.*; give the folder": text("config.json", "{"),
    "deserializing header": cut,
    "the tokenizer has more tokens than the model": with_("config.json", vocab_size=5),
    "BertForMaskedLM is not a causal": with_("config.json", architectures=["BertForMaskedLM"]),
    "instantiate the backend tokenizer": lambda folder: [path.unlink() for path in folder.glob("tokenizer*")],
    "a template": text("chat_template.jinja", "{{ raise_exception('a template') }}"),
    "names a file outside of": text("model.safetensors.index.json", '{"weight_map": {"a": "../o.safetensors"}}'),
}


@pytest.mark.parametrize("line", DAMAGE)
def test_what_is_not_exactly_the_model_that_was_saved_is_refused_in_one_line(saved, line):
    DAMAGE[line](saved[0])
    with pytest.raises(UserError, match=line):
        load_checkpoint(saved[0])


def test_a_saved_checkpoint_loads_as_it_was(saved):
    tmp_path, model, tokenizer = saved
    again, words = load_checkpoint(tmp_path)
    assert all((p == q).all() for p, q in zip(model.parameters(), again.parameters(), strict=True))
    text = "<think>1+2=3</think><answer>3</answer>"
    assert words(text)["input_ids"] == tokenizer(text)["input_ids"]
    save_checkpoint(again, words, tmp_path / "again")
    assert checkpoint_hash(tmp_path / "again") == checkpoint_hash(tmp_path)  # so weights that stay are said to be one
