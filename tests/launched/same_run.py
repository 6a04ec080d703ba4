"""What every kind of stage reads, samples and learns, by one process or by two."""

import json
import tempfile
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from unittest.mock import patch

import torch
from rich.console import Console
from safetensors.torch import load_file
from trl import GRPOTrainer

from r1_mini.completion import Graded, write
from r1_mini.data.source import FamilySource
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.generate import generate_together
from r1_mini.rollout.params import Completion, SamplingParams
from r1_mini.rollout.tuning import TUNED
from r1_mini.system import distributed as processes
from r1_mini.system.files import read_jsonl
from r1_mini.train import grpo, stage_of
from r1_mini.train.stage import Job
from tests.train.test_grpo import STOCK_SCORING, batch, gradients, make_trainer

SUMS = FamilySource(family="sum", terms=(2, 3), digits=1, largest=9)
FEW = FamilySource(family="sum", terms=(2, 2), digits=1, largest=3)
"""So few that two processes ask the same question."""


def flat(weights):
    return torch.cat([each.flatten() for each in weights]).tolist()


def sampled(model, prompts, params, **options):
    """Of problem d, d of four completions are wrong, whoever samples them."""
    tokenizer, made = make_tokenizer(), []
    for ids in prompts:
        digit = int(tokenizer.decode(ids).removeprefix("User: ")[0])
        texts = [write((), str(digit + 1 + (place < digit))) for place in range(params.n)]
        encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
        made.append([Completion(tokens, [-0.5] * len(tokens), "stop") for tokens in encoded])
    return made


def step(scale, baseline):
    """The advantages of all completions of a batch, their accuracy, and the weights after a step."""
    fields = {"max_steps": 1, "per_device_train_batch_size": 16 // processes.count(), "max_completion_length": 16}
    questions = [f"{digit}+1" for digit in range(4)]
    folder = Path(tempfile.mkdtemp())
    trainer = make_trainer(folder, baseline=baseline, questions=questions, scale_rewards=scale, **fields)
    made = {}
    original = trainer._generate_and_score_completions

    def kept(inputs):
        batch = original(inputs)
        made["advantages"] = trainer.accelerator.gather(batch["advantages"]).tolist()
        made["accuracy"] = list(trainer._metrics["train"]["accuracy"])
        return batch

    trainer._generate_and_score_completions = kept
    with patch.object(grpo, "rollout", sampled):
        trainer.train()
    return {**made, "weights": flat(trainer.accelerator.unwrap_model(trainer.model).parameters())}


def longest(model, tokenizer):
    """A score on dev: the mean length of a completion."""
    asked = [*islice(SUMS.stream("dev", Random(0)), 5)]
    groups = generate_together(model, tokenizer, asked, SamplingParams(2, 12))
    return sum(len(each.tokens) for group in groups for each in group) / 10


def learned(kind, source=SUMS, trainer=None, **settings):
    """What a stage leaves: its weights, its metrics but for seconds, and its other tables."""
    stage = stage_of({"kind": kind, "trainer": trainer or {}, **settings})
    folder = Path(processes.on_main(tempfile.mkdtemp))
    tokenizer = make_tokenizer()
    if processes.is_main():
        model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=32, seed=0)
        save_checkpoint(model, tokenizer, folder / "start")
        (folder / "work").mkdir()
        (folder / "out").mkdir()
    processes.wait()
    places = (folder / "work", folder / "out", Console(quiet=True))
    stage.train(Job(kind, stage, folder / "start", (source,), "auto", 0, *places, dev_score=longest))
    tables = {each.stem: read_jsonl(each) for each in sorted((folder / "out").glob("*.jsonl"))}
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in tables.pop("metrics", [])]
    whole = load_file(folder / "out" / "model.safetensors") if stage.trains else {}
    return {"weights": flat(whole.values()) if whole else [], "metrics": rows, **tables}


def reinforced():
    """What RL leaves, and the completions of its steps."""
    rollouts, real = [], grpo.sample_groups

    def seen(prompts, trainer):
        made = real(prompts, trainer)
        rollouts.append(processes.gather(made["completion_ids"]))
        return made

    fields = {"max_steps": 2, "num_generations": 4, "max_completion_length": 12, "learning_rate": 1e-4}
    fields["per_device_train_batch_size"] = 16 // processes.count()
    looks = {"dev": {"every": 1, "suite": "own"}, "rollouts": {"every": 1, "problems": 3, "samples": 2}}
    with patch.object(grpo, "sample_groups", seen):
        made = learned("grpo", FEW, fields, rewards={"length": 1.0}, **looks)
    return {**made, "sampled": rollouts}


def apart():
    """How far gradients of our update are from those of TRL's, relative to these, where the processes read different
    numbers of parts and one of them has no signal; how many rows each pass of this process read."""
    found, rank = [], processes.rank()
    for fields, fresh in (({}, True), ({}, False), ({"loss_type": "grpo"}, True), ({"beta": 0.04}, False)):
        trainer = make_trainer(Path(tempfile.mkdtemp()), **{k: v for k, v in fields.items() if k != "beta"})
        trainer.beta = trainer.args.beta = fields.get("beta", 0.0)
        model = trainer.accelerator.prepare(trainer.model)
        inputs, generator = batch([0.0] * 4 if rank else [0.5, 1.0, -0.25, 0.0]), torch.Generator().manual_seed(rank)
        shape, mask = inputs["completion_ids"].shape, inputs["completion_mask"]
        inputs["completion_ids"] = torch.randint(3, 20, shape, generator=generator) * mask
        inputs["ref_per_token_logps"] = -3.4 + 0.2 * torch.randn(shape, generator=generator)
        if fresh:
            names = ("prompt_ids", "completion_ids"), ("prompt_mask", "completion_mask")
            ids, real = (torch.cat([inputs[each] for each in pair], dim=1) for pair in names)
            with torch.no_grad():
                inputs["sampling_per_token_logps"] = STOCK_SCORING(trainer, trainer.model, ids, real, shape[1])[0]
        rows, made = [], []
        trainer.model.model.embed_tokens.register_forward_pre_hook(lambda _, read, to=rows: to.append(len(read[0])))
        for scoring in (STOCK_SCORING, grpo.Trainer._get_per_token_logps_and_entropies) * 2:
            rows.clear()
            with patch.object(grpo.Trainer, "_get_per_token_logps_and_entropies", scoring):
                loss = GRPOTrainer._compute_loss if scoring is STOCK_SCORING else grpo.Trainer._compute_loss
                trainer.accelerator.backward(loss(trainer, model, dict(inputs)))
            made.append(gradients(trainer.model))
        distances = [((ours - theirs).norm() / theirs.norm()).item() for theirs, ours in (made[:2], made[2:])]
        found.append({"distances": distances, "rows": processes.gather([rows])})
    return found


def everything(settings):
    """Everything that is compared, by name."""
    count = processes.count()
    texts = {"per_device_train_batch_size": 8 // count, "learning_rate": 1e-2}
    small = {"hidden_size": 16, "layers": 1, "heads": 2, "intermediate_size": 32}
    accumulated = {"max_steps": 6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2 // count}
    made = {"base": learned("base", trainer={**accumulated, "warmup_steps": 0}, model=small)}
    made["sft"] = learned("sft", trainer={**texts, "max_steps": 6})
    with patch.object(Graded, "correct", True):  # random weights never are
        made["rejection"] = learned("rejection", trainer=texts, rounds=1, prompts=30, samples=2, max_tokens=24)
        made["collect"] = learned("collect", prompts=7, samples=2, max_tokens=12)
        made["collect one"] = learned("collect", prompts=1, max_tokens=12)  # one process has none to sample
    made["grpo"] = reinforced()
    made["gradients"] = apart()
    return {**made, **{each: step(*each.split("/")) for each in settings}}


def main(arguments):
    """Write everything to the file that is named first, by the scales and baselines that follow."""
    TUNED["cpu"] = replace(TUNED["cpu"], part=7)  # tokens, so that rows are read one by one
    made = everything(arguments[1:])
    if processes.is_main():
        Path(arguments[0]).write_text(json.dumps(made))
