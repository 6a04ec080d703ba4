"""Peak memory of a model's work, found by doing that work on fake tensors, which have shapes and types but no memory.

So gradient checkpointing, autocast, tied weights, adapters and temporaries need no formulas. All sizes are bytes.
"""

import weakref
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PretrainedConfig, Trainer, TrainingArguments
from trl.trainer.utils import add_fused_lm_head

from r1_mini.errors import UserError
from r1_mini.model.checkpoint import shape_of
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.rollout.choose import choose
from r1_mini.train.logps import narrow_tiles
from r1_mini.train.sampler import Twin


class Ledger(TorchDispatchMode):
    """Counts the storages that operations make inside the `with` block and that are still alive: now, and at most."""

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in existing}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            storage = leaf.untyped_storage() if isinstance(leaf, Tensor) else None
            if storage is not None and storage._cdata not in self._known:  # else a view of a known one
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes()).atexit = False
        return out

    def _free(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.now -= size


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Sum of the sizes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class DryModel:
    """A causal language model on fake tensors, with the adapter of `peft`; `recompute`: it checkpoints activations.

    The same work is done once: a recipe has stages and exams of one shape.
    """

    def __init__(
        self, config: PretrainedConfig, dtype: torch.dtype, peft: dict[str, Any] | None = None, recompute: bool = False
    ) -> None:
        text = config.get_text_config(decoder=True)
        if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
            what, fix = "the memory of a mixture of experts depends on its tokens", "run a few steps and measure"
            raise UserError(what, where=config.model_type, fix=fix)
        model = shape_of(config, dtype, peft)
        plain = model if peft is None else model.get_base_model()
        if recompute:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode:  # on a CPU autocast and attention behave as on a GPU, on the meta device they do not
            self.model: Any = model.to_empty(device="cpu")
            plain.tie_weights()
        self.dtype, self.config = dtype, self.model.config.get_text_config(decoder=True)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.weights, self.gradients = bytes_of(self.model.parameters()), bytes_of(self.trained)
        self.parameters: int = model.num_parameters() - (sum(p.numel() for p in self.trained) if peft else 0)
        self.vocabulary: int = self.model.get_output_embeddings().weight.shape[0]

    def gathered(self) -> int:
        """What a process needs in full when weights are sharded: the largest decoder layer, and all outside layers."""
        stacks = [module for module in self.model.modules() if isinstance(module, nn.ModuleList)]
        layers = max(([bytes_of(layer.parameters()) for layer in stack] for stack in stacks), key=sum, default=[0])
        return self.weights - sum(layers) + max(layers)

    @cache  # noqa: B019
    def update(self, rows: int, width: int, *, again: bool = False, bf16: bool = False) -> int:
        """Forward and backward pass through TRL's fused head, without whole gradients; `again`: added to old ones."""
        plain = self.model.get_base_model() if is_peft_model(self.model) else self.model
        add_fused_lm_head(plain, cast_lm_head_to_fp32=bf16, outputs=("log_probs", "entropy"))

        def work() -> None:
            ids = torch.zeros(rows, width, dtype=torch.long)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16), narrow_tiles(self.vocabulary):
                self.model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum().backward()

        self.model.train()
        self.model.zero_grad()
        return self._peak(work, self._make_gradients()) if again else max(0, self._peak(work) - self.gradients)

    @cache  # noqa: B019
    @torch.no_grad()
    def forward(self, rows: int, width: int) -> int:
        """Forward pass over (rows, width) tokens without gradients, with the logits of the last one."""
        self.model.eval()
        ids = torch.zeros(rows, width, dtype=torch.long)
        return self._peak(lambda: self.model(input_ids=ids, use_cache=False, logits_to_keep=1))

    @cache  # noqa: B019
    def twin(self) -> int:
        """The 16-bit copies of weights that sampling has under `bf16` or `fp16`."""
        with self._mode:
            return bytes_of(copied for copied, _ in Twin(self.model, torch.bfloat16).copies)

    @cache  # noqa: B019
    @torch.no_grad()
    def choice(self, rows: int, temperature: float, top_p: float, kind: str = "cpu") -> int:
        """The logits of so many rows, and what sampling a token from each computes on a kind of device."""
        which, numbers = torch.arange(rows), torch.zeros(rows, dtype=torch.double)

        def work() -> None:
            logits = torch.zeros(rows, self.vocabulary, dtype=self.dtype)
            if kind == "cpu":
                choose(logits, which, numbers, temperature, top_p)
            else:
                choose(logits, None, numbers.float(), temperature, top_p)

        return self._peak(work)

    @cache  # noqa: B019
    def optimizer(self, name: str) -> tuple[int, int, bool]:
        """States, what a step takes besides them, and whether it was run here; else it is counted as (8-bit) Adam."""
        muon: tuple[Any, dict[str, Any]] = (MuonAdamW, {"lr": 1e-3})
        try:
            fields = None if name == "muon" else TrainingArguments(optim=name, use_cpu=True)
            kind, settings = muon if fields is None else Trainer.get_optimizer_cls_and_kwargs(fields, self.model)
            gradients = self._make_gradients()
            with self._mode:
                optimizer = kind(self.trained if fields else self.model, **settings)
            self._peak(optimizer.step)  # makes the states
            states = [leaf for leaf in tree_leaves(list(optimizer.state.values())) if isinstance(leaf, Tensor)]
            return bytes_of(states), self._peak(optimizer.step, [*gradients, *states]), True
        except Exception:  # libraries refuse in many ways
            return sum(p.numel() for p in self.trained) * (2 if "8bit" in name else 8), 0, False

    def _make_gradients(self) -> list[Tensor]:
        with self._mode:
            for parameter in self.trained:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.trained if parameter.grad is not None]

    def _peak(self, work: Callable[[], Any], existing: Iterable[Tensor] = ()) -> int:
        """The most that `work` holds at once besides the model and what exists already."""
        with self._mode, Ledger([*self.model.parameters(), *self.model.buffers(), *existing]) as ledger:
            work()
        return int(ledger.peak)
