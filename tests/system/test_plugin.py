"""An object in a user's file: found, run once, read again when its text has changed, and its errors in one line."""

import hashlib
import os
import sys

import pytest

from r1_mini.errors import UserError
from r1_mini.system import plugin


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of the user's, in which they type the command."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_path_starts_at_the_current_folder_or_is_absolute_and_the_file_is_run_once(here):
    (here / "mine.py").write_text("def one():\n    return 1\n")
    assert plugin.load("./mine.py:one") is plugin.load(f"{here}/mine.py:one")
    assert plugin.load("./mine.py:one")() == 1
    assert plugin.is_own("./mine.py:one") and not plugin.is_own("accuracy")


def test_a_changed_file_is_read_again_but_not_by_a_run_that_began_with_it(here):
    (here / "mine.py").write_text("VALUE = 1")
    assert plugin.load("./mine.py:VALUE") == 1
    (here / "mine.py").write_text("VALUE = 2")
    assert plugin.load("./mine.py:VALUE", reread=False) == 1
    assert plugin.sha256("./mine.py:VALUE") == hashlib.sha256(b"VALUE = 1").hexdigest()  # of what is in use
    assert plugin.load("./mine.py:VALUE") == 2
    assert plugin.sources(["accuracy", "./mine.py:VALUE"]) == {
        "./mine.py:VALUE": hashlib.sha256(b"VALUE = 2").hexdigest()
    }


def test_a_plugin_imports_what_stands_beside_it_and_may_have_any_name(here, monkeypatch):
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    (here / "sub").mkdir()
    (here / "sub" / "beside_it.py").write_text("VALUE = 5")
    (here / "sub" / "random.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport beside_it\n"
        "@dataclass\nclass Five:\n    value: int = beside_it.VALUE\n"
    )
    assert plugin.load("sub/random.py:Five")().value == 5
    import random

    assert hasattr(random, "Random")  # the standard library's is still found first


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (
            None,
            "./mine.py:one",
            "./mine.py:one: cannot be read (No such file or directory); its path starts at the current folder, {here}",
        ),
        ("one = 1", "./:.py:one", "No such file"),
        ("def brevity(): ...", "./mine.py:brevty", "the file has no 'brevty'; did you mean 'brevity'?"),
        ("import os", "./mine.py:pathe", "the file has no 'pathe'; leave it out"),
        (
            "x = 1\nx / 0",
            "./mine.py:x",
            "raised ZeroDivisionError in line 2, when it was imported (division by zero); `python ./mine.py` shows where",
        ),
        (
            "import nothing_such",
            "./mine.py:x",
            "raised ModuleNotFoundError in line 1, when it was imported (No module named 'nothing_such')",
        ),
        ("def (:", "./mine.py:x", "raised SyntaxError, when it was imported (invalid syntax (mine.py, line 1))"),
        ("raise SystemExit(3)", "./mine.py:x", "raised SystemExit in line 1, when it was imported (3)"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_with_the_fix(here, text, name, said):
    if text is not None:
        (here / "mine.py").write_text(text)
    for _ in range(2):  # the second time too: nothing half-made is kept
        with pytest.raises(UserError) as error:
            plugin.load(name)
        assert said.format(here=os.getcwd()) in str(error.value)
