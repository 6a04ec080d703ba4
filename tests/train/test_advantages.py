"""Advantages by hand; that the trainer uses them, and that they are TRL's, is tested with the trainer."""

import pytest
import torch

from r1_mini.train.advantages import group_advantages, zero_variance

REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        ("none", [[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]]),
        # standard deviations: 0.5 = sqrt(0.75 / 3), 0.57735 = sqrt(1 / 3); of all eight 0.51755 = sqrt(1.875 / 7)
        ("group", [[1.4997, -0.4999, -0.4999, -0.4999], [0.86588, 0.86588, -0.86588, -0.86588]]),
        ("batch", [[1.44886, -0.48295, -0.48295, -0.48295], [0.96591, 0.96591, -0.96591, -0.96591]]),
    ],
)
def test_advantages_by_hand(scale, expected):
    torch.testing.assert_close(group_advantages(REWARDS, scale), torch.tensor(expected), atol=1e-4, rtol=0)


def test_with_the_batch_as_baseline_the_problem_does_not_matter():
    expected = torch.tensor([[0.625, -0.375, -0.375, -0.375], [0.625, 0.625, -0.375, -0.375]])
    assert group_advantages(REWARDS, baseline="batch").tolist() == expected.tolist()
    scaled = group_advantages(REWARDS, "batch", "batch")  # divided by 0.51755, as above
    torch.testing.assert_close(scaled, expected / 0.51765, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_zero_variance_group_has_advantages_of_exactly_zero(scale):
    rewards = torch.tensor([[1.1, 1.1, 1.1], [0.1, 0.1, 1.1], [0.3, 0.3, 0.3]])
    assert zero_variance(rewards).tolist() == [True, False, True]
    advantages = group_advantages(rewards, scale)
    assert advantages[0].tolist() == advantages[2].tolist() == [0.0] * 3
    assert advantages[1, 2] > 0 > advantages[1, 0]
