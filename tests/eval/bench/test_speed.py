"""The speed comparison: its arithmetic by hand, its lengths, and the real command on a batch of eight."""

import json
import os
import signal
import subprocess
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eval.bench import run
from eval.bench.run import Groups, case_of, growing, micro_batches, set_lengths, speedup, step_flops
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.params import SamplingParams
from tests.commands import Started, command


def tiny_model(mean):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=48, layers=2, heads=2, intermediate_size=None, seed=0)
    set_lengths(model, mean)
    return model, tokenizer


def flops(*varies):
    """Of groups with a prompt of 4 tokens and completions of 6 and 8, at 1,000 weights and 80 per token of context."""
    groups = Groups(np.full(len(varies), 4), np.array([[6, 8]] * len(varies)), np.array(varies))
    model = torch.nn.Linear(100, 10)
    model.config = SimpleNamespace(hidden_size=10, num_hidden_layers=2)
    return step_flops(model, groups)


def test_sampling_costs_two_flop_a_weight_the_update_three_times_as_much_and_zero_variance_groups_no_update():
    sampling = (
        4 * (2000 + 80 * 2)  # the prompt: 4 tokens that see 2 on average, once
        + 6 * (2000 + 80 * 7)  # the first completion: 6 tokens that see 4 + 3
        + 8 * (2000 + 80 * 8)
    )
    update = 3 * (10 * (2000 + 80 * 5) + 12 * (2000 + 80 * 6))  # rows of 10 and 12 tokens
    assert (flops(False), flops(True), flops(True, False)) == (sampling, sampling + update, 2 * sampling + update)


def test_the_embedding_and_the_norms_take_no_part_in_matrix_products():
    model, tokenizer = tiny_model(10)
    middle = 128  # 48 * 8 / 3
    weights = 2 * (4 * 48 * 48 + 3 * 48 * middle) + 48 * len(tokenizer)
    one_token = Groups(np.array([0]), np.array([[1]]), np.array([False]))
    assert step_flops(model, one_token) == 2 * weights + 4 * 48 * 2 * 0.5


def test_the_gain_is_taken_pair_by_pair_and_micro_batches_divide_the_batch():
    assert speedup(ours=[1.0, 2.0, 9.0], theirs=[2.0, 10.0, 9.0]) == {"median": 2.0, "min": 1.0, "max": 5.0}
    assert [micro_batches(batch) for batch in (512, 96, 8)] == [[32, 64, 128, 256, 512], [32, 96], [8]]


def test_eos_is_as_likely_everywhere_and_padding_impossible():
    model, tokenizer = tiny_model(20)
    ids = torch.randint(2, len(tokenizer), (8, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        chances = model(ids).logits.softmax(dim=-1)
    assert chances[..., tokenizer.eos_token_id].sub(1 / 20).abs().max() < 0.001
    assert chances[..., tokenizer.pad_token_id].max() == 0
    assert chances.max() < 0.1  # no token is so likely that completions are alike
    prompts = tokenizer(["User: 1+2\nAssistant:", "User: 3+4+5\nAssistant:"])["input_ids"]
    done = rollout(model, prompts, SamplingParams(200, 400), stop=[tokenizer.eos_token_id])
    mean = fmean(len(completion.tokens) for group in done for completion in group)
    assert mean == pytest.approx(20, abs=4)  # 400 geometric lengths: a standard error of 1


def test_a_point_of_a_scaling_axis_changes_one_thing():
    base = case_of("0.3M", "short", 0.3, 2)
    assert (base.prompts, base.samples, base.batch, base.mean, base.longest) == (32, 16, 512, 30, 80)
    points = {case.profile: replace(case, profile="short") for case in growing(base)}
    assert points["group of 4"] == replace(base, samples=4)
    assert points["64 prompts"] == replace(base, prompts=64)
    assert points["mean length 15"] == replace(base, mean=15, longest=40)
    assert points["5M parameters"] == replace(base, size="5M", prompts=8, samples=8)


def small(arguments):
    """The command on a batch of eight completions, in a process group of its own."""
    os.setsid()
    run.BATCHES["0.3M"]["short"] = (2, 4)
    return command(["bench", "--size", "0.3M", "--profile", "short", *arguments])


@pytest.mark.slow
def test_the_command_times_both_sides_and_writes_every_timing(tmp_path):
    out = tmp_path / "new" / "bench.json"
    done = Started("--out", out, "--pairs", "1", main=small).done(120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "step 0.3M short, 2 x 4" in done.stdout and "arning" not in done.stdout
    result = json.loads(out.read_text())
    assert min(result["torch_threads"], result["gflops"], result["machine"]["cores"]) > 0
    assert result["versions"]["trl"]
    step, rollouts = result["rows"][:2]
    assert (step["against"], list(step["sides"]), step["micro_batch"]) == ("TRL", ["ours", "TRL"], 8)
    assert list(rollouts["sides"]) == ["ours", "model.generate"]
    for row in (step, rollouts):
        assert row["speedup"]["min"] <= row["speedup"]["median"] <= row["speedup"]["max"]
        assert len(row["timings"]) == 2  # one of each side
        for timing in row["timings"]:
            assert 0 < timing["seconds_rollout"] <= timing["seconds"]
            assert timing["times_limit"] == pytest.approx(timing["seconds"] * result["gflops"] * 1e9 / timing["flops"])
            assert 8 * 8 <= timing["tokens"] <= 8 * 60  # eight lengths of mean 28 that end at 80
            assert timing["seconds_rollout"] + timing["seconds_update"] == pytest.approx(timing["seconds"])
            assert timing["zero_variance"] >= 0.5  # one of two, and the other by a chance of 1 in 8


def begin(out):
    """The command once its first row is being timed, and its sides' process ids."""
    started = Started("--out", out, "--pairs", "2000", main=small)
    sides = []

    def both():
        sides[:] = [side for server in children(started.pid) for side in children(server)]
        return len(sides) == 2

    return started.when(both), sides


def children(pid):
    return list(map(int, subprocess.run(["pgrep", "-P", str(pid)], capture_output=True).stdout.split()))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for the sides in /proc")
def test_ctrl_c_ends_the_sides_and_a_side_that_dies_is_one_line(tmp_path):
    started, sides = begin(tmp_path / "bench.json")
    os.killpg(started.pid, signal.SIGINT)
    done = started.done(30)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert not any(os.path.exists(f"/proc/{side}") for side in sides)

    started, sides = begin(tmp_path / "bench.json")
    os.kill(sides[1], signal.SIGKILL)
    done = started.done(30)
    what = f"TRL, step: exit code -9; see {tmp_path}/bench.json.log"
    assert (done.returncode, done.stderr) == (1, f"error: RuntimeError: {what}; --debug shows where\n")
