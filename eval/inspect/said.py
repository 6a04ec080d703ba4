"""What is only said? How much of the gain comes back without RL: by forcing a voice, by a bias on the one token that
decides it, by a lower temperature, by a vector added to the residual stream at one token.

The voice is decided by the first token of the chain: it is empty if that is the closing mark. So the accuracy under a
bias b on that token follows exactly from the two forced voices and from p, the chance that the chain is empty:
p' = p / (p + (1 - p) e^b).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.inspect.case import AFTER, BEFORE, DIRECT, FREE, WORKED, Case, Network, Row
from eval.inspect.figures import gap, recovered, share
from eval.inspect.residual import added, layers_of, states
from r1_mini.problems.problem import Problem

PROBLEMS, SAMPLES = 600, 4
LEARNED = 600
STEERED = 200
TEMPERATURES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.0)
BIASES = (0.0, 1.0, 2.0, 3.0, 4.0, 8.0)
SCALES = (1.0, 2.0, 4.0)
AGAIN = "before, again"
"""BEFORE with other random numbers: the control for what chance alone does."""
EXACT = 10**6
"""Trials behind a probability that was computed, not sampled."""
VECTORS = ("after - before", "random")


def measure(case: Case) -> Iterator[Row]:
    problems = case.some(PROBLEMS)
    yield {"network": AGAIN, **_row(case.before, problems, case, FREE, 1.0, seed=1)}
    for name, network in case.networks.items():
        yield {"what": "reasons", "network": name, "reasons": network.reasons(problems)}
        heats = TEMPERATURES if name in (BEFORE, AFTER) else (1.0, 0.0)
        for voice, temperature in ((FREE, 1.0), (DIRECT, 1.0), (DIRECT, 0.0), *((WORKED, heat) for heat in heats)):
            yield {"network": name, **_row(network, problems, case, voice, temperature)}
    yield from _steered(case)


def _row(
    network: Network,
    problems: Sequence[Problem],
    case: Case,
    voice: str,
    temperature: float,
    n: int = SAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The number of right completions of each problem, and how many of all are in each voice."""
    n = n if temperature else 1
    options = {"n": n, "temperature": temperature, "seed": case.seed + seed}
    groups = network.answer(problems, voice, case.max_tokens, **options)
    voices = Counter(each.graded.voice for group in groups for each in group)
    row = {"what": "right", "voice": voice, "temperature": temperature, "n": n, "voices": voices}
    return {**row, "right": [sum(each.graded.correct for each in group) for group in groups]}


def _steered(case: Case) -> Iterator[Row]:
    """BEFORE with a vector added at the token that begins the chain, after one layer; nothing if it is several."""
    problems, learned = case.some(STEERED), case.learned[: max(2, round(LEARNED * case.share))]
    before, (token, *more) = case.before, case.before.ids(case.before.begin)
    if more:
        return
    generator = torch.Generator().manual_seed(case.seed)
    for layer in layers_of(before.model, case.layers)[1:]:  # without the embedding
        vector_D = _mean_state(case.after, learned, layer) - _mean_state(before, learned, layer)
        random_D = torch.randn(vector_D.shape, generator=generator).to(vector_D)
        for kind, direction_D in zip(VECTORS, (vector_D, random_D * vector_D.norm() / random_D.norm()), strict=True):
            for scale in SCALES:
                with added(before.model, layer, token, scale * direction_D):
                    row = _row(before, problems, case, FREE, 1.0, n=2)
                    where = {"what": "steered", "vector": kind, "layer": layer, "scale": scale}
                    yield row | where | {"reasons": before.reasons(problems)}


def _mean_state(network: Network, problems: Sequence[Problem], layer: int) -> Tensor:
    """The mean state after a layer at the token that begins the chain, (D,)."""
    rows = network.encoded(problems, [network.begin] * len(problems))
    return states(network.model, rows, [[-1]] * len(rows), [layer])[0, :, 0].double().mean(dim=0).float()


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracies with intervals, and the share of the gain, free AFTER - free BEFORE, that each recovers."""
    asked = [row for row in rows if row["what"] == "right"]
    right = {(row["network"], row["voice"], row["temperature"]): np.array(row["right"]) / row["n"] for row in asked}
    chances = {row["network"]: np.array(row["reasons"]) for row in rows if row["what"] == "reasons"}
    old_P, new_P = right[BEFORE, FREE, 1.0], right[AFTER, FREE, 1.0]
    empty_P, direct_P, worked_P = 1 - chances[BEFORE], right[BEFORE, DIRECT, 1.0], right[BEFORE, WORKED, 1.0]
    sharp_P = right[BEFORE, WORKED, 0.0]

    def of(part_P: Any, n: int, start_P: Any = old_P) -> dict[str, Any]:
        size = len(part_P)  # steering asks fewer problems
        return {"right": share(part_P, n), "recovered": recovered(part_P, start_P[:size], new_P[:size])}

    def biased(bias: float) -> tuple[Any, Any]:
        """P(the chain is empty) under a bias against it, and the accuracy."""
        left_P = empty_P / (empty_P + (1 - empty_P) * np.exp(bias))
        return left_P, left_P * direct_P + (1 - left_P) * worked_P

    forced = []
    for row in asked:
        where = {key: row[key] for key in ("network", "voice", "temperature")}
        forced.append({**where, "n": row["n"], **of(right[tuple(where.values())], row["n"])})
    return {
        "n": len(old_P),
        "gain": gap(old_P, new_P),
        "voices": {row["network"]: row["voices"] for row in asked if row["voice"] == FREE},
        "reasons": {name: share(each, EXACT) for name, each in chances.items()},
        "forced": forced,
        "biased": [
            {"bias": bias, "reasons": share(1 - left_P, EXACT), **of(part_P, SAMPLES, biased(0.0)[1])}
            for bias in BIASES
            for left_P, part_P in [biased(bias)]
        ],
        "equal": [
            {
                "voice": voice,
                "temperature": heat,
                "difference": gap(right[BEFORE, voice, heat], right[AFTER, voice, heat]),
            }
            for voice in (DIRECT, WORKED)
            for heat in TEMPERATURES
            if (AFTER, voice, heat) in right
        ],
        "steered": [
            {key: row[key] for key in ("vector", "layer", "scale")}
            | {"reasons": share(row["reasons"], EXACT), **of(np.array(row["right"]) / row["n"], row["n"])}
            for row in rows
            if row["what"] == "steered"
        ],
        "parts": {
            "voice": recovered(worked_P, old_P, new_P),
            "temperature": recovered(old_P + sharp_P - worked_P, old_P, new_P),
            "rest": recovered(old_P + new_P - sharp_P, old_P, new_P),
        },
    }
