"""docs/GRPO.md is a program: it runs, it learns, and its step is the product's."""

import re
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig

from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems import families
from r1_mini.rewards import as_trl_reward
from r1_mini.rollout.engine import SamplingParams
from r1_mini.train.grpo import GrpoStage, Trainer
from r1_mini.train.trainer import arguments

TEXT = (Path(__file__).parent.parent / "docs/GRPO.md").read_text()
WORDS = ("Problem", "Prompt", "Rollout", "Reward", "Advantage", "Loss", "Step", "Exam")


@pytest.fixture(scope="module")
def page():
    """What the page defines."""
    defined = {"__name__": "grpo_page"}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)), defined)
    return defined


def test_the_eight_words_are_headings_and_name_a_file_each():
    headings = re.findall(r"^## \d\. (\w+)\n\nIn the product: `(.*?)`", TEXT, re.M)
    assert tuple(word for word, _ in headings) == WORDS
    assert all((Path(__file__).parent.parent / file).exists() for _, file in headings)


def test_the_page_learns_from_rewards_alone(page):
    base, after = page["main"](base_steps=400, grpo_steps=12)
    assert base > 0.4
    assert after > base + 0.05


def test_a_hand_computed_loss(page):
    """Two rows of two tokens after a prompt of one, the second completion one token shorter; all V tokens are as likely."""

    class Uniform:
        def __call__(self, ids, attention_mask):
            self.logits = torch.zeros(*ids.shape, 4)
            return self

    ids, written = page["padded"]([[2], [3]], [[2, 1], [1]])
    assert written.tolist() == [[False, True, True], [False, True, False]]
    loss = page["loss"](Uniform(), ids, written, torch.tensor([1.0, -0.5]))
    log_4 = torch.tensor(4.0).log()
    assert loss.item() == pytest.approx((1.0 + 1.0 - 0.5) * log_4.item() / 3)


def test_its_step_has_the_gradient_of_the_products(page, tmp_path):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=None, seed=0)
    rewards = []

    def reward(**columns):
        """By length: a model with random weights gets nothing right."""
        rewards.extend(as_trl_reward("length", problems)(**columns))
        return rewards

    fields = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 40}
    prompts = ["User: 1+2\nAssistant:"] * 4 + ["User: 12-4\nAssistant:"] * 4
    problems = [families.solve("1+2")]
    rows = [{"prompt": prompt, "problem": 0} for prompt in prompts]
    trainer = Trainer(
        problems=problems,
        sampling=SamplingParams(4, 40),
        model=model,
        args=GRPOConfig(**arguments(GrpoStage.DEFAULTS, fields, tmp_path, 0)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        reward_funcs=[reward],
    )
    trainer.current_gradient_accumulation_steps = 1
    batch = trainer._generate_and_score_completions(rows)
    trainer._compute_loss(model, batch).backward()
    products = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    written = torch.cat([torch.zeros_like(batch["prompt_mask"]), batch["completion_mask"]], dim=1).bool()
    advantages = page["advantage"](torch.tensor(rewards).view(2, 4)).flatten()
    page["loss"](model, ids, written, advantages).backward()
    assert len(set(rewards)) > 2
    assert (ids[0] == tokenizer.pad_token_id).any()  # prompts of two lengths
    for name, parameter in model.named_parameters():
        assert products[name].norm() > 0, name
        assert (parameter.grad - products[name]).norm() < 1e-5 * products[name].norm(), name
