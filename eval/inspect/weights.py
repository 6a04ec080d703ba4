"""Where in the weights: which part of the difference that training made brings how much of the gain.

BEFORE gets a part of the difference, and is asked three things: is it right, does it choose to reason, and is it right
when it is made to reason. Without the last two, surgery on weights would only measure the choice again.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from eval.inspect.case import BEFORE, FREE, TEXT, WORKED, Case, Row, changed, difference, noise, weights_of
from eval.inspect.figures import bits, recovered, share, unbits
from eval.inspect.residual import blocks
from eval.inspect.said import EXACT

PROBLEMS, SAMPLES = 400, 2
ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.25, 1.5)
RANKS = (1, 2, 4, 8, 16)
TEXT_ALPHAS = (0.5, 1.0)
RANDOM = 3
"""Random differences of the same size, each with a seed of its own."""
KINDS = {
    "norms": r"norm|\bln_",
    "head": r"lm_head|embed_out",
    "embeddings": r"embed|wte|wpe",
    "attention": r"attn|attention",
    "mlp": r"mlp|feed_forward|ffn|experts|\bfc\d",
}
"""Kinds of modules, and what is in the names of their parameters; the first that matches counts."""


def kind_of(name: str) -> str:
    """The kind of module that a parameter of this name belongs to. A tied head is there as the embeddings."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "other")


def by_kind(names: Sequence[str]) -> dict[str, list[str]]:
    """The parameters of each kind of module that there is."""
    kinds = [*KINDS, "other"]
    found = {kind: [name for name in names if kind_of(name) == kind] for kind in kinds}
    return {kind: each for kind, each in found.items() if each}


def by_layer(model: PreTrainedModel, layers: Sequence[int] | None) -> dict[str, list[str]]:
    """The parameters of each block, by the name `layer 0` of the block; None is all blocks."""
    stack = blocks(model)
    (path,) = (path for path, module in model.named_modules() if module is stack)
    chosen = range(len(stack)) if layers is None else layers
    return {f"layer {i}": [name for name in weights_of(model) if name.startswith(f"{path}.{i}.")] for i in chosen}


def low_rank(delta: Mapping[str, Tensor], ranks: Sequence[int]) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The difference with the largest singular values of every matrix alone, for each rank. Vectors are kept whole."""
    most = max(ranks)
    parts = {
        name: [part.clone() for part in (u[..., :most], s[:most], v[..., :most, :])]
        for name, each in delta.items()
        if each.ndim == 2
        for u, s, v in [torch.linalg.svd(each.float(), full_matrices=False)]
    }
    for rank in ranks:
        kept = {name: ((u[:, :rank] * s[:rank]) @ v[:rank]).to(delta[name]) for name, (u, s, v) in parts.items()}
        yield rank, {**delta, **kept}


def shuffled(delta: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The difference with the entries of every weight in another order."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: each.flatten()[torch.randperm(each.numel(), generator=generator).to(each.device)].view_as(each)
        for name, each in delta.items()
    }


def changes(case: Case) -> Iterator[tuple[str, float | str, dict[str, Tensor]]]:
    """Each change of BEFORE: its name, its value, and the weights that it puts in the place of BEFORE's.

    Weights that are AFTER's are AFTER's bit for bit: base + (after - base) would not be.
    """
    old, new = weights_of(case.before.model), weights_of(case.after.model)
    delta = difference(case.before, case.after)

    def plus(part: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: old[name] + each for name, each in part.items()}

    for alpha in ALPHAS:  # lerp gives its ends exactly
        yield "alpha", alpha, {name: torch.lerp(old[name], new[name], alpha) for name in old}
    for rank, part in low_rank(delta, RANKS):
        yield "rank", rank, plus(part)
    for where, names in (by_kind(list(old)) | by_layer(case.before.model, case.layers)).items():
        yield "only", where, {name: new[name] for name in names}
        yield "without", where, {name: new[name] for name in old if name not in names}
    for seed in range(RANDOM):
        yield "random", seed, plus(noise(delta, case.seed + seed))
    yield "shuffled", 0, plus(shuffled(delta, case.seed))
    if TEXT in case.networks:
        text = weights_of(case.networks[TEXT].model)
        for alpha in TEXT_ALPHAS:
            yield TEXT, alpha, {name: torch.lerp(old[name], text[name], alpha) for name in old}


def sizes(case: Case) -> list[dict[str, Any]]:
    """|network - BEFORE| / |BEFORE|, Frobenius norms, for each kind of module and all of them, for each network."""
    old = weights_of(case.before.model)

    def norm(weights: Mapping[str, Tensor], names: Sequence[str]) -> float:
        return math.sqrt(sum(float(weights[name].float().norm()) ** 2 for name in names))

    return [
        {"network": name, "kind": kind, "size": round(norm(delta, names) / (norm(old, names) or 1.0), 6)}
        for name, network in case.networks.items()
        if name != BEFORE
        for delta in [difference(case.before, network)]
        for kind, names in {"all": list(old), **by_kind(list(old))}.items()
    ]


def measure(case: Case) -> Iterator[Row]:
    """Which problems were asked, how large the differences are, and then a row for each change."""
    problems = case.some(PROBLEMS)
    yield {"part": "weights", "keys": [problem.key for problem in problems], "samples": SAMPLES}
    yield {"part": "weights", "sizes": sizes(case)}
    for change, value, weights in changes(case):
        with changed(case.before, weights) as network:
            groups = network.answer(problems, FREE, case.max_tokens, n=SAMPLES, temperature=1.0, seed=case.seed)
            made = network.answer(problems, WORKED, case.max_tokens)
            chance = network.reasons(problems)
        right = [bits([done.graded.correct for done in sample]) for sample in zip(*groups, strict=True)]
        greedy = bits([done.graded.correct for (done,) in made])
        row = {"part": "weights", "change": change, "value": value}
        yield {**row, "right": right, "reasons": chance, "greedy": greedy}


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """What each change leaves of the gain. `reasons` is a mean over problems of exact probabilities."""
    asked = next(row for row in rows if "keys" in row)
    found = [row for row in rows if "change" in row]
    right = {(row["change"], row["value"]): np.mean([unbits(text) for text in row["right"]], axis=0) for row in found}
    before, after = right["alpha", 0.0], right["alpha", 1.0]
    return {
        "n": len(asked["keys"]),
        "samples": asked["samples"],
        "sizes": next(row["sizes"] for row in rows if "sizes" in row),
        "changes": [
            {
                "change": row["change"],
                "value": row["value"],
                "right": share(right[row["change"], row["value"]], asked["samples"]),
                "recovered": recovered(right[row["change"], row["value"]], before, after),
                "reasons": share(row["reasons"], EXACT),
                "greedy": share(unbits(row["greedy"])),
            }
            for row in found
        ],
    }
