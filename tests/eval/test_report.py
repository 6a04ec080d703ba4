import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from eval.compare import prove
from eval.report import charts, transcripts, words

ATTACK = "<script>document.title = 'owned'</script></pre><img src=x onerror=alert(1)>{{ 7 * 7 }}\ud800"
LONG = "7" * 100_000


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def rendered(run, seconds) -> str:
    prove(run, "arithmetic", seconds)
    return (run / "report.html").read_text(encoding="utf-8")


def with_curves(run, steps: int):
    for folder, fields in (
        ("01-base", ("loss",)),
        ("02-grpo", ("reward", "accuracy", "length", "length_wrong", "voice_worked")),
    ):
        (run / folder).mkdir()
        rows = [
            {"step": step} | {field: None if step == 2 else 0.5 for field in fields} for step in range(1, steps + 1)
        ]
        (run / folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_model_text_is_shown_as_text(tmp_path, large_exams, write, seconds):
    bad = {"completion": ATTACK, "finish": "length", "well_formed": False, "voice": "none", "correct": False}
    large_exams["base"] = [row | bad for row in large_exams["base"]]
    page = Page(rendered(write(tmp_path, large_exams), seconds))
    assert "script" not in page.tags and "img" not in page.tags
    assert page.text.count("<script>document.title = 'owned'</script></pre>") == 10
    assert "{{ 7 * 7 }}\\ud800" in page.text


@pytest.mark.parametrize("completion", [LONG, f"<think>{LONG}</think><answer>{LONG}</answer>"])
def test_a_line_of_100_kb_is_clipped_and_says_so(tmp_path, large_exams, write, seconds, completion):
    well_formed = completion != LONG
    changes = {"completion": completion, "well_formed": well_formed, "correct": False}
    large_exams["rl"] = [row | changes for row in large_exams["rl"]]
    html = rendered(write(tmp_path, large_exams), seconds)
    assert "98,000 more characters in samples.jsonl" in html
    assert len(html) < 300_000


def test_page_asks_nothing_of_the_network(tmp_path, exams, write, seconds):
    page = Page(rendered(with_curves(write(tmp_path, exams), 3), seconds))
    assert not {"script", "link", "img", "iframe", "image", "object"} & set(page.tags)
    assert all(value.startswith("#") for name, value in page.attributes if name in ("href", "src", "xlink:href"))
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_ids_are_unique_and_every_reference_has_its_id(tmp_path, exams, write, seconds):
    html = rendered(with_curves(write(tmp_path, exams), 3), seconds)
    ids = re.findall(r'\bid="([^"]+)"', html)
    references = re.findall(r'(?:url\(|href=")#([^")]+)', html)
    assert len(ids) == len(set(ids))
    assert references and set(references) <= set(ids)


def test_charts_take_their_colors_from_the_page(tmp_path, exams, write, seconds):
    html = rendered(with_curves(write(tmp_path, exams), 3), seconds)
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--rl)" in drawings and "currentColor" in drawings
    assert not re.search(r"#[0-9a-f]{6}\b(?!-)", re.sub(r'(?:url\(|href=")#[^")]+', "", drawings))
    assert set(re.findall(r"var\((--\w+)\)", html)) <= set(re.findall(r"(--[\w-]+):", html))


def test_curves_without_their_metrics_are_left_out(tmp_path, exams, write, seconds):
    run = write(tmp_path, exams)
    assert "During training" not in rendered(run, seconds)
    html = rendered(with_curves(run, 1), seconds)
    assert "Share of each voice" in html and "Entropy" not in html


def test_every_step_is_marked(tmp_path, exams, write, seconds):
    exams["rl"] = [
        row | {"completion": "<think>1+1=3\nwait\n1+1=2\n2+1=5</think><answer>5</answer>"} for row in exams["rl"]
    ]
    html = rendered(write(tmp_path, exams), seconds)
    lines = re.findall(r'<div class="(right|wrong|retracted)"><span class="mark">.</span>(?:<s>)?([^< ]+)', html)
    assert [line for line in lines if line[1] == "1+1=3"] == [("retracted", "1+1=3")] * 3
    assert [line for line in lines if line[1] == "2+1=5"] == [("wrong", "2+1=5")] * 3
    assert ("right", "1+1=2") in lines


def test_transcripts_are_chosen_by_position_and_cover_the_depths(large_exams):
    pairs = transcripts.fixed_pairs(large_exams["base"], large_exams["rl"])
    assert [pair.depth for pair in pairs] == [2, 2, 2, 3, 3, 4, 4, 4, 5, 5]  # 40 problems, every fourth of the sorted
    assert all(pair.rl.correct for pair in pairs)
    assert [pair.base.correct for pair in pairs] == [True] * 5 + [False] * 5


def test_fewer_problems_than_ten_are_shown_once_each(exams):
    assert len(transcripts.fixed_pairs(exams["base"], exams["rl"])) == 4


def test_headline_says_which_way_it_went():
    def summary(low, high, verdict):
        gain = {"estimate": (low + high) / 2, "low": low, "high": high}
        return {"base": {"pass_at_1": 0.5}, "rl": {"pass_at_1": 0.5}, "paired_difference": gain, "verdict": verdict}

    assert words.headline(summary(0.1, 0.3, "shown")).startswith("Shown: RL raised")
    assert words.headline(summary(-0.3, -0.1, "not shown")).startswith("Not shown: RL lowered")
    assert words.headline(summary(-0.1, 0.1, "not shown")).endswith("cannot tell the difference from luck.")


@pytest.mark.parametrize(
    ("forced", "part"), [(0.5, "50% of the gain"), (0.1, "none of the gain"), (0.9, "all of the gain")]
)
def test_part_of_the_gain_that_the_base_already_had(forced, part):
    summary = {
        "base": {"pass_at_1": 0.2},
        "forced_worked": {"pass_at_1": forced},
        "verdict": "shown",
        "paired_difference": {"estimate": 0.6},
        "rl_minus_forced_worked": {"estimate": 0.3, "low": 0.2, "high": 0.4, "verdict": "shown"},
    }
    assert part in words.voice(summary)
    assert "by 30.0 points (95% interval 20.0 to 40.0)" in words.voice(summary).replace("+", "")


def test_moving_average_skips_gaps_and_shortens_at_the_ends():
    values = np.array([1.0, 2.0, np.nan, 4.0, 6.0])
    np.testing.assert_allclose(charts.smooth(values, 3), [1.5, 1.5, np.nan, 5.0, 5.0])
    np.testing.assert_array_equal(charts.smooth(values, 1), values)
