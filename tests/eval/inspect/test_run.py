import json
import os
import shutil
import signal

import pytest

from eval.inspect.run import EXPERIMENTS
from r1_mini.cli import main
from r1_mini.model.checkpoint import save_checkpoint
from tests.commands import Started, r1_mini
from tests.conftest import arguments
from tests.eval.inspect.small import in_voices, problems, trained

KNOWN = problems(terms=3)
SUITE = """
samples: 1
max_tokens: 40
problems: [{family: sum, terms: 3, digits: 1, largest: 9, number: 48}]
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Before and after: one mostly answers at once, the other read chains on."""
    folder = tmp_path_factory.mktemp("checkpoints")
    before = trained(in_voices(KNOWN, direct=0.6), steps=250)
    after = trained(in_voices(KNOWN, direct=0.0), steps=40, start=before, rate=1e-3)
    for name, network in (("before", before), ("after", after)):
        save_checkpoint(network.model, network.tokenizer, folder / name)
    (folder / "suite.yaml").write_text(SUITE)
    return folder


def inspect(folder, out, *options):
    return r1_mini(
        "inspect", folder / "before", folder / "after", "--suite", folder / "suite.yaml", "--out", out, *options
    )


@pytest.fixture(scope="module")
def done(checkpoints, tmp_path_factory):
    out = tmp_path_factory.mktemp("inspection") / "inspect"
    return out, inspect(checkpoints, out, "--control", checkpoints / "before").stdout


def test_a_whole_inspection_has_rows_a_table_and_a_page_for_each_experiment(done):
    out, printed = done
    summary = json.loads((out / "inspect.json").read_text())
    page = (out / "inspect.html").read_text()
    for name in ("chains", "said", "weights", "tokens"):
        assert (out / name / "rows.jsonl").stat().st_size > 0
        assert summary[name]
    for heading in ("What is only said", "Is the chain used?", "Where in the weights", "Which tokens"):
        assert heading in page
    assert page.count("<svg") >= 6
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert "The answer comes from the chain" in printed


def test_every_number_comes_from_the_rows_and_twice_the_same(done, checkpoints, tmp_path):
    out, _ = done
    summary = json.loads((out / "inspect.json").read_text())
    for name in set(EXPERIMENTS) & set(summary):
        rows = [json.loads(line) for line in (out / name / "rows.jsonl").read_text().splitlines()]
        assert json.loads(json.dumps(EXPERIMENTS[name].table(rows))) == summary[name]
    only = ("--only", "tokens", "--only", "chains")
    inspect(checkpoints, tmp_path / "again", *only, "--control", checkpoints / "before")
    for name in ("tokens", "chains"):
        assert (tmp_path / "again" / name / "rows.jsonl").read_bytes() == (out / name / "rows.jsonl").read_bytes()


def test_a_killed_inspection_goes_on_with_the_experiment_that_was_killed(checkpoints, tmp_path):
    out = tmp_path / "inspect"
    begun = (
        "inspect",
        checkpoints / "before",
        checkpoints / "after",
        "--suite",
        checkpoints / "suite.yaml",
        "--out",
        out,
    )
    Started(*begun, "--only", "chains", "--only", "said").when((out / ".work-said").exists).signal(
        signal.SIGKILL
    ).done()
    first = (out / "chains" / "rows.jsonl").stat().st_mtime_ns
    assert not (out / "inspect.json").exists()
    r1_mini(*begun, "--only", "chains", "--only", "said")
    assert (out / "chains" / "rows.jsonl").stat().st_mtime_ns == first
    assert set(json.loads((out / "inspect.json").read_text())) >= {"chains", "said"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layer", "7"], "layer 7 does not exist; the layers are 0 to 1"),
        (["--only", "chain"], "no experiment is called 'chain'; did you mean 'chains'?"),
        (["--marks", "<a>"], '"<a>" is not two marks'),
        (["--control", "nothing"], "no such folder"),
        (["--marks", "[ ]"], "0 chains of several parts with an answer"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(options, words, checkpoints, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [str(checkpoints / name) for name in ("before", "after")]
    assert main(["inspect", *paths, "--suite", str(checkpoints / "suite.yaml"), *options]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not os.listdir(tmp_path)


def test_checkpoints_of_another_shape_and_runs_without_an_exam_are_refused(
    checkpoints, tmp_path, capsys, monkeypatch, smoke
):
    monkeypatch.chdir(tmp_path)
    other = trained(in_voices(KNOWN, direct=0.5), steps=1, hidden_size=32)
    save_checkpoint(other.model, other.tokenizer, tmp_path / "narrow")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.yaml").write_bytes((smoke[0] / "recipe.yaml").read_bytes())
    for given, words in (
        ([str(checkpoints / "before"), "narrow"], "compare two checkpoints of one architecture"),
        (["begun"], "no exam"),
        ([str(checkpoints / "before")], "give a finished run"),
        ([], "Missing argument"),
    ):
        assert main(["inspect", *given]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["begun", "narrow"]


def test_a_run_trains_its_own_control(smoke, tmp_path):
    """The smoke run's base writes too few sound chains, so the weights alone are asked."""
    out = r1_mini("inspect", smoke[0], "--only", "weights", "--quick", "--out", tmp_path / "inspect").stdout
    assert "weights" in out
    changes = json.loads((tmp_path / "inspect" / "inspect.json").read_text())["weights"]["changes"]
    assert {"alpha", "rank", "only", "without", "random", "shuffled", "more text"} == {
        each["change"] for each in changes
    }
    assert (tmp_path / "inspect" / "more-text" / "model.safetensors").exists()


def test_a_run_that_cannot_be_inspected_at_its_end_says_so_and_is_finished(smoke, tmp_path):
    shutil.copytree(smoke[0], tmp_path / "run")
    done = r1_mini(*arguments(tmp_path / "run", "evaluate.inspect=true", "evaluate.limit=20"))
    assert "not inspected: before: " in done.stdout and "sound chains" in done.stdout
    assert not (tmp_path / "run" / "inspect").exists()
