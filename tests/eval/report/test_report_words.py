"""What the page and the terminal say: the verdict, the limits, and the table."""

import io
import json
import re

import pytest
from rich.console import Console

from eval.exam.lineup import COOLED, FORCED, lineup_of
from eval.report import page, plots, words
from r1_mini.pipeline.recipe import Recipe
from tests.eval.report.conftest import compared, difference, make_samples, make_score


def changed(summary, estimate, verdict, at=0):
    ends = {"estimate": estimate, "low": estimate - 0.02, "high": estimate + 0.02, "verdict": verdict}
    summary["comparisons"][at] |= ends
    return summary


def sentences(summary, about=""):
    """The sentences with this text, but for the plain ones."""
    first = len(words.plain(compared(summary)))
    return [sentence for sentence in words.sentences(compared(summary))[first:] if about in sentence]


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
    assert not sentences(summary | {"comparisons": summary["comparisons"][:1]}, "Holm")
    parts = "stops in time +2.0, gives a number +0.0, chooses to reason +22.0, reasons without a slip +28.0"
    assert sentences(summary, f"in points: {parts}, guesses better -1.0.")
    alone = summary | {"comparisons": [], "gain": None, "sharpened": None}
    assert sentences(alone) == ["pass@1: base 40.0%; base, forced 62.0%; after RL 91.0%."]


STAGES = {  # kinds after the base -> the pair of the headline
    ("grpo",): ("base", "after RL"),
    ("sft",): ("base", "after SFT"),
    ("sft", "grpo"): ("after SFT", "after RL"),
    ("grpo", "sft"): ("after RL", "after SFT"),
    ("grpo", "sft", "grpo"): ("after SFT", "after 04-grpo"),
}
ENDS = {  # (estimate, low, high, verdict, p) -> how the headline begins, and how it ends
    (0.2, 0.1, 0.3, "shown", 0.01): ("Shown: pass@1 rose", "+30.0)."),
    (-0.2, -0.3, -0.1, "worse", 0.01): ("Worse: pass@1 fell", "-10.0)."),
    (0.01, -0.02, 0.04, "not shown", 0.5): ("Not told apart: pass@1 went", "+4.0)."),
    (0.2, 0.1, 0.3, "not shown", 0.06): ("Not told apart: pass@1 went", "+30.0); too few problems differ, p = 0.06."),
    (-0.39, -0.5, -0.2, "worse", 0.01): ("Worse: pass@1 fell", "-20.0)."),
    (-0.39, -0.5, -0.2, "not shown", 0.06): ("Not told apart", "-20.0); too few problems differ, p = 0.06."),
    (0.0, -0.16, 0.16, "not shown", 1.0): ("Not told apart: pass@1 went", "+16.0)."),  # no problem was solved
}


@pytest.mark.parametrize("kinds", STAGES, ids=", ".join)
@pytest.mark.parametrize("ends", ENDS, ids=str)
@pytest.mark.parametrize("against_forced", [None, *ENDS], ids=str)
def test_no_sentence_says_more_than_the_verdicts(summary, kinds, ends, against_forced):
    stages = [{"kind": kind} for kind in ("base", *kinds)]
    lineup = lineup_of(Recipe.model_validate({"name": "x", "problems": [{"family": "sum"}], "stages": stages}))
    summary["names"] = {key: each.label for key, each in lineup.columns.items()}
    (_, after), other = lineup.pairs[0], difference("", "", 0.0)
    fields = ("estimate", "low", "high", "verdict", "p_adjusted")
    score = 0.0 if ends[0] == 0 else 0.5
    reached = 0.3 if against_forced is None else score + ends[0] - against_forced[0]
    controls = [key for key in (FORCED, COOLED) if key in lineup.columns]
    summary["cooled"] = COOLED if COOLED in lineup.columns else None
    summary["scores"] = {key: make_score(score, 9.0) for key in lineup.columns}
    summary["scores"] |= {after: make_score(score + ends[0], 9.0)}
    summary["scores"] |= {key: make_score(reached, 9.0) for key in controls}
    summary["scores"][after]["pass_at_k"][-1]["low"] = 2.0  # as if above all others
    summary["comparisons"] = [
        other | {"before": old, "after": new, **dict(zip(fields, found, strict=True))}
        for old, new in lineup.pairs
        if (found := ends if old not in controls else against_forced)
    ]
    summary["gain"] |= {"parts": [part | ({} if score else {"estimate": -0.0}) for part in summary["gain"]["parts"]]}
    found = sentences(summary)
    plain, begins = words.plain(compared(summary)), ENDS[ends][0]
    text = " ".join([*plain, *found])
    assert len(plain) == (3 + (COOLED in controls) if against_forced else 0)
    if against_forced:
        beyond = {"shown": ": shown.", "worse": ": a loss, and shown.", "not shown": ": not shown."}
        assert plain[-1].endswith(beyond[against_forced[3]]) and f", {STAGES[kinds][1]} " in plain[0]
    assert found[0].startswith(begins) and found[0].endswith(ENDS[ends][1])
    assert f"({STAGES[kinds][0]})" in found[0] and f"({STAGES[kinds][1]})" in found[0]
    gained, beyond = ends[3] == "shown", against_forced and against_forced[3] == "shown"
    assert ("Not only sharpened" in text) == (gained and (beyond or against_forced is None))
    for claim in ("more than a choice of voice", "more than a choice of voice and of temperature"):
        assert (claim in text) == bool(gained and against_forced and against_forced[3] != "worse")
        assert (f"Shown: the gain is {claim}." in text) == (gained and bool(beyond))
        assert f"{claim} is not shown." in text or not (against_forced and gained and against_forced[3] == "not shown")
    assert ("is not shown" in text) == bool(gained and against_forced and against_forced[3] == "not shown")
    assert " of the gain;" not in text or gained
    assert ("nothing can be told" in text) == (score == 0) == ("sum of these parts" not in text)
    assert "luck" not in text and "may" not in text.replace("these may be rare rather than new", "")
    assert "-0.0" not in text and ("grpo" in kinds or "RL" not in text)
    assert len([each for each in found if " against " in each]) == len(kinds) - 1


def test_the_same_weights_are_said_to_be_the_same(summary):
    changed(summary, 0.0, "not shown")["comparisons"][0]["same_checkpoint"] = True
    said = sentences(summary | {"gain": None, "sharpened": None})
    assert said[0] == "Same weights: base and after RL are one checkpoint." and len(said) == 2


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
    assert "it changed by +1.0" in sentence and sentence.endswith("more than a choice of voice is not shown.")
    (sentence,) = sentences(changed(summary, -0.1, "worse", at=1), "alone reaches")
    assert f"reaches {100 * forced:.1f}%; after RL stays below that: -10.0 points" in sentence


def cooled(summary, reached=0.85, left=0.06, greedy=0.05, word="shown"):
    """The summary with a column that is cooled, and greedy answers of both."""
    summary["names"][COOLED], summary["scores"][COOLED] = "base, forced, T=0.2", make_score(reached, 34)
    summary["scores"][COOLED]["greedy"]["estimate"] = 0.9
    summary["comparisons"].append(difference(COOLED, "rl", left) | {"verdict": word})
    return summary | {"cooled": COOLED, "greedy": difference(COOLED, "rl", greedy) | {"verdict": word}}


def test_what_a_temperature_gives_is_said_apart_from_the_choice_of_voice(summary, render):
    changed = cooled(summary, reached=0.655)
    found = sentences(changed)
    (place,) = [place for place, each in enumerate(found) if each.startswith("Forced to write its steps")]
    assert found[place - 1] == "Verdicts are on p-values corrected for 4 comparisons (Holm)."
    assert found[place + 1] == (
        "Sampled at the temperature that is best on dev too (base, forced, T=0.2), it reaches 65.5%, 50% of the gain; "
        "from there to after RL it rose by +6.0 points (95% interval +4.0 to +8.0). Shown: the gain is more than a "
        "choice of voice and of temperature."
    )
    assert found[place + 2] == (
        "With greedy decoding of both, after RL is better: from 90.0% to 91.0%, +5.0 points (95% interval +3.0 to +7.0)."
    )
    assert not [each for each in found if each.startswith("after RL against base, forced")]
    samples = make_samples(4)
    page = re.sub("<[^>]*>", "", render(samples | {COOLED: samples[FORCED]}, **changed))
    for part in (
        "T=0.2: sampled at the temperature that is best on dev.",
        "the same for every column but base, forced, T=0.2, which has the temperature that is best on dev",
        "The same, both greedyafter RL against base, forced, T=0.2: +5.0 points (95% interval +3.0 to +7.0), p = below",
        "Pure reasoning gain: part of it is the choice of voice. Forced",
        "Pure reasoning gain: part of it is the temperature. Sampled",
    ):
        assert part in page


def told(summary):
    """Gain, verdict and reason of each rung of the ladder but the first."""
    return [(round(rung.gain, 6), rung.verdict, rung.reason) for rung in words.ladder(compared(summary))[1:]]


def test_the_first_screen_says_what_the_base_could_do_and_its_parts_add_up_to_the_gain(summary):
    slips = ("shown", "fewer slips (training)")
    could = (0.22, "shown", "it could already do this, and did not")
    assert told(summary) == [could, (0.29, *slips)]
    changed = cooled(summary)
    assert told(changed) == [could, (0.23, "shown", "surer of its likely steps (no training)"), (0.06, *slips)]
    assert sum(gain for gain, *_ in told(changed)) == pytest.approx(0.91 - 0.40)
    assert words.plain(compared(changed)) == [
        "Asked once, the base gets 40 of 100 right, after RL 91. Made to write out its steps, the base alone gets 62.",
        "Of 51.0 points, 22.0 were only a choice: made to write its steps, the base gets them without further training.",
        "23.0 more are a matter of sampling: at its best temperature it is surer of its likely steps, again without training.",
        "What is left to training is +6.0 points (95% interval +4.0 to +8.0): shown.",
    ]
    drawn = plots.steps_to_after(compared(changed))
    for text in ("+22.0: it could", "+23.0: surer", "+6.0: fewer", ">40.0<", ">85.0<", "temperature (T=0.2)"):
        assert text in drawn


def test_the_first_screen_claims_no_step_that_is_not_shown(summary):
    summary["scores"]["forced_worked"] |= {
        "pass_at_1": 0.41,
        "pass_at_1_interval": {"estimate": 0.41, "low": 0.39, "high": 0.43},
    }
    assert told(summary)[0] == (0.01, "not shown", "not told apart")  # no test: the intervals overlap
    assert words.plain(compared(summary))[1] == "Writing its steps does not help the base: +1.0 points, not told apart."
    summary["comparisons"].append(difference("base", "forced_worked", 0.01))
    assert told(summary)[0][1] == "shown"  # a test decides
    summary["scores"]["rl"]["chains"]["wrong_by_wrong"] = 0.2  # 0.066 fewer, of 0.5
    assert told(summary)[1] == (0.5, "shown", "only after training")
    assert told(changed(summary, -0.1, "worse", at=1))[1][1:] == ("worse", "worse")
    del summary["comparisons"][1]
    assert words.ladder(compared(summary)) == [] == words.plain(compared(summary))


def test_a_gain_that_a_temperature_gives_too_is_not_called_more(summary):
    for name, high in (("base", 0.5), ("forced_worked", 0.9)):
        summary["scores"][name]["pass_at_k"][-1] |= {"estimate": high - 0.1, "high": high}
    assert sentences(summary, "Not only sharpened")
    (sentence, greedy, *others) = sentences(cooled(summary, 0.91, 0.0, 0.0, "not shown"))[4:]
    assert "Not only sharpened" not in " ".join(others)
    assert "reaches 91.0%, all of the gain" in sentence
    assert sentence.endswith(" That the gain is more than a choice of voice and of temperature is not shown.")
    assert greedy.startswith(
        "With greedy decoding of both, after RL is not told apart: from 90.0% to 91.0%, +0.0 points"
    )


def test_what_stays_below_a_temperature_is_said(summary):
    (sentence, greedy) = sentences(cooled(summary, 0.95, -0.04, -0.03, "worse"))[4:6]
    assert "it reaches 95.0%; after RL stays below that: -4.0 points" in sentence
    assert greedy.startswith("With greedy decoding of both, after RL is worse: ")


def test_each_other_pair_of_columns_has_a_sentence_of_its_own(summary):
    summary["names"]["02-sft"], summary["scores"]["02-sft"] = "after SFT", summary["scores"]["base"]
    summary["comparisons"].append({**summary["comparisons"][0], "before": "base", "after": "02-sft"})
    for estimate, verdict, said in ((0.51, "shown", "better"), (-0.1, "worse", "worse"), (0.01, "", "not told apart")):
        line = f"after SFT against base: {said}, {100 * estimate:+.1f} points"
        assert sentences(changed(summary, estimate, verdict or "not shown", at=2), line)
    summary["comparisons"][2]["same_checkpoint"] = True
    assert sentences(summary, "Same weights: base and after SFT are one checkpoint.")


def test_the_forced_column_is_compared_where_there_is_one_whatever_the_stage(summary, text):
    assert "Pure reasoning gain: part of it is the choice of voice. Forced to write its steps" in text()
    renamed = json.dumps(summary).replace('"base"', '"cold"').replace('"forced_worked"', '"cold+worked"')
    assert len(sentences(json.loads(renamed), "alone reaches 62.0%, 43% of the gain")) == 1
    del summary["comparisons"][1]
    assert not sentences(summary, "alone reaches") and "Pure reasoning gain" not in text()


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
    assert not sentences(changed(summary, 0.51, "shown") | {"n_samples": 1}, "harpened")
    summary["sharpened"] |= {"crossing": None, "n_solved_anew": 0}
    assert sentences(summary, "the other way round.")[0].endswith("the other way round.")


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
        "p = below 0.0001, below 0.0001 after Holm; better",
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
