"""The completions that a stage kept, as the page embeds them."""

import json
from itertools import product

import pytest

from eval.analysis.columns import columns_of
from eval.report import page, rollouts
from r1_mini.errors import UserError
from tests.eval import conftest as exams
from tests.eval.report.conftest import kept_row, make_kept, make_samples


def test_completions_are_in_the_order_of_problem_step_and_sample_and_every_step_is_judged():
    first, second = rollouts.read(make_kept()[::-1])
    assert (first["asked"], first["about"]) == ("45-29+10 = 26", "sum, 2 operations")
    assert [(row["step"], row["sample"]) for row in first["rows"][:5]] == [(0, 0), (0, 1), (0, 2), (0, 3), (20, 0)]
    assert first["rows"][5]["text"] == [["45-29=26", "retracted"], ["wait"], ["45-29=16"], ["16+10=26"]]
    assert second["rows"][6]["text"] == [["45-29=16"], ["16+11=37", "wrong"]]
    assert second["rows"][6]["reward"] == "0.1: accuracy 0, format 1"
    assert (second["rows"][6]["answer"], second["rows"][6]["correct"]) == ("37", 0)


def test_the_middle_of_a_long_text_is_left_out():
    def text(completion, **changes):
        return rollouts.completion(kept_row(0, 0, 0, completion, **changes))["text"]

    assert text("a" * 300 + "b" * 7 + "c" * 300) == ["a" * 300, 7, "c" * 300]
    assert text("a" * 600) == ["a" * 600] and text("") == []
    steps = [[f"{number:0100}", "wrong"] for number in range(7)]  # 100 characters each
    found = text("<think>x</think><answer>1</answer>", steps=steps)
    assert found == [*steps[:3], 100, *steps[4:]]
    assert text("<think>x</think><answer>1</answer>", steps=steps[:6]) == steps[:6]
    assert text("<think>two\nlines</think><answer>1</answer>", steps=None) == ["two\nlines"]


def test_of_many_kept_steps_twenty_are_shown_with_the_first_and_the_last():
    found = rollouts.steps(rollouts.read([kept_row(step, 0, 0, "1") for step in range(0, 1001, 10)]))
    assert len(found) == 20 and (found[0], found[1], found[-1]) == (0, 50, 1000)  # the 5th of 100 steps of 10
    assert rollouts.steps(rollouts.read([kept_row(step, 0, 0, "1") for step in (7, 0, 3)])) == [0, 3, 7]


def test_a_reward_that_a_problem_does_not_have_is_said():
    row = kept_row(0, 0, 0, "1", reward=0.25, rewards={"accuracy": None, "language": 1 / 3})
    assert rollouts.completion(row)["reward"] == "0.25: accuracy none, language 0.333"


def test_twelve_steps_of_32_completions_of_80_tokens_add_less_than_80_kb_and_none_add_nothing(render):
    def row(step, problem, sample):  # digits and signs are a token each: 4 tags, 75 characters, and the end
        lines = [f"{step + 10 * problem + sample:03}+{10 + line}={step:04}" for line in range(6)]
        text = "<think>" + "\n".join(lines) + "</think><answer>1234</answer>"
        steps = [[line, "right" if place % 2 else "wrong"] for place, line in enumerate(lines)]
        return kept_row(step, problem, sample, text, steps=steps)

    rows = [row(25 * step, *place) for step in range(12) for place in product(range(8), range(4))]
    assert len(rows[0]["text"]) - len("<think></think><answer></answer>") == 75
    without, kept = (render(make_samples(4), kept=each) for each in ({}, {"grpo": rollouts.read(rows)}))
    assert 40_000 < len(kept.encode()) - len(without.encode()) < 80_000
    for part in ("rollouts", "#steps", "During training"):
        assert part not in without and part in kept


def test_kept_completions_are_read_from_the_stages_of_a_run_and_a_damaged_file_is_named(tmp_path):
    run = exams.write_run(tmp_path / "x", 0, "10", "11", "11", problems=[], stages=[{"kind": "grpo"}])
    stages = {name: {"kind": "grpo", "sha256": {}} for name in ("01-grpo", "02-grpo")}
    (run / "manifest.json").write_text(json.dumps({"stages": stages}))
    (run / "02-grpo").mkdir()
    file = run / "02-grpo" / "rollouts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in make_kept()))
    assert list(page.Training.of(columns_of([run]), run).kept) == ["02-grpo"]
    file.write_text('{"step": 0}\n')
    with pytest.raises(UserError, match="is damaged"):
        page.Training.of(columns_of([run]), run)
