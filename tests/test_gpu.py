"""What a GPU computes: skipped where there is none. What can be asked of the CPU too is asked of both."""

import json
import math
import subprocess
import sys

import pytest
import torch

from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.likelihood import log_likelihoods
from r1_mini.rollout.params import SamplingParams
from r1_mini.system.files import read_jsonl, sha256
from tests.conftest import SMOKE

ON_GPU = pytest.mark.gpu
ON_MPS = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no GPU of Apple's")
STAGES = ("01-base/model.safetensors", "02-grpo/model.safetensors")
SHAPE = {"hidden_size": 64, "layers": 2, "heads": 4, "intermediate_size": 128}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    tokenizer = make_tokenizer()
    folder = tmp_path_factory.mktemp("model") / "model"
    save_checkpoint(make_model(tokenizer, **SHAPE, seed=0), tokenizer, folder)
    return folder


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=ON_GPU), pytest.param("mps", marks=ON_MPS)])
def device(request):
    return request.param


def sampled(checkpoint, device, max_tokens, dtype=torch.float32, temperature=1.0):
    model, tokenizer = load_checkpoint(checkpoint, device, dtype=dtype)
    prompts = encode(tokenizer, [prompt_for(tokenizer, f"{a}+{b}-{a // 2}") for a in range(10, 26) for b in (3, 47)])
    params = SamplingParams(16, max_tokens, temperature, seed=3)
    return model, prompts, rollout(model, prompts, params, stop=[tokenizer.eos_token_id])


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_samples_are_as_likely_as_a_forward_pass_on_the_same_device_says(checkpoint, device, dtype, most):
    model, prompts, groups = sampled(checkpoint, device, 40, dtype)
    for prompt, group in zip(prompts[:4], groups, strict=False):
        for done in group:
            ids = torch.tensor([prompt + done.tokens], device=device)
            with torch.no_grad():
                logps = model(ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1).cpu()
            expected = logps.gather(1, torch.tensor(done.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(done.logprobs), expected, atol=most, rtol=0)


@ON_GPU
@pytest.mark.parametrize(("temperature", "share"), [(0.0, 0.9), (1.0, 0.98)])
def test_samples_are_those_of_the_cpu_but_for_ties_of_rounding(checkpoint, temperature, share):
    """Random numbers are a hash of what identifies a completion, so another device draws the same tokens."""
    here, there = (sampled(checkpoint, place, 20, temperature=temperature)[2] for place in ("cuda", "cpu"))
    alike = [a.tokens == b.tokens for pair in zip(here, there, strict=True) for a, b in zip(*pair, strict=True)]
    assert sum(alike) >= share * len(alike)


def test_the_reference_finds_completions_as_likely_as_the_sampler_did(checkpoint, device):
    model, prompts, groups = sampled(checkpoint, device, 20)
    for told, group in zip(log_likelihoods(model, prompts, groups), groups, strict=True):
        assert told == pytest.approx([math.fsum(done.logprobs) for done in group], abs=1e-3)


def command(*arguments):
    done = subprocess.run([sys.executable, "-m", "r1_mini", *arguments], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@ON_GPU
@pytest.mark.parametrize("half", ["false", "true"])
def test_a_recipe_learns_on_a_gpu_from_nothing_to_report(half, tmp_path):
    command("run", SMOKE, f"base.trainer.bf16={half}", f"grpo.trainer.bf16={half}", "--out", tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rl"]["pass_at_1"] > summary["base"]["pass_at_1"] + 0.1
    steps = read_jsonl(tmp_path / "run" / "02-grpo" / "metrics.jsonl")
    assert max(step["logp_gap_mean"] for step in steps) < (1e-4 if half == "false" else 0.02)


@ON_MPS
def test_a_recipe_learns_on_apples_gpu_in_fp32(tmp_path):
    command("run", SMOKE, "--out", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["on"] == "Apple GPU, 1 process"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rl"]["pass_at_1"] > summary["base"]["pass_at_1"] + 0.1


@ON_GPU
def test_two_deterministic_runs_on_a_gpu_are_the_same_bits(tmp_path):
    made = []
    for name in ("first", "second"):  # folders of runs of their own: nothing is taken over
        out = tmp_path / name / "run"
        command("run", SMOKE, "deterministic=true", "--out", out)
        made.append([sha256(out / each) for each in (*STAGES, "eval/smoke/02-grpo/samples.jsonl")])
    assert made[0] == made[1]


@ON_GPU
@pytest.mark.parametrize(
    ("model", "batch"),
    [
        ("{hidden_size: 256, layers: 6, heads: 8, intermediate_size: 736}", 512),
        ("{hidden_size: 512, layers: 10, heads: 8, intermediate_size: 1280}", 256),
        ("{hidden_size: 768, layers: 14, heads: 12, intermediate_size: 2048}", 256),
    ],
)
def test_a_real_run_takes_of_a_gpu_what_the_plan_says_within_a_fifth(model, batch, tmp_path):
    overrides = [
        f"base.model={model}", "base.trainer.max_steps=20", "grpo.rewards={length: 1.0}", "grpo.trainer.max_steps=2",
        f"grpo.trainer.per_device_train_batch_size={batch}", "evaluate.suite=smoke", "evaluate.families=null",
    ]  # fmt: skip
    recipe = "recipes/tiny/r1_zero.yaml"
    command("plan", recipe, *overrides, "--json", tmp_path / "plan.json")
    command("run", recipe, *overrides, "--out", tmp_path / "run")
    measured = json.loads((tmp_path / "run" / "manifest.json").read_text())["peak_gpu_memory_mib"]
    assert json.loads((tmp_path / "plan.json").read_text())["needed"] / 2**20 == pytest.approx(measured, rel=0.2)
