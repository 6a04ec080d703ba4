"""The model that samples while a stage trains: the trained one, or its twin with 16-bit matrices.

With `bf16: true` a trainer keeps float32 weights, and autocast casts them at each forward pass. In an update that is
little; for each token that is sampled it is most of the memory that is read. The twin computes the same, digit for
digit, with the casts done once a rollout. Not so, and further from the trainer: norms and residuals in 16 bits, as of
a model loaded in bfloat16, or an adapter merged into 16-bit weights, which round away most of what it has learned.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import DistributedType
from accelerate.utils import is_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D
from trl.trainer.utils import add_fused_lm_head

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""accelerate's name of a mixed precision -> the dtype of its matrices."""
SHARDS = (DistributedType.FSDP, DistributedType.DEEPSPEED)
MATRICES = (nn.Linear, Conv1D)
"""Modules whose weights are copied. Autocast still casts those of others, such as experts, for each token."""


class Sampler:
    """Lends the model that samples for `trainer`, with the weights that its model has at that moment."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.twin: Twin | None = None

    @contextmanager
    def __call__(self) -> Iterator[PreTrainedModel]:
        accelerator = self.trainer.accelerator
        trained, dtype = accelerator.unwrap_model(self.trainer.model), DTYPES.get(accelerator.mixed_precision)
        if dtype is None or accelerator.distributed_type in SHARDS:
            yield trained
            return
        self.twin = self.twin or Twin(trained, dtype)
        self.twin.refresh()
        with accelerator.autocast():
            yield self.twin.model


class Twin:
    """A model that shares all with a trained one but copies of its matrices in `dtype`, and of its head in float32.

    Copies stay where they are in memory. The model is to be called under autocast, which casts what enters a matrix.
    """

    def __init__(self, trained: Any, dtype: torch.dtype) -> None:
        inner = plain(trained)
        self.dtype, self.head = dtype, inner.get_output_embeddings()
        self.copies: list[tuple[Tensor, Tensor]] = []
        self.model: PreTrainedModel = self._of(inner)

    @torch.no_grad()
    def refresh(self) -> None:
        """Write the weights that the trained model has now into the copies."""
        for copied, weights in self.copies:
            copied.copy_(weights)

    def _of(self, module: nn.Module) -> Any:
        twin = copy.copy(module)
        twin.__dict__.pop("forward", None)  # a wrapper, of the trained module
        twin._modules = {name: child and self._of(child) for name, child in module._modules.items()}
        twin._parameters = dict(module._parameters)
        dtype = torch.float32 if module is self.head else self.dtype
        for name, weights in module._parameters.items() if isinstance(module, MATRICES) else ():
            if weights is not None and weights.dtype != dtype:
                copied = torch.empty_like(weights, dtype=dtype, requires_grad=False)
                twin._parameters[name] = nn.Parameter(copied, requires_grad=False)
                self.copies.append((copied, weights))
        if module is self.head:
            twin.forward = _in_float32(type(module).forward, twin)
        return twin


def _in_float32(forward: Callable[..., Tensor], head: nn.Module) -> Callable[[Tensor], Tensor]:
    """The forward pass of a head, as TRL's with `cast_lm_head_to_fp32` does it."""

    def logits(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return forward(head, hidden.float())

    return logits


def score_in_float32(trainer: Any, outputs: tuple[str, ...]) -> None:
    """Give a trainer's models a fused head whose logits are float32, as the sampler's are.

    TRL rounds them to 16 bits under `bf16`, by up to 0.06 between 16 and 32, unless `cast_lm_head_to_fp32` is set,
    which no adapter on the head and no head of another name can have.
    """
    if trainer.accelerator.mixed_precision in DTYPES:
        for model, wanted in ((trainer.model, outputs), (trainer.ref_model, ("log_probs",))):
            if model is not None:
                add_fused_lm_head(plain(model), trainer.temperature, cast_lm_head_to_fp32=True, outputs=wanted)


def plain(model: Any) -> Any:
    """The model itself, which peft has wrapped where it has an adapter."""
    return model.get_base_model() if is_peft_model(model) else model
