"""A finished sweep compared: every figure by hand, verdicts where the truth is known, files that open."""

import csv
import json
import random
import shutil
from dataclasses import asdict, replace

import pytest
from rich.console import Console

from eval.analysis import stats
from eval.exam.lineup import Lineup, pairs_of
from eval.report import page
from eval.report.words import shortened, sweep_sentences
from eval.sweep.spec import Range
from eval.sweep.summary import FEWEST_TRAININGS, compare_sweep, importances, summarize
from r1_mini.errors import UserError
from r1_mini.system.files import write_json_atomic
from tests.eval.sweep.conftest import MARKS, RATE, study_of


@pytest.fixture
def finished(grid):
    """The folder of the grid's sweep, all trials done."""
    study = study_of(grid)
    trainings = [replace(training, state="COMPLETE") for training in study.trainings()]
    for training in trainings:
        run = grid.parent / "templates" / f"{training.changes[RATE]}-{training.seed}"
        shutil.copytree(run, study.folder / training.folder)
    write_json_atomic(study.folder / "trials.json", [asdict(training) for training in trainings])
    return study.folder


def test_a_sweep_is_summarized_from_the_samples_of_its_trials_and_its_files_agree(finished, capsys):
    compare_sweep(finished, None, Console(width=120))
    summary = json.loads((finished / "summary.json").read_text())
    scores = {each["name"]: each["score"]["estimate"] for each in summary["settings"]}
    assert scores == {f"learning_rate={rate}": "".join(pair).count("1") / 8 for rate, pair in MARKS.items()}
    assert summary["default"] == "learning_rate=0.1"  # the first
    assert [start["name"] for start in summary["starts"]] == ["base", "base, forced"]
    assert summary["space"][RATE]["choices"] == list(MARKS)
    best = summary["settings"][0]  # 1110 and 1111: seven worked chains of eight completions are right
    assert (best["name"], best["changes"], best["kl"]) == ("learning_rate=0.2", {RATE: 0.2}, None)
    assert best["seeds"] == [{"seed": 0, "score": 0.75}, {"seed": 1, "score": 1.0}]
    assert best["entropy"] == pytest.approx(0.5)  # the samples say -0.5 nats a token
    assert (best["chains"]["right_by_right"], best["voices"]["worked"]) == (pytest.approx(7 / 8), 1.0)
    against = best["against_default"]
    assert (against["difference"]["estimate"], against["word"]) == (
        pytest.approx(0.5),
        "not told apart",
    )  # of two problems

    with (finished / "comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == list(scores)
    assert float(lines[0]["pass_at_1"]) == float(lines[0]["score estimate"]) == best["score"]["estimate"]
    assert float(lines[0]["seed 1"]) == 1.0
    html = (finished / "report.html").read_text()
    (recipe,) = (finished / "recipes").iterdir()
    for part in (f"{RATE}: a point for each training", f"r1-mini run {recipe} {RATE}=0.2</pre>"):
        assert part in html
    assert "<script" not in html
    said = " ".join(capsys.readouterr().out.split())
    assert "Asked once, learning_rate=0.1, the default, gets 38 of 100 right, learning_rate=0.2 88." in said
    assert (
        "Not told apart from learning_rate=0.1: learning_rate=0.2, learning_rate=0.4, learning_rate=0.3." in said
        and "Two training seeds leave wide intervals" in said
    )
    against |= {"word": "worse", "difference": {"estimate": -0.019, "low": -0.03, "high": -0.008}}
    assert "learning_rate=0.2 is worse than learning_rate=0.1: −1.9 [−3.0, −0.8] points." in sweep_sentences(summary)


def test_a_setting_that_stops_at_its_base_is_shown_forced_too(finished):
    for run in finished.glob("trials/learning_rate=0.2-*"):
        lineup = Lineup.read(run / "eval" / "arithmetic")
        del lineup.columns["rl"]
        replace(lineup, pairs=pairs_of(lineup.columns)).write(run / "eval" / "arithmetic")
    summary, curves = summarize(finished)
    assert [start["name"] for start in summary["starts"]] == ["base", "base, forced", "learning_rate=0.2, forced"]
    stopped = next(each for each in summary["settings"] if each["name"] == "learning_rate=0.2")
    assert stopped["score"]["estimate"] == 0.25 and stopped["cells_before"] == []
    assert "learning_rate=0.2, forced" in page.render_sweep(summary, curves)


def test_an_unfinished_setting_is_left_out_and_said(finished):
    path = finished / "trials.json"
    trials = json.loads(path.read_text())

    def summary_of(rate, **changes):
        """The summary after the trials of a learning rate were changed."""
        changed = [{**each, **changes} if each["setting"] == f"learning_rate={rate}" else each for each in trials]
        path.write_text(json.dumps(changed))
        return summarize(finished)[0]

    failed = summary_of(0.4, state="FAIL", reason="ended by SIGKILL: out of memory?")
    assert failed["unfinished"] == ["learning_rate=0.4"]
    said = sweep_sentences(failed)
    assert "Failed: learning_rate=0.4, seed 1 (ended by SIGKILL: out of memory?)." in said
    pruned = summary_of(0.4, state="PRUNED")
    assert (pruned["unfinished"], pruned["pruned"]) == ([], 2)
    assert "Stopped early, because worse on dev than the median so far: 2 trainings." in sweep_sentences(pruned)
    with pytest.raises(UserError, match=r"no seed is finished for all settings and the default, 'learning_rate=0\.1'"):
        summary_of(0.1, state="FAIL")
    path.write_text(json.dumps(trials))
    shutil.rmtree(next(finished.glob("trials/learning_rate=0.3-*-seed1")))
    with pytest.raises(
        UserError, match=r"1 finished trials ran on another machine, such as .*; copy them into .*; if they were"
    ):
        summarize(finished)


def test_settings_with_long_names_are_called_by_their_rank_and_the_page_says_which_is_which(finished):
    summary, curves = summarize(finished)
    assert shortened(summary)[0] == summary
    long = {each["name"]: f"{each['name']}, and a good many other keys of the space" for each in summary["settings"]}
    settings = [{**each, "name": long[each["name"]]} for each in summary["settings"]]
    named = {**summary, "default": long[summary["default"]], "settings": settings}
    ranked, ranks = shortened(named)
    assert [each["name"] for each in ranked["settings"]] == [f"#{n}" for n in range(1, len(long) + 1)]
    assert ranked["default"] == ranks[long[summary["default"]]]
    html = page.render_sweep(named, {long[name]: curve for name, curve in curves.items()})
    assert f"<li>#1: {named['settings'][0]['name']}</li>" in html


@pytest.mark.parametrize(("direction", "said"), [("maximize", "better"), ("minimize", "worse")])
def test_more_than_the_default_is_better_where_more_is_sought(finished, monkeypatch, direction, said):
    monkeypatch.setattr(stats, "verdict", lambda gain, p_value: "shown")
    settings = (finished / "sweep.yaml").read_text().replace("direction: maximize", f"direction: {direction}")
    (finished / "sweep.yaml").write_text(settings)
    against = [each["against_default"] for each in summarize(finished)[0]["settings"]]
    assert {each["word"] for each in against if each} == {said}


LOSS, BETA = "grpo.trainer.loss_type", "grpo.trainer.beta"
SPACE = {
    RATE: Range(low=1e-4, high=1e-2, log=True),
    LOSS: Range(choices=["dapo", "grpo"]),
    BETA: Range(low=0.0, high=0.2, when={LOSS: ["grpo"]}),
}


def trainings(score):
    rng = random.Random(0)
    for _ in range(60):
        changes = {RATE: 10 ** rng.uniform(-4, -2), LOSS: rng.choice(["dapo", "grpo"])}
        if changes[LOSS] == "grpo":
            changes[BETA] = rng.uniform(0, 0.2)
        yield changes, score(changes) + rng.gauss(0, 0.01)


by_rate, by_loss = (lambda changes: changes[RATE] * 100), (lambda changes: float(changes[LOSS] == "dapo"))


@pytest.mark.parametrize(("score", "key"), [(by_rate, RATE), (by_loss, LOSS)])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_key_that_the_score_depends_on_is_the_most_important(score, key, direction):
    found = importances(SPACE, list(trainings(score)), direction)
    assert next(iter(found)) == key
    assert found[key] > 0.6  # beta goes with loss_type
    assert sum(found.values()) == pytest.approx(1) and set(found) == set(SPACE)


def test_nothing_is_said_of_few_trainings_one_key_or_equal_scores():
    some = list(trainings(by_rate))
    assert importances(SPACE, some[: FEWEST_TRAININGS - 1], "maximize") == {}
    assert importances({RATE: SPACE[RATE]}, [({RATE: each[RATE]}, value) for each, value in some], "maximize") == {}
    assert importances(SPACE, [(changes, 0.5) for changes, _ in some], "maximize") == {}
