"""Run by the launcher: the advantages of all completions of a batch, in order, as JSON into the file of argument 1.

Prompts per process are argument 2. Which completion a prompt gets, and so its reward, depends on the prompt and its
place in the group alone, whoever draws it.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from trl import GRPOConfig

from r1_mini.completion import write
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems import families
from r1_mini.rewards import as_trl_reward
from r1_mini.rollout.engine import Completion, SamplingParams
from r1_mini.system import distributed as processes
from r1_mini.train import grpo
from r1_mini.train.trainer import arguments

GROUP, PROBLEMS = 4, 4


def sampled(model, prompts, params, **options):
    """Of the first problem all samples are right, of the next one fewer."""
    made = []
    for ids in prompts:
        digit = int(tokenizer.decode(ids).removeprefix("User: ")[0])
        texts = [write((), str(digit + 1 + (place < digit))) for place in range(params.n)]
        encoded = [tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for text in texts]
        made.append([Completion(tokens, [-0.5] * len(tokens), "stop") for tokens in encoded])
    return made


if __name__ == "__main__":
    grpo.rollout = sampled
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=32, seed=0)
    problems = [families.solve(f"{digit}+1") for digit in range(PROBLEMS)]
    fields = {
        "max_steps": 1,
        "per_device_train_batch_size": GROUP * int(sys.argv[2]),
        "num_generations": GROUP,
        "max_completion_length": 16,
        "scale_rewards": sys.argv[3],
    }
    trainer = grpo.Trainer(
        problems=problems,
        sampling=SamplingParams(GROUP, 16),
        baseline=sys.argv[4],
        model=model,
        args=GRPOConfig(**arguments(grpo.GrpoStage.DEFAULTS, fields, Path(tempfile.mkdtemp()), 0)),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [f"User: {digit}+1\nAssistant:" for digit in range(PROBLEMS)],
                "problem": range(PROBLEMS),
            }
        ),
        processing_class=tokenizer,
        reward_funcs=[as_trl_reward("accuracy", problems)],
    )
    made = {}
    original = trainer._generate_and_score_completions

    def kept(inputs):
        batch = original(inputs)
        made["advantages"] = trainer.accelerator.gather(batch["advantages"]).tolist()
        made["accuracy"] = trainer._metrics["train"]["accuracy"]
        return batch

    trainer._generate_and_score_completions = kept
    trainer.train()
    weights = torch.cat([weight.flatten() for weight in trainer.accelerator.unwrap_model(trainer.model).parameters()])
    if processes.is_main():
        made["weights"] = weights.tolist()
        Path(sys.argv[1]).write_text(json.dumps(made))
