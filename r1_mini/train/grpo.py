"""The GRPO stage: reinforcement learning on rule rewards.

One step samples G completions of each of P prompts, scores them (`rewards.py`), turns rewards into advantages A
(`advantages.py`) and takes one gradient step on the loss. Per token of a completion o, with TRL's names on the right:

    rho = exp(log pi(o_t) - log pi_old(o_t))                   coef_1: per_token_logps - old_per_token_logps
    L_t = -min(rho A, clip(rho, 1 - eps, 1 + eps') A)          epsilon, epsilon_high
          + beta rho (pi_ref/pi - log(pi_ref/pi) - 1)          beta: KL to the starting model; rho there is
                                                               use_bias_correction_kl (2512.02556)

`loss_type` says how the loss of B completions follows from L_t; |o| is the length of one, T the longest allowed:

    grpo     mean over completions of (1/|o|) sum_t L_t        2402.03300
    bnpo     sum of all L_t / number of tokens                 of the micro-batch
    dapo     the same, of the whole batch                      2503.14476, our default
    dr_grpo  sum of all L_t / (B T)                            2503.20783
    luspo    mean over completions of sum_t L_t
    cispo    L_t = -stop_gradient(min(rho, eps')) A log pi     2506.13585, summed as in dapo
    sapo     L_t = -(4/tau) sigmoid(tau (rho - 1)) A           2511.20347, summed as in grpo; tau by the sign of A
    vespo    L_t = -stop_gradient(phi(rho of the sequence)) A log pi, summed as in dapo

`importance_sampling_level: sequence` replaces rho by its geometric mean over the completion (GSPO, 2507.18071).
On fresh samples rho = 1: nothing is clipped, and the gradient is A times that of log pi, whatever the clip range.

TRL's GRPOTrainer computes this loss; `tests/train/test_loss.py` computes it by hand. Ours are the rollouts, rewards,
advantages and metrics. Not here: which log-probabilities are worth computing (`logps.py`).
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from datasets import Dataset
from pydantic import Field, model_validator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig

from r1_mini.completion import Finish, grade
from r1_mini.config.base import Families, Strict, wrong
from r1_mini.data.mix import draw
from r1_mini.errors import Stopped
from r1_mini.model.checkpoint import adapter
from r1_mini.model.prompts import encode, prompts_for, require_context, stop_tokens
from r1_mini.problems.problem import Problem
from r1_mini.rewards import Late, Strictness, Weights, accuracy_by_kind, as_trl_reward, kinds_of, rollout_metrics
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.params import Completion, SamplingParams
from r1_mini.system import distributed as processes
from r1_mini.train.advantages import Baseline, group_advantages
from r1_mini.train.callbacks import DEV_SCORE, OnDev, OnRollouts
from r1_mini.train.logps import FrugalTrainer, only_advantages_count
from r1_mini.train.rollouts import Kept, Weighed, spread
from r1_mini.train.sampler import Sampler, score_in_float32
from r1_mini.train.stage import Job, OnlineStage, Sharding, Work
from r1_mini.train.trainer import load, save, train


class DevExam(Strict):
    """An exam on the dev split while a stage trains."""

    every: int = Field(ge=1)
    """Steps between two exams; the last step is always examined."""
    suite: str = "quick"
    families: Families | None = None
    limit: int | None = Field(None, ge=2, le=1_000_000)
    """Ask only so many problems, evenly from all entries of the suite."""
    keep: Literal["best", "last"] = "best"
    """Which checkpoint is the stage's: the best one examined, or the last one, so that the exam only looks on."""


class GrpoStage(OnlineStage):
    """Reinforcement learning on rule rewards, through TRL's GRPOTrainer."""

    VERSION = 2
    CONFIG = "GRPOConfig"
    DEFAULTS: ClassVar = {
        **OnlineStage.DEFAULTS,
        "per_device_train_batch_size": 512,
        "num_generations": 16,
        "scale_rewards": "none",  # Dr. GRPO, 2503.20783: centered, not divided by the standard deviation of the group
        "loss_type": "dapo",  # DAPO, 2503.14476: mean over the tokens of the batch
        "beta": 0.0,
    }

    kind: Literal["grpo"]
    rewards: Weights = Field(default_factory=lambda: dict[str, float | Late](accuracy=1.0, format=0.1))
    """Name of a rule or control in r1_mini.rewards, or a function of your own, `"./mine.py:brevity"` -> weight."""
    judge: Strictness = "exact"
    """To whom `accuracy` listens; to a `weak` one what has the right answer anywhere is right. Metrics are exact."""
    baseline: Baseline = "group"
    """What a reward is compared with: the mean of its group (GRPO), or of the whole batch (REINFORCE)."""
    dynamic_sampling: int = Field(0, ge=0, le=100)
    """How often groups whose completions are all right, or all wrong, are replaced by groups of other problems (DAPO,
    2503.14476, section 3.2). Metrics are of the groups that remain; a rollout takes up to so many times longer."""
    dev: DevExam | None = None
    """Examine while training, such as `{every: 25, families: [sum]}`."""
    rollouts: Kept | None = Kept()
    """Which rollouts are kept, to be looked at by step; null keeps none, and so do vLLM and sharded weights."""
    patience: int | None = Field(10, ge=1)
    """Stop after so many steps in a row in which nothing is right and no reward differs in a group; null never does."""

    @model_validator(mode="after")
    def _groups_are_drawn_again_by_our_sampler(self) -> Self:
        if self.dynamic_sampling and not samples_as_asked(self.fields):
            what = "has no effect where the sampler of `trainer` is not ours, as with vLLM"
            raise wrong(what, "leave it out, or those fields of `trainer`", "dynamic_sampling")
        return self

    def work(self, processes: int = 1, sharding: Sharding = "none") -> Work:
        fields = self.fields
        steps, accumulation = fields["max_steps"], fields["gradient_accumulation_steps"]
        micro_batch, group = fields["per_device_train_batch_size"], fields["num_generations"]
        at_once = micro_batch * processes
        micro_batches = fields["steps_per_generation"] or accumulation
        if fields["generation_batch_size"] is not None:
            micro_batches = fields["generation_batch_size"] // at_once
        served = micro_batches * fields["num_iterations"]
        rollouts = math.ceil(steps * accumulation / served)
        own_sampler = sharding not in ("fsdp", "zero3") and samples_as_asked(fields)
        local = micro_batches * micro_batch
        longest, temperature, top_p = fields["max_completion_length"], fields["temperature"], fields["top_p"]
        sampling = SamplingParams(group, longest, temperature, top_p, rows=self.rows)
        fresh = own_sampler and accumulation % served == 0 and only_advantages_count(fields)
        return Work(
            steps,
            micro_batch,
            accumulation,
            texts=steps * accumulation * at_once,
            rollouts=rollouts,
            prompts=rollouts * micro_batches * at_once // group,
            micro_steps_per_rollout=served,
            sampling=sampling,
            in_flight=min(max(self.rows, group), local) if own_sampler else local,
            batching="padded" if sharding != "none" else "in backward" if fresh else "by length",
            reference=fields["beta"] != 0 and self.peft is None,
        )

    def weighed(self) -> list[Weighed]:
        """The rewards: name, weight, and the function as TRL calls it."""
        late = [
            (name, each if isinstance(each, Late) else Late(weight=each, from_step=0))
            for name, each in self.rewards.items()
        ]
        return [(name, each.weight, as_trl_reward(name, each.from_step, self.judge)) for name, each in late]

    def config(self, work: Path, seed: int) -> GRPOConfig:
        config: GRPOConfig = super().config(work, seed)
        config.reward_weights = [weight for _, weight, _ in self.weighed()]
        return config

    def trainer_of(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: GRPOConfig, problems: list[Problem]
    ) -> "Trainer":
        """TRL's trainer on the prompts of these problems."""
        sampling = self.work(config.world_size).sampling
        assert sampling is not None
        prompts = prompts_for(tokenizer, problems)
        return Trainer(
            problems=problems,
            sampling=replace(sampling, seed=config.seed),
            baseline=self.baseline,
            model=model,
            peft_config=adapter(self.peft),
            args=config,
            train_dataset=Dataset.from_dict({"prompt": prompts, "problem": range(len(prompts))}),
            processing_class=tokenizer,
            reward_funcs=[function for _, _, function in self.weighed()],
        )

    def rehearse(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: GRPOConfig, problem: Problem
    ) -> "Trainer":
        """Without what takes real weights: vLLM, and the reference model, which TRL reads from the disk."""
        config.use_vllm = False
        if self.peft is None and config.beta:
            config.beta, config.sync_ref_model = 0.0, False
        return self.trainer_of(model, tokenizer, config, [problem])

    def train(self, job: Job) -> None:
        """The result is the last checkpoint, or the best one on dev if `dev` says so."""
        model, tokenizer = load(job)
        config = self.config(job.work, job.seed)
        work = self.work(config.world_size)
        # A resumed run must begin with a new rollout, since TRL does not save rollouts.
        period = math.lcm(work.micro_steps_per_rollout, work.accumulation) // work.accumulation
        config.save_steps = math.ceil(config.save_steps / period) * period
        problems = list(islice(draw(job.problems, "train", job.seed), work.prompts))
        torch.manual_seed(job.seed)
        trainer = self.trainer_of(model, tokenizer, config, problems)
        prompts = encode(tokenizer, trainer.train_dataset["prompt"])
        require_context(model.config, prompts, config.max_completion_length, self.LENGTH_KEY)
        if self.dynamic_sampling:
            trainer.redraws = self.dynamic_sampling, partial(draw, job.problems, "train"), max(map(len, prompts))
        best = job.work / "best" if self.dev and self.dev.keep == "best" else None
        if self.dev:
            trainer.add_callback(OnDev(self.dev.every, job, trainer, best, partial(save, trainer)))
        if self.rollouts and has_own_sampler(config):
            asked = spread(problems, self.rollouts.problems)
            params = replace(trainer.sampling, n=self.rollouts.samples)
            trainer.add_callback(OnRollouts(self.rollouts.every, job, trainer, asked, params, self.weighed()))
        parts = {f"rewards/{name}/mean": f"reward_{name}" for name in self.rewards}
        first = max(getattr(weight, "from_step", 0) for weight in self.rewards.values())
        patience = self.patience if self.baseline == "group" else None  # else it learns from other groups
        watch = Patience(patience, job, first).watch
        train(trainer, replace(job, watch=watch), METRICS | parts | {kind: kind for kind in trainer.kinds})
        if best:
            processes.on_main(lambda: shutil.copytree(best, job.out, dirs_exist_ok=True))
        else:
            save(trainer, job.out)


class Patience:
    """Ends a stage after `most` dead steps in a row: nothing is right, and in no group do the rewards differ."""

    def __init__(self, most: int | None, job: Job, first: int) -> None:
        """Steps count from `first` on, from which all rewards do; a resumed stage counts anew."""
        self.most, self.job, self.first = most, job, first
        self.alive: int | None = None

    def watch(self, record: Mapping[str, Any]) -> str:
        """What the job's own watch says; Stopped if patience has come to its end."""
        step, accuracy = record["step"], record.get("accuracy")
        if accuracy is None:  # a step on rollouts of an earlier one
            return self.job.watch(record)
        if self.alive is None:
            self.alive = max(self.first, step - 1)
        if record["zero_variance"] != 1 or accuracy != 0:
            self.alive = max(self.alive, step)
        if self.most is not None and step - self.alive >= self.most:
            what = f"nothing was right in steps {self.alive + 1} to {step}, and no reward differed within a group"
            key = self.job.settings.name or self.job.settings.kind
            seen = f"{record['format']:.0%} well-formed, {record['truncated']:.0%} truncated"
            fix = f"so there was nothing to learn from; see `r1-mini doctor`, or set {key}.patience=null"
            raise Stopped(f"stopped: {what} ({seen})", where=self.job.name, fix=fix)
        return self.job.watch(record)


def samples_as_asked(fields: Mapping[str, Any]) -> bool:
    """Whether our sampler can sample with these fields of a GRPOConfig; where it cannot, TRL's own generation does."""
    engines = ("use_vllm", "use_transformers_continuous_batching", "cache_implementation")
    others = (*engines, "top_k", "min_p", "generation_kwargs")
    return not any(fields[name] for name in others) and bool(fields["repetition_penalty"] == 1.0)


class Trainer(FrugalTrainer):
    """TRL's GRPOTrainer with our rollouts, rewards and advantages. `problems`: those of the data set, by its column."""

    def __init__(
        self, *, problems: Sequence[Problem], sampling: SamplingParams, baseline: Baseline = "group", **kwargs: Any
    ) -> None:
        self.problems, self.sampling, self.baseline = problems, sampling, baseline
        self.kinds = kinds_of(problems)
        self.advantages_B, self.sampler = torch.zeros(0), Sampler(self)  # of this process
        self.asked: list[Problem] = []
        """The problem of each group of the rollout at hand."""
        self.redraws: tuple[int, Callable[[str], Iterator[Problem]], int] = 0, lambda seed: iter(()), 0
        """How often groups are drawn again, problems by a seed, and the longest prompt, tokens."""
        super().__init__(rollout_func=sample_groups if has_own_sampler(kwargs["args"]) else None, **kwargs)
        score_in_float32(self, outputs=("log_probs", "entropy"))

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Token ids as our sampler gets them: TRL would put a second BOS before the one of the template."""
        return encode(self.processing_class, prompts), None, {}

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """The rewards of all processes, (P * G, rules), by TRL. Before: grades and metrics; after: our advantages."""
        finish: list[Finish] = ["stop" if ids[-1] in self.eos_token_ids else "length" for ids in completion_ids_list]
        problems = [problem for problem in self.asked for _ in range(self.num_generations)]
        if self.redraws[0]:
            prompts = prompts_for(self.processing_class, problems)
        graded = list(map(grade, problems, completions, finish, prompts))
        for row, each in zip(inputs, graded, strict=True):
            row["graded"] = each  # a column for the rewards
        judged = [(each, each.correct, len(ids)) for each, ids in zip(graded, completion_ids_list, strict=True)]
        everybody, right, lengths = zip(*processes.gather(judged), strict=True)  # of all processes
        metrics = rollout_metrics(everybody, lengths) | accuracy_by_kind(everybody, self.kinds)
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        right_PG = torch.tensor(right).view(-1, self.num_generations)
        self._metrics["train"]["solved"].append(right_PG.all(dim=1).double().mean().item())
        self._metrics["train"]["failed"].append((~right_PG).all(dim=1).double().mean().item())

        rewards: Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        weighted_PG = (rewards * self.reward_weights.to(rewards.device)).nansum(dim=1).view(-1, self.num_generations)
        first = self.accelerator.process_index * len(prompts)
        advantages_PG = group_advantages(weighted_PG, self.scale_rewards, self.baseline)
        self.advantages_B = advantages_PG.flatten()[first : first + len(prompts)]
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL's batch with our advantages. `normalize_then_sum` (GDPO) keeps TRL's."""
        self.asked = [self.problems[row["problem"]] for row in inputs[:: self.num_generations]]
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.multi_objective_aggregation == "sum_then_normalize":
            batch["advantages"] = self.advantages_B.to(batch["advantages"])
        if "sampling_per_token_logps" in batch:
            mean, _ = self.over_processes(batch["sampling_per_token_logps"][batch["completion_mask"].bool()])
            self._metrics["train"]["nll"].append(-mean)
        return batch


def has_own_sampler(args: GRPOConfig) -> bool:
    """Whether our sampler samples; else TRL does. Ours needs all weights in each process (no FSDP, no ZeRO-3)."""
    sharded = args.deepspeed_plugin is not None and args.deepspeed_plugin.zero_stage == 3
    return not sharded and os.environ.get("ACCELERATE_USE_FSDP") != "true" and samples_as_asked(vars(args))


def sample_groups(prompts: Sequence[str], trainer: Trainer) -> dict[str, list[Any]]:
    """TRL's `rollout_func`: a completion for each prompt. The G copies of a prompt stand together."""
    started = time.perf_counter()
    tokenizer, size = trainer.processing_class, trainer.num_generations
    prompt_ids = encode(tokenizer, prompts[::size])
    params = replace(trainer.sampling, seed=trainer.sampling.seed * 1_000_003 + trainer.state.global_step)
    before = list(chain.from_iterable(processes.gather([prompt_ids])[: processes.rank()]))
    done = trainer._step % trainer.args.gradient_accumulation_steps  # micro-batches of this optimizer step
    first = done * len(prompts) * processes.count()  # a second rollout in a step numbers its samples on
    with trainer.sampler() as model:
        stop = stop_tokens(model.generation_config, tokenizer)
        groups = rollout(model, prompt_ids, params, stop=stop, first_sample=first, elsewhere=before)
        replaced = replace_alike(trainer, model, prompt_ids, groups, replace(params, seed=params.seed + (done << 40)))
    if trainer.redraws[0]:
        trainer._metrics["train"]["redrawn"].append(sum(processes.gather([replaced])) / len(groups) / processes.count())
    flat = [completion for group in groups for completion in group]
    trainer._metrics["train"]["seconds_rollout"].append(time.perf_counter() - started)
    return {
        "prompt_ids": [ids for ids in prompt_ids for _ in range(size)],
        "completion_ids": [completion.tokens for completion in flat],
        "logprobs": [completion.logprobs for completion in flat],
    }


def replace_alike(
    trainer: Trainer,
    model: PreTrainedModel,
    prompt_ids: list[list[int]],
    groups: list[list[Completion]],
    params: SamplingParams,
) -> int:
    """Replace groups that are all right or all wrong by groups of other problems, of which each process has its own.

    Changes `prompt_ids`, `groups` and the trainer's `asked`; returns how many groups were sampled for it.
    """
    most, problems, longest = trainer.redraws
    tokenizer, rank, count = trainer.processing_class, processes.rank(), processes.count()
    spare = islice(problems(f"{params.seed} redraw"), rank, None, count)
    stop, sampled = stop_tokens(model.generation_config, tokenizer), 0

    def alike(place: int) -> bool:
        (prompt,), problem = prompts_for(tokenizer, [trainer.asked[place]]), trainer.asked[place]
        texts = ((tokenizer.decode(each.tokens, skip_special_tokens=True), each.finish) for each in groups[place])
        return len({grade(problem, *text, prompt).correct for text in texts}) == 1

    left = list(range(len(groups)))
    for attempt in range(1, most + 1):
        left = [place for place in left if alike(place)]
        if not left:
            break
        fresh: list[tuple[Problem, list[int]]] = []
        while len(fresh) < len(left):
            problem = next(spare)
            (ids,) = encode(tokenizer, prompts_for(tokenizer, [problem]))
            fresh += [(problem, ids)] if len(ids) <= longest else []
        others = replace(params, seed=params.seed + ((attempt * count + rank) << 50))
        new = rollout(model, [ids for _, ids in fresh], others, stop=stop)
        for place, (problem, ids), group in zip(left, fresh, new, strict=True):
            trainer.asked[place], prompt_ids[place], groups[place] = problem, ids, group
        sampled += len(left)
    return sampled


_SAME = (
    *(
        "reward",
        "accuracy",
        "format",
        "solved",
        "failed",
        "length_right",
        "length_wrong",
        "kl",
        "loss",
        "grad_norm",
        "learning_rate",
    ),
    *("voice_direct", "voice_worked", "voice_checked", "voice_none", "logp_gap_mean", "logp_gap_max"),
    *("seconds_rollout", "redrawn", "verifier_timeouts", DEV_SCORE),
)
METRICS = {
    **{name: name for name in _SAME},
    "completions/mean_length": "length",
    "completions/clipped_ratio": "truncated",
    "frac_reward_zero_std": "zero_variance",
    "nll": "entropy",  # mean -log p of the sampled tokens: an unbiased estimate, over all completions
    "clip_ratio/region_mean": "clipped",
}
"""The trainer's name of a metric -> ours."""
