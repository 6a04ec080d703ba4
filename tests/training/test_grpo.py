"""Our trainer against TRL's own loss, and by hand."""

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rewards import as_trl_reward
from r1_mini.training.grpo import DEFAULTS, Trainer, with_signal, without_signal
from r1_mini.training.stage import arguments


def make_trainer(tmp_path, **fields):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=None, seed=0)
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 12,
        **fields,
    }
    config = GRPOConfig(**arguments(DEFAULTS, settings, tmp_path, 0))
    rows = {"prompt": ["User: 1+2\nAssistant:", "User: 12-4\nAssistant:"] * 4, "answer": ["3", "8"] * 4}
    rewards = [as_trl_reward("accuracy")]
    return Trainer(
        rollout_seed=0,
        model=model,
        args=config,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        reward_funcs=rewards,
    )


def batch(advantages):
    """Rows of 3 prompt and 5 completion places with lengths 5, 2, 3, 4; the first prompt is one token shorter."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 2, 3, 4])
    prompt_mask = torch.ones(4, 3, dtype=torch.long)
    prompt_mask[0, 0] = 0
    mask = (torch.arange(5)[None] < lengths[:, None]).long()
    return {
        "prompt_ids": torch.randint(3, 20, (4, 3), generator=generator),
        "prompt_mask": prompt_mask,
        "completion_ids": torch.randint(3, 20, (4, 5), generator=generator) * mask,
        "completion_mask": mask,
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": mask.sum(),
    }


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_a_group_scored_alike_has_no_signal_and_one_odd_reward_gives_it():
    rewards = torch.tensor([[1.1, 1.1, 1.1], [0.1, 0.1, 1.1], [0.0, 0.0, 0.0]])
    assert without_signal(rewards).tolist() == [True, False, True]


def test_rows_without_advantage_are_left_out_and_the_rest_is_cut_to_its_length():
    kept = with_signal(batch([0.0, 0.5, 0.0, -0.5]))
    assert kept["advantages"].tolist() == [0.5, -0.5]
    assert kept["completion_ids"].shape == (2, 4)
    assert kept["prompt_ids"].shape == (2, 3)
    assert kept["num_items_in_batch"] == 14


def test_leading_padding_of_prompts_is_cut():
    inputs = batch([0.5, 0.0, 0.0, 0.0])
    kept = with_signal(inputs)
    assert kept["prompt_ids"].tolist() == [inputs["prompt_ids"][0, 1:].tolist()]


def test_a_batch_without_any_signal_keeps_one_row_and_has_no_gradient(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch([0.0, 0.0, 0.0, 0.0])).backward()
    assert gradients(trainer.model).abs().max() == 0


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo", "bnpo", "cispo"])
@pytest.mark.parametrize("advantages", [[0.5, 0.0, -0.25, 0.0], [1.0, -1.0, 0.5, -0.5]])
@pytest.mark.parametrize("off_policy", [False, True])
def test_gradients_equal_those_of_stock_trl(tmp_path, monkeypatch, loss_type, advantages, off_policy):
    trainer = make_trainer(tmp_path, loss_type=loss_type)
    trainer.current_gradient_accumulation_steps = 1
    inputs = batch(advantages)
    if off_policy:  # ratios away from 1, so that clipping acts
        generator = torch.Generator().manual_seed(1)
        inputs["old_per_token_logps"] = -3.2 + 0.5 * torch.randn(4, 5, generator=generator)
    ours_per_token = Trainer._get_per_token_logps_and_entropies
    stock = GRPOTrainer._get_per_token_logps_and_entropies
    monkeypatch.setattr(Trainer, "_get_per_token_logps_and_entropies", stock)
    GRPOTrainer._compute_loss(trainer, trainer.model, dict(inputs)).backward()
    monkeypatch.setattr(Trainer, "_get_per_token_logps_and_entropies", ours_per_token)
    theirs = gradients(trainer.model)
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, dict(inputs)).backward()
    ours = gradients(trainer.model)
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_log_probabilities_and_entropies_by_parts_are_those_of_the_whole_batch(tmp_path):
    """13 rows in 6 parts, with padding on both sides: every value lands in its own row."""
    trainer = make_trainer(tmp_path)
    generator = torch.Generator().manual_seed(2)
    prompt_places, places = 6, 9
    ids = torch.randint(3, 20, (13, prompt_places + places), generator=generator)
    starts = torch.randint(0, prompt_places, (13, 1), generator=generator)
    ends = prompt_places + torch.randint(1, places + 1, (13, 1), generator=generator)
    at = torch.arange(prompt_places + places)[None]
    mask = ((at >= starts) & (at < ends)).long()
    whole = GRPOTrainer._get_per_token_logps_and_entropies(
        trainer, trainer.model, ids, mask, places, compute_entropy=True
    )
    parts = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, places, compute_entropy=True)
    for ours, theirs in zip(parts[:2], whole[:2], strict=True):
        assert torch.allclose(ours * mask[:, prompt_places:], theirs * mask[:, prompt_places:], atol=1e-5)


def test_a_batch_of_truncated_completions_that_are_masked_has_no_gradient_and_no_error(tmp_path):
    trainer = make_trainer(tmp_path, mask_truncated_completions=True)
    trainer.current_gradient_accumulation_steps = 1
    inputs = batch([0.5, -0.5, 0.0, 0.0])
    inputs["completion_mask"] = torch.zeros_like(inputs["completion_mask"])
    inputs["sampling_per_token_logps"] = torch.zeros(4, 5)
    trainer._compute_loss(trainer.model, inputs).backward()
    assert gradients(trainer.model).abs().max() == 0


@pytest.mark.slow
def test_rollouts_are_used_again_when_the_recipe_says_so(tmp_path):
    trainer = make_trainer(tmp_path, num_iterations=2, max_steps=4)
    trainer.train()
    assert trainer.state.global_step == 4


@pytest.mark.slow
def test_where_our_sampler_cannot_draw_as_asked_trl_generates(tmp_path):
    trainer = make_trainer(tmp_path, top_k=3, max_steps=1)
    assert trainer.rollout_func is None
    trainer.train()
    assert trainer.state.global_step == 1


def test_a_step_makes_a_rewarded_completion_likelier_and_a_punished_one_rarer(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.current_gradient_accumulation_steps = 1
    inputs = batch([1.0, 0.0, 0.0, -1.0])

    def logps():
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        with torch.no_grad():
            per_token, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(trainer, trainer.model, ids, mask, 5)
        return (per_token * inputs["completion_mask"]).sum(dim=1)

    before = logps()
    trainer._compute_loss(trainer.model, inputs).backward()
    with torch.no_grad():
        for p in trainer.model.parameters():
            p -= 0.05 * p.grad
    change = logps() - before
    assert change[0] > 0 > change[3]


def test_sampler_and_trainer_agree_on_log_probabilities(tmp_path):
    trainer = make_trainer(tmp_path, temperature=1.0)
    seen = []
    trainer.log = lambda logs, start_time=None: seen.append({k: v[:] for k, v in trainer._metrics["train"].items()})
    trainer.train()
    assert seen
    assert max(max(record["logp_gap_max"]) for record in seen if record.get("logp_gap_max")) < 1e-4


def test_advantages_are_centered_within_each_group(tmp_path):
    """Rewards 1, 0, 0, 0 with nothing divided: 0.75 and three times -0.25. A group of equal rewards: exactly zero."""
    trainer = make_trainer(tmp_path)
    given = iter([torch.tensor([[1.0], [0.0], [0.0], [0.0], [0.3], [0.3], [0.3], [0.3]])])

    def rewards(inputs, prompts, completions, completion_ids_list):
        return next(given)

    GRPOTrainer._calculate_rewards, kept = (lambda self, *args: rewards(*args)), GRPOTrainer._calculate_rewards
    try:
        inputs = [{"prompt": p, "answer": "3"} for p in ["User: 1+2\nAssistant:"] * 4 + ["User: 3-0\nAssistant:"] * 4]
        out = trainer._generate_and_score_completions(inputs)
    finally:
        GRPOTrainer._calculate_rewards = kept
    assert out["advantages"].tolist() == [0.75, -0.25, -0.25, -0.25, 0.0, 0.0, 0.0, 0.0]
