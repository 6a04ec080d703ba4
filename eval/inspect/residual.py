"""The residual stream: reading it after every block, and adding to it or replacing it at some places.

Plain hooks of torch on the blocks of any decoder of transformers. Layer 0 is the first block; the state "after layer
-1" is the embedding.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_TOKENS, LOGITS = 8_192, 2**25
"""Most tokens and most logits of one forward pass, where a single row has not more."""


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The blocks of the decoder, in order."""
    return next(module for module in model.modules() if isinstance(module, nn.ModuleList))


def layers_of(model: PreTrainedModel, chosen: Sequence[int] | None) -> tuple[int, ...]:
    """The embedding, -1, and the blocks that are looked into; None is all."""
    return (-1, *(range(len(blocks(model))) if chosen is None else chosen))


def token_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """For each character of a text, which of its tokens holds it."""
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    found = [0] * len(text)
    for token, (start, end) in enumerate(spans):
        found[start:end] = [token] * (end - start)
    return found


def batches(rows: Sequence[Sequence[int]], model: PreTrainedModel) -> Iterator[tuple[list[int], Tensor]]:
    """Rows of token ids, those of one length together, (B, S), and which of the rows they are."""
    most = min(BATCH_TOKENS, LOGITS // model.get_input_embeddings().num_embeddings)
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        by_length[len(row)].append(place)
    for length, places in by_length.items():
        at_once = max(1, most // length)
        for first in range(0, len(places), at_once):
            some = places[first : first + at_once]
            yield some, torch.tensor([rows[place] for place in some], device=model.device)


@contextmanager
def _after(model: PreTrainedModel, layer: int, change: Any) -> Iterator[None]:
    """`change(state)` gives what stands after the layer; None leaves it."""
    module = blocks(model)[layer] if layer >= 0 else model.get_input_embeddings()

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        state = output[0] if isinstance(output, tuple) else output
        new = change(state)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def states(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], places_PK: Sequence[Sequence[int]], layers: Sequence[int]
) -> Tensor:
    """The states at K places of each row of token ids after each of these layers, (L, P, K, D) float32."""
    found: list[Any] = [None] * len(rows)
    read: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(_after(model, layer, lambda state, layer=layer: read.update({layer: state})))
        for some, ids_BS in batches(rows, model):
            model(input_ids=ids_BS, use_cache=False, logits_to_keep=1)
            at = torch.arange(len(some))[:, None], torch.tensor([places_PK[row] for row in some])
            states_LBKD = torch.stack([read[layer][at].float().cpu() for layer in layers])
            for index, row in enumerate(some):
                found[row] = states_LBKD[:, index]
    return torch.stack(found, dim=1)


@contextmanager
def added(model: PreTrainedModel, layer: int, token: int, vector_D: Tensor) -> Iterator[None]:
    """The model with a vector added to its state after a layer wherever a pass ends with this token: in a prompt the
    same token may stand for something else."""
    read: list[Tensor] = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda module, args: read.append(args[0]))

    def change(state: Tensor) -> Tensor:
        new = state.clone()
        new[:, -1] += (read.pop()[:, -1:] == token) * vector_D.to(state)
        return new

    try:
        with _after(model, layer, change):
            yield
    finally:
        handle.remove()


@contextmanager
def replaced(model: PreTrainedModel, layer: int, place_BK: Tensor, state_BKD: Tensor) -> Iterator[None]:
    """The model with other states after a layer, at K places of each row of the batch that it reads next.

    A row with fewer places has one of them twice, with the same state.
    """

    def change(state: Tensor) -> Tensor:
        new = state.clone()
        new[torch.arange(len(new))[:, None], place_BK] = state_BKD.to(new)
        return new

    with _after(model, layer, change):
        yield
