"""Run by the launcher: a short SFT stage, a round of expert iteration, and one step by each scale and baseline of
argument 3 on, as JSON into the file of argument 1. Prompts per process are argument 2. Which completion a prompt gets,
and so its reward, depends on the prompt and its place in the group alone: of problem d, d of four are wrong.
"""

import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console
from safetensors.torch import load_file

from r1_mini.completion import Graded, write
from r1_mini.data.source import FamilySource
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.engine import Completion
from r1_mini.system import distributed as processes
from r1_mini.system.files import read_jsonl
from r1_mini.train import grpo, stage_of
from r1_mini.train.stage import Job
from tests.train.test_grpo import make_trainer


def sampled(model, prompts, params, **options):
    """Of the first problem all samples are right, of the next one fewer."""
    tokenizer, made = make_tokenizer(), []
    for ids in prompts:
        digit = int(tokenizer.decode(ids).removeprefix("User: ")[0])
        texts = [write((), str(digit + 1 + (place < digit))) for place in range(params.n)]
        encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
        made.append([Completion(tokens, [-0.5] * len(tokens), "stop") for tokens in encoded])
    return made


def step(scale, baseline):
    """The advantages of all completions of a batch, their accuracy, and the weights after a step."""
    fields = {"max_steps": 1, "per_device_train_batch_size": 4 * int(sys.argv[2]), "max_completion_length": 16}
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
    trainer.train()
    weights = trainer.accelerator.unwrap_model(trainer.model).parameters()
    return {**made, "weights": torch.cat([weight.flatten() for weight in weights]).tolist()}


def learned(kind, **settings):
    """The weights and the metrics after a stage that trains on texts, by the main process."""
    trainer = {"per_device_train_batch_size": 2 * int(sys.argv[2]), "learning_rate": 1e-2}
    stage = stage_of({"kind": kind, "trainer": {**trainer, **settings.pop("trainer", {})}, **settings})
    folder = Path(processes.on_main(tempfile.mkdtemp))
    tokenizer = make_tokenizer()
    if processes.is_main():
        model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=32, seed=0)
        save_checkpoint(model, tokenizer, folder / "start")
        (folder / "work").mkdir()
        (folder / "out").mkdir()
    processes.wait()
    sums = (FamilySource(family="sum", terms=(2, 3), digits=1, largest=9),)
    places = (folder / "work", folder / "out", Console(quiet=True))
    stage.train(Job(kind, stage, folder / "start", sums, "auto", 0, *places))
    weights = load_file(folder / "out" / "model.safetensors").values()
    rows = [{**row, "seconds": 0} for row in read_jsonl(folder / "out" / "metrics.jsonl")]
    return {"weights": torch.cat([each.flatten() for each in weights]).tolist(), "metrics": rows}


if __name__ == "__main__":
    steps = [learned("sft", trainer={"max_steps": 6})]
    with patch.object(Graded, "correct", True):  # random weights never are
        steps += [learned("rejection", rounds=1, prompts=30, samples=2, max_tokens=24)]
    grpo.rollout = sampled
    steps += [step(*each.split("/")) for each in sys.argv[3:]]
    if processes.is_main():
        Path(sys.argv[1]).write_text(json.dumps(steps))
