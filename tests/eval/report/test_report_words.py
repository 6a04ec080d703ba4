"""What the page and the terminal say: the verdict, the limits, and the table."""

import io
import json
import re

import pytest
from rich.console import Console

from eval.report import page, words
from tests.eval.report.conftest import compared, make_samples


def changed(summary, estimate, verdict, at=0):
    ends = {"estimate": estimate, "low": estimate - 0.02, "high": estimate + 0.02, "verdict": verdict}
    summary["comparisons"][at] |= ends
    return summary


def sentences(summary, about=""):
    """The sentences with this text."""
    return [sentence for sentence in words.sentences(compared(summary)) if about in sentence]


@pytest.fixture
def text(render):
    """The text of the page, tags taken out."""
    return lambda **changes: re.sub("<[^>]*>", "", render(make_samples(4), **changes))


def test_headline_says_which_way_it_went_and_what_the_exam_could_have_seen(summary):
    ends = "from 40.0% (base) to 91.0% (after RL): +51.0 points (95% interval +49.0 to +53.0)"
    assert sentences(summary)[:3] == [
        f"Shown: pass@1 rose {ends}.",
        "The smallest detectable difference, one that this exam shows four times in five, is 1.2 points.",
        "Verdicts are on p-values corrected for 2 comparisons (Holm).",
    ]
    worse = sentences(changed(summary, -0.1, "worse"))
    assert worse[0].startswith("Worse: pass@1 fell from 40.0% (base)") and "luck" not in worse[0]
    assert not [sentence for sentence in worse if "harpened" in sentence or "of the gain" in sentence]
    assert sentences(changed(summary, 0.01, "not shown"))[0].endswith("this exam cannot tell the difference from luck.")
    summary["comparisons"][0]["p_adjusted"] = 0.06
    (few,) = sentences(changed(summary, 0.1, "not shown"), "Not shown: pass@1 went from")
    assert few.endswith("; too few problems differ, p = 0.06.") and "luck" not in few
    assert not sentences(summary | {"comparisons": summary["comparisons"][:1]}, "Holm")
    alone = summary | {"comparisons": [], "gain": None, "sharpened": None}
    assert sentences(alone) == ["pass@1: base 40.0%; base, forced 62.0%; after RL 91.0%."]


def test_form_is_told_from_ability_where_it_matters(summary):
    assert not sentences(summary, "Form is") and "last number" not in str(words.table(compared(summary)))
    summary["scores"]["base"]["lenient"], summary["gain"]["form"] = 0.85, 0.45
    text = "Form is +45.0 points of the difference: if the last number of a text counted, pass@1 would go from 85.0% to 91.0%."
    assert sentences(summary, "Form is") == [text]
    assert ("last number", ["85.0", "62.0", "91.0"]) in words.table(compared(summary))[0]


def test_an_exam_that_cannot_tell_says_so(summary):
    first = summary["comparisons"][0]
    assert not sentences(summary, "nothing can be told")
    for share, what in ((0.0, "No problem was solved"), (1.0, "Every sample is right")):
        for score in (summary["scores"]["base"], summary["scores"]["rl"]):
            score["pass_at_1"] = share
        assert sentences(summary, "nothing can be told") == [f"{what}, so nothing can be told."]
    summary["n_problems"] = 20
    assert sentences(summary, "Fewer than 30 problems tell little of others.")
    summary["n_problems"] = 2
    first |= {"low": -1.0, "high": 1.0, "detectable": 1.0, "verdict": "not shown"}
    assert "+51.0 points (too few problems for an interval)" in sentences(summary)[0]
    assert sentences(summary, "2 problems are too few to show any difference.") and not sentences(summary, "smallest")


@pytest.mark.parametrize(
    ("forced", "part"), [(0.655, "50% of the gain"), (0.1, "none of the gain"), (0.95, "all of the gain")]
)
def test_part_of_the_gain_that_the_base_already_had(summary, forced, part):
    summary["scores"]["forced_worked"]["pass_at_1"] = forced
    (sentence,) = sentences(summary, "base alone reaches")
    assert f"{100 * forced:.1f}%, {part}; from there to after RL it rose by +29.0 points" in sentence
    assert sentence.endswith("Shown: the gain is more than a choice of voice.")
    (sentence,) = sentences(changed(summary, 0.01, "not shown", at=1), "alone reaches")
    assert "it changed by +1.0" in sentence and sentence.endswith("Not shown: the gain may be only a choice of voice.")
    (sentence,) = sentences(changed(summary, -0.1, "worse", at=1), "alone reaches")
    assert "; after RL stays below that: -10.0 points" in sentence
    assert "gain" not in sentence and "voice" not in sentence


def test_each_other_pair_of_columns_has_a_sentence_of_its_own(summary):
    summary["names"]["02-sft"], summary["scores"]["02-sft"] = "after SFT", summary["scores"]["base"]
    pair = {**summary["comparisons"][0], "before": "base", "after": "02-sft"}
    summary["comparisons"].append(pair)
    assert sentences(summary, "after SFT against base: better, +51.0 points")
    assert sentences(changed(summary, -0.1, "worse", at=2), "after SFT against base: worse, -10.0 points")
    (sentence,) = sentences(changed(summary, 0.01, "not shown", at=2), "after SFT against base: not told apart")
    assert sentence.endswith("cannot tell the difference from luck.")


def test_the_forced_column_is_compared_where_there_is_one_whatever_the_stage(summary, text):
    assert "Pure reasoning gain: part of it is the choice of voice. Forced to write its steps" in text()
    renamed = json.dumps(summary).replace('"base"', '"cold"').replace('"forced_worked"', '"cold+worked"')
    assert len(sentences(json.loads(renamed), "alone reaches 62.0%, 43% of the gain")) == 1
    del summary["comparisons"][1]
    assert not sentences(summary, "alone reaches") and "Pure reasoning gain" not in text()


def test_parts_of_the_gain_have_their_signs(summary):
    parts = "stops in time +2.0, gives a number +0.0, chooses to reason +22.0, reasons without a slip +28.0"
    assert sentences(summary, f"in points: {parts}, guesses better -1.0.")
    assert words.signed(-0.0001) == "+0.0"


def test_sharpened_or_new(summary):
    (sentence,) = sentences(summary, "sharpened")
    assert sentence.startswith("Not only sharpened, as far as 16 samples tell: base stays below after RL at every k.")
    assert "Forced to write its steps, it reaches 100.0% at pass@16. Of 1,200 problems, after RL" in sentence
    assert "solves 12 that base solved in none of 16 samples, and 3 the other way round" in sentence
    assert "a rate of up to 17.1%" in sentence
    summary["sharpened"]["crossing"] = 8
    assert sentences(summary, "Sharpened: with 8 samples per problem, base solves as many problems as after RL.")
    assert not sentences(changed(summary, 0.01, "not shown"), "harpened")
    assert not sentences(changed(summary, 0.51, "shown") | {"n_samples": 1}, "harpened")


def test_several_training_runs_are_not_called_one(summary, text):
    assert "Other seeds: the figures are of one training run (seed 0)." in text()
    summary["scores"]["rl"]["seeds"] = [{"seed": seed, "pass_at_1": 0.90 + seed / 100} for seed in range(3)]
    assert sentences(summary, "From the worst to the best of 3 training runs: after RL 90.0% to 92.0%.")
    limits = text(seed=None)
    assert "one training run" not in limits and "each column is 1 to 3 training runs" in limits
    assert "base, forced: training 0; after RL: training 0, 1, 2; sampling 1" in limits
    assert words.table(compared(summary))[-1] == [
        ("run 1", ["40.0 (seed 0)", "62.0 (seed 0)", "90.0 (seed 0)"]),
        ("run 2", ["-", "-", "91.0 (seed 1)"]),
        ("run 3", ["-", "-", "92.0 (seed 2)"]),
    ]


def test_the_page_says_what_was_measured_and_what_was_not(text):
    found = text()
    for part in (
        "temperature 1, top-p 1, 160 tokens at most; the same for every column",
        "training 0; sampling 1",
        "p = below 0.0001, below 0.0001 after Holm; shown",
        f"SHA-256, 01-basemodel.safetensors {'ab' * 32}",
        "Machinecpu two cores, memory 8 GB",
        "Secondsbase 250, grpo 104",
        "(share of all completions: base 6.0%; base, forced 6.0%; after RL 6.0%)",
        "more than 5 operations, or another shape than the exam's. Outside of that it has these alone: more operands.",
    ):
        assert part in found
    assert "Seconds" not in text(seconds=None)


def test_table_has_a_cell_for_each_column_a_dash_for_what_is_missing_and_fits_a_terminal_of_80(summary):
    summary["scores"]["base"] |= {"greedy": None, "tokens_right": None}
    sections = words.table(compared(summary))
    rows = dict(row for section in sections for row in section)
    assert rows["pass@1"] == ["40.0 [38.0, 42.0]", "62.0 [60.0, 64.0]", "91.0 [89.0, 93.0]"]
    assert rows["greedy"][0] == rows["tokens, right"][0] == "-"
    assert rows["pass@16"] == ["100 [98.0, 100]"] * 3
    assert rows["right, unsound"] == ["6.0", "6.0", "6.0"]
    assert "KL to base, nats" not in rows
    console = Console(width=80, file=io.StringIO())
    cells = [[(label, *cells) for label, cells in section] for section in sections]
    page.show("title", [words.UNITS, *summary["names"].values()], cells, [], console)
    assert (
        "62.0 [60.0, 64.0]   91.0 [89.0, 93.0]" in console.file.getvalue()
        and "wrong, no chain" in console.file.getvalue()
    )
