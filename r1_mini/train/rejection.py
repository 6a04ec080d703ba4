"""Expert iteration: sample, keep the right completions, train on them as text; again, from the result.

It is `collect.py` and next-token training in a loop, where each round trains the model that it sampled from.

Each round is rejection-sampling fine-tuning, through TRL's SFTTrainer. Anthony et al. 2017 (1705.08439); of language
models STaR (2203.14465), ReST-EM (2312.06585) and the third stage of DeepSeek-R1 (2501.12948, section 2.3.3).
"""

import math
import random
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Literal

from datasets import Dataset
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from r1_mini.data.mix import draw
from r1_mini.errors import UserError
from r1_mini.model.prompts import encode
from r1_mini.problems.problem import Problem
from r1_mini.rewards import rollout_metrics
from r1_mini.rollout.generate import Sample
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import distributed as processes
from r1_mini.system.files import read_jsonl, take_place
from r1_mini.train.collect import Keep, kept, sampled
from r1_mini.train.sft import LOGGED, TEXT_STAGE, TextStage
from r1_mini.train.stage import Job, Sharding, TuningStage, Work
from r1_mini.train.trainer import load, save, train


class RejectionStage(TextStage, TuningStage):
    """Expert iteration: sample, keep the right completions, train on them through TRL's SFTTrainer, and again."""

    VERSION = 2
    DEFAULTS: ClassVar = {
        **TEXT_STAGE,
        "per_device_train_batch_size": 256,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
    }
    FIXED: ClassVar = {"max_steps": "a round trains on what it has kept; set num_train_epochs, or prompts of the stage"}
    RATES: ClassVar = {"model": 2e-5, "adapter": 1e-3}
    LENGTH_KEY = "max_tokens"
    reinforces = True

    kind: Literal["rejection"]
    rounds: int = Field(8, ge=1, le=1000)
    prompts: int = Field(1000, ge=1, le=10_000_000)
    """Problems of a round."""
    samples: int = Field(16, ge=1, le=10_000)
    """Completions of each problem."""
    max_tokens: int = Field(128, ge=1, le=100_000)
    """Longest completion, tokens."""
    distinct: bool = False
    """If true, keep one copy of identical completions of a problem (RFT, 2308.01825); otherwise keep duplicates."""
    rows: int = Field(1024, ge=1, le=1_000_000)
    """Most completions in progress at once; the others wait. Bounds the memory of the sampler's cache."""

    def work(self, processes: int = 1, sharding: Sharding = "none") -> Work:
        fields, completions = self.fields, self.prompts * self.samples
        micro_batch = min(fields["per_device_train_batch_size"], completions)
        accumulation = fields["gradient_accumulation_steps"]
        return Work(
            steps=math.ceil(fields["num_train_epochs"] * completions / (micro_batch * accumulation * processes)),
            micro_batch=micro_batch,
            accumulation=accumulation,
            texts=math.ceil(fields["num_train_epochs"] * completions),
            rounds=self.rounds,
            rollouts=self.rounds,
            prompts=self.rounds * self.prompts,
            sampling=SamplingParams(self.samples, self.max_tokens, rows=self.rows),
            in_flight=min(max(self.rows, self.samples), math.ceil(self.prompts / processes) * self.samples),
        )

    def train(self, job: Job) -> None:
        """Each round starts from the checkpoint of the one before, and has a folder of its own until all are done."""
        problems = draw(job.problems, "train", job.seed)
        assert job.start is not None
        start = job.start
        for number in range(self.rounds):
            some = list(islice(problems, self.prompts))
            folder = job.work / f"round-{number:03d}"
            if not processes.on_main((folder / "done").exists):
                processes.on_main(partial(folder.mkdir, exist_ok=True))
                self._round(replace(job, name=f"round {number + 1}", start=start, work=folder), number, some)
            start = folder / "done"
        processes.on_main(lambda: shutil.copytree(start, job.out, dirs_exist_ok=True))

    def _round(self, job: Job, number: int, problems: Sequence[Problem]) -> None:
        """One round, whose checkpoint is the folder `done` in `job.work`. UserError if no completion is right."""
        model, tokenizer = load(job)
        params = SamplingParams(self.samples, self.max_tokens, seed=job.seed * 1_000_003 + number, rows=self.rows)
        groups = sampled(job, model, tokenizer, problems, params)
        examples, measured = kept_and_measured(groups, tokenizer, self.distinct)
        if not examples:
            what = f"none of {len(problems) * self.samples:,} completions is right in {job.name}"
            raise UserError(what, where="rejection", fix="train the base longer, or ask easier problems")
        random.Random(f"kept {job.seed} {number}").shuffle(examples)
        config = self.config(job.work, job.seed)
        # Of a last batch that is too short for all processes, accelerate would train some examples twice.
        empty = {"input_ids": [tokenizer.eos_token_id] * 2, "labels": [-100] * 2}
        filled = (
            -len(examples) % (config.per_device_train_batch_size * config.world_size) if config.world_size > 1 else 0
        )
        trainer = self.trainer_of(model, tokenizer, config, Dataset.from_list(examples + [empty] * filled))
        log = job.out / "metrics.jsonl"
        rounds = read_jsonl(log) if log.exists() else []
        before = max((record["step"] for record in rounds if record["round"] < number), default=0)

        def more(step: int) -> dict[str, Any]:
            return {"step": before + step, "round": number, **(measured if step == 1 else {})}

        train(trainer, job, LOGGED, more, before)
        save(trainer, job.work / "result")

        def done() -> None:
            shutil.copy(job.work / "trainer.json", job.work.parent)
            take_place(job.work / "result", job.work / "done")

        processes.on_main(done)


def kept_and_measured(
    groups: Sequence[Sequence[Sample]], tokenizer: PreTrainedTokenizerBase, distinct: bool
) -> tuple[list[dict[str, list[int]]], dict[str, float]]:
    """The right completions as examples of `input_ids` and `labels` (-100 on the prompt), and metrics of all of them.

    `distinct` keeps one copy of identical completions of a problem.
    """
    examples = []
    passed, _ = kept(groups, Keep(distinct=distinct))
    prompts = {sample.prompt for sample in passed}
    ids = dict(zip(prompts, encode(tokenizer, [*prompts]), strict=True)) if prompts else {}
    for sample in passed:
        prompt = ids[sample.prompt]
        examples.append({"input_ids": [*prompt, *sample.tokens], "labels": [-100] * len(prompt) + [*sample.tokens]})
    samples = [sample for group in groups for sample in group]
    lengths = [len(sample.tokens) for sample in samples]
    metrics = rollout_metrics([sample.graded for sample in samples], lengths)
    entropy = -math.fsum(sample.logp for sample in samples) / sum(lengths)
    return examples, {**metrics, "length": sum(lengths) / len(lengths), "entropy": entropy, "kept": len(passed)}
