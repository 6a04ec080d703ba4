"""The charts of an exam: each draws the numbers of the saved samples."""

import re

import numpy as np
import pytest

from eval.report import exam_plots, page
from r1_mini.problems import families
from tests.eval.report.conftest import compared, make_curves, make_samples, make_score


def texts(chart):
    """The texts of a drawing, in the order in which they are drawn."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", chart)


@pytest.fixture
def drawn(monkeypatch):
    """The curves that are handed to `lines`, by label."""
    found = {}

    def lines(title, x_label, series, **options):
        found.update({line.label: line.y.to_dict() for line in series} | options)
        return title

    monkeypatch.setattr(exam_plots, "lines", lines)
    return found


@pytest.fixture
def cells(monkeypatch):
    """The texts of the cells of each map, from below to above, and in a row from left to right."""
    found = []
    monkeypatch.setattr(exam_plots, "_cells", lambda axes, shades, texts: found.append(texts.tolist()))
    return found


def test_the_map_of_problems_counts_how_often_each_is_right_before_and_after(summary, cells):
    (free, _), (forced, _) = exam_plots.moves(compared(summary), make_samples(40))
    assert "how often base solves it, and how often after RL" in free and "how often base, forced solves it" in forced
    # base solves 0, 4, 8, … of 40 problems, after RL all but 0 and 20
    assert cells[0] == [["", "", "2"], ["", "", ""], ["30", "", "8"]]
    # forced solves the even ones: 0 and 20 are lost, the odd ones are won
    assert cells[1] == [["", "", "2"], ["", "", ""], ["20", "", "18"]]
    assert list(exam_plots.moves(compared(summary | {"comparisons": []}), make_samples(4))) == []


def test_the_ends_of_the_map_are_none_and_all_and_problems_outside_of_training_are_not_in_it(summary, cells):
    samples = make_samples(40, n_inside=20)
    ((_, chart), _) = exam_plots.moves(compared(summary), samples)
    assert cells[0] == [["", "", "1"], ["", "", ""], ["15", "", "4"]]
    assert "More often: 15 problems, less often: 1." in chart
    cells.clear()
    once = np.array([[True] + [False] * 15, [False] * 16, [True] * 15 + [False]])  # of 16 samples
    exam_plots._moves("title", once.mean(axis=1), np.ones(3), 8)
    assert cells[0][8] == ["1", "1", "", "", "", "", "", "1", ""]  # one of 16 is not none, 15 are not all


def test_the_map_of_sizes_has_a_cell_for_each_range_and_a_frame_around_what_is_taught(summary):
    taught = [families.solve("5+1+1"), families.solve("15+1+1")]
    maps = dict(exam_plots.sizes(compared(summary), make_samples(40), taught))
    assert list(maps) == ["base", "base, forced", "after RL"]
    # numbers 0 to 9 (0 is wrong), 10 to 19, 20 to 39 (20 is wrong): 90, 100, 95 %
    assert [text for text in texts(maps["after RL"]) if text.isdigit()][-3:] == ["90", "100", "95"]
    assert {"0–9", "10–19", "20–39"} <= set(texts(maps["after RL"]))
    assert maps["base"].count(exam_plots.AMBER) == 6  # two cells, one above the other, have six outer edges
    words = make_samples(4, formula=None)
    assert list(exam_plots.sizes(compared(summary), words, taught)) == []


def test_slips_are_shares_of_all_completions_not_of_the_wrong_ones(summary, drawn):
    exam_plots.slips(compared(summary), make_samples(40))
    assert drawn["after RL"][2] == 2 / 40  # problems 0 and 20
    # forced: the last step of odd problems; every third has taken a step back before, so it is its fourth line
    assert (drawn["base, forced"][2], drawn["base, forced"][4]) == (13 / 40, 7 / 40)
    assert set(drawn["base"].values()) == {0.0}
    assert exam_plots.slips(compared(summary), dict.fromkeys(summary["names"], make_samples(4)["base"])) is None


def test_pass_at_k_has_the_line_of_a_blind_guess_and_many_samples_where_there_are_some(summary, drawn):
    found = compared(summary | {"n_answers": 4})
    exam_plots.at_k(found, "pass_at_k")
    assert drawn["a blind guess among 4 answers"]["2"] == 1 - (3 / 4) ** 2
    for score in summary["scores"].values():
        score["many"] = [{"estimate": 0.5, "low": 0.4, "high": 0.6, "k": k} for k in (1, 64)]
    exam_plots.at_k(compared(summary), "many")
    assert list(drawn["after RL"]) == ["1", "64"]


def test_learning_is_the_exam_on_dev_where_it_was_asked_with_the_columns_as_levels(summary, drawn):
    curves, found = make_curves(), compared(summary)
    (((caption, _)),) = exam_plots.progress(found, curves)
    assert "on dev" in caption and drawn["dev"] == dict.fromkeys((1, 11, 21, 31), 0.7)
    assert [(label, level) for label, _, level in drawn["levels"]] == [("base", 0.40), ("base, forced", 0.62)]
    for row in curves["grpo"]:
        row.pop("dev_pass_at_1", None)
    (((caption, _)),) = exam_plots.progress(found, curves)
    assert "on training problems" in caption and len(drawn["rollouts"]) == 40
    assert list(exam_plots.progress(found, {"base": curves["base"]})) == []


def test_parts_that_are_about_nothing_share_a_bar(summary):
    small = [
        {"name": name, "estimate": each, "low": -0.01, "high": 0.01} for name, each in (("x", 0.001), ("y", 0.003))
    ]
    summary["gain"]["parts"] = [*summary["gain"]["parts"][2:4], *small]
    found = texts(exam_plots.gain_parts(compared(summary)))
    assert {"2 other parts", "+0.4", "+22.0", "+28.0"} <= set(found) and not {"x", "y"} & set(found)


def test_a_part_that_costs_points_is_red_and_one_that_brings_them_is_not(summary):
    assert exam_plots.RED in exam_plots.gain_parts(compared(summary))  # guesses better: -1.0
    summary["gain"]["parts"].pop()
    assert exam_plots.RED not in exam_plots.gain_parts(compared(summary))


def test_an_exam_outside_of_training_begins_with_its_axes(summary, monkeypatch):
    assert "+22.0: it could already do this, and did not" in texts(exam_plots.first_screen(compared(summary)))
    outside = compared(summary | {"n_problems": 10})
    assert {"more operands", "inside of training"} <= set(texts(exam_plots.first_screen(outside)))
    monkeypatch.setattr(
        exam_plots, "dots", lambda title, rows, *_: [(name, by["base"], by["after RL"]) for name, by in rows]
    )
    (_, *proper), (axis, *found) = exam_plots.outside(outside)
    assert axis == "more operands" and [each["estimate"] for each in (*proper, *found)] == [0.40, 0.91, 0.20, 0.455]


def test_a_ladder_of_many_rungs_is_drawn_in_two_lines_each(summary):
    for number in range(4):
        summary["names"][f"s{number}"], summary["scores"][f"s{number}"] = f"s{number}", make_score(0.5, 9)
    height = re.search(r'height="([\d.]+)pt"', exam_plots.rungs(compared(summary)))[1]
    assert float(height) == pytest.approx(7 * 2 * 0.2 * 72)


def test_runs_that_are_compared_have_their_curves_over_each_other(summary):
    rows = make_curves()["grpo"]
    charts = list(exam_plots.curves_of_runs(compared(summary), {"base": [rows, rows], "rl": [rows]}))
    assert [caption.split(",")[0] for caption, _ in charts] == [
        "Accuracy of the rollouts",
        "Completion length in tokens",
    ]
    found = [color for color in exam_plots.PALETTE if color in charts[0][1]]
    assert found == [exam_plots.PALETTE[0], exam_plots.PALETTE[2]] and "base" in texts(charts[0][1])


def test_the_progress_of_the_last_of_several_stages_of_rl_is_drawn_from_its_first_step(summary, drawn):
    rows = [{"step": step, "accuracy": step / 10} for step in range(1, 5)]
    list(exam_plots.progress(compared(summary), {"02-grpo": make_curves()["grpo"], "sft": [], "04-grpo": rows}))
    assert list(drawn["rollouts"]) == [1, 2, 3, 4]


def test_the_step_at_which_the_mix_of_a_base_stage_changes_is_marked(summary):
    training = page.Training(make_curves(), {"base": (30.0, "the mix of voices changes")})
    html = page.render_exam(compared(summary), make_samples(4), training, {})
    assert html.count("the mix of voices changes") == 1
