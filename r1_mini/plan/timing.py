"""About how long a plan takes on this machine's CPU: a step of each stage and of the exam is timed, on random weights.

Random weights write completions that differ from the first token on; of a trained policy, those of a prompt agree for
long, and what agrees is computed once. So `DISTINCT` rows for each prompt are timed. docs/MEMORY.md has the check.
"""

import time
from collections.abc import Callable
from functools import cache
from math import ceil

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig
from trl.trainer.utils import add_fused_lm_head

from r1_mini.model.optimizer import MuonAdamW
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.params import SamplingParams
from r1_mini.rollout.tuning import tuned
from r1_mini.train.logps import narrow_tiles
from r1_mini.train.stage import Work

MOST_PARAMETERS = 20_000_000  # a step of a larger model takes long
DISTINCT = 4  # completions of a prompt that are computed, and trained on, each by itself
SAMPLED = 16  # tokens of a completion that are timed; the others are taken to be as fast
BETWEEN = 0.01  # seconds of an optimizer step that are the trainer's own


class Clock:
    """Times the work of a model, with lengths in tokens."""

    def __init__(self, config: PretrainedConfig) -> None:
        with torch.random.fork_rng(devices=[]):
            self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        self.vocabulary: int = self.model.get_output_embeddings().weight.shape[0]
        self.optimizer = MuonAdamW(self.model, lr=0.0)
        add_fused_lm_head(self.model)

    def stage(self, work: Work, prompt: int, completion: int) -> float:
        """Seconds of a stage with prompts and completions of these mean lengths."""
        seconds, share = 0.0, 1.0
        if work.sampling is not None:
            seconds = self.sampling(work.prompts * work.sampling.n, work.sampling, work.in_flight, prompt, completion)
            share = 1.0 if work.batching == "packed" else min(work.sampling.n, DISTINCT) / work.sampling.n
        if work.texts:
            rows = max(1, min(ceil(share * work.micro_batch), tuned("cpu").part // (prompt + completion)))
            seconds += work.rounds * work.texts * share / rows * self.passed(rows, prompt + completion)
            seconds += work.rounds * work.steps * (BETWEEN + self.step())
        return seconds

    def sampling(self, number: int, params: SamplingParams, at_once: int, prompt: int, completion: int) -> float:
        """Seconds to sample so many completions, so many at once."""
        share, timed = min(params.n, DISTINCT) / params.n, min(completion, SAMPLED)
        rows = ceil(share * min(number, at_once))
        return share * number / rows * completion / timed * self.rollout(rows, prompt, timed)

    @cache  # noqa: B019
    def passed(self, rows: int, length: int) -> float:
        """Seconds of a forward and backward pass."""
        ids = torch.zeros(rows, length, dtype=torch.long)
        with narrow_tiles(self.vocabulary):
            return best_of_two(
                lambda: self.model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum().backward()
            )

    @cache  # noqa: B019
    def step(self) -> float:
        """Seconds of an optimizer step."""
        return best_of_two(self.optimizer.step)

    @cache  # noqa: B019
    def rollout(self, rows: int, prompt: int, completion: int) -> float:
        """Seconds to sample a completion of each of so many prompts."""
        prompts = [[0] * prompt] * rows
        return best_of_two(lambda: rollout(self.model, prompts, SamplingParams(1, completion), stop=[]))


def best_of_two(work: Callable[[], object]) -> float:
    """Seconds that the work takes when it is warm."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])
