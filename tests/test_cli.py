"""The command line: which function it calls with what, and how it ends."""

import errno
import gc
import importlib.metadata
import resource
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from r1_mini import cli
from r1_mini.errors import UserError, disk_error
from r1_mini.rollout.params import SamplingParams
from r1_mini.system.files import write_text_atomic


@pytest.fixture
def pipeline(monkeypatch, tmp_path):
    """Puts a function in the place of the real run."""
    monkeypatch.chdir(tmp_path)
    return lambda work: monkeypatch.setattr("eval.commands.run", work)


def failing(error):
    def work(recipe, out, console):
        out.mkdir(parents=True)
        raise error

    return work


@pytest.mark.parametrize(
    "command", [[], ["run"], ["plan"], ["recipes"], ["sample"], ["eval"], ["compare"], ["sweep"], ["push"], ["bench"]]
)
def test_every_help_has_an_example(command):
    shown = CliRunner().invoke(cli.app, [*command, "--help"])
    assert shown.exit_code == 0
    assert "Example: r1-mini " + "".join(command) in shown.output


def test_help_needs_none_of_the_heavy_libraries():
    code = (
        "import sys; from r1_mini.cli import main; assert main(['run', '--help']) == 0;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'trl', 'datasets', 'numpy')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_version_is_that_of_the_installed_package_and_nothing_else(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{importlib.metadata.version('r1-mini')}\n"


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """What `sample` calls `ask` with; a checkpoint is in the folder of the test."""
    found = []
    module = types.SimpleNamespace(ask=lambda *args: found.append(args))
    monkeypatch.setitem(sys.modules, "r1_mini.rollout.ask", module)
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    return found


@pytest.mark.parametrize("question", ["-5+8", "- 5 + 8", "-(5)+8"])
def test_a_question_may_begin_with_a_minus_sign_and_a_mistyped_option_is_none(tmp_path, calls, capsys, question):
    assert cli.main(["sample", str(tmp_path), question, "--seed", "5"]) == 0
    assert cli.main(["sample", "--seed", "5", str(tmp_path), "--", question]) == 0
    assert [(asked.strip(), params.seed) for _, asked, params, _ in calls] == [(question, 5)] * 2
    for wrong, fix in (("--sed", "--seed"), ("-seed", "write -- before what begins with a dash"), ("-x+8", "write --")):
        assert cli.main(["sample", str(tmp_path), wrong, "5"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: No such option: -") and fix in error
    assert len(calls) == 2


def test_sample_hands_its_options_to_ask(tmp_path, calls):
    assert cli.main(["sample", str(tmp_path), "12+7", "--seed", "5", "--voice", "worked", "--max-tokens", "9"]) == 0
    assert cli.main(["sample", str(tmp_path), "--temperature", "0"]) == 0
    assert calls == [
        (tmp_path, "12+7", SamplingParams(1, 9, 1.0, seed=5, voice="worked"), "auto"),
        (tmp_path, None, SamplingParams(1, 160, 0.0), "auto"),
    ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run"], "error: Missing argument 'RECIPE'; see r1-mini run --help\n"),
        (["rum"], "error: No such command 'rum'. Did you mean 'run'?; see r1-mini --help\n"),
        (["run", "x.yaml", "--ouf", "y"], "error: No such option: --ouf"),
        (["run", "no.yaml"], "error: no.yaml: no such file, and no packaged recipe of that name; `r1-mini recipes` lists all\n"),
        (["eval", "limit=3"], "error: eval: no checkpoint is named; give a folder, or the id of a model on the Hub\n"),
        (["sample", "no"], "error: no: no such folder; give the folder of a checkpoint, such as runs/tiny-r1-zero/02-grpo\n"),
        (["sample", ".", "1+1"], "error: .: not a checkpoint; give the folder of a checkpoint, such as"),
        (["sample", ".", "--voice", "loud"], "error: Invalid value for '--voice'"),
        (["sample", ".", "--temperature=1e-320"], "error: Invalid value for '--temperature': Input should be 0 (greedy) or from 0.01 to 10"),
        (["sample", ".", "--temperature=nan"], "error: Invalid value for '--temperature': Input should be 0 (greedy) or from 0.01 to 10"),
        (["sample", ".", "--seed", "-1"], "error: Invalid value for '--seed'"),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_and_exit_code_2(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1


def test_a_current_folder_that_is_gone_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cli.main(["recipes"]) == 2
    assert capsys.readouterr().err == "error: the current folder is gone; cd to one that is there\n"


def test_garbage_is_collected_while_a_command_works_and_not_while_its_libraries_are_imported(
    recipe_file, pipeline, monkeypatch
):
    collects = []
    monkeypatch.setattr(cli, "_leave_imports", lambda: collects.append(gc.isenabled()))
    pipeline(lambda *arguments: collects.append(gc.isenabled()))
    assert cli.main(["run", str(recipe_file()), "--out", "here"]) == 0
    assert collects == [False, True]
    assert cli.main(["unknown"]) == 2
    assert gc.isenabled()


def test_debug_shows_the_traceback(recipe_file, pipeline, capsys):
    pipeline(failing(RuntimeError("broken")))
    assert cli.main(["--debug", "run", str(recipe_file()), "--out", "here"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith("\nerror: RuntimeError: broken\n")
    assert not Path("here/log.txt").exists()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.ENOSPC, "x", "a/b"), 2, "error: a/b: the disk is full; free some space and run the same command again"),
        (OSError(errno.EROFS, "x", "a/b"), 2, "error: a/b: the disk is read-only; choose another folder with --out"),
        (OSError(errno.EACCES, "x", "a"), 2, "error: a: permission denied; choose another folder with --out or change the permissions"),
        (UserError("wrong", where="a.yaml: b", fix="right"), 2, "error: a.yaml: b: wrong; right"),
        (ModuleNotFoundError(name="optuna"), 2, "error: optuna is not installed; pip install 'r1-mini[sweep]'"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes the run"),
        (RuntimeError("first\nsecond"), 1, "error: RuntimeError: first second; the traceback is in here/log.txt"),
    ],
)  # fmt: skip
def test_a_run_that_ends_early_is_one_line_and_only_the_log_has_the_traceback_of_a_failure(
    error, code, line, recipe_file, pipeline, capsys
):
    pipeline(failing(error))
    assert cli.main(["run", str(recipe_file()), "--out", "here"]) == code
    assert capsys.readouterr().err == f"{line}\n"
    log = Path("here/log.txt")
    assert log.exists() is (code == 1)
    assert code != 1 or log.read_text(encoding="utf-8").startswith("Traceback (most recent call last):")


def test_a_full_disk_is_recognized_behind_a_librarys_own_error():
    for text in ("[enforce fail at inline_container.cc:672]", "not written"):
        error = RuntimeError(text)
        error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        assert str(disk_error(error, "a")).startswith("a file in a: the disk is full; free some space")
    assert disk_error(RuntimeError("I/O error: No space left on device (os error 28)")) is not None
    assert disk_error(FileNotFoundError(errno.ENOENT, "x", "a")) is None


@pytest.mark.parametrize(
    ("write", "where"),
    [
        (lambda path: write_text_atomic(path, "x" * 100_000), "{}/file"),
        (lambda path: torch.save(torch.ones(100_000), path), "a file in {}"),
        (lambda path: save_file({"a": torch.ones(100_000)}, path), "a file in {}"),
    ],
    ids=["text", "torch", "safetensors"],
)
def test_a_file_longer_than_the_limit_is_said_whoever_writes_it(request, write, where, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before))
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    with pytest.raises(Exception) as caught:
        write(tmp_path / "file")
    line = f"{where.format(tmp_path)}: longer than files may be here; raise the limit (`ulimit -f`)"
    assert str(disk_error(caught.value, tmp_path)).startswith(line)
