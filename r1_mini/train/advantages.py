"""Advantages: how much better a completion is than what it is compared with.

The trainer uses this function, not TRL's; a test shows that both agree. Not here: what a completion is worth
(`rewards.py`), and the loss (`grpo.py`).
"""

from typing import Literal

from torch import Tensor

Scale = Literal["group", "batch", "none"]
Baseline = Literal["group", "batch"]


def group_advantages(rewards_PG: Tensor, scale: Scale = "none", baseline: Baseline = "group") -> Tensor:
    """Advantages (P, G) of the rewards of P prompts with G completions each.

    A = r - mean of the group, divided by
    the standard deviation of the group (`scale="group"`): GRPO, 2402.03300;
    the standard deviation of the batch (`"batch"`): Lite PPO, 2508.08221;
    nothing (`"none"`): Dr. GRPO, 2503.20783.
    With `baseline="batch"`, A = r - mean of the batch: REINFORCE (Williams 1992).

    Standard deviations have n - 1 in the denominator and 1e-4 added, as in TRL. With the group as baseline, a
    zero-variance group has advantages of exactly 0, where rounding would leave 1e-7.
    """
    from_group = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    from_batch = rewards_PG - rewards_PG.mean()
    advantages = from_group if baseline == "group" else from_batch
    if scale == "group":
        advantages = advantages / (_std(from_group, dim=1) + 1e-4)
    elif scale == "batch":
        advantages = advantages / (_std(from_batch.flatten(), dim=0) + 1e-4)
    if baseline == "group":
        advantages = advantages.masked_fill(zero_variance(rewards_PG)[:, None], 0.0)
    return advantages


def zero_variance(rewards_PG: Tensor) -> Tensor:
    """Which groups teach nothing, (P,) bool: all completions have one reward (DAPO, 2503.14476, filters them)."""
    return rewards_PG.amax(dim=1) == rewards_PG.amin(dim=1)  # not std == 0: rounding can make it 1e-9


def _std(centered: Tensor, dim: int) -> Tensor:
    """The standard deviation of values whose mean is 0 along `dim`."""
    n = centered.shape[dim]
    return (centered.square().mean(dim=dim, keepdim=True) * (n / (n - 1))).sqrt()
