import io
import json

import pytest
from rich.console import Console

from eval.compare import print_summary, prove, read_samples, require_same_exam
from r1_mini.errors import UserError


def test_summary_holds_the_hand_computed_figures(tmp_path, exams, write, seconds):
    summary = prove(write(tmp_path, exams), "arithmetic", seconds)
    assert summary["base"]["pass_at_1"] == pytest.approx(1 / 6)
    assert summary["forced_worked"]["pass_at_1"] == pytest.approx(3 / 6)
    assert summary["rl"]["pass_at_1"] == pytest.approx(5 / 6)
    assert summary["paired_difference"]["estimate"] == pytest.approx(4 / 6)
    assert summary["rl_minus_forced_worked"]["estimate"] == pytest.approx(2 / 6)
    assert summary["forced_worked_minus_base"]["estimate"] == pytest.approx(2 / 6)
    assert (summary["n_problems"], summary["n_samples"]) == (3, 6)
    assert (summary["base"]["mean_tokens"], summary["rl"]["mean_tokens"]) == (10, 30)
    assert summary["base"]["voices"] == {"direct": 1.0, "worked": 0.0, "checked": 0.0, "none": 0.0}
    assert summary["rl"]["by_depth"]["2"]["estimate"] == 1.0
    assert summary["rl"]["by_depth"]["3"]["estimate"] == 0.5
    assert summary["seconds"] == seconds


def test_one_step_problems_are_reported_apart(tmp_path, exams, write, seconds):
    summary = prove(write(tmp_path, exams), "arithmetic", seconds)
    assert "1" not in summary["base"]["by_depth"]
    assert (summary["base"]["one_step"]["estimate"], summary["rl"]["one_step"]["estimate"]) == (1.0, 0.5)


def test_three_problems_show_nothing_and_forty_do(tmp_path, exams, large_exams, write, seconds):
    few, many = tmp_path / "few", tmp_path / "many"
    few.mkdir()
    many.mkdir()
    assert prove(write(few, exams), "arithmetic", seconds)["verdict"] == "not shown"
    summary = prove(write(many, large_exams), "arithmetic", seconds)
    assert summary["verdict"] == "shown"
    assert summary["rl_minus_forced_worked"]["verdict"] == "shown"
    assert summary["paired_difference"]["low"] > 0.6


def test_base_and_rl_swapped_show_nothing(tmp_path, large_exams, write, seconds):
    swapped = large_exams | {"base": large_exams["rl"], "rl": large_exams["base"]}
    summary = prove(write(tmp_path, swapped), "arithmetic", seconds)
    assert summary["paired_difference"]["estimate"] == -0.75
    assert summary["verdict"] == "not shown"


def test_order_of_the_samples_does_not_matter(tmp_path, exams, write, seconds):
    ordered, mixed = tmp_path / "ordered", tmp_path / "mixed"
    ordered.mkdir()
    mixed.mkdir()
    first = prove(write(ordered, exams), "arithmetic", seconds)
    assert prove(write(mixed, exams | {"rl": exams["rl"][::-1]}), "arithmetic", seconds) == first


def test_files_are_whole_and_say_the_same_as_the_returned_summary(tmp_path, exams, write, seconds):
    summary = prove(write(tmp_path, exams), "arithmetic", seconds)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert (tmp_path / "report.html").stat().st_size > 0
    assert not list(tmp_path.glob(".aside*"))
    assert summary["checkpoints"] == {
        "01-base": {"model.safetensors": "bb"},
        "02-grpo": {"model.safetensors": "cc"},
    }


def test_proving_again_gives_the_same_bytes(tmp_path, exams, write, seconds):
    run = write(tmp_path, exams)
    files = [run / name for name in ("summary.json", "report.html")]
    prove(run, "arithmetic", seconds)
    first = [path.read_bytes() for path in files]
    prove(run, "arithmetic", seconds)
    assert [path.read_bytes() for path in files] == first


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.7), ("top_p", 0.9), ("max_tokens", 128), ("seed", 8), ("split", "dev"), ("answer", "5")],
)
def test_exams_that_differ_in_a_field_are_refused_by_its_name(exams, field, value):
    changed = [row | {field: value} for row in exams["rl"]]
    with pytest.raises(UserError, match=f"base and rl: they differ in `{field}`"):
        require_same_exam(exams | {"rl": changed})


def test_exams_on_other_problems_are_refused(exams):
    others = [row | {"key": row["key"].replace("c", "z")} for row in exams["rl"]]
    with pytest.raises(UserError, match="base and rl: `key` c, sample 0, is in one of them only"):
        require_same_exam(exams | {"rl": others})


def test_a_decoding_that_changes_on_the_way_is_refused(exams):
    rows = [row | {"top_p": 0.9 if row["key"] == "a" else 1.0} for row in exams["base"]]
    with pytest.raises(UserError, match="base: `top_p` is not the same"):
        require_same_exam(dict.fromkeys(exams, rows))


def test_an_exam_that_was_cut_off_is_refused(exams):
    with pytest.raises(UserError, match="rl: `key` d has fewer samples"):
        require_same_exam(exams | {"rl": exams["rl"][:-1]})


def test_a_sample_that_occurs_twice_is_refused(exams):
    with pytest.raises(UserError, match="rl: the same `key`"):
        require_same_exam(exams | {"rl": [*exams["rl"], exams["rl"][0]]})


def test_an_exam_of_one_step_problems_alone_is_refused(tmp_path, exams, write, seconds):
    shallow = {name: [row for row in rows if row["key"] == "d"] for name, rows in exams.items()}
    with pytest.raises(UserError, match="no problem of 2 or more"):
        prove(write(tmp_path, shallow), "arithmetic", seconds)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"key": "a', "samples.jsonl:1: not a whole line of JSON"),
        ('{"key": "a"}', "samples.jsonl:1: field `question` is missing"),
        ("[1]", "samples.jsonl:1: field `question` is missing"),
        ("", "samples.jsonl: no samples"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "samples.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_samples(path)


def test_a_missing_exam_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_samples(tmp_path / "samples.jsonl")


def test_table_fits_eighty_columns_and_ends_in_the_verdict(tmp_path, large_exams, write, seconds):
    summary = prove(write(tmp_path, large_exams), "arithmetic", seconds)
    out = io.StringIO()
    print_summary(summary, Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "100.0 [91.2, 100.0]" in text  # Wilson of 40 of 40
    assert "5 operations" in text and "voice checked" in text
    assert "Shown: RL raised pass@1 from 25.0% to 100.0%: +75.0 points" in text
    assert "50.0%, 33% of the gain" in " ".join(text.split())
    assert "(3.0 times)" in text
