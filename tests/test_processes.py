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
from tests.conftest import arguments, run

HERE = Path(__file__).parent
CONFIG = HERE.parent / "recipes" / "accelerate" / "cpu2.yaml"
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]

pytestmark = pytest.mark.slow


def launched(out, *overrides):
    """The command that runs the smoke recipe into `out` with two processes."""
    return [*LAUNCH, "-m", "r1_mini", *arguments(out, *overrides)]


@pytest.mark.parametrize(("scale", "baseline"), [("none", "group"), ("group", "group"), ("none", "batch")])
def test_the_same_rollouts_have_the_same_advantages_and_make_the_same_step(tmp_path, scale, baseline):
    made = []
    for name, start, prompts in (("one", [sys.executable], 4), ("two", LAUNCH, 2)):
        script = [str(HERE / "launched" / "advantages.py"), str(tmp_path / name), str(prompts), scale, baseline]
        done = subprocess.run([*start, *script], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        made.append(json.loads((tmp_path / name).read_text()))
    one, two = made
    assert two["advantages"] == pytest.approx(one["advantages"], abs=1e-6)
    if scale == "none":  # of problem d, d of four completions are wrong
        mean = sum((4 - digit) / 4 for digit in range(4)) / 4
        base = [mean] * 4 if baseline == "batch" else [(4 - digit) / 4 for digit in range(4)]
        by_hand = [(place >= digit) - base[digit] for digit in range(4) for place in range(4)]
        assert sorted(one["advantages"]) == pytest.approx(sorted(by_hand), abs=1e-6)
    assert two["accuracy"] == pytest.approx(one["accuracy"])
    assert two["weights"] == pytest.approx(one["weights"], abs=2e-5)


def test_two_processes_go_from_base_to_report_and_learn_as_one_does(smoke, tmp_path):
    out = tmp_path / "run"
    done = subprocess.run(launched(out), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    for name in ("recipe.yaml", "manifest.json", "summary.json", "report.html", "02-grpo/model.safetensors"):
        assert (out / name).stat().st_size > 0, name
    assert not [path for path in out.iterdir() if path.name.startswith((".work", ".aside"))]
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in (smoke[0], out))
    assert two["verdict"] == "shown"
    assert abs(two["rl"]["pass_at_1"] - one["rl"]["pass_at_1"]) < 0.1
    rows = read_jsonl(out / "02-grpo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert done.stdout.count("the page:") == 1


def test_when_one_process_is_killed_all_end_and_one_alone_goes_on(tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(launched(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = out / ".work-02-grpo" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and len(metrics.read_bytes().splitlines()) >= 6):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    children = [pid for pid in _children(process.pid) if b"RANK=1" in _environment(pid)]
    os.kill(children[0], signal.SIGKILL)
    assert process.wait(60) != 0
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
    done = run(out)
    assert done.returncode == 0, done.stderr
    assert "01-base    done before, skipped" in done.stdout
    steps = [row["step"] for row in read_jsonl(out / "02-grpo" / "metrics.jsonl")]
    assert steps == list(range(1, 21))


def _children(parent):
    tasks = Path(f"/proc/{parent}/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def _environment(pid):
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_weights_that_are_spread_over_processes_are_trained_as_whole_ones(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "name: spread\nproblems: [{family: sum, terms: [2, 3], digits: 1, largest: 9}]\nstages:\n"
        "  - kind: base\n    optimizer: adamw\n    model: {hidden_size: 48, layers: 2, heads: 2}\n"
        "    trainer: {max_steps: 4, per_device_train_batch_size: 8, warmup_steps: 0, save_steps: 2}\n"
        "  - kind: grpo\n    rewards: {length: 1.0}\n"
        "    trainer: {max_steps: 2, per_device_train_batch_size: 8, num_generations: 4, max_completion_length: 12}\n"
        "evaluate: {suite: own, limit: 6, samples: 2, max_tokens: 12, greedy: false}\n",
        encoding="utf-8",
    )
    launched_folder = HERE / "launched"
    sharded = [*LAUNCH[:-1], str(launched_folder / "fsdp2_cpu.yaml"), str(launched_folder / "fsdp2.py")]
    whole = [*LAUNCH, "-m", "r1_mini"]
    for name, start in (("sharded", sharded), ("whole", whole)):
        arguments = ["run", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / name / "run")]
        done = subprocess.run([*start, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    sharded_base, whole_base, after = (
        load_file(tmp_path / name / "run" / stage / "model.safetensors")
        for name, stage in (("sharded", "01-base"), ("whole", "01-base"), ("sharded", "02-grpo"))
    )
    assert sharded_base.keys() == whole_base.keys() == after.keys()
    for name, weights in whole_base.items():
        torch.testing.assert_close(sharded_base[name], weights, atol=2e-4, rtol=0, msg=name)
    assert any((after[name] - weights).abs().max() > 1e-4 for name, weights in sharded_base.items())
