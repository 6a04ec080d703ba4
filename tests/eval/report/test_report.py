"""The page: whole, harmless, small, and asking nothing of the network."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from eval.report import charts, heat, page, transcripts
from eval.report import curves as training_curves

ATTACK = "<script>alert(1)</script></pre><img src=x onerror=alert(1)>{{ 7 * 7 }}<!--\ud800 \u202eevil\u2028\x00"
SEEN = "<script>alert(1)</script></pre><img src=x onerror=alert(1)>{{ 7 * 7 }}<!--\\ud800 \\u202eevil\\u2028\\u0000"
LONG = "7" * 100_000


class Page(HTMLParser):
    """Tags, attributes and text of a page, and what is inside of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.open = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        if self.open == "script":
            self.scripts[-1] += data
        elif self.open != "style":
            self.text += data


@pytest.fixture
def render(summary, curves, manifest):
    def rendered(samples, **changes):
        return page.render(summary | changes, samples, curves(), manifest)

    return rendered


def transcripts_of(html):
    return json.loads(Page(html).scripts[0])


def test_sections_stand_in_their_order(render, exams):
    html = render(exams())
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", html)
    assert titles == [
        "More samples per problem",
        "What the difference is made of",
        "Accuracy by difficulty",
        "How true the chains are",
        "During training",
        "Solved anew",
        "Transcripts",
        "How it was measured",
        "What it does not show",
    ]
    assert "Shown: RL raised pass@1 from 40.0% to 91.0%" in Page(html).text


@pytest.mark.parametrize("completion", [ATTACK, f"<think>{ATTACK}</think><answer>{ATTACK}</answer>"])
def test_model_text_is_shown_as_text(render, exams, completion):
    samples = exams(40, completion)
    html = render(samples)
    seen = Page(html)
    assert seen.tags.count("script") == 2 and "img" not in seen.tags
    assert seen.text.count(SEEN) >= 10
    assert html.count("</script") == 2
    assert SEEN in json.dumps(transcripts_of(html)["problems"][0], ensure_ascii=False).replace("\\\\", "\\")
    assert html.encode("utf-8").decode("utf-8") == html


def test_questions_and_names_are_shown_as_text(render, exams, summary):
    names = summary["names"] | {"rl": "<b>$x$"}
    html = render(exams(4, question=ATTACK), names=names, title=ATTACK)
    assert "img" not in Page(html).tags and "b" not in Page(html).tags
    assert Page(html).text.count(SEEN) >= 4


@pytest.mark.parametrize("completion", [LONG, f"<think>{LONG}</think><answer>{LONG}</answer>"])
def test_a_line_of_100_kb_is_clipped_and_says_so(render, exams, completion):
    html = render(exams(4, completion))
    left_out = 100_000 - (401 if completion != LONG else 2_000)  # a step is read up to 401 characters
    assert f"{left_out:,} more characters in samples.jsonl" in html
    assert transcripts_of(html)["problems"][0][5][2][5] == left_out
    assert len(html) < 400_000


def test_steps_are_clipped_at_most_text_and_the_rest_is_counted(exams):
    lines = "\n".join(f"{n:03}" for n in range(100))
    shown = transcripts.all_shown(exams(1, f"<think>{lines}</think><answer>1</answer>"))
    chain = transcripts.cut(shown[0].chains[2], 120)
    assert (len(chain.steps), chain.left_out) == (40, 180)


def test_1200_problems_of_three_columns_stay_below_3_mb(render, exams):
    assert len(render(exams(1_200)).encode()) < 1_000_000
    html = render(exams(1_200, "é" * 4_000))
    assert len(html.encode()) < 3_000_000
    problems = transcripts_of(html)["problems"]
    assert len(problems) == 1_200
    assert {len(problem[5][2][4]) + problem[5][2][5] for problem in problems} == {4_000}


def test_page_asks_nothing_of_the_network(render, exams):
    seen = Page(render(exams()))
    assert not {"link", "img", "iframe", "image", "object", "base"} & set(seen.tags)
    assert all(value.startswith("#") for name, value in seen.attributes if name in ("href", "src", "xlink:href"))
    digest = base64.b64encode(hashlib.sha256(seen.scripts[1].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert ("content", policy) in seen.attributes
    assert "innerHTML" not in seen.scripts[1]


def test_ids_are_unique_and_every_reference_has_its_id(render, exams):
    html = render(exams())
    ids = re.findall(r'\bid="([^"]+)"', html)
    references = re.findall(r'(?:url\(|href=")#([^")]+)', html)
    assert len(ids) == len(set(ids))
    assert references and set(references) <= set(ids)


def test_charts_take_their_colors_from_the_page(render, exams):
    html = render(exams())
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--rl)" in drawings and "currentColor" in drawings
    drawn = re.sub(r'(?:url\(|href=")#[^")]+|id="[^"]+', "", drawings)
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) <= {"#000000"}  # clip paths and hatches, never seen
    assert set(re.findall(r"var\((--[\w-]+)\)", html)) <= set(re.findall(r"(--[\w-]+):", html))


def test_any_columns_will_do_and_what_does_not_apply_is_left_out(render, exams, summary, manifest):
    names = {f"run-{n}": f"run {n}" for n in range(8)}
    scores = dict.fromkeys(names, summary["scores"]["rl"])
    samples = dict.fromkeys(names, exams(12)["rl"])
    bare = {"gain": None, "sharpened": None, "seconds": None, "checkpoints": {}, "seed": None, "recipe": None}
    several = summary | bare | {"names": names, "scores": scores, "comparisons": []}
    html = page.render(several, samples, {}, {})
    assert "During training" not in html and "What the difference is made of" not in html
    assert "var(--h)" in html and "Solved anew" not in html
    score = several["scores"]["run-0"]
    once = {"axes": {}, "greedy": None, "pass_at_k": score["pass_at_k"][:1], "maj_at_k": score["maj_at_k"][:1]}
    alone = several | {"n_samples": 1, "names": {"a": "A"}, "scores": {"a": score | once}}
    html = page.render(alone, {"a": exams(1)["rl"]}, {}, {})
    assert "outside of the training text" not in html and "More samples per problem" not in html


def test_first_wrong_steps_may_be_counted_by_number_or_by_its_text(summary):
    drawn = charts.first_wrong_step(summary)
    for score in summary["scores"].values():
        score["first_wrong_step"] = {int(step): share for step, share in score["first_wrong_step"].items()}
    assert charts.first_wrong_step(summary) == drawn
    for score in summary["scores"].values():
        score["first_wrong_step"] = {}
    assert charts.first_wrong_step(summary) is None


def test_every_step_is_marked_with_its_reason(render, exams):
    html = render(exams(1, "<think>0+1=3\nwait\n0+1=1\n1+1=5</think><answer>5</answer>"))
    lines = re.findall(r'<div class="(\w+)"><span class="mark"[^>]*>(.)</span><bdi>([^<]+)</bdi>(?: <i>([^<]*))?', html)
    assert lines[-3:] == [
        ("retracted", "↶", "0+1=3", "taken back: 0+1 is 1"),
        ("right", "✓", "0+1=1", ""),
        ("wrong", "✗", "1+1=5", "1+1 is 2"),
    ]
    steps = transcripts_of(html)["problems"][0][5][2][4]
    assert steps == [[2, "0+1=3", "0+1 is 1"], "wait", "0+1=1", [1, "1+1=5", "1+1 is 2"]]


def test_transcripts_are_chosen_by_position_and_cover_the_depths(exams):
    samples = exams(40)["base"]
    places = transcripts.fixed(samples)
    assert [samples.questions[place].depth for place in places] == [2, 2, 2, 3, 3, 4, 4, 4, 5, 5]
    assert places[:4] == [0, 16, 32, 9]  # of the ten of depth 2 every fourth, then of depth 3
    assert transcripts.fixed(exams(4)["base"]) == [0, 1, 2, 3]


def test_transcripts_of_the_exam_proper_open_the_browser(exams):
    assert sorted(transcripts.fixed(exams(40, n_inside=10)["base"])) == list(range(10))
    assert transcripts.fixed(exams(3, n_inside=0)["base"]) == [0, 1, 2]  # there is nothing else


def test_heat_map_has_a_row_for_each_depth_and_axis(summary):
    del summary["scores"]["rl"]["cells"][0]
    tables = dict(heat.by_difficulty(summary))
    assert [row.label for row in tables["sum"]] == ["2 operations", "3 operations", "4 operations", "5 operations"]
    assert [heat.said(cell) for cell in tables["sum"][0].cells] == ["40.0 [38.0, 42.0]", "62.0 [60.0, 64.0]", "-"]
    assert [row.label for row in tables["outside of the training text"]] == ["more operands"]
    assert heat.strength({"estimate": 1.0}) == "60%"


def test_a_metric_of_few_steps_is_drawn_as_points():
    rows = [{"step": step, "loss": 1.0} for step in range(10)]
    rows[0]["dev_pass_at_1"] = rows[5]["dev_pass_at_1"] = 0.5
    captions = dict(training_curves.training({"grpo": rows}))
    assert [caption.split(":")[0] for caption in captions] == ["dev accuracy"]


def test_moving_average_skips_gaps_and_shortens_at_the_ends():
    values = np.array([1.0, 2.0, np.nan, 4.0, 6.0])
    np.testing.assert_allclose(training_curves.smooth(values, 3), [1.5, 1.5, np.nan, 5.0, 5.0])
    np.testing.assert_array_equal(training_curves.smooth(values, 1), values)
