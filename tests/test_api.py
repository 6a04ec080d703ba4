"""The Python API: it does what the command line does, and returns records and data frames."""

import subprocess
import sys

import pandas as pd
import pytest

import r1_mini
from r1_mini import Exam, Run, UserError, api, compare, evaluate, inspect, load_recipe, run, sample
from r1_mini.system.files import read_jsonl, sha256
from tests.commands import Started
from tests.launched import on_demand

SHORT = (
    *("base.trainer.max_steps=3", "base.trainer.per_device_train_batch_size=8", "grpo.trainer.max_steps=2"),
    *("grpo.trainer.per_device_train_batch_size=8", "grpo.trainer.num_generations=4"),
    *("grpo.trainer.max_completion_length=8", "evaluate.limit=4", "evaluate.samples=2", "evaluate.max_tokens=8"),
)


def test_the_package_and_the_command_line_are_imported_without_the_api_and_the_api_on_demand():
    code = "import sys, r1_mini, r1_mini.cli; assert not {'torch', 'r1_mini.api'} & sys.modules.keys(); r1_mini.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'r1_mini' has no attribute 'nothing'" in done.stderr
    done = Started(main=on_demand.main).done()
    assert done.returncode == 0, done.stderr
    assert r1_mini.__all__ == api.__all__ and all(getattr(r1_mini, each) is getattr(api, each) for each in api.__all__)


def test_a_packaged_recipe_is_loaded_by_its_name_with_overrides_and_a_wrong_name_is_a_users_error():
    recipe = load_recipe("smoke", "seed=3", "grpo.trainer.max_steps=5")
    assert (recipe.name, recipe.seed, recipe.stages[1].trainer["max_steps"]) == ("tiny-smoke", 3, 5)
    with pytest.raises(UserError, match=r"did you mean 'smoke'\?"):
        load_recipe("smokes")
    with pytest.raises(UserError, match="max_stepz"):
        load_recipe("smoke", "grpo.trainer.max_stepz=5")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n": 0}, "sample: samples: should be greater than or equal to 1"),
        ({"temperature": -1.0}, "sample: temperature: should be 0 (greedy) or from 0.01 to 10"),
        ({"voice": "worced"}, "no voice is called 'worced'; did you mean 'worked'?"),
    ],
)
def test_what_is_asked_wrongly_is_a_users_error_before_a_model_is_loaded(wrong, said):
    with pytest.raises(UserError) as error:
        sample("no-such-folder", "1+2", **wrong)
    assert str(error.value).startswith(said)


@pytest.mark.slow
def test_run_trains_in_silence_what_the_command_trains_and_finds_it_again(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    done = run(load_recipe("smoke", *SHORT))
    assert done.path.as_posix() == "runs/tiny-smoke" and [*done.stages] == ["01-base", "02-grpo"]
    weights = done.stages["02-grpo"] / "model.safetensors"
    before = sha256(weights)
    assert run(load_recipe("smoke", *SHORT)) == done and sha256(weights) == before
    assert capfd.readouterr() == ("", "")
    log = (done.path / "log.txt").read_text()
    assert "r1_mini.run(), from Python" in log and "done before, skipped" in log and "Asked once" in log


@pytest.mark.slow
def test_a_finished_run_is_opened_by_its_folder(smoke):
    done = Run(smoke[0])
    rows = [*read_jsonl(smoke[0] / "02-grpo" / "metrics.jsonl")]
    curve = done.metrics("grpo")
    assert [*curve.index] == [*range(1, 21)] and [*curve["accuracy"]] == [each["accuracy"] for each in rows]
    samples = done.samples("rl")
    assert len(samples) == 60 * 4 and samples["correct"].mean() == done.summary.scores["rl"].pass_at_1
    assert [*done.table.columns] == [*done.summary.names.values()] and "pass@1" in done.table.index
    assert " ".join(done.verdict) in " ".join(smoke[1].split())
    assert done.report.stat().st_size
    for ask, said in ((done.metrics, "did you mean 'grpo'"), (done.samples, "did you mean 'rl'")):
        with pytest.raises(UserError, match=said):
            ask({"did you mean 'grpo'": "grpa", "did you mean 'rl'": "rll"}[said])


@pytest.mark.slow
def test_answers_come_graded_the_same_for_the_same_seed_and_in_the_voice_that_is_forced(smoke):
    base = smoke[0] / "01-base"
    asked = sample(base, "7-3+1", 8, voice="worked")
    assert [*asked["voice"]] == ["worked"] * 8 and set(asked["correct"]) <= {True, False}
    assert asked["steps"][0][0] == ("7-3=4", "right")
    pd.testing.assert_frame_equal(asked, sample(base, "7-3+1", 8, voice="worked"))
    assert set(sample(base, "User", 2)["correct"]) == {None}


@pytest.mark.slow
def test_checkpoints_are_examined_compared_and_inspected_as_by_the_commands(smoke, tmp_path):
    base, rl = (smoke[0] / each for each in ("01-base", "02-grpo"))
    exam = evaluate(base, rl, suite="smoke", out=tmp_path / "exam", limit=12, samples=2, split="dev")
    assert exam == Exam(tmp_path / "exam")
    assert (exam.summary.split, exam.summary.n_problems, exam.summary.n_samples) == ("dev", 12, 2)
    assert len(exam.samples("run.02-grpo")) == 24 and set(exam.samples("run.02-grpo")["split"]) == {"dev"}
    again = compare(tmp_path / "exam", out=tmp_path / "again")
    assert again.summary.scores == exam.summary.scores and again.verdict == exam.verdict
    found = inspect(base, rl, suite="smoke", out=tmp_path / "inspect", only=["said"], quick=True)
    assert "said" in found.findings and found.verdict and found.report.stat().st_size
    with pytest.raises(UserError, match="no checkpoint is named"):
        evaluate()
    with pytest.raises(UserError, match="limt"):
        evaluate(base, limt=3)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UserError, match="not a folder of r1-mini, and not empty"):
        compare(smoke[0], out=tmp_path / "mine")
