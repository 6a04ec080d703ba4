"""On-policy distillation: the student samples, and its loss is the KL divergence from the teacher at each token.

With `beta: 1`, our default, it is the reverse KL, KL(student || teacher), over the whole vocabulary; 0 is the forward
one. On-policy distillation is GKD (2306.13649); with the reverse KL, MiniLLM (2306.08543). A student that is to learn
from text that the teacher wrote is a `collect` and an `sft` stage instead.

TRL's DistillationTrainer computes the loss. Ours are the samples.
"""

from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, Literal

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DistillationConfig, DistillationTrainer

from r1_mini.data.mix import draw
from r1_mini.model.checkpoint import adapter
from r1_mini.model.prompts import encode, prompts_for, require_context, stop_tokens
from r1_mini.problems.problem import Problem
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import distributed as processes
from r1_mini.train.sampler import Sampler
from r1_mini.train.stage import Job, OnlineStage, Sharding, Work
from r1_mini.train.trainer import load, save, train

METRICS = {
    **{name: name for name in ("loss", "grad_norm", "learning_rate", "entropy")},
    "completions/mean_length": "length",
    "completions/clipped_ratio": "truncated",
}
"""The trainer's name of a metric -> ours."""


class DistillStage(OnlineStage):
    """A student learns from a teacher's probabilities on what the student writes, through TRL's DistillationTrainer."""

    VERSION = 1
    CONFIG = "DistillationConfig"
    DEFAULTS: ClassVar = {**OnlineStage.DEFAULTS, "per_device_train_batch_size": 256}
    FIXED: ClassVar = {
        "num_train_epochs": "problems are sampled without end; set max_steps",
        **dict.fromkeys(("teacher_model_name_or_path", "teacher_model_revision"), "set `teacher` of the stage"),
    }

    kind: Literal["distill"]
    teacher: str
    """Name of the stage whose checkpoint teaches."""

    @property
    def reads(self) -> tuple[tuple[str, str, bool], ...]:
        return (*super().reads, ("teacher", self.teacher, False))

    def work(self, processes: int = 1, sharding: Sharding = "none") -> Work:
        fields = self.fields
        steps, accumulation = fields["max_steps"], fields["gradient_accumulation_steps"]
        micro_batch = fields["per_device_train_batch_size"]
        texts = steps * accumulation * micro_batch * processes
        longest, temperature, top_p = fields["max_completion_length"], fields["temperature"], fields["top_p"]
        return Work(
            steps,
            micro_batch,
            accumulation,
            texts=texts,
            rollouts=steps,
            prompts=texts,
            micro_steps_per_rollout=accumulation,
            sampling=SamplingParams(1, longest, temperature, top_p, rows=self.rows),
            in_flight=min(self.rows, micro_batch * accumulation),
            batching="padded",
        )

    def trainer_of(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: DistillationConfig,
        problems: list[Problem],
        teacher: PreTrainedModel | None,
    ) -> "Trainer":
        sampling = self.work(config.world_size).sampling
        assert sampling is not None
        return Trainer(
            sampling=replace(sampling, seed=config.seed),
            model=model,
            teacher_model=teacher,
            peft_config=adapter(self.peft),
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts_for(tokenizer, problems)}),
            processing_class=tokenizer,
        )

    def rehearse(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: Any, problem: Problem
    ) -> "Trainer":
        return self.trainer_of(model, tokenizer, config, [problem], None)

    def train(self, job: Job) -> None:
        model, tokenizer = load(job)
        teacher, _ = load(replace(job, start=job.read[self.teacher]))
        config = self.config(job.work, job.seed)
        problems = list(islice(draw(job.problems, "train", job.seed), self.work(config.world_size).prompts))
        torch.manual_seed(job.seed)
        trainer = self.trainer_of(model, tokenizer, config, problems, teacher)
        prompts = encode(tokenizer, trainer.train_dataset["prompt"])
        require_context(model.config, prompts, config.max_completion_length, self.LENGTH_KEY)
        train(trainer, job, METRICS)
        save(trainer, job.out)


class Trainer(DistillationTrainer):
    """TRL's DistillationTrainer with our sampler."""

    def __init__(self, *, sampling: SamplingParams, **kwargs: Any) -> None:
        self.sampling, self.sampler = sampling, Sampler(self)
        super().__init__(**kwargs)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Token ids as our sampler gets them: TRL would put a second BOS before the one of the template."""
        return encode(self.processing_class, prompts), None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *multimodal: Any) -> list[list[int]]:
        """The tokens of one completion of each prompt."""
        params = replace(self.sampling, seed=self.sampling.seed * 1_000_003 + self.state.global_step)
        before = [ids for others in processes.gather([prompt_ids])[: processes.rank()] for ids in others]
        with self.sampler() as model:
            stop = stop_tokens(model.generation_config, self.processing_class)
            groups = rollout(model, prompt_ids, params, stop=stop, elsewhere=before)
        return [group[0].tokens for group in groups]
