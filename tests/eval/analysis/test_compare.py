"""From samples to a summary: numbers by hand, verdicts, what is compared with what, and what is refused."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest

from eval.analysis.columns import columns_of
from eval.analysis.compare import SeedScore, differences, summarize
from eval.exam.lineup import Lineup
from eval.report.page import as_csv
from eval.report.story import sentences
from eval.report.words import differing
from r1_mini.errors import UserError
from tests.eval.conftest import cool, make_row, make_rows, write_exam, write_run


def exam(folder, name, marks, **changes):
    return write_exam(folder / name, make_rows(marks, **changes))


def test_a_run_compares_rl_to_its_base_and_to_its_base_forced(tmp_path):
    columns = columns_of([write_run(tmp_path / "r", 3, base="1000", forced="1100", rl="1110")])
    summary = summarize(columns)
    found = {(c.before, c.after): c.estimate for c in summary.comparisons}
    assert found == {("base", "rl"): 0.5, ("forced_worked", "rl"): 0.25, ("base", "forced_worked"): 0.25}
    short = summary.as_json()
    assert {name: short[name]["pass_at_1"] for name in columns} == {"base": 0.25, "forced_worked": 0.5, "rl": 0.75}
    assert short["paired_difference"]["estimate"] == 0.5
    assert short["verdict"] == "shown"  # eight problems: 2 of 256 choices of signs are as far, p = 1/128
    rows = list(csv.DictReader(io.StringIO(as_csv(summary))))
    figures = {(row["candidate"], row["figure"]): row["estimate"] for row in rows}
    assert len(figures) == len(rows)
    assert figures["after RL", "pass@1"] == "0.75" and figures["after RL", "pass@4"] == "1.0"
    assert figures["after RL - base", "difference in pass@1"] == "0.5"


def test_seeds_of_one_recipe_become_one_column_with_every_seed_shown(tmp_path):
    runs = [write_run(tmp_path / f"r{seed}", seed, "1000", "1100", rl) for seed, rl in ((0, "1110"), (1, "1111"))]
    summary = summarize(columns_of(runs))
    assert summary.scores["rl"].seeds == [SeedScore(0, 0.75), SeedScore(1, 1.0)]
    assert summary.comparisons[0].estimate == pytest.approx(0.625)
    one = summarize(columns_of(runs[:1]))
    width = [s.comparisons[0].high - s.comparisons[0].low for s in (one, summary)]
    assert width[0] < width[1]  # two seeds that differ leave more open than one that claims nothing of others


def test_a_start_that_is_cooled_is_compared_at_its_own_temperature_and_with_greedy_answers(tmp_path):
    run = cool(write_run(tmp_path / "r", 0, base="1000", forced="1100", rl="1111"), "1110", 0.3, greedy="01")
    columns = columns_of([run])
    summary = summarize(columns)
    assert summary.names["forced_cooled"] == "base, forced, T=0.3" and summary.decoding["temperature"] == 1.0
    assert {(c.before, c.after): c.estimate for c in summary.comparisons}["forced_cooled", "rl"] == 0.25
    greedy = summary.greedy
    assert (greedy.before, greedy.after, greedy.estimate, greedy.verdict) == ("forced_cooled", "rl", 1.0, "shown")
    assert greedy.p_value == pytest.approx(2 / 256) and greedy.p_adjusted == pytest.approx(5 * 2 / 256)
    assert [each.p_adjusted for each in summary.comparisons] == [pytest.approx(5 * 2 / 256)] * 4
    parts = {part.name: part.estimate for part in summary.gain.parts}
    assert (parts["sharper sampling"], parts["fewer slips"]) == (pytest.approx(0.5), pytest.approx(0.25))
    rows = {(row["candidate"], row["figure"]): row["estimate"] for row in csv.DictReader(io.StringIO(as_csv(summary)))}
    assert rows["after RL - base, forced, T=0.3", "difference, both greedy"] == "1.0"
    without = summarize(columns_of([cool(write_run(tmp_path / "s", 0, "1000", "1100", "1111"), "1110", 0.3)]))
    assert without.greedy is None and without.comparisons[0].p_adjusted == pytest.approx(4 * 2 / 256)


def test_the_same_weights_at_another_temperature_are_not_said_to_be_the_same(tmp_path):
    columns = columns_of([cool(write_run(tmp_path / "r", 0, "1000", "1100", "1100"), "1110", 0.3)])
    columns.lineup.pairs.append(("forced_worked", "forced_cooled"))
    for key in ("forced_worked", "forced_cooled", "rl"):
        columns[key] = replace(columns[key], sat=(("a hash", "worked"),))
    same = {(each.before, each.after): each.same_checkpoint for each in summarize(columns).comparisons}
    assert same["forced_worked", "rl"] and not same["forced_worked", "forced_cooled"]


def test_each_seed_has_the_temperature_that_is_best_for_it_and_an_exam_alone_is_not_compared_with_it(tmp_path):
    runs = [write_run(tmp_path / f"r{seed}", seed, "1000", "1100", "1111") for seed in (0, 1)]
    for run, temperature in zip(runs, (0.3, 0.1), strict=True):
        cool(run, "1110", temperature)
    summary = summarize(columns_of(runs))
    assert summary.names["forced_cooled"] == "base, forced, best T"
    assert len(summary.scores["forced_cooled"].seeds) == 2
    folders = [run / "eval" / "arithmetic" for run in runs]
    assert len(columns_of(folders)) == 6  # three columns each: none of them is cooled
    with pytest.raises(UserError, match="temperature"):
        columns_of([folders[0] / "01-base", folders[0] / "01-base-worked-cooled"])


def test_runs_of_two_recipes_are_two_columns_of_their_last_checkpoints(tmp_path):
    made = (("a0", 0, "1100"), ("b0", 0, "1110"), ("a1", 1, "1100"), ("b1", 1, "1110"))
    runs = [write_run(tmp_path / name, seed, "1000", "1100", rl, setting=name[0]) for name, seed, rl in made]
    summary = summarize(columns_of(runs))
    assert [summary.names[name] for name in summary.scores] == ["a0", "b0"]
    assert [len(score.seeds) for score in summary.scores.values()] == [2, 2]
    assert [(c.before, c.after, c.estimate) for c in summary.comparisons] == [("a0", "b0", 0.25)]


def test_of_several_runs_each_is_compared_with_the_first_and_the_keys_that_differ_are_named(tmp_path):
    runs = []
    for name, rate, rl in (("s0", 8e-4, "1111"), ("s1", 2e-3, "1111"), ("s2", 1e-4, "1100")):
        changes = {"stages": [{"kind": "base", "seed": rate}, {"kind": "grpo", "trainer": {"lr": rate}}], "name": name}
        runs.append(write_run(tmp_path / name, 0, "1000", "1100", rl, setting=name, **changes))
    summary = summarize(columns_of(runs))
    assert [(c.after, c.verdict) for c in summary.comparisons] == [("s1", "not shown"), ("s2", "worse")]
    assert summary.recipes == {"stages.1.trainer.lr": {"s0": "0.0008", "s1": "0.002", "s2": "0.0001"}}
    assert differing(summary) == [["stages.1.trainer.lr", "0.0008", "0.002", "0.0001"]]
    assert "s2 is worse than s0: −50.0 points" in sentences(summary)[2]


def test_the_folder_of_an_exam_keeps_its_columns_and_pairs(tmp_path):
    whole = columns_of([write_run(tmp_path / "r", 3, "1000", "1100", "1110")])
    assert summarize(columns_of([tmp_path / "r" / "eval" / "arithmetic"])) == summarize(whole)
    lineup = Lineup.of("abc", forced=True)
    assert lineup.pairs == [("a", "b"), ("a+worked", "b"), ("a", "c"), ("a+worked", "c"), ("a", "a+worked")]
    for each in lineup.columns.values():
        exam(tmp_path / "all", each.folder, {"k": "10", "l": "01"})
    lineup.write(tmp_path / "all")
    found = columns_of([tmp_path / "all"])
    assert found.lineup == lineup and [each.label for each in found.values()] == ["a", "a, forced", "b", "c"]


def test_names_are_shown_short_and_visible(tmp_path):
    folders = [exam(tmp_path, name, {"k": "10", "l": "01"}) for name in ("a\u202eb", f"{'x' * 120}y{'z' * 120}")]
    assert list(summarize(columns_of(folders)).names.values()) == [r"a\u202eb", f"{'x' * 20}…{'z' * 19}"]


def test_checkpoints_of_one_hash_are_one_unless_one_is_forced(tmp_path):
    rows = make_rows({key: "10" for key in "abcdefgh"})
    sat = (("x", None), ("x", None), ("x", "worked"), ("y", None))
    folders = [write_exam(tmp_path / str(n), rows, checkpoint=x, voice=voice) for n, (x, voice) in enumerate(sat)]
    summary = summarize(columns_of(folders))
    assert [each.same_checkpoint for each in summary.comparisons] == [True, False, False]
    assert summary.gain is None and summary.sharpened is None
    assert not summarize(columns_of([write_run(tmp_path / "r", 0, "1", "1", "1")])).comparisons[0].same_checkpoint


def test_several_comparisons_are_corrected_together(tmp_path):
    marks = [{str(n): mark for n in range(7)} for mark in ("00", "11", "11", "11", "11")]
    folders = [exam(tmp_path, name, each) for name, each in zip("abcde", marks, strict=True)]
    found = summarize(columns_of(folders)).comparisons
    assert [(c.before, c.after) for c in found] == [("a", other) for other in "bcde"]
    assert [c.p_value for c in found] == [pytest.approx(2 / 128)] * 4  # all seven gained: 2 of 2^7 choices of signs
    assert [c.p_adjusted for c in found] == [pytest.approx(8 / 128)] * 4
    assert [c.verdict for c in found] == ["not shown"] * 4
    assert summarize(columns_of(folders[:2])).comparisons[0].verdict == "shown"
    assert summarize(columns_of(folders[1::-1])).comparisons[0].verdict == "worse"


def test_the_headline_leaves_out_the_axes_and_reports_them_apart(tmp_path):
    rows = make_rows({"a": "11", "b": "11"}) + make_rows({"c": "00"}, axis="far", depth=7)
    summary = summarize(columns_of([write_exam(tmp_path / name, rows) for name in "xy"]))
    score = summary.scores["x"]
    assert (score.pass_at_1, score.axes["far"].estimate, summary.n_problems) == (1.0, 0.0, 2)
    assert [(cell.axis, cell.depth, cell.estimate) for cell in score.cells] == [(None, 2, 1.0), ("far", 7, 0.0)]


@pytest.mark.parametrize("n_seeds", [1, 3])
@pytest.mark.parametrize(("n_problems", "high", "detectable"), [(20, 0.161, 0.230), (2, 1, 1)])  # Wilson's of 0 of 20
def test_an_exam_in_which_nothing_differs_does_not_claim_to_know_the_difference(n_seeds, n_problems, high, detectable):
    scores_SP = np.ones((n_seeds, n_problems))
    (found,) = differences({"a": scores_SP, "b": scores_SP}, [("a", "b")])
    assert (found.verdict, found.p_value) == ("not shown", 1)
    assert found.ends == pytest.approx((0, -high, high), abs=0.001)
    assert found.detectable == pytest.approx(detectable, abs=0.001)


def test_how_much_of_a_gain_is_form(tmp_path):
    loose = [make_row(str(n), "x", completion="it is 3", lenient=n < 12) for n in range(20)]  # right without tags
    strict = [make_row(str(n), "1" if n < 16 else "0") for n in range(20)]
    folders = [write_exam(tmp_path / name, rows) for name, rows in (("base", loose), ("rl", strict))]
    summary = summarize(columns_of(folders))
    assert [(score.pass_at_1, score.lenient) for score in summary.scores.values()] == [(0.0, 0.6), (0.8, 0.8)]
    assert summary.comparisons[0].estimate == 0.8
    assert summary.gain.form == pytest.approx(0.6)  # 80 points, of which 20 are left if form does not count


def test_seeds_that_agree_on_everything_right_are_still_not_certain(tmp_path):
    runs = [write_run(tmp_path / f"r{seed}", seed, "10", "10", "11") for seed in (0, 1, 2)]
    interval = summarize(columns_of(runs)).scores["rl"].pass_at_1_interval
    assert interval.high == 1.0 and interval.low < 0.7  # Wilson's for 8 of 8


def test_what_cannot_be_compared_is_one_clear_line(tmp_path):
    marks, seeds = {"a": "10", "b": "11"}, {"p0": 0, "p1": 1, "q0": 0, "r0": 3, "r1": 3}
    runs = {each: write_run(tmp_path / each, seed, "10", "10", "10", each[0]) for each, seed in seeds.items()}
    one, edited, unfinished = (exam(tmp_path, name, marks) for name in ("one", "two", "three"))
    same, cold = exam(tmp_path / "x", "one", marks), exam(tmp_path / "y", "one", marks, temperature=0.5)
    assert len(columns_of([one, same])) == 2  # of one name
    text = (edited / "samples.jsonl").read_text()
    (edited / "samples.jsonl").write_text(text.replace('"correct": false', '"correct": true'))
    (unfinished / "node.json").unlink()
    for paths, line in (
        ([runs["p0"], runs["p1"], runs["q0"]], r"`seed`, or one comes twice: \[0, 1\] and \[0\]"),
        ([runs["r0"], runs["r1"]], r"`seed`, or one comes twice: \[3, 3\]"),
        *(([one, edited], "changed since"), ([one, unfinished], "no finished exam")),
        *(([one, tmp_path / "none"], "none: no exam"), ([one, cold], r"`temperature`: 1\.0 and 0\.5")),
    ):
        with pytest.raises(UserError, match=line) as refused:
            columns_of(paths)
        assert "\n" not in str(refused.value)
