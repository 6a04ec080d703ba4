"""docs/GRPO.md is a program: it runs, it learns, and its step is the product's."""

import re
from pathlib import Path

import pytest
import torch

from tests.train.test_grpo import QUESTIONS, make_trainer, rows_of

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
    trainer = make_trainer(tmp_path, reward="length", max_completion_length=40)  # random weights get nothing right
    model, rewards, scored = trainer.model, [], trainer._calculate_rewards
    trainer._calculate_rewards = lambda *columns: rewards.append(scored(*columns)) or rewards[0]
    batch = trainer._generate_and_score_completions(rows_of(QUESTIONS, 4))
    trainer._compute_loss(model, batch).backward()
    products = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()

    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    written = torch.cat([torch.zeros_like(batch["prompt_mask"]), batch["completion_mask"]], dim=1).bool()
    advantages = page["advantage"](rewards[0].view(2, 4)).flatten()
    page["loss"](model, ids, written, advantages).backward()
    assert len(rewards[0].unique()) > 2
    assert (ids[0] == trainer.processing_class.pad_token_id).any()  # prompts of two lengths
    for name, parameter in model.named_parameters():
        assert products[name].norm() > 0, name
        assert (parameter.grad - products[name]).norm() < 1e-5 * products[name].norm(), name
