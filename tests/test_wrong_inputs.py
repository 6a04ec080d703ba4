"""What a user gets wrong: exit code 2, one line, no traceback, and nothing is left behind."""

import os
import socket

import pytest

from r1_mini import cli

LONG, HUGE = "a" * 300, "9" * 400
RECIPE = ["run", "recipe.yaml"]
SAMPLE = ["sample", "model"]

WRONG = [
    *(["run", name] for name in ("no.yaml", "", ".", "/dev/null", LONG, "\x1b[31m", "fifo", "broken.yaml", "sweep.yaml", "latin.yaml")),
    *([*RECIPE, text] for text in (
        "seed", "=1", "seed=", "seed=-1", "seed=1.5", "seed=\x1b[31m", "sed=1", "seed=[", f"seed={HUGE}", "stages=[]", "stages.9.seed=1",
        "stages.\u0660.seed=1", "name=../x", "grpo.trainer.hub_token=x1", "model=nowhere", "problems=[]", "problems=[{jsonl: fifo}]",
        "problems=[{jsonl: /dev/zero}]", 'problems=[{jsonl: "a\\0b"}]', "problems=[{jsonl: surrogate.jsonl}]", "problems=[{jsonl: .}]",
        "grpo.trainer.max_steps=0", "grpo.trainer.learning_rate=.nan", "evaluate.suite=nowhere", "evaluate.temperature=1e-320",
        "evaluate.max_tokens=0",
    )),
    *([*RECIPE, "--out", out] for out in ("/dev/null", "fifo", "recipe.yaml", "socket", LONG, "recipe.yaml/x", "/dev/null/x", "full")),
    *(["plan", "recipe.yaml", "--json", out] for out in ("/dev/null", "full", "fifo", "socket", "link", LONG)),
    *(["plan", "recipe.yaml", *option] for option in (["--gpu", "inf"], ["--gpu", "nan"], ["--gpu", "-1"], ["--processes", "0"])),
    *(["recipes", name] for name in ("no", LONG)),
    *(["sample", *rest] for rest in (["no"], ["full"], ["/dev/null"], ["full", "-5+8"])),
    *([*SAMPLE, "1+1", *option] for option in (["--temperature", "nan"], ["--temperature", "inf"], ["--max-tokens", "0"], ["--prompt", "x"])),
    *(["eval", *rest] for rest in (
        ["no"], ["limit=3"], ["full"], ["model", "limit=0"], ["model", "lmit=1"], ["model", "--suite", "no"], ["model", "--out", "/dev/null"],
        ["model", "--export-lm-eval", "/dev/null"], ["model", "--export-lm-eval", "fifo"], ["model", "--out", LONG],
    )),
    *(["compare", *rest] for rest in (["no"], ["full"], ["recipe.yaml"], ["damaged"], ["full", "--out", "/dev/null"])),
    *(["sweep", *rest] for rest in (
        ["no"], ["recipe.yaml"], ["sweep.yaml", "--out", "fifo"], ["sweep.yaml", "--workers", "0"],
        ["sweep.yaml", "--storage", "postgresql://me:pw@h/db"],
    )),
    *(["push", *rest] for rest in (["no", "me/x"], ["full", "me/x"], ["full"])),
    *(["bench", *rest] for rest in (
        ["--checkpoint", "no"], ["--out", "/dev/null"], ["--out", "full"], ["--zero-variance", "nan"], ["--size", "1T"], ["--pairs", "0"],
    )),
]  # fmt: skip


def everything(folder):
    return {path.relative_to(folder): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def here(tmp_path, recipe_file, monkeypatch):
    """A folder with a right recipe and sweep, and with what no command may touch."""
    monkeypatch.chdir(tmp_path)
    recipe_file()
    (tmp_path / "sweep.yaml").write_text("name: s\nrecipe: recipe.yaml\nsettings: {a: {seed: 1}}\nseeds: {key: seed}\n")
    (tmp_path / "broken.yaml").write_text("name: [")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    (tmp_path / "surrogate.jsonl").write_text('{"question": "1+\\ud800", "answer": "2"}\n')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "columns.json").write_text("{}")
    (tmp_path / "link").symlink_to("recipe.yaml")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind("socket")
        yield tmp_path


@pytest.mark.parametrize("arguments", WRONG, ids=lambda arguments: " ".join(arguments)[:60].replace("\x1b", "ESC"))
def test_a_wrong_input_is_one_line_and_leaves_nothing_behind(arguments, here, capsys):
    before = everything(here)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "Traceback" not in error and "\x1b" not in error
    assert everything(here) == before
