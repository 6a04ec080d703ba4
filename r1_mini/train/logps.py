"""Log-probabilities for GRPO's loss without wasted work: no row without a gradient, and one pass where two are usual.

The numbers and gradients are TRL's; a test compares them for every loss type. `grpo.py` can be read without this file.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, repeat
from typing import Any

import torch
from accelerate import DistributedType
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer import utils as trl_utils

from r1_mini.rollout.likelihood import Forward, Prefill, Rows, score
from r1_mini.train.sampler import plain

WHOLE = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
"""Ways to distribute in which each process holds all weights; with several processes torch's DDP does it."""


def score_in_backward(
    forward: Forward,
    alone: Forward,
    prefill: Prefill,
    ids_BS: Tensor,
    real_BS: Tensor,
    keep: int,
    known_BT: Tensor,
    report: Callable[[Tensor], None],
) -> Tensor:
    """`known_BT`, log-probabilities known from sampling with the same weights, with the gradient that `score` has.

    The forward pass waits for the gradient, so the activations of one part at a time are in memory, and those of the
    prompts that it shares. Gradients of the weights are added up during the outer backward pass. The last part goes
    through `forward`, whose backward pass averages the sum of all parts over processes, the others through `alone`.
    `report` gets the log-probabilities of the forward pass, (B, keep).
    """

    def backward(gradient_BT: Tensor) -> None:
        rows = Rows(ids_BS, real_BS, keep, prefill=prefill)
        gradient_UT = gradient_BT.new_zeros(len(rows.total_U), keep).index_add(0, rows.which_B, gradient_BT)
        last, seen = rows.chunks[-1][1][-1], []
        with torch.enable_grad():
            for some, of_chunk in rows.chunks:
                stored = rows.stored(some)
                # What the parts before the last one find for keys and values is kept in leaves, and goes on with it.
                leaves = [each.detach().requires_grad_(each.requires_grad) for each in stored]
                for part in of_chunk:
                    ends = part is of_chunk[-1]
                    reader = forward if part is last else alone
                    logps, _ = rows.read(reader, part, stored if ends else leaves, some.start or 0)
                    found = {logps: gradient_UT[part]}
                    if ends:
                        pairs = zip(stored, leaves, strict=True)
                        found |= {made: leaf.grad for made, leaf in pairs if leaf.grad is not None}
                    torch.autograd.backward(list(found), list(found.values()))
                    seen.append(logps.detach())
        report(torch.cat(seen)[rows.which_B])

    known_BT = known_BT.detach().clone().requires_grad_()
    known_BT.register_hook(backward)
    return known_BT


def only_advantages_count(fields: Mapping[str, Any]) -> bool:
    """Whether a completion of advantage zero has no gradient: the loss has no KL term and no entropy bonus or mask."""
    bonus = fields["entropy_coef"] or fields["use_adaptive_entropy"]
    return fields["beta"] == 0 and not bonus and fields["top_entropy_quantile"] == 1.0


class FrugalTrainer(GRPOTrainer):
    """TRL's GRPOTrainer, which computes log-probabilities only as far as the gradient of the loss needs them."""

    in_loss: dict[str, Any] | None = None
    """The batch whose loss is being computed."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        old_BT, sampled_BT = inputs.get("old_per_token_logps"), inputs.get("sampling_per_token_logps")
        if old_BT is not None and sampled_BT is not None:
            self._note_gap(old_BT, sampled_BT, inputs["completion_mask"])
        self.in_loss = inputs
        loss: Tensor = super()._compute_loss(model, inputs)
        self.in_loss = None
        return loss

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Log-probabilities and entropies, (B, T) each, and no loss of a router."""
        if self.aux_loss_enabled or self.accelerator.distributed_type not in WHOLE:
            # A router's loss, or sharded weights, which need equally many forward passes on all processes: TRL's way.
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )

        def forward(models: Iterator[Any], ids: Tensor, labels: Tensor, **more: Any) -> Any:
            with self.accelerator.autocast():
                return next(models)(input_ids=ids, labels=labels, fused_lm_head=True, **more)

        # Processes read different numbers of parts. DDP averages gradients, whatever made them, in the backward pass
        # that follows a forward pass through it: one part of each micro-batch goes through it, the others do not.
        inner = self.accelerator.unwrap_model(model)
        alone, forward_once = (partial(forward, models) for models in (repeat(inner), chain([model], repeat(inner))))
        batch, real_BS = self.in_loss, attention_mask.bool()
        prefill = Prefill(plain(inner), self.accelerator.autocast)
        if batch is None:  # the policy before its update, or the reference model: every row
            return *score(alone, input_ids, real_BS, logits_to_keep, prefill=prefill), None
        old_BT, sampled_BT = batch.get("old_per_token_logps"), batch.get("sampling_per_token_logps")
        own_BT = None if self.rollout_func is None else sampled_BT  # by our sampler, exact
        known_BT = old_BT if old_BT is not None else own_BT
        if known_BT is None:
            known_BT = torch.zeros(len(input_ids), logits_to_keep, device=input_ids.device)
        only_advantages = only_advantages_count(vars(self.args))
        counted_B = ((batch["advantages"] != 0) | (not only_advantages)) & batch["completion_mask"].any(dim=1)
        if not counted_B.any():
            if self.accelerator.num_processes == 1 and self.accelerator.scaler is None:
                return known_BT.detach().clone().requires_grad_(), -known_BT, None  # no weight moves
            counted_B[0] = True  # the other processes, or the scaler of fp16, wait for a gradient
        rows = counted_B.nonzero(as_tuple=True)
        some = (input_ids[rows], real_BS[rows], logits_to_keep)
        mask = real_BS[rows][:, -logits_to_keep:]
        if old_BT is None and own_BT is not None and only_advantages:
            # Samples of the present weights: their log-probabilities are known, the gradient alone is missing.
            report = partial(self._note_gap, sampled=own_BT[rows], mask=mask)
            logps = score_in_backward(forward_once, alone, prefill, *some, known_BT[rows], report)
            return known_BT.index_put(rows, logps.to(known_BT.dtype)), -known_BT, None
        logps, entropies = score(forward_once, *some, prefill=prefill)
        if old_BT is None and sampled_BT is not None:
            self._note_gap(logps.detach(), sampled_BT[rows], mask)
        # The other rows keep their log-probabilities; -log p estimates their entropy.
        logps, entropies = logps.to(known_BT.dtype), entropies.to(known_BT.dtype)
        return known_BT.index_put(rows, logps), (-known_BT).index_put(rows, entropies), None

    def _note_gap(self, scored: Tensor, sampled: Tensor, mask: Tensor) -> None:
        """Metrics of how far the trainer's log-probabilities are from the sampler's where `mask` is set."""
        mean, largest = self.over_processes((scored - sampled).abs()[mask.bool()])
        if not math.isnan(mean):
            self._metrics["train"]["logp_gap_mean"].append(mean)
            self._metrics["train"]["logp_gap_max"].append(largest)

    def over_processes(self, values: Tensor) -> tuple[float, float]:
        """The mean and the maximum of the values of all processes, each of which has some number of them."""
        most = values.max() if len(values) else values.new_tensor(-math.inf)
        values = values.float()
        own = torch.stack([values.sum(), values.new_tensor(len(values)), most])
        sums, numbers, maxima = self.accelerator.gather(own[None]).unbind(dim=1)
        return (sums.sum() / numbers.sum()).item(), maxima.max().item()


@contextlib.contextmanager
def narrow_tiles(vocabulary: int) -> Iterator[None]:
    """TRL's fused head no wider than the vocabulary: its tiles have 32,768 columns, used or not, and a token's row of
    them is on memory pages of its own."""
    width = trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE
    trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = min(width, vocabulary)
    try:
        yield
    finally:
        trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE = width
