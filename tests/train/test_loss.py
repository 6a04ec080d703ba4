"""The loss of each type, by hand: two completions of two tokens and one token, three tokens in all."""

import math

import pytest
import torch
from trl import GRPOTrainer

from r1_mini.train.grpo import Trainer
from tests.train.test_grpo import make_trainer

LOGPS = [[-1.0, -2.0], [-0.5, 0.0]]  # the last place is padding
RATIOS = [[1.5, 0.5], [0.7, 1.0]]  # pi / pi_old
ADVANTAGES = [1.0, -2.0]
LONGEST = 4  # max_completion_length
# With eps = 0.2: token 1 is clipped to 1.2, token 2 counts 0.5, token 3 has min(0.7 * -2, 0.8 * -2) = -1.6.
A, B, C = -1.2, -0.5, 1.6
SEQUENCE = math.sqrt(1.5 * 0.5)  # 0.866, within the clip range


def sapo(ratio, tau):
    return 4 / tau / (1 + math.exp(-tau * (ratio - 1)))


def vespo(ratio, advantage, logp):
    """phi(w) = exp(lambda) w^k exp(-lambda w) with k, lambda = 2, 3 where A > 0, else 3, 2."""
    k, decay = (2, 3) if advantage > 0 else (3, 2)
    return -math.exp(decay) * ratio**k * math.exp(-decay * ratio) * advantage * logp


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"loss_type": "grpo"}, ((A + B) / 2 + C) / 2),
        ({"loss_type": "bnpo"}, (A + B + C) / 3),
        ({"loss_type": "dapo"}, (A + B + C) / 3),
        ({"loss_type": "dr_grpo"}, (A + B + C) / (2 * LONGEST)),
        ({"loss_type": "luspo"}, ((A + B) + C) / 2),
        # min(rho, 1.3) without a gradient, times -A log pi
        ({"loss_type": "cispo", "epsilon_high": 1.3}, (1.3 * 1.0 + 0.5 * 2.0 + 0.7 * -2.0 * 0.5) / 3),
        ({"loss_type": "sapo"}, (-(sapo(1.5, 1.0) + sapo(0.5, 1.0)) / 2 + 2 * sapo(0.7, 1.05)) / 2),
        ({"loss_type": "vespo"}, (vespo(0.75, 1, -1.0) + vespo(0.75, 1, -2.0) + vespo(0.7, -2, -0.5)) / 3),
        # GSPO: one ratio for each completion
        ({"loss_type": "grpo", "importance_sampling_level": "sequence"}, (-SEQUENCE + 1.6) / 2),
        # the KL term: pi_ref / pi is 2 at the first token and 1 at the others; 2 - log 2 - 1 = 0.30685, times rho
        ({"loss_type": "dapo", "beta": 0.1}, (A + B + C + 0.1 * 1.5 * (1 - math.log(2))) / 3),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_the_loss_of_three_tokens_is_that_of_the_formula(tmp_path, monkeypatch, fields, expected):
    trainer = make_trainer(tmp_path, max_completion_length=LONGEST, **fields)
    logps = torch.tensor(LOGPS)
    monkeypatch.setattr(Trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: (logps, -logps, None))
    mask = torch.tensor([[1, 1], [1, 0]])
    batch = {
        "prompt_ids": torch.full((2, 1), 5),
        "prompt_mask": torch.ones(2, 1, dtype=torch.long),
        "completion_ids": torch.full((2, 2), 6),
        "completion_mask": mask,
        "advantages": torch.tensor(ADVANTAGES),
        "num_items_in_batch": mask.sum(),
        "old_per_token_logps": logps - torch.tensor(RATIOS).log(),
        "ref_per_token_logps": logps + torch.tensor([[math.log(2), 0.0], [0.0, 0.0]]),
    }
    assert trainer._compute_loss(trainer.model, dict(batch)).item() == pytest.approx(expected, rel=1e-5)
    assert GRPOTrainer._compute_loss(trainer, trainer.model, dict(batch)).item() == pytest.approx(expected, rel=1e-5)
