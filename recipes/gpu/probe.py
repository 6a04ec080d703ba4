"""What measure.sh cannot ask of the commands: rollouts of a model of Qwen2.5-0.5B's shape, by each sampler.

    python -m recipes.gpu.probe model OUT      the model, and a recipe with a GRPO step of 256 completions, into OUT
    python -m recipes.gpu.probe rollout OUT    rollouts of 256 completions into OUT/rollout.json
    python -m recipes.gpu.probe steps RUN      what a finished run says of its steps

TINY=1 makes everything small, to try it on a CPU.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import ContinuousBatchingConfig, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import environment
from r1_mini.system.files import read_jsonl, write_json_atomic

TINY = os.environ.get("TINY") == "1"
DEVICE = environment.kind()
PROMPTS, GROUP, TOKENS = (4, 4, 16) if TINY else (32, 8, 1000)
SHAPE = {"hidden_size": 56, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 512}
if not TINY:
    SHAPE = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "vocab_size": 151_936}
RECIPE = """
name: qwen05-shape
model: {model}
problems: [{{family: sum, terms: [2, 6], digits: 2, largest: 99}}]
stages:
  - kind: grpo
    rewards: {{length: 1.0}}  # lengths vary: every group has a gradient
    rows: 256
    trainer:
      max_steps: 4
      per_device_train_batch_size: 16
      gradient_accumulation_steps: 16
      num_generations: 8
      max_completion_length: 1000
      learning_rate: 1.0e-6
      bf16: true
      tf32: true
      gradient_checkpointing: true
evaluate: {{suite: own, limit: 8, samples: 2, max_tokens: 32, greedy: false}}
"""
STEP = ("seconds", "seconds_rollout", "seconds_update", "length", "logp_gap_mean", "logp_gap_max")

tokenizer = make_tokenizer()
config = Qwen2Config(
    **SHAPE, num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
    bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
)  # fmt: skip
torch.manual_seed(0)


def model(out: Path) -> None:
    """Save the model, in which so many tokens end a completion that random weights write TOKENS on average."""
    made = Qwen2ForCausalLM(config)
    ends = range(config.vocab_size - config.vocab_size // TOKENS, config.vocab_size)
    made.generation_config.eos_token_id = [tokenizer.eos_token_id, *ends]
    save_checkpoint(made, tokenizer, out / "qwen05")
    (out / "qwen05.yaml").write_text(RECIPE.format(model=out / "qwen05"), encoding="utf-8")


def steps(run: Path) -> None:
    """Print the mean of each stage's steps but the first, and what the run took in all."""
    for file in sorted(run.glob("*-*/metrics.jsonl")):
        rows = read_jsonl(file)
        later = rows[1:] or rows
        means = {key: round(fmean(row.get(key) or 0 for row in later), 4) for key in STEP if key in rows[0]}
        print(file.parent.name, "steps", len(rows), means)
    manifest = json.loads((run / "manifest.json").read_text())
    print({key: manifest.get(key) for key in ("on", "seconds", "peak_memory_mib", "peak_gpu_memory_mib")})


class Rollouts:
    """Rollouts of PROMPTS x GROUP completions in which no token ends one, so each sampler writes TOKENS a row."""

    def __init__(self, out: Path) -> None:
        self.out, self.result = out, dict[str, Any]()
        dtype = torch.float32 if DEVICE == "cpu" else torch.bfloat16
        self.model = Qwen2ForCausalLM(config).to(device=DEVICE, dtype=dtype).eval()
        texts = [f"User: {a}+{a * 7 % 89}-{a // 3}\nAssistant:" for a in range(10, 10 + PROMPTS)]
        self.prompts = tokenizer(texts, add_special_tokens=False)["input_ids"]
        self.stop = config.vocab_size - 1  # random weights hardly write it

    def measure(self) -> None:
        """Fill rollout.json row by row; what a sampler refuses is its row."""
        self.note("on", environment.on(1, str(self.model.dtype)))
        for name in ("engine", "engine_step", "engine_without_graphs", "generate", "generate_batch", "vllm"):
            try:
                with torch.no_grad():
                    self.note(name, getattr(self, name)())
            except (ImportError, RuntimeError, TypeError, ValueError, AttributeError) as error:  # the other rows anyway
                self.note(name, f"not measured: {type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")
            if DEVICE == "cuda":
                torch.cuda.empty_cache()

    def note(self, name: str, value: object) -> None:
        self.result[name] = value
        print(name, value, flush=True)
        write_json_atomic(self.out / "rollout.json", self.result)

    def timed(self, sample: Callable[[int], object], warm: int = 8) -> dict[str, float]:
        """What `sample(TOKENS)` takes after `sample(warm)`."""
        sample(warm)
        seconds = _seconds(lambda: sample(TOKENS))
        rate = round(PROMPTS * GROUP * TOKENS / seconds)
        return {
            "seconds": round(seconds, 3),
            "tokens_per_second": rate,
            "ms_per_step": round(1e3 * seconds / TOKENS, 3),
        }

    def ours(self, tokens: int) -> object:
        return rollout(self.model, self.prompts, SamplingParams(GROUP, tokens, 1.0, seed=1), stop=[self.stop])

    def engine(self) -> dict[str, float]:
        found = self.timed(self.ours)
        return found | ({"peak_mib": torch.cuda.max_memory_allocated() // 2**20} if DEVICE == "cuda" else {})

    def engine_step(self) -> dict[str, float]:
        """How often the host waits in a step, how many kernels that is, and how long the device is busy."""
        _require_cuda()
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            self.ours(32)
        torch.cuda.set_sync_debug_mode("default")
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            seconds = _seconds(lambda: self.ours(64))
        kernels = [each for each in seen.events() if each.device_type == torch.autograd.DeviceType.CUDA]
        busy = sum(each.device_time for each in kernels) / 1e6
        return {
            "waits": round(len(waits) / 32, 2),
            "kernels": round(len(kernels) / 64),
            "busy_share": round(busy / seconds, 3),
            "busy_ms": round(1e3 * busy / 64, 3),
        }

    def engine_without_graphs(self) -> dict[str, float]:
        _require_cuda()
        handle, torch.cuda.graph_pool_handle = torch.cuda.graph_pool_handle, lambda: None
        try:
            return self.timed(self.ours)
        finally:
            torch.cuda.graph_pool_handle = handle

    def generate(self) -> dict[str, float]:
        batch = tokenizer.pad({"input_ids": self.prompts}, padding_side="left", return_tensors="pt").to(DEVICE)
        options = {"do_sample": True, "num_return_sequences": GROUP, "top_k": 0, "pad_token_id": 0}
        return self.timed(
            lambda tokens: self.model.generate(**batch, **options, min_new_tokens=tokens, max_new_tokens=tokens)
        )

    def generate_batch(self) -> dict[str, float]:
        """transformers' continuous batching."""
        settings = ContinuousBatchingConfig(max_memory_percent=0.5, return_logprobs=True)
        prompts = [each for each in self.prompts for _ in range(GROUP)]

        def sample(tokens: int) -> object:
            asked = GenerationConfig(do_sample=True, max_new_tokens=tokens, eos_token_id=self.stop, pad_token_id=0)
            return self.model.generate_batch(
                prompts, generation_config=asked, continuous_batching_config=settings, progress_bar=False
            )

        return self.timed(sample)

    def vllm(self) -> dict[str, float]:
        from vllm import LLM, SamplingParams

        _require_cuda()
        save_checkpoint(self.model, tokenizer, self.out / "vllm")
        limits = {"gpu_memory_utilization": 0.4, "max_model_len": 2048}
        engine = LLM(model=str(self.out / "vllm"), dtype="bfloat16", logprobs_mode="processed_logprobs", **limits)
        prompts = [{"prompt_token_ids": each} for each in self.prompts]

        def sample(tokens: int) -> object:
            asked = SamplingParams(n=GROUP, temperature=1.0, max_tokens=tokens, ignore_eos=True, logprobs=0)
            return engine.generate(prompts, asked, use_tqdm=False)

        return self.timed(sample, warm=TOKENS)


def _require_cuda() -> None:
    if DEVICE != "cuda":
        raise RuntimeError("needs CUDA")


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    if DEVICE != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    _, what, folder = sys.argv
    {"model": model, "steps": steps, "rollout": lambda out: Rollouts(out).measure()}[what](Path(folder).resolve())
