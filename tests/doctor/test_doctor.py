"""The doctor is examined: on runs that are broken on purpose it finds the cause first, and its fix makes them well."""

import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from eval import commands
from r1_mini import cli
from r1_mini.config import packaged
from r1_mini.doctor.doctor import changes, diagnose, watch
from r1_mini.errors import Stopped
from r1_mini.pipeline.recipe import load
from r1_mini.pipeline.store import read_note
from r1_mini.system.files import read_jsonl
from r1_mini.train.grpo import Patience
from tests.conftest import SAVES
from tests.doctor.broken import BROKEN, FIXED, kept, trained

SMALL = ["evaluate.columns=[grpo]", "evaluate.limit=12", "evaluate.samples=1"]


@pytest.fixture(scope="module")
def here(smoke, tmp_path_factory):
    """A folder where all runs share what is equal: most have the base of the smoke run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder := tmp_path_factory.mktemp("doctor"))
        shutil.copytree(smoke[0], folder / smoke[0].name)
        (folder / ".index").mkdir()
        shutil.copy(smoke[0].parent / ".index" / read_note(smoke[0] / "01-base")["key"], folder / ".index")
        patch.setattr(commands, "publish", lambda *arguments: None)  # the page, seconds each, is not what is examined
        yield folder


def ran(name, settings):
    """The exit code and the findings of a run that is trained here."""
    code, case = trained(name, [SAVES[0], *settings])
    return code, diagnose(case)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_gets_its_cause_as_the_first_finding_and_the_fix_made_it_well(name):
    first, settings = BROKEN[name]
    code, case = kept(name, settings)
    found = diagnose(case)
    assert (found[0].name, found[0].grave) == (first, True), found
    assert code == (1 if name in ("hot", "untrained") else 0)  # patience has an end
    if name in FIXED:
        code, case = kept(f"{name}-fixed", [*settings, *found[0].fix])
        assert code == 0 and [each for each in diagnose(case) if each.grave] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["untrained", "upside-down"])
def test_a_run_that_is_trained_now_gets_the_same_and_its_fix_makes_it_well(here, name):
    first, settings = BROKEN[name]
    code, found = ran(name, settings)
    assert (code, found[0].name, found[0].grave) == (name == "untrained", first, True), found
    assert (found[0].fix and not found[0].samples) or Path(found[0].samples.partition(",")[0]).is_file()
    if name in FIXED:
        code, after = ran(f"{name}-fixed", [*settings, *found[0].fix])
        assert code == 0 and [each for each in after if each.grave] == []


@pytest.mark.slow
def test_a_healthy_run_has_no_finding_and_keeps_the_same_prompts_at_each_step(here, capsys):
    code, found = ran("healthy", [])
    assert (code, found) == (0, [])
    assert cli.main(["doctor", "healthy"]) == 0
    assert "nothing found" in capsys.readouterr().out
    rows = read_jsonl(here / "healthy/02-grpo/rollouts.jsonl")
    assert sorted({row["step"] for row in rows}) == [0, 20]
    asked = {step: [row["question"] for row in rows if row["step"] == step] for step in (0, 20)}
    assert asked[0] == asked[20] and len(asked[0]) == 32 and len(set(asked[0])) == 8
    first = next(row for row in rows if row["voice"] == "worked" and row["correct"])
    assert first["reward"] == pytest.approx(1.1) and first["steps"][0][1] == "right"
    metrics = read_jsonl(here / "healthy/02-grpo/metrics.jsonl")[0]
    assert metrics["reward_accuracy"] == pytest.approx(metrics["accuracy"])
    assert metrics["accuracy_sum_1"] > metrics["accuracy_sum_3"]


@pytest.mark.slow
def test_rollouts_that_are_kept_do_not_change_the_weights(here):
    weights = {}
    for name, keep in (("kept", "{every: 1}"), ("none", "null")):  # two folders of runs, so that nothing is shared
        out = f"{name}/run"
        ran(out, ["base.trainer.max_steps=5", "grpo.trainer.max_steps=4", f"grpo.rollouts={keep}"])
        weights[name] = (here / out / "02-grpo/model.safetensors").read_bytes()
    assert weights["kept"] == weights["none"]
    assert sorted({row["step"] for row in read_jsonl(here / "kept/run/02-grpo/rollouts.jsonl")}) == [0, 1, 2, 3, 4]
    assert not (here / "none/run/02-grpo/rollouts.jsonl").exists()


@pytest.mark.slow
def test_a_dead_run_stops_after_its_patience_and_says_why(here, capsys):
    settings = ["base.trainer.max_steps=3", "grpo.patience=4", "grpo.trainer.max_steps=6"]
    assert cli.main(["run", "smoke", "--out", "dead", *SMALL, *settings]) == 1
    said = capsys.readouterr()
    assert re.search(r"error: 02-grpo: stopped: nothing was right in steps 1 to 4, .*patience=null$", said.err, re.M)
    assert "grave: 02-grpo: nothing earns" in said.out and "base.trainer.max_steps=1000" in said.out
    assert cli.main(["doctor", "dead", "--json", "dead.json"]) == 1
    assert json.loads((here / "dead.json").read_text())[0]["name"] == "nothing earns"
    assert "grave: 02-grpo: nothing earns" in (here / "dead/log.txt").read_text()
    assert (
        cli.main(["run", "smoke", "--out", "dead", *SMALL, settings[0], settings[2], "grpo.patience=null"]) == 0
    )  # it goes on


@pytest.mark.slow
def test_a_pilot_says_that_a_model_earns_nothing_before_it_is_trained(here, capsys):
    ran("untrained", BROKEN["untrained"][1])
    stages = "stages=[{kind: grpo, trainer: {max_steps: 5, max_completion_length: 48}}]"
    settings = ["model=untrained/01-base", stages, "evaluate.columns=[]"]
    assert cli.main(["doctor", "smoke", *settings]) == 1
    said = capsys.readouterr().out
    assert "grave: 01-grpo: nothing earns: no completion of step 0 was right" in said
    assert "change: 'stages=[{kind: sft}, {kind: grpo, " in said
    assert cli.main(["plan", "smoke", *settings, "--ask"]) == 1
    assert "nothing earns" in capsys.readouterr().out
    assert not (here / "runs").exists()


@pytest.mark.slow
def test_a_model_that_goes_on_after_its_answer_is_found_by_the_pilot(here, capsys):
    ran("healthy", [])
    shutil.copytree("healthy/02-grpo", "endless")
    for name, end in (
        ("tokenizer_config.json", {"eos_token": "<unk>"}),
        ("generation_config.json", {"eos_token_id": 2}),
    ):
        values = json.loads(Path("endless", name).read_text())
        Path("endless", name).write_text(json.dumps(values | end))
    settings = ["model=endless", "stages=[{kind: grpo, trainer: {max_steps: 5, max_completion_length: 48}}]"]
    cli.main(["doctor", "smoke", *settings])
    assert "grave: 01-grpo: never stops" in capsys.readouterr().out


def test_what_does_not_fit_is_grave_before_a_run(capsys):
    assert cli.main(["doctor", "smoke", "base.model={hidden_size: 8192, layers: 16, heads: 8}"]) == 1
    assert "grave: does not fit: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere"),
        (["."], "no run; name a run folder"),
        (["smoke", "grpo.x=1"], "unknown key"),
    ],
)
def test_what_is_no_run_and_no_recipe_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_a_setting_that_the_recipe_has_or_refuses_is_not_named():
    recipe = load(packaged.find("smoke", "tiny"))
    assert [changes(recipe, each) for each in ("grpo.judge=exact", "grpo.trainer.loss_type=dapo")] == [False, False]
    assert not changes(recipe, "grpo.trainer.no_such_field=1")
    assert changes(recipe, "grpo.trainer.learning_rate=1e-4") and changes(recipe, "prompt=base")


def test_patience_counts_dead_steps_alone_from_where_all_rewards_count():
    def ends(records, most=3, first=0):
        stage = load(packaged.find("smoke", "tiny")).nodes["02-grpo"]
        patience = Patience(most, SimpleNamespace(name="rl", settings=stage, watch=lambda record: ""), first)
        for record in records:
            try:
                patience.watch({"format": 0.0, "truncated": 0.0, **record})
            except Stopped as stopped:
                assert "grpo.patience=null" in str(stopped)
                return record["step"]
        return None

    dead = [{"step": step, "accuracy": 0.0, "zero_variance": 1.0} for step in range(1, 12)]
    assert ends(dead) == 3
    assert ends(dead[5:]) == 8  # resumed at step 5
    assert ends([dead[0], dead[1] | {"accuracy": 0.1}, *dead[2:]]) == 5
    assert ends([dead[0], dead[1] | {"zero_variance": 0.9}, *dead[2:]]) == 5
    assert ends(dead, first=6) == 9
    assert ends([dead[0] | {"accuracy": 0.5}, *dead[1:]], first=6) == 9
    assert ends([row if row["step"] % 4 == 1 else {"step": row["step"]} for row in dead]) == 5
    assert ends(dead, most=None) is None


def test_the_watch_tells_the_first_grave_name_as_steps_come():
    tell = watch(load(packaged.find("smoke", "tiny")))
    dead = {"accuracy": 0.0, "reward": 0.0, "zero_variance": 1.0, "failed": 1.0, "format": 0.0}
    assert [tell("02-grpo")(dead | {"step": 1})] == [""]
    grpo = tell("02-grpo")
    assert [grpo(dead | {"step": step}) for step in (1, 2, 3)] == ["", "", "nothing earns"]
    assert tell("01-base")({"step": 1, "loss": math.nan}) == ""
