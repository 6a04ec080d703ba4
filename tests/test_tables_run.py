"""The real command on problems from a table: arithmetic in our own notation, trained on and examined."""

import json
import random
import re
import signal

import pytest

from r1_mini.cli import main
from r1_mini.problems.arithmetic import evaluate, parse
from r1_mini.problems.problem import split_of
from r1_mini.problems.wording import canonical_text
from r1_mini.system.files import read_jsonl
from tests.commands import Started

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
  - {{dataset: {asked}, splits: {{train: null}}, number: 8}}
samples: 2
max_tokens: 40
"""


def write(path, questions):
    rows = [{"question": question, "answer": str(evaluate(parse(question)))} for question in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_a_run_trains_and_is_examined_on_a_table_and_leaves_out_what_is_asked(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rng = random.Random(0)
    questions = {f"{rng.randint(1, 9)}+{rng.randint(1, 9)}-{rng.randint(1, 9)}" for _ in range(400)}
    by_key = {canonical_text(question): question for question in sorted(questions)}
    write(tmp_path / "table.jsonl", by_key.values())
    tested = [question for key, question in by_key.items() if split_of(key) == "test"]
    taught = [question for key, question in by_key.items() if split_of(key) == "train"]
    asked = [*tested[:5], *taught[:3]]
    (tmp_path / "asked").mkdir()
    write(tmp_path / "asked" / "test.jsonl", asked)
    (tmp_path / "suite.yaml").write_text(SUITE.format(asked=tmp_path / "asked"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(table=tmp_path / "table.jsonl", suite=tmp_path / "suite.yaml"))
    arguments = ["run", str(recipe), "--out", str(tmp_path / "run")]

    examined = tmp_path / "run" / "eval" / "suite" / "columns.json"
    done = Started(*arguments).when(examined.exists).signal(signal.SIGKILL).done()  # the page comes with the next run
    assert re.search(r"^table: 3 of \d+ training problems are asked in an exam, or", done.stdout, re.MULTILINE)
    rows = read_jsonl(tmp_path / "run" / "eval" / "suite" / "02-grpo" / "samples.jsonl")
    assert {row["question"] for row in rows} == set(asked)
    assert {(row["family"], row["judge"]) for row in rows} == {("asked", "number")}
    assert {row["chain"] for row in rows} <= {"none", "unchecked"}
    assert all(row["answer"] == str(evaluate(parse(row["question"]))) for row in rows)

    with (tmp_path / "table.jsonl").open("a") as table:
        table.write('{"question": "9*9*9", "answer": "729"}\n')
    assert main(arguments) == 0
    assert capfd.readouterr().out.count("done before, skipped") == 1  # the base stage; the table of the other changed

    (tmp_path / "table.jsonl").write_text("{\n")
    assert main(arguments) == 2
    assert capfd.readouterr().err.startswith(f"error: {tmp_path / 'table.jsonl'}:1: cannot be read: ")
