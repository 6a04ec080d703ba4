"""What the page and the terminal say: the verdict, the limits, and the table."""

import html
import io
import json
import re
from itertools import product

import pytest
from rich.console import Console

from eval.exam.lineup import COOLED, FORCED, lineup_of
from eval.report import exam_plots, page, story, words
from r1_mini.pipeline.recipe import Recipe
from tests.eval.report.conftest import compared, difference, make_samples, make_score


def changed(summary, estimate, verdict, at=0):
    ends = {"estimate": estimate, "low": estimate - 0.02, "high": estimate + 0.02, "verdict": verdict}
    summary["comparisons"][at] |= ends
    return summary


def sentences(summary, about=""):
    """The sentences with this text, but for the plain ones."""
    first = len(story.plain(compared(summary)))
    return [sentence for sentence in story.sentences(compared(summary))[first:] if about in sentence]


@pytest.fixture
def text(render):
    """The text of the page, tags taken out."""
    return lambda **changes: html.unescape(re.sub("<[^>]*>", "", render(make_samples(4), **changes)))


def test_what_the_exam_could_have_seen_and_all_of_a_single_difference_is_said(summary):
    assert sentences(summary)[:2] == [
        "The smallest detectable difference, one that this exam shows four times in five, is 1.2 points.",
        "Verdicts are on p-values corrected for 3 comparisons (Holm).",
    ]
    alone = summary | {"comparisons": summary["comparisons"][:1]}  # nothing forced is compared with what RL made
    whole = "The model after RL is better than the base: +51.0 points (95% interval +49.0 to +53.0)."
    assert story.plain(compared(alone))[-1] == whole and not sentences(alone, "Holm")
    parts = "stops in time +2.0, gives a number +0.0, chooses to reason +22.0, reasons without a slip +28.0"
    assert sentences(summary, f"in points: {parts}, guesses better −1.0.")
    nothing = compared(summary | {"comparisons": [], "gain": None, "sharpened": None})
    asked = (
        "Asked once, the base gets 40 of 100 right, after RL 91. Made to write out its steps, the base alone gets 62."
    )
    assert story.sentences(nothing)[0] == asked and story.details(nothing) == []


STAGES = {  # kinds after the base -> the pair of the headline
    ("grpo",): ("base", "after RL"),
    ("sft",): ("base", "after SFT"),
    ("sft", "grpo"): ("after SFT", "after RL"),
    ("grpo", "sft"): ("after RL", "after SFT"),
    ("grpo", "sft", "grpo"): ("after SFT", "after 04-grpo"),
}
ENDS = {  # (estimate, low, high, verdict, p) -> what is said of it, and how that ends
    (0.2, 0.1, 0.3, "shown", 0.01): ("better than", "+30.0)."),
    (-0.2, -0.3, -0.1, "worse", 0.01): ("worse than", "−10.0)."),
    (0.01, -0.02, 0.04, "not shown", 0.5): ("not told apart from", "+4.0)."),
    (0.2, 0.1, 0.3, "not shown", 0.06): ("not told apart from", "+30.0), but p = 0.06."),
    (-0.39, -0.5, -0.2, "worse", 0.01): ("worse than", "−20.0)."),
    (-0.39, -0.5, -0.2, "not shown", 0.06): ("not told apart from", "−20.0), but p = 0.06."),
    (0.0, -0.16, 0.16, "not shown", 1.0): ("not told apart from", "+16.0)."),  # no problem was solved
}


def verdict(gain):
    return "shown" if gain > 0.05 else "worse" if gain < -0.05 else "not shown"


@pytest.mark.parametrize("kinds", STAGES, ids=", ".join)
@pytest.mark.parametrize("ends", ENDS, ids=str)
@pytest.mark.parametrize(("forced", "cooled"), [(None, 0), *product((0.15, 0.01, -0.2), (0.1, 0.0, -0.1))], ids=str)
def test_no_sentence_says_more_than_the_verdicts(summary, kinds, ends, forced, cooled):
    stages = [{"kind": kind} for kind in ("base", *kinds)]
    lineup = lineup_of(Recipe.model_validate({"name": "x", "problems": [{"family": "sum"}], "stages": stages}))
    pairs, score = lineup.pairs, 0.0 if ends[0] == 0 else 0.5
    start, after = pairs[0]
    summary["names"] = {key: each.label for key, each in lineup.columns.items()}
    summary["starts"] = {key: each.start for key, each in lineup.columns.items() if each.voice is None}
    summary |= {"forced": {FORCED: start, COOLED: start}, "cooled": COOLED}
    reached = dict.fromkeys(lineup.columns, score) | {after: score + ends[0]}
    reached |= {FORCED: score + (forced or 0), COOLED: score + (forced or 0) + cooled}
    reached = {key: max(0.0, share) for key, share in reached.items()}
    summary["scores"] = {key: make_score(share, 9.0) for key, share in reached.items()}
    summary["scores"][after]["pass_at_k"][-1]["low"] = 2.0  # as if above all others

    def tested(old, new):
        gain, fields = reached[new] - reached[old], ("estimate", "low", "high", "verdict", "p_adjusted")
        width = 0.1 if verdict(gain) == "not shown" else 0.02
        found = (gain, gain - width, gain + width, verdict(gain), 0.01)
        if not {old, new} & {FORCED, COOLED}:
            found = ends if new == after else (0.0, -0.1, 0.1, "not shown", 1.0)
        return difference(old, new, 0.0) | dict(zip(fields, found, strict=True))

    controls = {FORCED, COOLED}
    summary["comparisons"] = [tested(*pair) for pair in pairs if forced is not None or not controls & set(pair)]
    summary["gain"] |= {"parts": [part | ({} if score else {"estimate": -0.0}) for part in summary["gain"]["parts"]]}
    found, plain, (before, last) = sentences(summary), story.plain(compared(summary)), STAGES[kinds]
    text, (word, finish) = " ".join([*plain, *found]), ENDS[ends]
    gains = {FORCED: reached[FORCED] - score, COOLED: reached[COOLED] - reached[FORCED]}
    best = [each for each, gain in gains.items() if forced is not None and verdict(gain) == "shown"]
    best = (best if FORCED in best else [])[-1:]  # without training
    left = tested(best[0], after) if best else {"estimate": 0.0, "verdict": "worse"}
    whole = [each for each in plain if each.startswith(f"The model {last} is {word} {words.the(before)}: ")]
    if ends[3] == "shown" and left["verdict"] != "worse":
        assert plain[-1].startswith(f"What is left to training is {words.signed(left['estimate'])} points")
        assert plain[-1].endswith(f": {left['verdict']}.") and not whole
        assert plain[-2].startswith(
            f"Of +20.0 points (95% interval +10.0 to {finish[:-2]}), {words.the(before)} gets 15.0 "
        )
        assert (" more at its best temperature" in plain[-2]) == (COOLED in best)
    else:
        assert "left to training" not in text and len(whole) == 1 and whole[0].endswith(finish)
        named = summary["names"][best[0]] if best else words.the(before)
        assert plain[-1].startswith(f"The model {last} is ") and f" {named}: " in plain[-1]
    assert f", {last} " in plain[0]
    assert ("nothing can be told" in text) == (score == 0 == ends[0]) == ("sum of these parts" not in text)
    assert "luck" not in text and "may" not in text.replace("these may be rare rather than new", "")
    assert not re.search(r"-\d", text.replace("02-", "").replace("04-", "")) and "−0.0" not in text
    assert "grpo" in kinds or "RL" not in text
    beyond = all(one["verdict"] == "shown" for one in summary["comparisons"] if one["after"] == after)
    assert ("Not only sharpened" in text) == beyond


def test_the_same_weights_are_said_to_be_the_same(summary):
    changed(summary, 0.0, "not shown")["comparisons"][0]["same_checkpoint"] = True
    found = compared(summary | {"gain": None, "sharpened": None})
    assert "Same weights: base and after RL are one checkpoint." in story.plain(found)
    assert not [each for each in story.details(found) if "pass" in each]


def test_an_answer_at_once_does_not_slip(summary):
    assert told(summary)[1][2] == "fewer slips (training)"
    chains = summary["scores"]["rl"]["chains"]
    chains |= {"right_without": 0.9, "right_by_right": 0.0, "wrong_without": 0.1, "wrong_by_wrong": 0.0}
    assert told(summary)[1][2] == "only after training"


def test_form_is_told_from_ability_where_it_matters(summary):
    assert not sentences(summary, "Form is") and "last number" not in str(words.table(compared(summary)))
    summary["scores"]["base"]["lenient"], summary["gain"]["form"] = 0.85, 0.45
    assert (
        "+45.0 points" in sentences(summary, "Form is")[0] and "from 85.0% to 91.0%" in sentences(summary, "Form is")[0]
    )
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
    said = [each for each in story.plain(compared(summary)) if each.startswith("The model after RL is")]
    assert said[0].endswith("+51.0 points (too few problems for an interval).")
    assert sentences(summary, "2 problems are too few to show any difference.") and not sentences(summary, "smallest")


def cooled(summary, reached=0.85, left=0.06, greedy=0.05, word="shown"):
    """The summary with a column that is cooled, and greedy answers of both."""
    summary["names"][COOLED], summary["scores"][COOLED] = "base, forced, T=0.2", make_score(reached, 34)
    summary["scores"][COOLED]["greedy"]["estimate"] = 0.9
    summary["comparisons"].append(difference(COOLED, "rl", left) | {"verdict": word})
    summary["comparisons"].append(difference(FORCED, COOLED, reached - 0.62))
    changed = summary | {"cooled": COOLED, "greedy": difference(COOLED, "rl", greedy) | {"verdict": word}}
    return in_order(changed | {"forced": {FORCED: "base", COOLED: "base"}}, "base", FORCED, COOLED, "rl")


def in_order(summary, *keys):
    """The summary with its columns in this order, as an exam has them."""
    return summary | {name: {key: summary[name][key] for key in keys} for name in ("names", "scores")}


def test_what_a_temperature_gives_is_said_apart_from_the_choice_of_voice(summary, render):
    changed = cooled(summary, reached=0.7)
    found = sentences(changed)
    assert found[1:4] == [
        "Verdicts are on p-values corrected for 6 comparisons (Holm).",
        "With greedy decoding of both, after RL is better: from 90.0% to 91.0%, +5.0 points (95% interval +3.0 to +7.0).",
        "after RL against base, forced: better, +29.0 points (95% interval +27.0 to +31.0).",
    ]
    samples = make_samples(4)
    page = html.unescape(re.sub("<[^>]*>", "", render(samples | {COOLED: samples[FORCED]}, **changed)))
    for part in (
        "the same for every column but base, forced, T=0.2, which has the temperature that is best on dev",
        "The same, both greedyafter RL against base, forced, T=0.2: +5.0 points (95% interval +3.0 to +7.0), p < 0.0001",
        "Pure reasoning gain: +22.0 points are a choice of voice.",
        "Pure reasoning gain: +8.0 points are a temperature.",
    ):
        assert part in page


def told(summary):
    """Gain, verdict and reason of each rung of the ladder but the first."""
    rungs = story.ladder(compared(summary))[1:]
    return [(round(rung.gain, 6), rung.tested and rung.tested.verdict, rung.reason) for rung in rungs]


def test_the_first_screen_says_what_the_base_could_do_and_its_parts_add_up_to_the_gain(summary):
    slips = ("shown", "fewer slips (training)")
    could = (0.22, "shown", "it could already do this, and did not")
    assert told(summary) == [could, (0.29, *slips)]
    changed = cooled(summary)
    assert told(changed) == [could, (0.23, "shown", "surer of its likely steps (no training)"), (0.06, *slips)]
    assert sum(gain for gain, *_ in told(changed)) == pytest.approx(0.91 - 0.40)
    assert story.plain(compared(changed)) == [
        "Asked once, the base gets 40 of 100 right, after RL 91. Made to write out its steps, the base alone gets 62.",
        "Outside of training, the model after RL gets 46 of 100 (more operands), the base 20.",
        "Of +51.0 points (95% interval +49.0 to +53.0), the base gets 22.0 without further training when it is made to "
        "write its steps and 23.0 more at its best temperature.",
        "What is left to training is +6.0 points (95% interval +4.0 to +8.0): shown.",
    ]
    drawn = exam_plots.rungs(compared(changed))
    for text in ("+22.0: it could", "+23.0: surer", "+6.0: fewer", ">40.0<", ">85.0<", "temperature (T=0.2)"):
        assert text in drawn


def test_the_first_screen_claims_no_step_that_is_not_shown(summary):
    del summary["comparisons"][2]
    assert told(summary)[0] == (0.0, None, "")  # without a test nothing is said
    assert told(summary)[1] == (0.51, "shown", "better than the base")
    summary["comparisons"].append(difference("base", "forced_worked", 0.01) | {"verdict": "not shown", "low": -0.01})
    assert told(summary)[1] == (0.51, "shown", "better than the base")  # forced is no better, so it is no start
    said = "Made to write its steps, the base is not told apart from itself: +1.0 points (95% interval −1.0 to +3.0)."
    assert said in story.plain(compared(summary))
    summary["comparisons"][2] = difference("base", "forced_worked", 0.22)
    summary["scores"]["rl"]["chains"]["wrong_by_wrong"] = 0.2  # 0.066 fewer, of 0.29
    assert told(summary)[1] == (0.29, "shown", "only after training")
    assert told(changed(summary, -0.1, "worse", at=1))[1][1:] == ("worse", "worse than base, forced")


def test_every_stage_and_every_run_has_a_bar_and_a_sentence_against_what_it_was_made_from(summary):
    for key, share in (("sft", 0.7), ("late", 0.71)):
        summary["names"][key], summary["scores"][key] = f"after {key}", make_score(share, 30)
    summary["starts"] = {"base": None, "sft": "base", "late": "sft", "rl": "sft"}
    summary["comparisons"] = [
        difference("base", "rl", 0.51),
        difference("base", "sft", 0.30),
        difference("sft", "late", 0.01) | {"verdict": "not shown", "low": -0.01},
        difference("sft", "rl", 0.21),
    ]
    graph = in_order(summary, "base", "sft", "late", "rl")
    assert told(graph) == [
        (0.3, "shown", "better than the base"),
        (0.01, "not shown", "not told apart from the model after sft"),
        (0.21, "shown", "better than the model after sft"),
    ]
    assert story.plain(compared(graph))[0] == (
        "Asked once, the base gets 40 of 100 right, after sft 70, after late 71, after RL 91."
    )
    assert story.plain(compared(graph))[2:] == [
        "The model after RL is better than the base: +51.0 points (95% interval +49.0 to +53.0).",
        "The model after sft is better than the base: +30.0 points (95% interval +28.0 to +32.0).",
        "The model after late is not told apart from the model after sft: +1.0 points (95% interval −1.0 to +3.0).",
        "The model after RL is better than the model after sft: +21.0 points (95% interval +19.0 to +23.0).",
    ]
    runs = graph | {
        "starts": {},
        "forced": {},
        "comparisons": [difference("base", key, 0.3) for key in ("sft", "late", "rl")],
    }
    assert [reason for *_, reason in told(runs)] == ["better than the base"] * 3
    assert all(f"+{gain}: better than" in exam_plots.rungs(compared(graph)) for gain in (30.0, 21.0))


def test_a_headline_rounds_to_none_or_all_only_what_is():
    shares = {
        0.0: "0",
        0.00004: "under 0.1",
        0.004: "0.4",
        0.404: "40",
        0.996: "99.6",
        0.99996: "over 99.9",
        1.0: "100",
    }
    assert {share: words.hundredth(share) for share in shares} == shares


def test_the_words_of_the_page_are_explained():
    for label, word in {"pass@8": "pass@k", "pass@1": "pass@1", "maj@16": "maj@k", "base, forced": "forced"}.items():
        assert words.meaning(label)[1] == words.GLOSSARY[word]
    assert words.meaning("right, sound")[1] == words.GLOSSARY["sound"] and words.meaning("tokens") is None


def test_a_minus_is_a_minus_sign_and_a_small_p_is_bounded():
    assert (words.signed(-0.034), words.plus(-0.04), words.signed(0.1)) == ("−3.4", "+0.0", "+10.0")
    assert (words.p_value(0.00001), words.p_value(0.0234)) == ("p < 0.0001", "p = 0.023")


def test_a_gain_that_a_temperature_gives_too_is_not_called_more(summary):
    for name, high in (("base", 0.5), ("forced_worked", 0.9)):
        summary["scores"][name]["pass_at_k"][-1] |= {"estimate": high - 0.1, "high": high}
    assert sentences(summary, "Not only sharpened")
    changed = cooled(summary, 0.91, 0.0, 0.0, "not shown")
    (greedy, *others) = sentences(changed)[2:]
    assert "Not only sharpened" not in " ".join(others)
    assert story.plain(compared(changed))[-1].endswith("+0.0 points (95% interval −2.0 to +2.0): not shown.")
    assert greedy.startswith(
        "With greedy decoding of both, after RL is not told apart: from 90.0% to 91.0%, +0.0 points"
    )


def test_what_stays_below_a_temperature_is_said_and_how_it_stands_with_greedy_decoding(summary):
    changed = cooled(summary, 0.95, -0.04, -0.03, "worse")
    assert story.plain(compared(changed))[-1] == (
        "The model after RL is worse than base, forced, T=0.2: −4.0 points (95% interval −6.0 to −2.0); "
        "with greedy decoding of both worse, −3.0."
    )
    assert "The model after RL is better than the base: +51.0 points" in story.plain(compared(changed))[2]
    assert sentences(changed)[2].startswith("With greedy decoding of both, after RL is worse: ")


def test_the_forced_column_is_compared_where_there_is_one_whatever_the_stage(summary, text):
    assert "Pure reasoning gain: +22.0 points are a choice of voice." in text()
    renamed = json.dumps(summary).replace('"base"', '"cold"').replace('"forced_worked"', '"cold+worked"')
    assert told(json.loads(renamed))[1][:2] == (0.29, "shown")
    del summary["comparisons"][1]
    assert told(summary)[1][0] == 0.51  # what is left was not measured


def test_sharpened_or_new(summary):
    assert not sentences(summary, "harpened")  # pass@16 of the base is as good
    for name, high in (("base", 0.5), ("forced_worked", 0.9)):
        summary["scores"][name]["pass_at_k"][-1] |= {"estimate": high - 0.1, "high": high}
    (sentence,) = sentences(summary, "sharpened")
    for part in (
        "Not only sharpened, as far as 16 samples tell: base stays below after RL at every k; forced to write",
        "its steps, it reaches 80.0% at pass@16. Of 1,200 problems, after RL solves 12 that base solved in none of 16",
        *(" samples, and 3 the other way round", "a rate of up to 17.1%"),
    ):
        assert part in sentence
    summary["sharpened"]["crossing"] = 8
    assert sentences(summary, "Sharpened: with 8 samples per problem, base solves as many problems as after RL.")
    assert not sentences(changed(summary, 0.01, "not shown"), "harpened")
    scores = {name: score | {"pass_at_k": score["pass_at_k"][:1]} for name, score in summary["scores"].items()}
    assert not sentences(changed(summary, 0.51, "shown") | {"scores": scores}, "harpened")
    summary["sharpened"] |= {"crossing": None, "n_solved_anew": 0}
    assert sentences(summary, "the other way round.")[0].endswith("the other way round.")


def test_several_training_runs_are_not_called_one(summary, text):
    assert "Other seeds: the figures are of one training run (seed 0)." in text()
    summary["scores"]["rl"]["seeds"] = [{"seed": seed, "pass_at_1": 0.90 + seed / 100} for seed in range(3)]
    assert sentences(summary, "From the worst to the best of 3 training runs: after RL 90.0% to 92.0%.")
    limits = text(seed=None, recipe=None)
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
        "p < 0.0001, p < 0.0001 after Holm's correction; better",
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
    assert "KL to start, nats" not in rows
    console = Console(width=80, file=io.StringIO())
    cells = [[(label, *cells) for label, cells in section] for section in sections]
    page.show("title", [words.UNITS, *summary["names"].values()], cells, [], console)
    assert "62.0 [60.0, 64.0]   91.0 [89.0, 93.0]" in console.file.getvalue()
    four = Console(width=80, file=io.StringIO())
    wide = [[(label, *found, found[0]) for label, found in section] for section in sections]
    page.show("title", [words.UNITS, *summary["names"].values(), "after SFT"], wide, [], four)
    lines = four.file.getvalue().splitlines()
    (place,) = [place for place, line in enumerate(lines) if line.split()[:1] == ["pass@1"]]
    assert lines[place].split() == ["pass@1", "40.0", "62.0", "91.0", "40.0"]
    assert lines[place + 1].count("[38.0, 42.0]") == 2 and "[89.0, 93.0]" in lines[place + 1]
    long = Console(width=80, file=io.StringIO())
    page.show("title", [words.UNITS, *(f"{n}{'x' * 39}" for n in range(4))], wide, [], long)
    lines = long.file.getvalue().splitlines()  # 17 characters of a name in a line: three columns, then one
    assert [line.split()[1:] for line in lines if "pass@1 " in line] == [["40.0", "62.0", "91.0"], ["40.0"]]
    assert max(map(len, lines)) <= 80


def test_what_was_trained_from_the_base_is_also_compared_with_the_base_that_is_forced(summary):
    first, *others = summary["comparisons"]
    summary["scores"]["cold"], summary["names"]["cold"] = summary["scores"][first["after"]], "cold"
    summary["comparisons"] = [first, *others, first | {"before": FORCED, "after": "cold"}]
    assert any(each.startswith("cold against base, forced: better") for each in sentences(summary))
