"""What the page and the terminal say: the verdict, the limits, and the table."""

import io

import pytest
from rich import box
from rich.console import Console
from rich.table import Table

from eval.report import notes, words


def compared(summary, estimate, verdict, at=0):
    ends = {"estimate": estimate, "low": estimate - 0.02, "high": estimate + 0.02, "verdict": verdict}
    summary["comparisons"][at] |= ends
    return summary


def test_headline_says_which_way_it_went(summary):
    said = "RL raised pass@1 from 40.0% to 91.0%: +51.0 points (95% interval +49.0 to +53.0)."
    assert words.headline(summary) == f"Shown: {said}"
    assert words.headline(compared(summary, -0.1, "not shown")).startswith("Not shown: RL lowered pass@1")
    assert words.headline(compared(summary, 0.01, "not shown")).endswith("cannot tell the difference from luck.")


def test_headline_of_other_columns_names_them(summary):
    summary["comparisons"][0] |= {"before": "forced_worked"}
    assert words.headline(summary).startswith("Shown: after RL (91.0%) beats base, forced (62.0%)")
    assert words.headline(summary | {"comparisons": []}) == "pass@1: base 40.0%; base, forced 62.0%; after RL 91.0%."


def test_smallest_detectable_difference_stands_beside_the_verdict(summary):
    assert "is 1.2 points" in words.sentences(summary)[1]


def test_holm_is_named_where_there_are_several_comparisons(summary):
    assert words.corrected(summary) == "Verdicts are on p-values corrected for 2 comparisons (Holm)."
    del summary["comparisons"][1]
    assert words.corrected(summary) == ""


@pytest.mark.parametrize(
    ("forced", "part"), [(0.655, "50% of the gain"), (0.1, "none of the gain"), (0.95, "all of the gain")]
)
def test_part_of_the_gain_that_the_base_already_had(summary, forced, part):
    summary["scores"]["forced_worked"]["pass_at_1"] = forced
    assert part in words.forced(summary)
    assert words.forced(summary).endswith("Shown: RL does more than choose the voice.")
    compared(summary, 0.01, "not shown", at=1)
    assert words.forced(summary).endswith("Not shown: RL may only have chosen the voice.")


def test_forced_voice_is_told_of_the_three_special_columns_alone(summary):
    del summary["comparisons"][1]
    assert words.forced(summary) == ""
    assert not any(limit.startswith("Pure reasoning gain") for limit in notes.limits(summary))


def test_parts_of_the_gain_are_told_with_their_signs(summary):
    assert words.gain(summary).endswith(
        "stops in time +2.0, gives a number +0.0, chooses to reason +22.0, reasons without a slip +28.0, guesses better -1.0."
    )
    assert words.signed(-0.0001) == "+0.0"


def test_sharpened_or_new(summary):
    assert words.sharpened(summary).startswith("Not only sharpened, as far as 16 samples tell: base")
    assert "solves 12 that base solved in none of 16 samples, and 3 the other way round" in words.sharpened(summary)
    assert "a rate of up to 17.1%" in words.sharpened(summary)
    summary["sharpened"]["crossing"] = 8
    assert words.sharpened(summary).startswith("Sharpened: with 8 samples per problem, base solves as many")


def test_what_does_not_apply_is_not_said(summary):
    assert words.sentences(summary | {"comparisons": [], "gain": None, "sharpened": None}) == [
        words.headline(summary | {"comparisons": []})
    ]


def test_several_training_runs_are_not_called_one(summary):
    assert any("it is one training run (seed 0)" in limit for limit in notes.limits(summary))
    runs = [{"seed": seed, "pass_at_1": 0.90 + seed / 100} for seed in range(3)]
    summary["scores"]["rl"]["seeds"] = runs
    assert words.seeds(summary) == "From the worst to the best of 3 training runs: after RL 90.0% to 92.0%."
    limits = " ".join(notes.limits(summary | {"seed": None}))
    assert "one training run" not in limits and "each column is 1 to 3 training runs" in limits
    assert words.table(summary)[-1] == [
        ("run 1", ["40.0 (seed 0)", "62.0 (seed 0)", "90.0 (seed 0)"]),
        ("run 2", ["-", "-", "91.0 (seed 1)"]),
        ("run 3", ["-", "-", "92.0 (seed 2)"]),
    ]


def test_limits_tell_the_share_of_right_answers_by_unsound_chains(summary):
    sound = next(limit for limit in notes.limits(summary) if limit.startswith("Sound reasoning"))
    assert "base 6.0%; base, forced 6.0%; after RL 6.0%" in sound
    assert any("more than 5 operations" in limit and "more operands" in limit for limit in notes.limits(summary))


def test_how_it_was_measured_can_be_repeated(summary, manifest):
    how = dict(notes.measured(summary, manifest))
    assert how["Decoding"] == "temperature 1, top-p 1, 160 tokens at most; the same for every column"
    assert how["Seeds"] == "training 0; sampling 1"
    assert how["after RL against base"].endswith("p = below 0.0001, below 0.0001 after Holm; shown")
    assert how["SHA-256, 01-base"] == "model.safetensors " + "ab" * 32
    assert "Seconds" not in dict(notes.measured(summary | {"seconds": None}, {}))


def test_table_has_a_cell_for_each_column_and_a_dash_for_what_is_missing(summary):
    summary["scores"]["base"] |= {"greedy": None, "tokens_right": None}
    rows = dict(row for section in words.table(summary) for row in section)
    assert rows["pass@1"] == ["40.0 [38.0, 42.0]", "62.0 [60.0, 64.0]", "91.0 [89.0, 93.0]"]
    assert rows["greedy"][0] == rows["tokens, right"][0] == "-"
    assert rows["pass@16"][0] == "100 [98.0, 100]"
    assert rows["right, unsound"] == ["6.0", "6.0", "6.0"]
    assert {len(cells) for cells in rows.values()} == {3}


def test_table_of_three_columns_fits_a_terminal_of_80(summary):
    table = Table(box=box.SIMPLE_HEAD)
    for title in (words.UNITS, *summary["names"].values()):
        table.add_column(title)
    for section in words.table(summary):
        for label, cells in section:
            table.add_row(label, *cells)
    console = Console(width=80, file=io.StringIO())
    console.print(table)
    text = console.file.getvalue()
    assert " 100 [98.0, 100]     100 [98.0, 100] " in text
    assert "wrong, no chain" in text
