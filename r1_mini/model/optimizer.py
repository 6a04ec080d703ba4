"""Muon on the matrices, AdamW on the rest, as one optimizer with one learning rate.

torch.optim.Muon takes one matrix at a time, in bfloat16: 29 ms a step for the tiny model on two cores without bfloat16
units. Orthogonalizing all matrices of one shape together, in their own precision, takes 4 ms.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024, coefficients of the quintic iteration
MOMENTUM = 0.95
BETAS = (0.9, 0.95)


def orthogonalized(matrices_NRC: Tensor, steps: int = 5) -> Tensor:
    """About the nearest semi-orthogonal matrix of each (singular values of 0.7 to 1.2), (N, R, C) with R <= C."""
    a, b, c = NEWTON_SCHULZ
    x: Tensor = matrices_NRC / (matrices_NRC.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for hidden matrices, AdamW (1711.05101) for embeddings, head and norms.

    Muon's update is scaled to the size of AdamW's, 0.2 sqrt(max(rows, columns)) (Moonlight, 2502.16982, eq. 4), so that
    one learning rate serves both.
    """

    def __init__(self, model: nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        ends = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        head = model.get_output_embeddings()  # type: ignore[operator]
        ends |= {id(p) for p in head.parameters()} if head is not None else set()
        hidden = [p for p in model.parameters() if p.ndim == 2 and id(p) not in ends]
        rest = [p for p in model.parameters() if p.ndim != 2 or id(p) in ends]
        groups = [{"params": hidden, "muon": True}, {"params": rest, "muon": False}]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "steps": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            (self._muon if group["muon"] else self._adamw)(params, [p.grad for p in params], group)

    def _moments(self, params: list[Tensor], name: str) -> list[Tensor]:
        """A running mean for each parameter, zero at first."""
        for p in params:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in params]

    def _muon(self, params: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        momenta = self._moments(params, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p, update in zip(params, ahead, strict=True):
            wide = p.shape[0] <= p.shape[1]
            target = p if wide else p.mT
            by_shape[(target.shape[0], target.shape[1])].append((target, update if wide else update.mT))
        for (_, columns), alike in by_shape.items():
            updates = orthogonalized(torch.stack([update for _, update in alike]))
            scale = -group["lr"] * 0.2 * columns**0.5
            torch._foreach_add_([target for target, _ in alike], list(updates.unbind()), alpha=scale)

    def _adamw(self, params: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = BETAS
        first, second = self._moments(params, "first"), self._moments(params, "second")
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_lerp_(second, torch._foreach_mul(gradients, gradients), 1 - beta2)
        group["steps"] += 1
        done = group["steps"]
        roots = torch._foreach_div(second, 1 - beta2**done)
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, 1e-8)
        torch._foreach_addcdiv_(params, first, roots, value=-group["lr"] / (1 - beta1**done))
