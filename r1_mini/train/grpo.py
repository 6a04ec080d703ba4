"""The GRPO stage: TRL's GRPOTrainer with our sampler, our metrics, and no work on what has no gradient."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Literal, Self

import torch
from accelerate import DistributedType
from datasets import Dataset
from pydantic import Field, field_validator, model_validator
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from r1_mini.completion import Finish, grade
from r1_mini.config.base import Families, Strict, wrong
from r1_mini.data.mix import draw
from r1_mini.errors import nearest
from r1_mini.model.prompts import encode, prompts_for, require_context, stop_tokens
from r1_mini.problems.problem import Problem
from r1_mini.rewards import CONTROLS, RULES, as_trl_reward, rollout_metrics
from r1_mini.rollout.engine import SamplingParams, rollout
from r1_mini.system import distributed as processes
from r1_mini.train.callbacks import Reporter
from r1_mini.train.dev_exam import BestOnDev
from r1_mini.train.logps import narrow_tiles, score, score_in_backward
from r1_mini.train.stage import EVERY_STAGE, Job, TuningStage, Work
from r1_mini.train.trainer import adapter, arguments, load, open_metrics, resumed_step, save, train

_TEXT_ONLY = {"batch_size", "compute_entropy"}
"""Arguments of TRL's scoring that need nothing more than text."""


class DevExam(Strict):
    """An exam on the dev split while a stage trains; the stage's checkpoint is then the best one examined."""

    every: int = Field(ge=1)
    """Steps between two exams; the last step is always examined."""
    suite: str = "quick"
    families: Families | None = None
    limit: int | None = Field(None, ge=2, le=1_000_000)
    """Ask only so many problems, evenly from all entries of the suite."""


class GrpoStage(TuningStage):
    """Reinforcement learning on rule rewards, through TRL's GRPOTrainer."""

    VERSION = 1
    CONFIG = "GRPOConfig"
    DEFAULTS: ClassVar = {
        **EVERY_STAGE,
        "max_steps": 150,
        "per_device_train_batch_size": 512,
        "num_generations": 16,
        "max_completion_length": 128,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "scale_rewards": "none",  # Dr. GRPO, 2503.20783: centered, not divided by the standard deviation of the group
        "loss_type": "dapo",  # DAPO, 2503.14476: mean over the tokens of the batch
        "beta": 0.0,
        "disable_dropout": True,  # the sampler has none, and both must be one policy
        "shuffle_dataset": False,  # the problems come in a random order already
    }
    FIXED: ClassVar = {"num_train_epochs": "problems are sampled without end; set max_steps"}
    LENGTH_KEY = "trainer.max_completion_length"
    reinforces = True

    kind: Literal["grpo"]
    rewards: dict[str, float] = Field(default_factory=lambda: {"accuracy": 1.0, "format": 0.1})
    """Name of a rule or control in r1_mini.rewards -> weight."""
    baseline: Literal["group", "batch"] = "group"
    """What a reward is compared with: the mean of its group (GRPO), or of the whole batch (REINFORCE)."""
    rows: int = Field(1024, ge=1, le=1_000_000)
    """Most completions in progress at once; the others wait. Bounds the memory of the sampler's cache."""
    dev: DevExam | None = None
    """Examine while training, such as `{every: 25, families: [sum]}`, and keep the best checkpoint, not the last."""

    @field_validator("rewards")
    @classmethod
    def _rules_are_known(cls, weights: dict[str, float]) -> dict[str, float]:
        for name in weights:
            if name not in RULES and name not in CONTROLS:
                raise wrong(f"no reward is called '{name}'", nearest(name, [*RULES, *CONTROLS]), name)
        if not any(weights.values()):
            raise wrong("no reward has a weight", "write for example {accuracy: 1.0, format: 0.1}")
        return weights

    @model_validator(mode="after")
    def _batch_baseline_is_not_scaled(self) -> Self:
        if self.baseline == "batch" and self.trainer.get("scale_rewards", "none") != "none":
            fix = "leave scale_rewards out"
            raise wrong("a batch as baseline is not divided by a spread", fix, "trainer.scale_rewards")
        return self

    def work(self, processes: int = 1, sharded: bool = False) -> Work:
        fields = self.fields
        steps, accumulation = fields["max_steps"], fields["gradient_accumulation_steps"]
        micro_batch, group = fields["per_device_train_batch_size"], fields["num_generations"]
        at_once = micro_batch * processes
        micro_batches = fields["steps_per_generation"] or accumulation
        if fields["generation_batch_size"] is not None:
            micro_batches = fields["generation_batch_size"] // at_once
        served = micro_batches * fields["num_iterations"]
        rollouts = math.ceil(steps * accumulation / served)
        own_sampler = not sharded and samples_as_asked(fields)
        local = micro_batches * micro_batch
        return Work(
            steps,
            micro_batch,
            accumulation,
            texts=steps * accumulation * at_once,
            rollouts=rollouts,
            prompts=rollouts * micro_batches * at_once // group,
            micro_steps_per_rollout=served,
            sampling=SamplingParams(
                group,
                fields["max_completion_length"],
                fields["temperature"],
                fields["top_p"],
                rows=self.rows,
            ),
            in_flight=min(max(self.rows, group), local) if own_sampler else local,
            own_sampler=own_sampler,
            in_backward=processes == 1 and own_sampler and accumulation % served == 0 and only_advantages_count(fields),
            reference=fields["beta"] != 0 and self.peft is None,
        )

    def train(self, job: Job) -> None:
        """With `job.dev_score` and `dev`, the result is the best checkpoint that was examined, else the last."""
        model, tokenizer = load(job, self.trainer)
        config = GRPOConfig(
            **arguments(self.DEFAULTS, self.trainer, job.work, job.seed), reward_weights=list(self.rewards.values())
        )
        work = self.work(config.world_size)
        assert work.sampling is not None
        # A resumed run must begin with a new rollout, since TRL does not save rollouts.
        period = math.lcm(work.micro_steps_per_rollout, work.accumulation) // work.accumulation
        config.save_steps = math.ceil(config.save_steps / period) * period
        problems = list(islice(draw(job.problems, "train", job.seed), work.prompts))
        prompts = prompts_for(tokenizer, problems)
        where = "grpo.trainer.max_completion_length"
        require_context(model.config, encode(tokenizer, prompts), config.max_completion_length, where)
        dataset = Dataset.from_dict({"prompt": prompts, "problem": range(len(prompts))})
        torch.manual_seed(job.seed)
        trainer = Trainer(
            problems=problems,
            sampling=replace(work.sampling, seed=job.seed),
            baseline=self.baseline,
            model=model,
            peft_config=adapter(self.peft),
            args=config,
            train_dataset=dataset,
            processing_class=tokenizer,
            reward_funcs=[as_trl_reward(name, problems) for name in self.rewards],
        )
        metrics = open_metrics(job.work / "metrics.jsonl", resumed_step(job.work))
        reporter = Reporter("grpo", metrics, job.console, _record, _note)
        if self.dev is None:
            train(trainer, reporter, job.work)
            save(trainer, tokenizer, job.out)
        else:
            assert job.dev_score is not None
            exam = BestOnDev(self.dev.every, job.dev_score, reporter, job.work, trainer.accelerator.is_main_process)
            trainer.add_callback(exam)
            train(trainer, reporter, job.work)
            processes.on_main(lambda: shutil.copytree(exam.best, job.out, dirs_exist_ok=True))


def samples_as_asked(fields: Mapping[str, Any]) -> bool:
    """Whether our sampler can sample with these fields of a GRPOConfig; where it cannot, TRL's own generation does."""
    return not (
        fields["use_vllm"]
        or fields["use_transformers_continuous_batching"]
        or fields["top_k"]
        or fields["min_p"]
        or fields["repetition_penalty"] != 1.0
        or fields["generation_kwargs"]
        or fields["cache_implementation"]
    )


def only_advantages_count(fields: Mapping[str, Any]) -> bool:
    """Whether a completion of advantage zero has no gradient: the loss has no KL term and no entropy bonus or mask."""
    bonus = fields["entropy_coef"] or fields["use_adaptive_entropy"]
    return fields["beta"] == 0 and not bonus and fields["top_entropy_quantile"] == 1.0


class Trainer(GRPOTrainer):
    """GRPO as TRL computes it. Rollouts come from `r1_mini.rollout`; rows without signal are not updated on."""

    def __init__(
        self,
        *,
        problems: Sequence[Problem],
        sampling: SamplingParams,
        baseline: Literal["group", "batch"] = "group",
        **kwargs: Any,
    ) -> None:
        self.problems, self.sampling, self.baseline = problems, sampling, baseline
        self.seconds = {"rollout": 0.0, "update": 0.0}
        self.in_loss: dict[str, Any] | None = None  # the batch whose loss is being computed
        self.flat_B = torch.zeros(0, dtype=torch.bool)  # rows of groups without signal
        self.centered_B = torch.zeros(0)  # rewards less their mean over the batch
        super().__init__(rollout_func=sample_groups if sampler_offers(kwargs["args"]) else None, **kwargs)

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """As our sampler is given them: TRL would put a second first token before one that the template has written."""
        return encode(self.processing_class, prompts), None, {}

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """TRL's rewards; on the way, the transcripts are measured."""
        mode = "train" if self.model.training else "eval"
        finish: list[Finish] = ["stop" if ids[-1] in self.eos_token_ids else "length" for ids in completion_ids_list]
        problems = [self.problems[row["problem"]] for row in inputs]
        graded = list(map(grade, problems, completions, finish, prompts))
        for row, each in zip(inputs, graded, strict=True):
            row["graded"] = each  # a column for the rewards
        own = rollout_metrics(graded, [len(ids) for ids in completion_ids_list])
        all_processes = self.accelerator.gather(
            torch.tensor([[*own.values()]], dtype=torch.float64, device=self.accelerator.device)
        )
        for name, value in zip(own, all_processes.nanmean(dim=0).tolist(), strict=True):
            self._metrics[mode][name].append(value)
        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        weighted_PG = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1).view(-1, self.num_generations)
        first = self.accelerator.process_index * len(prompts)
        flat = without_signal(weighted_PG).repeat_interleave(self.num_generations)
        self.flat_B = flat[first : first + len(prompts)]
        self.centered_B = (weighted_PG - weighted_PG.mean()).flatten()[first : first + len(prompts)]
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's batch, with advantages of exactly zero where a group was scored alike: rounding leaves 1e-7 there.

        With the batch as baseline, advantages are those of REINFORCE (Williams 1992): what all completions get, less
        their mean, whatever the problem.
        """
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if "sampling_per_token_logps" in batch:
            drawn = batch["sampling_per_token_logps"][batch["completion_mask"].bool()]
            self._metrics["train" if self.model.training else "eval"]["surprise"].append(-drawn.mean().item())
        if self.baseline == "batch":
            batch["advantages"] = self.centered_B.to(batch["advantages"])
        elif self.multi_objective_aggregation == "sum_then_normalize":
            batch["advantages"] = batch["advantages"].masked_fill(self.flat_B, 0.0)
        return batch

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        started, sampled = time.perf_counter(), self.seconds["rollout"]
        loss: Tensor = super().training_step(*args, **kwargs)
        self.seconds["update"] += time.perf_counter() - started - (self.seconds["rollout"] - sampled)
        return loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """TRL's loss, of log-probabilities that are computed as far as its gradient needs them."""
        old_BT, sampled_BT = inputs.get("old_per_token_logps"), inputs.get("sampling_per_token_logps")
        if old_BT is not None and sampled_BT is not None:
            self._note_gap(old_BT, sampled_BT, inputs["completion_mask"])
        self.in_loss = inputs
        try:
            loss: Tensor = super()._compute_loss(model, inputs)
        finally:
            self.in_loss = None
        return loss

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        """TRL's log-probabilities and entropies, (B, T) each.

        In a loss, rows without a gradient keep the log-probabilities they were sampled with, and these as estimates of
        the entropy; so do fresh samples, whose gradient is computed in the backward pass.
        """
        alone = self.accelerator.distributed_type == DistributedType.NO  # several must make equally many forward passes
        if (
            not alone
            or args
            or any(kwargs[name] is not None and kwargs[name] is not False for name in kwargs.keys() - _TEXT_ONLY)
        ):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )

        vocabulary = self.accelerator.unwrap_model(model).get_output_embeddings().weight.shape[0]

        def forward(ids: Tensor, labels: Tensor) -> Any:
            with self.accelerator.autocast(), narrow_tiles(vocabulary):
                return model(input_ids=ids, labels=labels, fused_lm_head=True)

        keep, real = logits_to_keep, attention_mask.bool()
        if self.in_loss is None:  # by the policy that sampled, or by the reference model
            return *score(forward, input_ids, real, keep), None

        old_BT, sampled_BT = self.in_loss.get("old_per_token_logps"), self.in_loss.get("sampling_per_token_logps")
        own_BT = None if self.rollout_func is None else sampled_BT  # by our sampler
        known_BT = old_BT if old_BT is not None else own_BT
        if known_BT is None:
            known_BT = torch.zeros(len(input_ids), keep, device=input_ids.device)
        counted_B = self._has_gradient(self.in_loss["advantages"])
        counted_B[0] |= not counted_B.any()  # without a row, the loss would have no graph to call backward on
        rows = counted_B.nonzero(as_tuple=True)
        ids, real = input_ids[rows], real[rows]
        entropies = -known_BT
        if old_BT is None and own_BT is not None and self._only_advantages_count():
            told = partial(self._note_gap, sampled=own_BT[rows], mask=real[:, -keep:])
            logps = score_in_backward(forward, ids, real, keep, own_BT[rows], told)
        else:
            logps, entropy = score(forward, ids, real, keep)
            entropies = entropies.index_put(rows, entropy.to(entropies.dtype))
            if old_BT is None and sampled_BT is not None:
                self._note_gap(logps.detach(), sampled_BT[rows], real[:, -keep:])
        return known_BT.index_put(rows, logps.to(known_BT.dtype)), entropies, None

    def _has_gradient(self, advantages_B: Tensor) -> Tensor:
        """Which rows have a part in the gradient, (B,) bool."""
        return advantages_B != 0 if self._only_advantages_count() else torch.ones_like(advantages_B, dtype=torch.bool)

    def _only_advantages_count(self) -> bool:
        """Whether a row of advantage zero has no gradient, whatever the loss type and what it is divided by."""
        return only_advantages_count(vars(self.args)) and not self.aux_loss_enabled

    def _note_gap(self, scored: Tensor, sampled: Tensor, mask: Tensor) -> None:
        """How far the trainer's log-probabilities are from the sampler's where `mask` is set, as metrics."""
        if mask.any():
            gap = (scored - sampled).abs()[mask.bool()]
            self._metrics["train"]["logp_gap_mean"].append(gap.mean().item())
            self._metrics["train"]["logp_gap_max"].append(gap.max().item())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update({f"seconds_{phase}": round(spent, 4) for phase, spent in self.seconds.items()})
            self.seconds = dict.fromkeys(self.seconds, 0.0)
        super().log(logs, start_time)


def sampler_offers(args: GRPOConfig) -> bool:
    """Whether our sampler can draw as the recipe asks; where it cannot, TRL's own generation does.

    It cannot where a process has a part of the weights only (FSDP, ZeRO-3).
    """
    spread = args.deepspeed_plugin is not None and args.deepspeed_plugin.zero_stage == 3
    return not spread and os.environ.get("ACCELERATE_USE_FSDP") != "true" and samples_as_asked(vars(args))


def without_signal(rewards_PG: Tensor) -> Tensor:
    """Which groups teach nothing, (P,) bool: every completion scored alike, so every advantage is zero."""
    return rewards_PG.amax(dim=1) == rewards_PG.amin(dim=1)  # not std == 0: fp32 residue can make it 1e-9


def sample_groups(prompts: Sequence[str], trainer: Trainer) -> dict[str, list[Any]]:
    """TRL's `rollout_func`: a completion for each prompt; prompts of a group stand together."""
    started = time.perf_counter()
    tokenizer = trainer.processing_class
    size = trainer.num_generations
    prompt_ids = encode(tokenizer, prompts[::size])
    params = replace(trainer.sampling, seed=trainer.sampling.seed * 1_000_003 + trainer.state.global_step)
    model = trainer.accelerator.unwrap_model(trainer.model)
    done = rollout(model, prompt_ids, params, stop=stop_tokens(model.generation_config, tokenizer))
    flat = [completion for group in done for completion in group]
    trainer.seconds["rollout"] += time.perf_counter() - started
    return {
        "prompt_ids": [ids for ids in prompt_ids for _ in range(size)],
        "completion_ids": [completion.tokens for completion in flat],
        "logprobs": [completion.logprobs for completion in flat],
    }


_NAMES = {
    "reward": "reward",
    "accuracy": "accuracy",
    "format": "format",
    "completions/mean_length": "length",
    "length_right": "length_right",
    "length_wrong": "length_wrong",
    "completions/clipped_ratio": "truncated",
    "voice_direct": "voice_direct",
    "voice_worked": "voice_worked",
    "voice_checked": "voice_checked",
    "voice_none": "voice_none",
    "frac_reward_zero_std": "without_signal",
    "surprise": "entropy",  # mean -log p of the tokens drawn: an unbiased estimate, over all rows, also without signal
    "kl": "kl",
    "clip_ratio/region_mean": "clipped",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "logp_gap_mean": "logp_gap_mean",
    "logp_gap_max": "logp_gap_max",
    "seconds_rollout": "seconds_rollout",
    "seconds_update": "seconds_update",
}


def _record(logs: Mapping[str, Any], step: int) -> dict[str, Any]:
    return {ours: logs[theirs] for theirs, ours in _NAMES.items() if theirs in logs}


def _note(record: Mapping[str, Any]) -> str:
    if "accuracy" not in record:  # a step that uses rollouts again
        return ""
    return f"accuracy {record['accuracy']:.2f}, length {record['length']:.0f}"
