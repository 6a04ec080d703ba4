"""The page: complete, harmless, small, and without a request to the network."""

import base64
import hashlib
import io
import json
import re
import shutil
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from eval.analysis.columns import columns_of
from eval.analysis.compare import summarize
from eval.report import page, plots, transcripts, words
from tests.eval import conftest as exams
from tests.eval.report.conftest import compared, make_curves, make_samples

ATTACK = "<script>alert(1)</script></pre><img src=x onerror=alert(1)>{{ 7 * 7 }}<!--\ud800 \u202eevil\u2028\x00"
SEEN = "<script>alert(1)</script></pre><img src=x onerror=alert(1)>{{ 7 * 7 }}<!--\\ud800 \\u202eevil\\u2028\\u0000"
LONG = "7" * 100_000


class Page(HTMLParser):
    """Tags, attributes and text of a page, and what is inside of its scripts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text, self.open, self.scripts = [], [], "", "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open = tag

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        if self.open == "script":
            self.scripts.append(data)
        elif self.open != "style":
            self.text += data


def problems_of(html):
    return json.loads(Page(html).scripts[0])["problems"]


def test_a_page_is_complete_and_asks_nothing_of_the_network(render):
    html = render(make_samples(), make_curves())
    seen = Page(html)
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", html) == [
        *("<bdi>21+1+1 = 23</bdi>", "What changed", "What the difference is made of", "How large a problem may be"),
        *("How true the chains are", "All figures", "Transcripts", "What it does not show"),
    ]
    assert "Of +51.0 points (95% interval +49.0 to +53.0), the base gets 22.0 without further training" in seen.text
    assert not {"link", "img", "iframe", "image", "object", "base"} & set(seen.tags)
    assert all(value.startswith("#") for name, value in seen.attributes if name in ("href", "src", "xlink:href"))
    digest = base64.b64encode(hashlib.sha256(seen.scripts[1].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert ("content", policy) in seen.attributes
    assert "innerHTML" not in seen.scripts[1]
    ids, references = re.findall(r'\bid="([^"]+)"', html), re.findall(r'(?:url\(|href=")#([^")]+)', html)
    assert len(ids) == len(set(ids)) and references and set(references) <= set(ids)


@pytest.mark.parametrize("completion", [ATTACK, f"<think>{ATTACK}</think><answer>{ATTACK}</answer>"])
def test_model_text_is_embedded_as_text(render, completion):
    html = render(make_samples(40, completion))
    seen = Page(html)
    assert seen.tags.count("script") == html.count("</script") == 2 and "img" not in seen.tags
    chains = [json.dumps(problem["chains"][2], ensure_ascii=False) for problem in problems_of(html)]
    assert SEEN in seen.text  # of the problem on the first screen
    assert len(chains) == 40 and all(SEEN in chain.replace(r"\\", "\\") for chain in chains)
    assert html.encode("utf-8").decode("utf-8") == html


def test_questions_and_names_are_shown_as_text(render, summary):
    names = summary["names"] | {"rl": "<b>$x$"}
    html = render(make_samples(4, question=ATTACK), names=names, title=ATTACK)
    assert not {"img", "b"} & set(Page(html).tags)
    assert SEEN in Page(html).text
    assert problems_of(html)[0]["question"] == SEEN


@pytest.mark.parametrize("completion,shown", [(LONG, 2_000), (f"<think>{LONG}</think><answer>{LONG}</answer>", 401)])
def test_a_line_of_100_kb_is_clipped_and_says_so(render, completion, shown):
    html = render(make_samples(4, completion))
    assert problems_of(html)[0]["chains"][2]["left_out"] == 100_000 - shown  # a step is read up to 401 characters
    assert len(html) < 400_000


def test_1200_problems_of_three_columns_stay_below_one_and_a_half_mb(render):
    html = render(make_samples(1_200, "é" * 4_000), make_curves())
    assert len(html.encode()) < 1_500_000
    chains = [problem["chains"][2] for problem in problems_of(html)]
    assert [len(chain["raw"]) + chain["left_out"] for chain in chains] == [4_000] * 1_200


def luminance(color):
    return np.dot([0.2126, 0.7152, 0.0722], [((c / 255 + 0.055) / 1.055) ** 2.4 for c in bytes.fromhex(color[1:])])


def test_every_color_reads_on_the_light_and_on_the_dark_page(render):
    light, dark = map(luminance, re.findall(r"--page: (#\w{6})", render(make_samples(1))))
    for color in map(luminance, [*plots.PALETTE, plots.RED]):
        assert (light + 0.05) / (color + 0.05) >= 3 and (color + 0.05) / (dark + 0.05) >= 3  # WCAG 2.1, for graphics


def test_any_columns_will_do_and_what_does_not_apply_is_left_out(summary):
    names, score = {f"run-{n}": f"run {n}" for n in range(8)}, summary["scores"]["rl"]
    samples = dict.fromkeys(names, make_samples(12)["rl"])
    none = {"gain": None, "sharpened": None, "seconds": None, "checkpoints": {}, "seed": None, "recipe": None}
    several = summary | none | {"names": names, "scores": dict.fromkeys(names, score), "comparisons": []}
    html = page.render_exam(compared(several), samples, page.Training(), {})
    for absent in ("During training", "Picked by a rule", "What the difference is made of"):
        assert absent not in html
    assert html.count(plots.PALETTE[7]) > 1
    once = {"axes": {}, "greedy": None, "pass_at_k": score["pass_at_k"][:1], "maj_at_k": score["maj_at_k"][:1]}
    alone = several | {"n_samples": 1, "names": {"a": "A"}, "scores": {"a": score | once}}
    html = page.render_exam(compared(alone), {"a": make_samples(1)["rl"]}, page.Training(), {})
    assert "outside of training</th>" not in html and "pass@k</abbr>" not in html


def test_charts_have_room_for_long_names():
    with warnings.catch_warnings(action="error"):  # matplotlib warns where no room is left for the bars
        plots.bars("share", ["W" * 40] * 3, width=5.2).figure.draw_without_rendering()
    lines = plots.lines("title", "k", [plots.Line("w" * 40, plots.GRAY, pd.Series([0.0, 1.0]))] * 8)
    assert 'height="280.8pt"' in lines  # 3 inches, and 0.18 for each row of the legend after the third


def test_every_step_is_embedded_with_its_verdict_and_reason_up_to_the_most_text():
    samples = make_samples(1, "<think>0+1=3\nwait\n0+1=1\n1+1=5</think><answer>5</answer>")["rl"]
    steps = [["0+1=3", "retracted", "0+1 is 1"], ["wait"], ["0+1=1"], ["1+1=5", "wrong", "1+1 is 2"]]
    for most, shown, left_out in ((2_000, steps, 0), (12, [*steps[:2], ["0+1"]], 7)):
        found = transcripts.transcript(samples.first[0], most)
        assert (found["steps"], found["left_out"]) == (shown, left_out)


def test_transcripts_are_chosen_by_position_and_cover_the_depths_of_the_exam_proper():
    samples = make_samples(40)["base"]
    places = transcripts.fixed(samples)
    assert [samples.questions[place].depth for place in places] == [2, 2, 2, 3, 3, 4, 4, 4, 5, 5]
    assert places[:4] == [0, 16, 32, 9]  # of the ten of depth 2 every fourth, then of depth 3
    assert transcripts.fixed(make_samples(4)["base"]) == [0, 1, 2, 3]
    assert sorted(transcripts.fixed(make_samples(40, n_inside=10)["base"])) == list(range(10))
    assert transcripts.fixed(make_samples(3, n_inside=0)["base"]) == [0, 1, 2]  # there is nothing else


def picked(summary, samples, estimate=0.5):
    summary["comparisons"][0]["estimate"] = estimate
    found = transcripts.picked(compared(summary), samples)
    return [found[key] for key in ("question", "depth", "n", "like", "unlike")]


def test_the_problem_of_the_first_screen_is_picked_by_a_rule(summary):
    samples = make_samples(40)  # those of depth 3 are 1, 5, 9, …: wrong before, right after
    assert picked(summary, samples) == ["21+1+1", 3, 10, 10, 0]
    assert picked(summary, samples, -0.5) == ["21+1+1", 3, 10, 0, 10]  # none got worse: the middle one of all
    assert picked(summary, make_samples(40, n_inside=9)) == ["5+1+1", 3, 2, 2, 0]  # the exam proper: 1 and 5
    swapped = samples | {"base": samples["rl"], "rl": samples["base"]}
    assert picked(summary, swapped, -0.5) == ["21+1+1", 3, 10, 10, 0]
    found = transcripts.picked(compared(summary), make_samples(40, "<think>21+1=22\n22+1=9</think><answer>9</answer>"))
    assert (found["like"], found["chains"]["rl"]["steps"]) == (0, [["21+1=22"], ["22+1=9", "wrong", "22+1 is 23"]])


def test_accuracy_by_difficulty_has_a_row_for_each_depth_and_axis(summary):
    del summary["scores"]["rl"]["cells"][0]
    rows = words.by_difficulty(compared(summary))
    assert list(rows["sum"]) == ["2 operations", "3 operations", "4 operations", "5 operations"]
    *cells, absent = rows["sum"]["2 operations"]
    found = [(words.with_interval(cell), cell.n_problems) for cell in cells]
    assert found == [("40.0 [38.0, 42.0]", 300), ("62.0 [60.0, 64.0]", 300)] and absent is None
    assert list(rows["outside of training"]) == ["more operands"]


def test_a_completion_without_checked_steps_says_why():
    def found(completion, **changes):
        return transcripts.transcript(make_samples(1, completion, **changes)["rl"].first[0], 100)

    words = "<think>two\nand one</think><answer>2</answer>"
    assert (found(words, formula=None)["raw"], found(words, formula=None)["malformed"]) == ("two\nand one", False)
    assert found("<think></think><answer>2</answer>", formula=None)["steps"] == []  # answered at once
    assert found("2", formula=None) | {"raw": "2", "malformed": True} == found("2", formula=None)


def test_training_curves_are_those_of_the_logged_metrics():
    captions = [caption.split()[0] for caption, _ in plots.training({**make_curves(), "short": []}, {}, {})]
    assert captions == ["Loss,", "Reward", "dev", "Completion", "Share"]
    many = {**make_curves(), "a": [], "b": [], "c": []}  # of a graph, only what each stage is trained for
    assert [caption.split()[0] for caption, _ in plots.training(many, {}, {})] == ["Loss,", "Reward"]


def test_a_base_stage_of_default_steps_is_marked_where_its_mix_changes(tmp_path):
    stage = {
        "kind": "base",
        "trainer": {},
        "early_share": 0.85,
        "early_voices": {"direct": 0.1},
        "voices": {"direct": 0.7},
    }
    run = exams.write_run(tmp_path / "x", 0, "10", "11", "11", problems=[], stages=[stage])
    (run / "manifest.json").write_text(json.dumps({"stages": {"01-base": {"kind": "base", "sha256": {}}}}))
    (run / "01-base").mkdir()
    lines = (json.dumps({"step": step, "loss": 1.0}) for step in range(10, 201, 10))
    (run / "01-base" / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert page.Training.of(columns_of([run]), run).marks == {"base": (170.0, "the mix of voices changes")}


def test_runs_of_long_names_are_compared_and_many_samples_count_only_if_all_have_them(tmp_path):
    runs = [
        exams.write_run(tmp_path / (name * 50), 0, "10", "11", marks, setting=name)
        for name, marks in (("a", "11"), ("b", "00"))
    ]
    for run in runs:
        for folder in filter(Path.is_dir, (run / "eval" / "arithmetic").iterdir()):
            beside = run / "eval" / "arithmetic-many" / folder.name
            exams.write_exam(beside, exams.make_rows({"a": "1110", "b": "0000"}))
    columns = columns_of(runs)
    page.publish(columns, tmp_path / "out", Console(file=io.StringIO()))
    assert [score.many[-1].k for score in summarize(columns).scores.values()] == [4, 4]
    shutil.rmtree(runs[1] / "eval" / "arithmetic-many")
    assert all(score.many == [] for score in summarize(columns_of(runs)).scores.values())
    assert "a" * 20 in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_moving_average_over_a_twentieth_skips_gaps_and_shortens_at_the_ends():
    values = [1.0, 2.0, np.nan, 4.0, 6.0] + [6.0] * 55  # 60 steps, so the mean is that of three
    found = plots.smooth(pd.Series(values))
    np.testing.assert_allclose(found[:6], [1.5, 1.5, np.nan, 5.0, 16 / 3, 6.0])
    np.testing.assert_array_equal(plots.smooth(pd.Series(values[:5])), values[:5])
