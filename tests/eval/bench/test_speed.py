"""The speed comparison: its arithmetic by hand, its lengths, and the real command on a batch of eight."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from statistics import fmean

import pytest
import torch

from eval.bench.side import network_of, set_lengths
from eval.bench.work import (
    SIZES,
    Group,
    Network,
    Profile,
    case_of,
    eos_logit,
    growing,
    micro_batches,
    speedup,
    step_flops,
)
from r1_mini import cli
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.engine import SamplingParams, rollout


def tiny_model(profile):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=48, layers=2, heads=2, intermediate_size=None, seed=0)
    set_lengths(model, profile)
    return model, tokenizer


def test_sampling_costs_two_flop_a_weight_and_attention_to_the_mean_context():
    network = Network(weights=1000, layers=2, width=10)  # attention: 80 FLOP per token and token of context
    assert step_flops(network, [Group(4, [6], signal=False)]) == (
        4 * (2000 + 80 * 2)  # the prompt: 4 tokens that see 2 on average
        + 6 * (2000 + 80 * 7)  # the completion: 6 tokens that see 4 + 3
    )


def test_a_prompt_is_prefilled_once_for_its_group():
    network = Network(weights=1000, layers=1, width=0)
    assert step_flops(network, [Group(4, [6, 8], signal=False)]) == 2000 * (4 + 6 + 8)


def test_the_update_costs_three_times_as_much_on_rows_with_signal_and_nothing_on_others():
    network = Network(weights=1000, layers=2, width=10)
    silent, loud = Group(4, [6, 8], signal=False), Group(4, [6, 8], signal=True)
    update = 3 * (10 * (2000 + 80 * 5) + 12 * (2000 + 80 * 6))  # rows of 10 and 12 tokens
    assert step_flops(network, [loud]) == step_flops(network, [silent]) + update
    assert step_flops(network, [loud], update=False) == step_flops(network, [silent])
    assert step_flops(network, [loud, silent]) == step_flops(network, [loud]) + step_flops(network, [silent])


def test_the_embedding_and_the_norms_take_no_part_in_matrix_products():
    model, tokenizer = tiny_model(Profile(10, 50))
    middle = 128  # 48 * 8 / 3
    weights = 2 * (4 * 48 * 48 + 3 * 48 * middle) + 48 * len(tokenizer)
    assert network_of(model) == Network(weights, 2, 48)
    others = 48 * len(tokenizer) + 5 * 48  # embedding; two norms a layer, one at the end
    assert sum(parameter.numel() for parameter in model.parameters()) == weights + others


def test_the_gain_is_taken_pair_by_pair():
    assert speedup(ours=[1.0, 2.0, 9.0], theirs=[2.0, 10.0, 9.0]) == {"median": 2.0, "min": 1.0, "max": 5.0}


def test_micro_batches_divide_the_batch():
    assert micro_batches(512) == [32, 64, 128, 256, 512]
    assert micro_batches(96) == [32, 96]
    assert micro_batches(8) == [8]


def test_the_logit_of_eos_gives_it_one_chance_in_the_mean():
    logit = eos_logit(30, 27)
    assert math.exp(logit) / (math.exp(logit) + 27) == pytest.approx(1 / 30)


def test_eos_is_as_likely_wherever_it_is_asked_and_padding_impossible():
    model, tokenizer = tiny_model(Profile(20, 400))
    ids = torch.randint(2, len(tokenizer), (8, 30), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        chances = model(ids).logits.softmax(dim=-1)
    assert chances[..., tokenizer.eos_token_id].sub(1 / 20).abs().max() < 0.001
    assert chances[..., tokenizer.pad_token_id].max() == 0
    assert chances.max() < 0.1  # no token is so likely that completions are alike


def test_completions_have_the_length_that_is_asked_for():
    model, tokenizer = tiny_model(Profile(20, 400))
    prompts = tokenizer(["User: 1+2\nAssistant:", "User: 3+4+5\nAssistant:"])["input_ids"]
    done = rollout(model, prompts, SamplingParams(200, 400), stop=[tokenizer.eos_token_id])
    mean = fmean(len(completion.tokens) for group in done for completion in group)
    assert mean == pytest.approx(20, abs=4)  # 400 geometric lengths: a standard error of 1


def test_a_fixed_share_of_groups_is_silent():
    case = case_of("step", "0.3M", "short", 0.3, 2, None, None)
    assert (case.prompts, case.samples, case.batch, case.silent) == (32, 16, 512, 10)


def test_a_scaling_axis_changes_one_thing():
    base = case_of("step", "0.3M", "short", 0.3, 2, None, None)
    axes = growing(base)
    assert [case.samples for _, case in axes["group size"]] == [4, 8, 16, 32]
    assert [case.prompts for _, case in axes["prompts"]] == [8, 16, 32, 64]
    assert [case.profile for _, case in axes["mean length"]] == [Profile(15, 40), Profile(30, 80), Profile(60, 160)]
    assert [case.size for _, case in axes["parameters"]] == list(SIZES)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--size", "7B"], "error: --size: there is no '7B'; choose 0.3M, 5M, 30M\n"),
        (["--profile", "tall"], "error: --profile: there is no 'tall'; choose short, long\n"),
        (["--out", "."], "error: .: is a folder; give --out the path of a file\n"),
        (["--pairs", "0"], "error: Invalid value for '--pairs'"),
        (["--without-signal", "1.5"], "error: Invalid value for '--without-signal'"),
    ],
)
def test_a_wrong_option_is_one_line(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(line)
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def small(out):
    """The command on a batch of eight completions."""
    options = ["--size", "0.3M", "--profile", "short", "--pairs", "1", "--prompts", "2", "--samples", "4"]
    return [sys.executable, "-m", "r1_mini", "bench", *options, "--out", str(out)]


@pytest.mark.slow
def test_the_command_times_both_sides_and_writes_every_timing(tmp_path):
    out = tmp_path / "new" / "bench.json"
    done = subprocess.run(small(out), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "step 0.3M short, 2 x 4" in done.stdout
    assert "arning" not in done.stdout
    result = json.loads(out.read_text())
    assert result["torch_threads"] >= 1
    assert result["gflops"] > 0
    assert result["machine"]["cores"]
    assert result["versions"]["trl"]
    step, rollouts = (row for row in result["rows"] if row["against"] in ("trl", "generate"))
    assert list(step["sides"]) == ["ours", "trl"]
    assert list(rollouts["sides"]) == ["ours", "generate"]
    assert step["micro_batch"] == 8
    for row in (step, rollouts):
        assert row["speedup"]["min"] <= row["speedup"]["median"] <= row["speedup"]["max"]
        for side in row["sides"].values():
            (timing,) = side["timings"]
            assert 0 < timing["seconds_rollout"] <= timing["seconds"]
            assert timing["times_limit"] == pytest.approx(timing["seconds"] / timing["limit"])
            assert 8 <= side["length_mean"] <= 60  # eight lengths of mean 28 that end at 80
            assert side["length_max"] <= 80
            assert 0 < side["baseline_mib"] <= side["peak_mib"]
    for side in step["sides"].values():
        (timing,) = side["timings"]
        assert timing["seconds_rollout"] + timing["seconds_update"] == pytest.approx(timing["seconds"])
        assert timing["groups_without_signal"] >= 0.5  # one of two, and the other by a chance of 1 in 8


def begin(out):
    """The command, in a process group of its own, once its first row is being timed; its sides' process ids."""
    command = subprocess.Popen(
        [*small(out), "--pairs", "2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(sides := sides_of(command.pid)) < 2:
        assert command.poll() is None
        time.sleep(0.1)
    return command, sides


def sides_of(pid):
    """Processes that the fork server of a command has forked."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    found.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(entry))
            except OSError:
                continue
    return [side for child in found.get(pid, []) for side in found.get(child, [])]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds the sides in /proc")
def test_ctrl_c_ends_the_sides_and_a_side_that_dies_is_one_line(tmp_path):
    command, sides = begin(tmp_path / "bench.json")
    os.killpg(command.pid, signal.SIGINT)
    _, errors = command.communicate(timeout=30)
    assert (command.returncode, errors) == (130, "interrupted\n")
    assert not any(os.path.exists(f"/proc/{side}") for side in sides)

    command, sides = begin(tmp_path / "bench.json")
    os.kill(sides[1], signal.SIGKILL)
    _, errors = command.communicate(timeout=30)
    assert command.returncode == 1
    assert errors == (
        f"error: SideEnded: trl (step, 0.3M) ended with exit code -9; see {tmp_path}/bench.json.log; --debug shows where\n"
    )
