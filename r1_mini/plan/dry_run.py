"""The memory that work on a model takes, from doing it on tensors that have none.

torch's fake tensors know a shape and a type; every operation runs on them as it would on a CPU and gives fake ones.
What is alive at once is counted as it comes and goes, so checkpointing, autocast, views and temporaries need no
formula.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface
from trl.trainer import utils as trl_utils

from r1_mini.errors import UserError
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.rollout.choose import choose
from r1_mini.train.logps import narrow_tiles
from r1_mini.train.trainer import shape_of

MAPPED = 32 * 2**20
"""Bytes from which glibc maps a block of its own and gives it back when freed: where its moving threshold ends."""


_UNMASKED = "r1_mini_unmasked"
AttentionInterface.register(_UNMASKED, sdpa_attention_forward)
AttentionMaskInterface.register(_UNMASKED, lambda *args, **kwargs: None)


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes; `heap`: those in blocks below `MAPPED`, which the C library keeps for itself once they are freed."""

    all: int = 0
    heap: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.all + other.all, self.heap + other.heap)

    def __sub__(self, other: Size) -> Size:
        return Size(max(0, self.all - other.all), max(0, self.heap - other.heap))

    def largest(self, *others: Size) -> Size:
        """The most of each."""
        sizes = (self, *others)
        return Size(max(size.all for size in sizes), max(size.heap for size in sizes))


class Ledger(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within the block, as long as they live."""

    def __init__(self, outside: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = Size()
        self._known = {tensor.untyped_storage()._cdata for tensor in outside}  # counted elsewhere

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name not in self._known:  # a view of something alive is
            self._known.add(name)
            self.now += _block(size)
            self.peak = self.peak.largest(self.now)
            weakref.finalize(storage, self._forget, name, size).atexit = False

    def _forget(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= _block(size)

    def begin(self) -> None:
        """Forget the peak so far."""
        self.peak = self.now


def _block(size: int) -> Size:
    return Size(size, size if size < MAPPED else 0)


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


class DryModel:
    """A causal language model of a configuration, none of whose tensors takes memory, with a stage's `peft` if any.

    UserError for a mixture of experts: what it takes depends on which tokens go where.
    """

    def __init__(
        self, config: PretrainedConfig, dtype: torch.dtype = torch.float32, peft: Mapping[str, Any] | None = None
    ) -> None:
        text = config.get_text_config(decoder=True)
        if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
            what, fix = "the memory of a mixture of experts cannot be told ahead", "run it on few steps and watch"
            raise UserError(what, where=config.model_type, fix=fix)
        model = shape_of(config, dtype, peft)
        plain: Any = model if peft is None else model.get_base_model()
        trl_utils.add_fused_lm_head(plain, outputs=("log_probs", "entropy"))
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.model = self._on_a_cpu(model)
        self.dtype = dtype
        self.adapted = peft is not None
        self.parameters: int = model.num_parameters() - sum(p.numel() for p in self._adapter())
        """Numbers of the model, those of an adapter aside."""
        self.head = self.model.get_output_embeddings()
        self.vocabulary: int = self.head.weight.shape[0]

    def _on_a_cpu(self, model: nn.Module) -> Any:
        """Its tensors on meta become fake ones of a CPU, on which autocast and attention do what they do there."""
        fakes: dict[Tensor, Tensor] = {}  # tied weights stay tied
        with self.mode:
            stores: list[dict[str, Any]] = [
                s for module in model.modules() for s in (module._parameters, module._buffers)
            ]
            for held in stores:
                for name, tensor in held.items():
                    if tensor is not None and tensor not in fakes:
                        fake = torch.empty_like(tensor, device="cpu")
                        is_parameter = isinstance(tensor, nn.Parameter)
                        fakes[tensor] = nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake
                    held[name] = None if tensor is None else fakes[tensor]
        return model

    def _adapter(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad] if self.adapted else []

    def weights(self) -> list[nn.Parameter]:
        """All parameters."""
        return list(self.model.parameters())

    def trained(self) -> list[tuple[nn.Parameter, bool]]:
        """The parameters with a gradient, and of each whether it is an embedding's."""
        embeddings = {id(m.weight) for m in self.model.modules() if isinstance(m, nn.Embedding)}
        return [(p, id(p) in embeddings) for p in self.model.parameters() if p.requires_grad]

    def gathered(self) -> int:
        """Bytes that a process of several computes with at once: the largest decoder layer, and all outside."""
        stacks = [module for module in self.model.modules() if isinstance(module, nn.ModuleList)]
        layers = [_bytes(layer) for layer in max(stacks, key=_bytes, default=())]
        return _bytes(self.model) - sum(layers) + max(layers, default=0)

    def _measured(self, work: Callable[[Ledger], Any]) -> Size:
        ledger = Ledger([*self.model.parameters(), *self.model.buffers()])
        with self.mode, ledger:
            work(ledger)
        return ledger.peak

    @contextlib.contextmanager
    def _attention(self, masked: bool) -> Iterator[None]:
        """transformers makes a mask whenever tensors are fake; where a real pass has none, there is none here."""
        config = self.model.config.get_text_config(decoder=True)
        was = config._attn_implementation
        if was == "sdpa" and not masked:
            config._attn_implementation = _UNMASKED
        try:
            yield
        finally:
            config._attn_implementation = was

    def update(
        self,
        rows: int,
        width: int,
        *,
        masked: bool = False,
        again: bool = False,
        bf16: bool = False,
        checkpointing: bool = False,
    ) -> Size:
        """Forward and backward pass over (rows, width) tokens through TRL's fused head, its gradients included.

        `masked`: a mask keeps packed examples or padding apart; `again`: the second pass, which adds to the gradients
        of a first one.
        """
        if checkpointing:
            if self.adapted:
                self.model.enable_input_require_grads()
            self.model.activation_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})

        def work(ledger: Ledger) -> None:
            ids = torch.zeros(rows, width, dtype=torch.long)
            for _ in range(1 + again):
                ledger.begin()
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16), narrow_tiles(self.vocabulary):
                    out = self.model(input_ids=ids, labels=ids, fused_lm_head=True)
                    out.log_probs.sum().backward()
                del out

        self.model.train()
        try:
            with self._attention(masked):
                return self._measured(work)
        finally:
            self.model.zero_grad()
            if checkpointing:
                self.model.activation_checkpointing_disable()

    def forward(self, rows: int, width: int, *, masked: bool = False, last: bool = False) -> Size:
        """Forward pass without gradients over (rows, width) tokens; logits of all of them, or of the `last` alone."""

        def work(ledger: Ledger) -> None:
            ids = torch.zeros(rows, width, dtype=torch.long)
            kept = {"logits_to_keep": 1} if last else {}
            self.model(input_ids=ids, use_cache=False, **kept)

        self.model.eval()
        with torch.no_grad(), self._attention(masked):
            return self._measured(work)

    def tiles(self, tokens: int) -> Size:
        """What TRL's fused head makes of the logits of so many tokens, in tiles no wider than the vocabulary."""
        width = min(trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE, self.vocabulary)
        weight = self.head.weight
        with self.mode, torch.no_grad():
            hidden = torch.zeros(tokens, weight.shape[1], dtype=self.dtype)
            targets = torch.zeros(tokens, dtype=torch.long)
            ledger = Ledger([hidden, targets, weight])
            with ledger:
                trl_utils._ChunkedLogProbFunction.apply(
                    hidden, weight, None, targets, 1.0, width, None, 1.0, ("entropy",)
                )
        return ledger.peak

    def choice(self, rows: int, temperature: float, top_p: float) -> Size:
        """Drawing a token for each of so many rows, their logits included."""
        ledger = Ledger()
        with self.mode, ledger, torch.no_grad():
            logits = torch.zeros(rows, self.vocabulary, dtype=self.dtype)
            places = torch.arange(rows)
            choose(logits, places, torch.zeros(rows, dtype=torch.double), temperature, top_p)
        return ledger.peak

    def muon(self) -> tuple[Size, Size]:
        """What our optimizer keeps between steps, and what a step has beside that and the gradients."""
        with self.mode:
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer = MuonAdamW(self.model, lr=1e-3)
            known = [*self.model.parameters(), *(p.grad for p in self.model.parameters() if p.grad is not None)]
            with Ledger(known) as ledger:
                optimizer.step()
                states = ledger.now
                ledger.begin()
                optimizer.step()
                temporaries = ledger.peak - states
        self.model.zero_grad()
        return states, temporaries
