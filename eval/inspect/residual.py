"""The residual stream: reading it after every block, and adding to it or replacing it at some places.

Plain hooks of torch on the blocks of any decoder of transformers. Layer 0 is the first block; the state "after layer
-1" is the embedding.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


def padded(rows: Sequence[Sequence[int]], model: PreTrainedModel) -> Tensor:
    """Rows of token ids, (B, S), padded on the right, where nothing looks."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)


def batches(lengths: Sequence[int], most: int = 16_384) -> Iterator[list[int]]:
    """The places of the rows in batches of at most `most` tokens or a single row, the shortest rows first."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and (len(batch) + 1) * lengths[place] > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


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
def states(model: PreTrainedModel, ids_BS: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """The state after each of these layers, (B, S, D) each."""
    found: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(_after(model, layer, lambda state, layer=layer: found.update({layer: state})))
        model(input_ids=ids_BS, use_cache=False, logits_to_keep=1)
    return [found[layer] for layer in layers]


@contextmanager
def added(model: PreTrainedModel, layer: int, token: int, vector_D: Tensor) -> Iterator[None]:
    """The model with a vector added to its state after a layer, wherever it reads this token."""
    read: list[Tensor] = []
    handle = model.get_input_embeddings().register_forward_pre_hook(lambda module, args: read.append(args[0]))

    def change(state: Tensor) -> Tensor:
        return state + (read.pop() == token)[..., None] * vector_D.to(state)

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
        new[torch.arange(len(new), device=new.device)[:, None], place_BK] = state_BKD.to(new)
        return new

    with _after(model, layer, change):
        yield
