"""Log-probabilities of completions without wasted work: little padding, no row twice, no row without a gradient.

The numbers and gradients are TRL's; a test compares them for every loss type. `grpo.py` can be read without this file.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import DistributedType
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer import utils as trl_utils

_PASS = 1_000
"""Tokens that take about as long as the overhead of one more forward and backward pass of the tiny model."""
PART = {"cpu": 2_048}
"""Most tokens in one forward pass, where a single row is not longer: few enough for a processor's cache."""
PART_ELSEWHERE = 8_192

Forward = Callable[[Tensor, Tensor], Any]
"""(ids, labels) -> an output with `log_probs` and `entropy`, one place shorter: TRL's model with its fused head."""


class Rows:
    """The distinct rows of a batch of prompts and completions, sorted by length and cut into parts.

    `ids_BS` are prompts, padded on the left, then completions of at most `keep` tokens, padded on the right; `real_BS`
    is False on padding. U distinct rows begin at place 0, so that no mask is needed to keep padding out of sight.
    """

    def __init__(self, ids_BS: Tensor, real_BS: Tensor, keep: int) -> None:
        first, size = ids_BS.shape[1] - keep, ids_BS.shape[1]
        distinct_US, which_B = torch.unique(ids_BS.masked_fill(~real_BS, -1), dim=0, return_inverse=True)
        order_U = (distinct_US >= 0).sum(dim=1).argsort(stable=True)
        self.which_B = order_U.argsort()[which_B]  # the distinct row of each row
        distinct_US = distinct_US[order_U]
        prompt_U1 = (distinct_US[:, :first] >= 0).sum(dim=1, keepdim=True)
        self.total_U = (distinct_US >= 0).sum(dim=1)
        at_S = torch.arange(size, device=ids_BS.device)
        ids_US = distinct_US.gather(1, (first - prompt_U1 + at_S).clamp(max=size - 1))
        inside_US = at_S < self.total_U[:, None]
        self.ids_US = ids_US.where(inside_US, 0)
        self.labels_US = ids_US.where(inside_US & (at_S >= prompt_U1), -100)
        self.place_UT = prompt_U1 - 1 + at_S[:keep]  # the output at a place is of the next token
        self.there_UT = at_S[:keep] < self.total_U[:, None] - prompt_U1
        self.parts = parts(self.total_U.tolist(), PART.get(ids_BS.device.type, PART_ELSEWHERE))

    def read(self, forward: Forward, part: slice) -> list[Tensor]:
        """Log-probability of each completion token of a part's rows and entropy before it, 0 where there is none."""
        width = max(2, int(self.total_U[part.stop - 1]))  # one output at least, of a lone prompt token too
        out = forward(self.ids_US[part, :width], self.labels_US[part, :width])
        place, there = self.place_UT[part].clamp(max=width - 2), self.there_UT[part]
        entropy = torch.zeros_like(out.log_probs) if out.entropy is None else out.entropy  # TRL's reference has none
        return [values.gather(1, place) * there for values in (out.log_probs, entropy)]


def score(forward: Forward, ids_BS: Tensor, real_BS: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token and entropy before it, (B, keep) each; see `Rows`."""
    rows = Rows(ids_BS, real_BS, keep)
    columns = zip(*(rows.read(forward, part) for part in rows.parts), strict=True)
    logps, entropies = (torch.cat(column)[rows.which_B] for column in columns)
    return logps, entropies


def score_in_backward(
    forward: Forward, ids_BS: Tensor, real_BS: Tensor, keep: int, known_BT: Tensor, report: Callable[[Tensor], None]
) -> Tensor:
    """`known_BT`, log-probabilities known from sampling with the same weights, with the gradient that `score` has.

    The forward pass waits for the gradient, so the activations of one part at a time are in memory. Gradients of the
    weights are added up during the outer backward pass, unseen by hooks that several processes would need. `report`
    gets the log-probabilities of the forward pass, (B, keep).
    """

    def backward(gradient_BT: Tensor) -> None:
        rows = Rows(ids_BS, real_BS, keep)
        gradient_UT = gradient_BT.new_zeros(len(rows.total_U), keep).index_add(0, rows.which_B, gradient_BT)
        seen = []
        with torch.enable_grad():
            for part in rows.parts:
                logps, _ = rows.read(forward, part)
                torch.autograd.backward(logps, gradient_UT[part])
                seen.append(logps.detach())
        report(torch.cat(seen)[rows.which_B])

    known_BT = known_BT.detach().clone().requires_grad_()
    known_BT.register_hook(backward)
    return known_BT


def only_advantages_count(fields: Mapping[str, Any]) -> bool:
    """Whether a completion of advantage zero has no gradient: the loss has no KL term and no entropy bonus or mask."""
    bonus = fields["entropy_coef"] or fields["use_adaptive_entropy"]
    return fields["beta"] == 0 and not bonus and fields["top_entropy_quantile"] == 1.0


_TEXT_ONLY = {"batch_size", "compute_entropy"}
"""Arguments of TRL's scoring that need nothing more than text."""


class FrugalTrainer(GRPOTrainer):
    """TRL's GRPOTrainer, which computes log-probabilities only as far as the gradient of the loss needs them."""

    in_loss: dict[str, Any] | None = None
    """The batch whose loss is being computed."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        old_BT, sampled_BT = inputs.get("old_per_token_logps"), inputs.get("sampling_per_token_logps")
        if old_BT is not None and sampled_BT is not None:
            self._note_gap(old_BT, sampled_BT, inputs["completion_mask"])
        self.in_loss = inputs
        try:
            loss: Tensor = super()._compute_loss(model, inputs)
        finally:
            self.in_loss = None
        return loss

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Log-probabilities and entropies, (B, T) each, and no loss of a router."""
        others = [kwargs[name] for name in kwargs.keys() - _TEXT_ONLY]
        more = args or any(value is not None and value is not False for value in others)
        if more or self.accelerator.distributed_type != DistributedType.NO:
            # Not text alone, or several processes, which must make equally many forward passes: TRL's own way.
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        forward, batch, real_BS = self._forward(model), self.in_loss, attention_mask.bool()
        if batch is None:  # the policy before its update, or the reference model: every row
            return *score(forward, input_ids, real_BS, logits_to_keep), None
        old_BT, sampled_BT = batch.get("old_per_token_logps"), batch.get("sampling_per_token_logps")
        own_BT = None if self.rollout_func is None else sampled_BT  # by our sampler, exact
        known_BT = old_BT if old_BT is not None else own_BT
        if known_BT is None:
            known_BT = torch.zeros(len(input_ids), logits_to_keep, device=input_ids.device)
        rows = self._with_gradient(batch["advantages"])
        some = (input_ids[rows], real_BS[rows], logits_to_keep)
        mask = real_BS[rows][:, -logits_to_keep:]
        if old_BT is None and own_BT is not None and self._only_advantages_count:
            # Samples of the present weights: their log-probabilities are known, the gradient alone is missing.
            report = partial(self._note_gap, sampled=own_BT[rows], mask=mask)
            logps = score_in_backward(forward, *some, known_BT[rows], report)
            return known_BT.index_put(rows, logps.to(known_BT.dtype)), -known_BT, None
        logps, entropies = score(forward, *some)
        if old_BT is None and sampled_BT is not None:
            self._note_gap(logps.detach(), sampled_BT[rows], mask)
        # The other rows keep their log-probabilities; -log p estimates their entropy.
        logps, entropies = logps.to(known_BT.dtype), entropies.to(known_BT.dtype)
        return known_BT.index_put(rows, logps), (-known_BT).index_put(rows, entropies), None

    def _with_gradient(self, advantages_B: Tensor) -> tuple[Tensor, ...]:
        """Index of the rows that have a gradient; never empty, so that the loss has a graph to call backward on."""
        counted_B = advantages_B != 0 if self._only_advantages_count else torch.ones_like(advantages_B).bool()
        counted_B[0] |= not counted_B.any()
        return counted_B.nonzero(as_tuple=True)

    @property
    def _only_advantages_count(self) -> bool:
        return only_advantages_count(vars(self.args)) and not self.aux_loss_enabled

    def _forward(self, model: Any) -> Forward:
        vocabulary = self.accelerator.unwrap_model(model).get_output_embeddings().weight.shape[0]

        def forward(ids: Tensor, labels: Tensor) -> Any:
            with self.accelerator.autocast(), narrow_tiles(vocabulary):
                return model(input_ids=ids, labels=labels, fused_lm_head=True)

        return forward

    def _note_gap(self, scored: Tensor, sampled: Tensor, mask: Tensor) -> None:
        """Metrics of how far the trainer's log-probabilities are from the sampler's where `mask` is set."""
        if mask.any():
            gap = (scored - sampled).abs()[mask.bool()]
            self._metrics["train"]["logp_gap_mean"].append(gap.mean().item())
            self._metrics["train"]["logp_gap_max"].append(gap.max().item())


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


def parts(lengths: Sequence[int], most: int) -> list[slice]:
    """Cut rows of rising length before `most` tokens, or where going on would cost more in padding than a pass."""
    cuts, start, padding = [], 0, 0
    for row, length in enumerate(lengths):
        more = (row - start) * (length - lengths[row - 1]) if row > start else 0
        if row > start and (padding + more > _PASS or (row - start + 1) * length > most):
            cuts.append(slice(start, row))
            start, padding, more = row, 0, 0
        padding += more
    return [*cuts, slice(start, len(lengths))]
