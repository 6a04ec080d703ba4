"""The real command on problems from a table: arithmetic in our own notation, trained on and examined."""

import json
import random
import subprocess
import sys

import pytest

from r1_mini.files import read_jsonl
from r1_mini.problems.arithmetic import evaluate, parse
from r1_mini.problems.problem import split_of
from r1_mini.problems.wording import canonical_text

RECIPE = """
name: table
problems:
  - {{jsonl: {table}}}
stages:
  - kind: base
    problems:
      - {{family: sum, terms: [2, 4], digits: 1}}
    trainer: {{max_steps: 30, per_device_train_batch_size: 16}}
  - kind: grpo
    trainer: {{max_steps: 2, per_device_train_batch_size: 16, num_generations: 4}}
evaluate: {{suite: {suite}, samples: 2, greedy: false}}
"""
SUITE = """
problems:
  - {{jsonl: {asked}, number: 8}}
samples: 2
max_tokens: 40
"""


def write(path, questions):
    rows = [{"question": question, "answer": str(evaluate(parse(question)))} for question in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(tmp_path, *overrides):
    command = [sys.executable, "-m", "r1_mini", "run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]
    return subprocess.run([*command, *overrides], capture_output=True, text=True, timeout=900)


@pytest.mark.slow
def test_a_run_trains_and_is_examined_on_a_table_and_says_what_it_leaves_out(tmp_path) -> None:
    rng = random.Random(0)
    questions = {f"{rng.randint(1, 9)}+{rng.randint(1, 9)}-{rng.randint(1, 9)}" for _ in range(400)}
    by_key = {canonical_text(question): question for question in sorted(questions)}
    write(tmp_path / "table.jsonl", by_key.values())
    tested = [question for key, question in by_key.items() if split_of(key) == "test"]
    (taught, *_) = [question for key, question in by_key.items() if split_of(key) == "train"]
    asked = [*tested[:20], taught]
    write(tmp_path / "asked.jsonl", asked)
    (tmp_path / "suite.yaml").write_text(SUITE.format(asked=tmp_path / "asked.jsonl"))
    recipe = RECIPE.format(table=tmp_path / "table.jsonl", suite=tmp_path / "suite.yaml")
    (tmp_path / "recipe.yaml").write_text(recipe)

    done = run(tmp_path)
    assert done.returncode == 0, done.stderr
    rows = read_jsonl(tmp_path / "run" / "eval" / "suite" / "02-grpo" / "samples.jsonl")
    assert len({row["key"] for row in rows}) == 8
    assert {row["family"] for row in rows} == {"asked"}
    assert {row["judge"] for row in rows} == {"number"}
    assert {row["question"] for row in rows} <= set(asked)
    for row in rows:
        assert row["answer"] == str(evaluate(parse(row["question"])))

    again = run(tmp_path)
    assert again.stdout.count("done before, skipped") == 2

    own = run(tmp_path, "evaluate.suite=own", "evaluate.limit=8")
    assert own.returncode == 0, own.stderr
    rows = read_jsonl(tmp_path / "run" / "eval" / "own" / "02-grpo" / "samples.jsonl")
    assert {split_of(row["key"]) for row in rows} == {"test"}

    with (tmp_path / "table.jsonl").open("a") as table:
        table.write('{"question": "9*9*9", "answer": "729"}\n')
    changed = run(tmp_path, "evaluate.suite=own", "evaluate.limit=8")
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout.count("done before, skipped") == 1  # the base stage; the table of the other has changed

    with (tmp_path / "table.jsonl").open("a") as table:
        table.write("{\n")
    broken = run(tmp_path)
    assert broken.returncode == 2
    assert broken.stderr.startswith(f"error: {tmp_path / 'table.jsonl'}:{len(by_key) + 2}: not JSON; ")
    assert broken.stderr.count("\n") == 1
