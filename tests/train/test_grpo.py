"""Our trainer against TRL's own loss, and by hand."""

import contextlib

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from r1_mini.config.trl_fields import CHOICES
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems import families
from r1_mini.rewards import as_trl_reward
from r1_mini.rollout.engine import SamplingParams
from r1_mini.train.advantages import group_advantages
from r1_mini.train.grpo import GrpoStage, Trainer
from r1_mini.train.trainer import arguments

STOCK_SCORING = GRPOTrainer._get_per_token_logps_and_entropies


@pytest.fixture(scope="module")
def trainer_of(tmp_path_factory):
    """Trainers by their settings, each made once."""
    made = {}

    def get(**fields):
        key = tuple(sorted(fields.items()))
        if key not in made:
            made[key] = make_trainer(tmp_path_factory.mktemp("trainer"), **fields)
        return made[key]

    return get


@contextlib.contextmanager
def shapes_read(trainer):
    """The shapes of what the trainer's model reads."""
    shapes = []
    hook = trainer.model.model.embed_tokens.register_forward_pre_hook(lambda _, read: shapes.append(read[0].shape))
    yield shapes
    hook.remove()


def make_trainer(tmp_path, **fields):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=16, layers=1, heads=2, intermediate_size=None, seed=0)
    if fields.get("beta"):  # TRL loads the reference model from where the policy came from
        save_checkpoint(model, tokenizer, tmp_path / "start")
        model, tokenizer = load_checkpoint(tmp_path / "start")
    settings = {
        "max_steps": 2,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 12,
        **fields,
    }
    config = GRPOConfig(**arguments(GrpoStage.DEFAULTS, settings, tmp_path, 0))
    rows = {
        "prompt": ["User: 1+2\nAssistant:", "User: 12-4\nAssistant:"] * 4,
        "problem": [0, 1] * 4,
    }
    problems = [families.solve("1+2"), families.solve("12-4")]
    rewards = [as_trl_reward("accuracy", problems)]
    return Trainer(
        problems=problems,
        sampling=SamplingParams(settings["num_generations"], settings["max_completion_length"]),
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


def test_a_batch_without_any_signal_keeps_one_row_and_has_no_gradient(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch([0.0, 0.0, 0.0, 0.0])).backward()
    assert gradients(trainer.model).abs().max() == 0


@pytest.mark.parametrize("loss_type", CHOICES["loss_type"])
@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("advantages", [[0.5, 0.0, -0.25, 0.0], [1.0, -1.0, 0.5, -0.5]])
@pytest.mark.parametrize("off_policy", [False, True])
def test_gradients_equal_those_of_stock_trl(trainer_of, monkeypatch, loss_type, level, beta, advantages, off_policy):
    trainer = trainer_of(loss_type=loss_type, importance_sampling_level=level, beta=beta)
    trainer.current_gradient_accumulation_steps = 1
    inputs = batch(advantages)
    generator = torch.Generator().manual_seed(1)
    if off_policy:  # ratios away from 1, so that clipping acts
        inputs["old_per_token_logps"] = -3.43 + 0.2 * torch.randn(4, 5, generator=generator)
    if beta:
        inputs["ref_per_token_logps"] = -3.43 + 0.2 * torch.randn(4, 5, generator=generator)
    with monkeypatch.context() as stock:
        stock.setattr(Trainer, "_get_per_token_logps_and_entropies", STOCK_SCORING)
        GRPOTrainer._compute_loss(trainer, trainer.model, dict(inputs)).backward()
    theirs = gradients(trainer.model)
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, dict(inputs)).backward()
    ours = gradients(trainer.model)
    trainer.model.zero_grad()
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


@pytest.mark.parametrize("loss_type", CHOICES["loss_type"])
@pytest.mark.parametrize("advantages", [[0.5, 0.0, -0.25, 0.0], [1.0, -1.0, 0.5, -0.5], [1.0, 0.0, 0.0, 0.0]])
def test_gradients_of_fresh_samples_equal_those_of_stock_trl(trainer_of, monkeypatch, loss_type, advantages):
    trainer = trainer_of(loss_type=loss_type)
    trainer.current_gradient_accumulation_steps = 1
    inputs = batch(advantages)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    with torch.no_grad():
        inputs["sampling_per_token_logps"] = STOCK_SCORING(trainer, trainer.model, ids, mask, 5)[0]
    with monkeypatch.context() as stock:
        stock.setattr(Trainer, "_get_per_token_logps_and_entropies", STOCK_SCORING)
        expected = GRPOTrainer._compute_loss(trainer, trainer.model, dict(inputs))
        (3 * expected).backward()
    theirs = gradients(trainer.model)
    trainer.model.zero_grad()
    trainer._metrics["train"].clear()
    loss = trainer._compute_loss(trainer.model, dict(inputs))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert trainer.model.lm_head.weight.grad is None  # nothing is computed before the backward pass
    (3 * loss).backward()
    ours = gradients(trainer.model)
    trainer.model.zero_grad()
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    assert trainer._metrics["train"]["logp_gap_max"] == [pytest.approx(0, abs=1e-5)]


@pytest.mark.parametrize("loss_type,scored", [("dapo", [(2, 7)]), ("grpo", [(2, 7)])])
def test_rows_without_advantage_are_not_scored_unless_they_have_a_kl_term(trainer_of, loss_type, scored):
    """Rows 1 and 3 of four count: prompts of 3 tokens, completions of 2 and 4."""
    inputs = batch([0.0, 0.5, 0.0, -0.5])
    trainer = trainer_of(loss_type=loss_type)
    trainer.current_gradient_accumulation_steps = 1
    with shapes_read(trainer) as shapes:
        trainer._compute_loss(trainer.model, dict(inputs))
    assert shapes == scored
    leashed = trainer_of(loss_type=loss_type, beta=0.04)
    leashed.current_gradient_accumulation_steps = 1
    with shapes_read(leashed) as shapes:
        leashed._compute_loss(leashed.model, {**inputs, "ref_per_token_logps": torch.zeros(4, 5)})
    assert shapes == [(4, 7)]


REWARDS = [1.1, 0.1, 0.1, 0.0, 0.3, 0.3, 0.3, 0.3]
ROWS = [{"prompt": "User: 1+2\nAssistant:", "problem": 0}] * 4 + [
    {"prompt": "User: 12-4\nAssistant:", "problem": 1}
] * 4


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_trainer_uses_our_advantages_and_they_equal_those_of_stock_trl(tmp_path, monkeypatch, scale):
    trainer = make_trainer(tmp_path, scale_rewards=scale)
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda *_: torch.tensor(REWARDS)[:, None])
    ours = trainer._generate_and_score_completions([dict(row) for row in ROWS])["advantages"]
    theirs = GRPOTrainer._generate_and_score_completions(trainer, [dict(row) for row in ROWS])["advantages"]
    assert ours.tolist() == group_advantages(torch.tensor(REWARDS).view(2, 4), scale).flatten().tolist()
    assert torch.allclose(ours[:4], theirs[:4], rtol=1e-5)
    assert theirs[4:].abs().max() < 1e-3  # rounding, divided by 1e-4
    assert ours[4:].tolist() == [0.0] * 4


def test_the_batch_can_be_the_baseline(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path)
    trainer.baseline = "batch"
    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", lambda *_: torch.tensor(REWARDS)[:, None])
    ours = trainer._generate_and_score_completions([dict(row) for row in ROWS])["advantages"]
    assert ours.tolist() == pytest.approx([reward - 2.5 / 8 for reward in REWARDS])


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


def test_a_step_under_a_kl_leash_scores_the_reference_model(tmp_path):
    trainer = make_trainer(tmp_path, beta=0.04, max_steps=1)
    trainer.train()
    assert trainer.state.global_step == 1
