"""Memory of one process by part and phase: docs/MEMORY.md has every formula, its source and the measured check.

A phase is the fullest moment of some work: what is alive then is the sum of its parts. Phases follow each other, so a
run needs the largest of them. On a CPU the C library keeps what freed tensors had; the sampler's cache, which is memory
mapped from the system, comes on top of that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from transformers import PretrainedConfig

from r1_mini.plan.dry_run import MAPPED, DryModel, Size
from r1_mini.rollout.engine import PREFILL_TOKENS

Sharding = Literal["none", "fsdp", "zero2", "zero3"]
FLOAT = 4
KEPT = "kept from before"
COPIES = "copies of processes"
_PAGE = 4096
_TILE = (4096, 32_768)
"""TRL's fused head: most tokens, and columns of the vocabulary, in one tile."""

# Bytes that an optimizer of transformers keeps for each parameter; in 8 and 4 bits, without the scale of a block.
_STATES: dict[str, float] = {
    "adamw_torch": 8, "adamw_torch_fused": 8, "adamw_anyprecision": 8, "stable_adamw": 8, "schedule_free_adamw": 8,
    "schedule_free_radam": 8, "paged_adamw_32bit": 8, "grokadamw": 12, "ademamix": 12, "paged_ademamix_32bit": 12,
    "lion_32bit": 4, "paged_lion_32bit": 4, "rmsprop": 4, "rmsprop_bnb": 4, "rmsprop_bnb_32bit": 4, "adagrad": 4,
    "schedule_free_sgd": 4, "sgd": 0, "lomo": 0, "adamw_bnb_8bit": 2, "adamw_8bit": 2, "paged_adamw_8bit": 2,
    "adamw_torch_8bit": 2, "adamw_torch_4bit": 1, "ademamix_8bit": 3, "paged_ademamix_8bit": 3, "lion_8bit": 1,
    "paged_lion_8bit": 1, "rmsprop_bnb_8bit": 1,
}  # fmt: skip
_BLOCK = 256
"""Numbers of an 8-bit state that share one float as their scale (bitsandbytes and torchao)."""
_SMALLEST_IN_8_BITS = 4096
"""bitsandbytes keeps states of fewer numbers, and transformers those of embeddings, in 32 bits."""


@dataclass(frozen=True, slots=True)
class Share:
    """How processes divide the work, as accelerate's configuration does."""

    processes: int = 1
    sharding: Sharding = "none"

    def of(self, what: Literal["weights", "gradients", "optimizer"], size: Size) -> Size:
        """What one process has of it."""
        divided = {"none": (), "zero2": ("gradients", "optimizer")}.get(self.sharding, (what,))
        n = self.processes if what in divided else 1
        return Size(math.ceil(size.all / n), math.ceil(size.heap / n))

    @property
    def gathers(self) -> bool:
        """Whether weights are spread, and brought together to compute with them."""
        return self.sharding in ("fsdp", "zero3") and self.processes > 1


@dataclass(frozen=True, slots=True)
class Phase:
    """What a process holds at the fullest moment of some work, by part."""

    name: str
    parts: Mapping[str, Size]

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(size.all for size in self.parts.values())

    @property
    def heap(self) -> int:
        """Bytes that the C library keeps when all is freed."""
        return sum(size.heap for size in self.parts.values())


def phase(name: str, *parts: Mapping[str, Size]) -> Phase:
    """A phase without its empty parts."""
    return Phase(name, {part: size for some in parts for part, size in some.items() if size.all})


@dataclass(frozen=True, slots=True)
class Training:
    """A model and what training it needs beside activations."""

    weights: Size
    gradients: Size
    optimizer: Size
    states: Size
    """Of the optimizer, of all processes."""
    temporaries: Size
    """Of the optimizer's step."""
    copies: Size
    """Of the gradients, which DDP sends, or of the weights that lie with other processes."""

    @property
    def standing(self) -> dict[str, Size]:
        """What is there during a whole step."""
        return {"weights": self.weights, "optimizer": self.optimizer, COPIES: self.copies}


def training(dry: DryModel, optimizer: str, share: Share) -> Training:
    """`optimizer`: one of transformers' names, or `muon`, ours."""
    gradients = gradients_of(dry)
    if optimizer == "muon":
        states, temporaries = dry.muon()
    else:
        kept = [
            (state_bytes(optimizer, p.shape, is_embedding, p.element_size()), _bytes(p))
            for p, is_embedding in dry.trained()
        ]
        states = Size(math.ceil(sum(n for n, _ in kept)), math.ceil(sum(n for n, size in kept if size < MAPPED)))
        temporaries = Size()
    copies = Size()
    if share.gathers:
        copies = Size(dry.gathered())
    elif share.sharding == "none" and share.processes > 1:
        copies = gradients
    return Training(
        weights=share.of("weights", weights_of(dry)),
        gradients=share.of("gradients", gradients),
        optimizer=share.of("optimizer", states),
        states=states,
        temporaries=temporaries,
        copies=copies,
    )


def weights_of(dry: DryModel) -> Size:
    """All parameters."""
    return _sum(_bytes(parameter) for parameter in dry.weights())


def gradients_of(dry: DryModel) -> Size:
    """A number for each one that is trained."""
    return _sum(_bytes(parameter) for parameter, _ in dry.trained())


def _bytes(parameter: Tensor) -> int:
    return parameter.numel() * parameter.element_size()


def _sum(sizes: Iterable[int]) -> Size:
    sizes = list(sizes)
    return Size(sum(sizes), sum(size for size in sizes if size < MAPPED))


def state_bytes(optimizer: str, shape: Sequence[int], embedding: bool = False, width: int = FLOAT) -> float:
    """What an optimizer of transformers keeps for a parameter; for one that is not known here, AdamW's 8 bytes each.

    States have the type of the parameter, `width` bytes a number, if not 8 or 4 bits.
    """
    numbers = math.prod(shape)
    if optimizer == "adafactor":  # a row and a column instead of the second moment (Shazeer & Stern, 1804.04235)
        return FLOAT * (sum(shape) if len(shape) == 2 else numbers)
    each = _STATES.get(optimizer, 8)
    if not optimizer.endswith(("8bit", "4bit")):
        return each * numbers * width / FLOAT
    if numbers < _SMALLEST_IN_8_BITS or (embedding and not optimizer.startswith("adamw_torch")):
        return FLOAT * each * numbers
    return each * numbers * (1 + FLOAT / _BLOCK)


def is_known(optimizer: str) -> bool:
    """Whether `state_bytes` knows what this optimizer keeps."""
    return optimizer in ("muon", "adafactor") or optimizer in _STATES


def cache_bytes(config: PretrainedConfig, rows: int, room: int, width: int = FLOAT) -> int:
    """Keys and values of the sampler: rows x places x layers x key-value heads x channels x 2 x bytes of a number."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    channels = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(rows * room * text.num_hidden_layers * heads * channels * 2 * width)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How much the sampler has in work at once."""

    rows: int
    prompt: int
    """Tokens of the longest prompt."""
    completion: int
    """Tokens of the longest completion."""
    temperature: float = 1.0
    top_p: float = 1.0


def sampling(dry: DryModel, how: Sampling, cpu: bool) -> dict[str, Size]:
    """The parts that drawing completions needs, the weights aside."""
    text = dry.model.config.get_text_config(decoder=True)
    room = how.prompt + how.completion
    cache = cache_bytes(dry.model.config, how.rows, room, dry.dtype.itemsize)
    prefill = dry.forward(max(1, min(how.rows, PREFILL_TOKENS // how.prompt)), how.prompt, last=True)
    step = dry.forward(how.rows, 1, last=True)
    if cpu:  # attention of one token over the cache: scores before and after the softmax
        step += _in_blocks(2 * FLOAT * how.rows * text.num_attention_heads * room, 2)
    copied = _in_blocks(cache // (2 * text.num_hidden_layers), 1)  # keys of one layer, where all samples part at once
    return {
        "keys and values": Size(cache, 0 if cpu else cache),
        "activations": prefill.largest(step, copied),
        "logits": dry.choice(how.rows, how.temperature, how.top_p),
    }


@dataclass(frozen=True, slots=True)
class Update:
    """The forward and backward passes of a step, (rows, width) tokens at once."""

    rows: int
    width: int
    masked: bool = False
    """Whether a mask keeps packed examples or padding apart."""
    again: bool = False
    """Whether an earlier pass of the step has left gradients."""
    narrow: bool = True
    """Whether TRL's tiles are cut to the vocabulary."""
    bf16: bool = False
    checkpointing: bool = False


def update(dry: DryModel, how: Update, cpu: bool) -> dict[str, Size]:
    """The parts that a step's passes need, whole gradients included: activations are what is left beside them."""
    peak = dry.update(
        how.rows, how.width, masked=how.masked, again=how.again, bf16=how.bf16, checkpointing=how.checkpointing
    )
    tokens = how.rows * (how.width - 1)
    logits, gradients = dry.tiles(tokens), gradients_of(dry)
    parts = {"gradients": gradients, "activations": peak - gradients - logits, "logits": logits}
    if not how.narrow:
        parts["logits"] += unused_columns(min(tokens, _TILE[0]), dry.vocabulary, cpu)
    return parts


def unused_columns(tokens: int, vocabulary: int, cpu: bool) -> Size:
    """What a tile of TRL's has beside its logits where the vocabulary is narrower.

    A CPU gives memory by the page: of each token's row, those pages that hold a logit.
    """
    row = FLOAT * _TILE[1]
    used = min(row, -(-FLOAT * vocabulary // _PAGE) * _PAGE) if cpu else row
    return Size(tokens * max(0, used - FLOAT * vocabulary))


def on_top_of_what_is_kept(phases: Iterable[Phase]) -> list[Phase]:
    """The phases of a run on a CPU, in order, each with what the C library has kept from those before it."""
    kept, shown = 0, []
    for each in phases:
        kept = max(kept, each.heap)
        there = each.parts.get(KEPT, Size()).all
        shown.append(phase(each.name, {**each.parts, KEPT: Size(kept - each.heap + there)}))
    return shown


def _in_blocks(size: int, blocks: int) -> Size:
    """So many bytes in a few blocks of one size."""
    return Size(size, size if size / blocks < MAPPED else 0)
