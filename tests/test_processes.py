"""Two processes on one CPU do what one does, from base to report; killed, they end together and the run goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1_mini.system.files import read_jsonl
from tests.commands import command, launched
from tests.conftest import arguments, run
from tests.launched import fsdp2, same_run

HERE = Path(__file__).parent
CPU2 = HERE.parent / "recipes" / "accelerate" / "cpu2.yaml"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory):
    """What one process makes, this one, and what two do."""
    settings, file = ["none/group", "group/group", "none/batch"], tmp_path_factory.mktemp("same") / "two.json"
    launched(CPU2, file, *settings, main=same_run.main)
    return same_run.everything(settings), json.loads(file.read_text())


@pytest.mark.parametrize("kind", ["base", "sft", "rejection", "collect", "collect one", "grpo"])
def test_two_processes_read_sample_and_learn_what_one_does_with_the_batch_of_both(one_and_two, kind):
    one, two = (each[kind] for each in one_and_two)
    assert two["weights"] == (one["weights"] if kind == "base" else pytest.approx(one["weights"], abs=2e-5))
    for row_of_one, row_of_two in zip(one["metrics"], two["metrics"], strict=True):
        del row_of_one["token_accuracy" if kind == "base" else "step"]  # TRL takes the mean over micro-batches
        assert {name: row_of_two[name] for name in row_of_one} == pytest.approx(row_of_one, abs=1e-5, nan_ok=True)
    assert two.get("data") == one.get("data")
    assert (one["weights"] == []) == bool(one.get("data"))


def test_one_prompt_of_two_processes_has_different_completions_the_same_as_of_one(one_and_two):
    one, two = (each["grpo"] for each in one_and_two)
    assert two["sampled"] == one["sampled"]
    assert all(len({tuple(ids) for ids in step}) == len(step) == 16 for step in two["sampled"])
    asked = [(row["step"], row["question"], row["text"], row["reward"]) for row in one["rollouts"]]
    assert [(row["step"], row["question"], row["text"], row["reward"]) for row in two["rollouts"]] == asked
    assert len(asked) == 3 * 3 * 2  # steps 0, 1 and 2


def test_gradients_of_two_processes_with_different_numbers_of_parts_equal_those_of_stock_trl(one_and_two):
    for each in one_and_two[1]["gradients"]:
        assert max(each["distances"]) < 1e-6
    rows = [each["rows"] for each in one_and_two[1]["gradients"]]
    assert rows == [[[1, 1, 1], [1]]] * 3 + [[[1] * 4] * 2]  # with a KL term every row counts


@pytest.mark.parametrize("setting", ["none/group", "group/group", "none/batch"])
def test_the_same_rollouts_have_the_same_advantages_on_one_process_and_on_two(one_and_two, setting):
    one, two = (each[setting] for each in one_and_two)
    for name, near in (("advantages", 1e-6), ("accuracy", 1e-6), ("weights", 2e-5)):
        assert two[name] == pytest.approx(one[name], abs=near), name
    means = [(4 - digit) / 4 for digit in range(4)]  # of problem d, d of four completions are wrong
    base = [sum(means) / 4] * 4 if setting == "none/batch" else means
    by_hand = [(place >= digit) - base[digit] for digit in range(4) for place in range(4)]
    if setting != "group/group":
        assert sorted(one["advantages"]) == pytest.approx(sorted(by_hand), abs=1e-6)


def test_when_one_process_is_killed_all_end_and_one_alone_goes_on_and_learns_as_well(smoke, tmp_path):
    out = smoke[0].parent / "killed"  # beside the smoke run, whose base it takes over
    two = "evaluate.columns=[base,grpo]"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CPU2), "-m", "r1_mini"]
    process = subprocess.Popen([*launcher, *arguments(out, two)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = out / ".work-02-grpo" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and len(metrics.read_bytes().splitlines()) >= 6):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    started = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    children = [pid for pid in started if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
    os.kill(children[0], signal.SIGKILL)
    assert process.wait(60) != 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert "01-base    done before, skipped" in run(out, two).stdout
    steps = [row["step"] for row in read_jsonl(out / "02-grpo" / "metrics.jsonl")]
    assert steps == list(range(1, 21))
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (smoke[0], out))
    assert two["verdict"] == "shown"
    assert abs(two["grpo"]["pass_at_1"] - one["rl"]["pass_at_1"]) < 0.1


def test_two_processes_go_from_base_to_report_and_with_spread_weights_train_as_with_whole_ones(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: spread\nproblems: [{family: sum, terms: [2, 3], digits: 1, largest: 9}]\nstages:\n"
        "  - kind: base\n    model: {hidden_size: 48, layers: 2, heads: 2}\n"
        "    trainer: {max_steps: 4, per_device_train_batch_size: 8, warmup_steps: 0, save_steps: 2}\n"
        "  - kind: grpo\n    rewards: {length: 1.0}\n    dev: {every: 1, suite: own, limit: 6}\n"
        "    trainer: {max_steps: 2, per_device_train_batch_size: 8, num_generations: 4, max_completion_length: 12}\n"
        "evaluate: {suite: own, limit: 6, samples: 2, max_tokens: 12, greedy: false}\n",
        encoding="utf-8",
    )
    sharded = (HERE / "launched" / "fsdp2_cpu.yaml", fsdp2.main)
    for name, (config, main) in (("sharded", sharded), ("whole", (CPU2, command))):
        out = tmp_path / name / "run"
        done = launched(config, "run", recipe, "--out", out, main=main)
        assert done.stdout.count("the page:") == 1
        assert (out / "report.html").stat().st_size > 0
        assert all("dev_pass_at_1" in row for row in read_jsonl(out / "02-grpo" / "metrics.jsonl"))
        assert (out / "02-grpo" / "best.json").exists()
        assert not [path for path in out.iterdir() if path.name.startswith((".work", ".aside"))]
    sharded_base, whole_base, after = (
        load_file(tmp_path / name / "run" / stage / "model.safetensors")
        for name, stage in (("sharded", "01-base"), ("whole", "01-base"), ("sharded", "02-grpo"))
    )
    assert sharded_base.keys() == whole_base.keys() == after.keys()
    for name, weights in whole_base.items():
        torch.testing.assert_close(sharded_base[name], weights, atol=2e-4, rtol=0, msg=name)
    assert any((after[name] - weights).abs().max() > 1e-4 for name, weights in sharded_base.items())
