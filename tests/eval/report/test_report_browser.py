"""The page in a real browser: headless Chromium, skipped where there is none, but not in CI."""

import os
import shutil
from functools import cache

import pytest

from eval.report import page, rollouts, words
from tests.eval.report.conftest import MANIFEST, compared, make_curves, make_kept, make_samples, make_summary

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync")
ATTACK = "<script>document.title='owned'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        assert not os.environ.get("CI"), "CI has to test the page in Chromium, and there is none"
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@cache
def page_of(*samples):
    return page.render_exam(compared(make_summary()), make_samples(*samples), page.Training(), MANIFEST)


@cache
def page_with_kept(text=None, stages=1):
    kept = {f"0{number}-grpo": rollouts.read(make_kept(text)) for number in range(stages)}
    training = page.Training({"grpo": make_curves()["grpo"]}, kept=kept)
    return page.render_exam(compared(make_summary()), make_samples(4), training, MANIFEST)


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens the page of some samples; at the end of the test nothing was logged and nothing requested but the file."""
    logged, requested, contexts = [], [], []
    file = tmp_path / "report.html"

    def open_page(*samples, html=None, **settings):
        file.write_text(html or page_of(*samples), encoding="utf-8")
        contexts.append(chromium.new_context(**settings))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: logged.append(message.text))
        tab.on("pageerror", lambda error: logged.append(str(error)))
        tab.on("request", lambda request: requested.append(request.url))
        tab.goto(file.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert logged == []
    assert requested == [file.as_uri()]


def choose(tab, **values):
    for name, label in values.items():
        tab.locator(f"select[name={name}]").select_option(label=label)


def count(tab, **chosen):
    """How many problems are shown after a choice."""
    choose(tab, **chosen)
    return tab.locator("#count").inner_text()


def style(tab, where, name):
    return tab.locator(where).first.evaluate(f"e => getComputedStyle(e).{name}")


def titles(tab):
    return tab.locator(".problem h3").all_inner_texts()


def test_it_opens_with_the_ten_that_nobody_picked_and_needs_javascript(opened):
    tab = opened(40)
    assert count(tab) == "10 of 40 problems"
    assert not tab.locator("#more").is_visible()
    without = tab.context.browser.new_context(java_script_enabled=False).new_page()
    without.goto(tab.url)
    assert "The transcripts need JavaScript" in without.locator("main").inner_text()
    assert not without.locator("#browser").is_visible()
    without.context.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_first_screen_has_the_picture_one_problem_and_the_verdict(opened, width, height):
    tab = opened(40, None, viewport={"width": width, "height": height})
    for part in ("h1", ".first figure svg", ".pair", ".verdict", ".limit"):
        box = tab.locator(part).bounding_box()
        assert box["y"] + box["height"] <= height and box["x"] + box["width"] <= width, part
    before, after = (chain.bounding_box() for chain in tab.locator(".pair .chain").all())
    assert before["y"] == after["y"] and before["x"] + before["width"] < after["x"]
    assert tab.locator(".pair .mark").all_inner_texts() == ["✗", *"✓✓✓"]


def test_what_is_folded_opens_by_key_and_a_word_says_what_it_means(opened):
    tab = opened(12)
    tables = tab.locator("details", has_text="The full table")
    assert not tables.locator("table").is_visible()
    tables.locator("summary").focus()
    tab.keyboard.press("Enter")
    assert tables.locator("table").is_visible()
    word = tables.get_by_text("pass@1", exact=True)
    assert word.get_attribute("title") == words.GLOSSARY["pass@1"]
    assert not tab.get_by_text(words.GLOSSARY["pass@1"]).is_visible()
    word.focus()
    tab.keyboard.press("Enter")  # opens the words of the page
    assert tab.get_by_text(words.GLOSSARY["pass@1"]).is_visible()


def test_filters_change_the_list_and_the_count(opened):
    tab = opened(40, None, 30)
    assert count(tab, depth="3") == "10 of 40 problems"
    assert tab.locator("select[name=show]").input_value() == "all"
    assert all("3 operations" in title for title in titles(tab))
    assert count(tab, depth="any", family="sum").startswith("26 of 40")  # not every third, from 0
    assert count(tab, family="any", answer="wrong", column="after RL").startswith("2 of 40")  # 0 and 20
    assert count(tab, column="base").startswith("30 of 40")  # all but every fourth
    assert count(tab, answer="any", changed="wrong → right").startswith("30 of 40")
    assert count(tab, changed="right → wrong").startswith("2 of 40")
    assert count(tab, changed="either way").startswith("32 of 40")
    assert count(tab, show="the ten nobody picked") == "10 of 40 problems"  # which are shown unfiltered
    assert tab.locator("select[name=changed]").input_value() == ""
    assert count(tab, axis="more operands").startswith("10 of 40")
    assert count(tab, axis="none: the exam proper").startswith("30 of 40")
    tab.locator("button[type=reset]").click()
    tab.get_by_text("10 of 40 problems").wait_for()
    tab.get_by_label("question contains").fill("39+1")
    assert [title.split(" ")[0] for title in titles(tab)] == ["39+1+1"]
    tab.get_by_label("question contains").fill("nothing like it")
    assert (count(tab), titles(tab)) == ("0 of 40 problems", [])


def test_a_button_shows_ten_more_until_all_are_shown_and_every_control_can_be_reached_by_key(opened):
    tab = opened(36)
    controls = tab.locator("#filters select:visible, #filters input:visible")
    assert controls.count() >= 7
    for control in controls.all():
        assert control.evaluate("control => control.labels[0].textContent.trim() !== '' && control.tabIndex === 0")
    assert tab.locator("#count").get_attribute("aria-live") == "polite"
    assert count(tab, show="all problems") == "36 of 36 problems, the first 10 shown"
    first = titles(tab)
    for shown in (20, 30, 36):
        tab.locator("#more").click()
        assert len(titles(tab)) == shown
    assert titles(tab)[:10] == first and count(tab) == "36 of 36 problems"
    assert not tab.locator("#more").is_visible()


def test_wrong_steps_are_marked_by_more_than_color(opened):
    tab = opened(40)
    choose(tab, answer="wrong", column="base, forced")
    wrong = tab.locator(".text .wrong:not(.answer)").first
    assert wrong.inner_text().startswith("✗") and " is " in wrong.inner_text()
    assert wrong.locator(".mark").get_attribute("aria-label") == "wrong"
    assert style(tab, ".text .wrong .mark", "color") != style(tab, ".text .right .mark", "color")
    assert "line-through" in style(tab, ".retracted bdi", "textDecoration")


def test_model_text_stays_text(opened):
    tab = opened(40, f"<think>{ATTACK}</think></script><answer>{ATTACK}\u202e\ud800</answer>")
    choose(tab, show="all problems")
    tab.locator("#more").click()
    assert tab.locator("img").count() == 0
    assert tab.title() == "tiny-r1-zero: arithmetic"
    assert ATTACK in tab.locator(".problem").first.inner_text()
    assert "\\u202e\\ud800" in tab.locator(".problem").first.inner_text()


@pytest.mark.parametrize("completion", [None, "7" * 5_000])
def test_a_phone_scrolls_down_only(opened, completion):
    tab = opened(40, completion, viewport={"width": 390, "height": 844})
    choose(tab, show="all problems")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = [chain.bounding_box() for chain in tab.locator(".problem").first.locator(".chain").all()]
    assert len({box["x"] for box in boxes}) == 1 and len({box["y"] for box in boxes}) == 3


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_page_follows_the_color_scheme(opened, scheme, is_dark):
    tab = opened(4, color_scheme=scheme)
    styles = [("body", "backgroundColor"), ("body", "color"), ("svg text", "fill")]
    colors = [style(tab, *each) for each in styles]
    ground, ink, labels = (sum(map(int, color[4:-1].split(","))) for color in colors)
    assert (ground < 150) == (ink > 600) == (labels > 600) == is_dark


def unfolded(tab):
    """The page with the training curves and the kept completions unfolded."""
    tab.locator("summary", has_text="During training").click()
    return tab


def chains(tab):
    return [chain.inner_text().split("\n") for chain in tab.locator("#completions .chain").all()]


def marks_of_chart(tab):
    lines = tab.locator('[id*="-at-"]').all()
    shown = [line for line in lines if line.evaluate("line => getComputedStyle(line).display") != "none"]
    return [line.get_attribute("id").rpartition("-at-")[2] for line in shown]


def test_keys_move_the_step_of_the_kept_completions_and_its_mark_on_the_curve(opened):
    tab = unfolded(opened(html=page_with_kept()))
    strip = tab.locator("#steps label")
    assert [each.inner_text().split() for each in strip.all()] == [["0", "✗✗✗✗"], ["20", "✓✓✗✗"], ["40", "✓✓✓✓"]]
    assert strip.nth(1).locator("input").get_attribute("aria-label") == "step 20: 2 of 4 right"
    assert not tab.locator("#rollouts select[name=stage]").is_visible()  # there is one
    assert (len(chains(tab)), marks_of_chart(tab)) == (4, ["0"])
    assert chains(tab)[0][0] == "step 0, completion 1" and "no steps: answered at once" in chains(tab)[0]
    strip.first.locator("input").focus()
    tab.keyboard.press("ArrowRight")
    assert marks_of_chart(tab) == ["20"]
    slipped, taken_back = chains(tab)[2], chains(tab)[1]
    assert slipped[0] == "step 20, completion 3" and "✗16+10=36" in slipped and "✗answer 36" in slipped
    assert "reward 0.1: accuracy 0, format 1" in slipped
    assert "↶45-29=26 taken back" in taken_back and "✓answer 26" in taken_back
    assert tab.locator("#completions .retracted .mark").get_attribute("aria-label") == "retracted"
    choose(tab, problem="45-29+11 = 27")
    assert tab.locator("#asked").inner_text() == "45-29+11 = 27 · sum, 2 operations"
    assert marks_of_chart(tab) == ["20"] and "✗16+11=37" in chains(tab)[2]  # the step stays
    choose(tab, sample="every step, completion 3")
    assert [chain[0] for chain in chains(tab)] == [f"step {step}, completion 3" for step in (0, 20, 40)]
    assert (tab.locator("#steps").is_visible(), marks_of_chart(tab)) == (False, [])


def test_kept_completions_of_several_stages_are_a_choice_and_a_phone_scrolls_down_only(opened):
    tab = unfolded(opened(html=page_with_kept("7" * 5_000, 2), viewport={"width": 390, "height": 844}))
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert "… 4,400 more characters in rollouts.jsonl …" in chains(tab)[0]
    choose(tab, problem="45-29+11 = 27", stage="01-grpo")
    assert tab.locator("select[name=problem]").input_value() == "0"  # the stage has problems of its own
    assert tab.locator('[id*="-at-"]').count() == 0  # whose curve would it be?


@pytest.mark.parametrize("javascript", [True, False])
def test_kept_text_stays_text(opened, javascript):
    attack = f"<think>{ATTACK}\u202e\x1b[31m</think></script><answer>{ATTACK}</answer>"
    tab = unfolded(opened(html=page_with_kept(attack), java_script_enabled=javascript))
    assert tab.locator("img").count() == 0 and tab.title() == "tiny-r1-zero: arithmetic"
    seen = tab.locator("#completions .chain").first.inner_text()
    assert f"{ATTACK}\\u202e\\u001b[31m</think>" in seen
    assert len(chains(tab)) == (4 if javascript else 8)  # without it those of the first and the last step
    assert chains(tab)[-1][0] == f"step {0 if javascript else 40}, completion 4"
