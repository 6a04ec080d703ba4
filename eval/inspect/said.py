"""What is only said? How much of the gain comes back without RL: by forcing a voice, by a bias on the one token that
decides it, by a lower temperature, by a vector added to the residual stream at one token.

The voice is decided by the first token of the chain: it is empty if that is the closing mark. So the accuracy under a
bias b on that token follows exactly from the two forced voices and from p, the chance that the chain is empty:
p' = p / (p + (1 - p) e^b).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.inspect.case import AFTER, BEFORE, Case, Network, Row
from eval.inspect.figures import gap, recovered, share
from eval.inspect.residual import added, blocks, states
from r1_mini.problems.problem import Problem

PROBLEMS, SAMPLES = 600, 4
LEARNED = 600
STEERED = 200
TEMPERATURES = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.0)
BIASES = (0.0, 1.0, 2.0, 3.0, 4.0, 8.0)
SCALES = (1.0, 2.0, 4.0)
DIRECT, WORKED, FREE = "direct", "worked", "free"
VECTORS = ("after - before", "random")


def measure(case: Case) -> Iterator[Row]:
    problems = case.some(PROBLEMS)
    for name, network in case.networks.items():
        yield {"what": "reasons", "network": name, "reasons": network.reasons(problems)}
        whole = name in (BEFORE, AFTER)
        yield _row(case, name, network, problems, FREE, 1.0)
        for temperature in (1.0, 0.0):
            yield _row(case, name, network, problems, DIRECT, temperature)
        for temperature in TEMPERATURES if whole else (1.0, 0.0):
            yield _row(case, name, network, problems, WORKED, temperature)
    yield from _steered(case)


def _row(
    case: Case,
    name: str,
    network: Network,
    problems: Sequence[Problem],
    voice: str,
    temperature: float,
    n: int = SAMPLES,
) -> dict[str, Any]:
    """The number of right completions and the voices of each problem, in one row."""
    marks = network.marks
    given, banned = {FREE: ("", ""), DIRECT: (marks.begin + marks.end, ""), WORKED: (marks.begin, marks.end)}[voice]
    n = n if temperature else 1
    options: dict[str, Any] = {"n": n, "temperature": temperature, "seed": case.seed, "banned": banned}
    groups = network.write(problems, [given] * len(problems), case.max_tokens, **options)
    voices = [[each.graded.voice for each in group] for group in groups]
    row = {"what": "right", "network": name, "voice": voice, "temperature": temperature, "n": n}
    counts = {each: sum(group.count(each) for group in voices) for each in ("direct", "worked", "checked", "none")}
    return {**row, "right": [sum(each.graded.correct for each in group) for group in groups], "voices": counts}


def _steered(case: Case) -> Iterator[Row]:
    """BEFORE with a vector added at the token that begins the chain, after one layer."""
    problems, learned = case.some(STEERED), case.learned[: max(2, round(LEARNED * case.share))]
    before, token = case.before, case.before.ids(case.before.marks.begin)[-1]
    layers = case.layers or tuple(range(len(blocks(before.model))))
    generator = torch.Generator().manual_seed(case.seed)
    for layer in layers:
        vector_D = _mean_state(case.after, learned, layer) - _mean_state(before, learned, layer)
        random_D = torch.randn(vector_D.shape, generator=generator).to(vector_D)
        for kind, direction_D in zip(VECTORS, (vector_D, random_D * vector_D.norm() / random_D.norm()), strict=True):
            for scale in SCALES:
                with added(before.model, layer, token, scale * direction_D):
                    row = _row(case, BEFORE, before, problems, FREE, 1.0, n=2)
                    where = {"what": "steered", "vector": kind, "layer": layer, "scale": scale}
                    yield row | where | {"reasons": before.reasons(problems)}


def _mean_state(network: Network, problems: Sequence[Problem], layer: int) -> Tensor:
    """The mean state after a layer at the token that begins the chain, (D,)."""
    found = []
    for ids_BS, _ in network.batches(problems, [network.marks.begin] * len(problems)):
        found.append(states(network.model, ids_BS, [layer])[0][:, -1].double())
    return torch.cat(found).mean(dim=0).float()


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracies in percent of 1, with intervals, and the share of the gain, free AFTER - free BEFORE, they recover."""
    right = {
        (row["network"], row["voice"], row["temperature"]): np.array(row["right"]) / row["n"]
        for row in rows
        if row["what"] == "right"
    }
    chances = {row["network"]: np.array(row["reasons"]) for row in rows if row["what"] == "reasons"}
    old_P, new_P = right[BEFORE, FREE, 1.0], right[AFTER, FREE, 1.0]
    samples = {(row["network"], row["voice"], row["temperature"]): row for row in rows if row["what"] == "right"}

    def of(part_P: Any, n: int) -> dict[str, Any]:
        size = len(part_P)  # steering asks fewer problems
        return {"right": share(part_P, n), "recovered": recovered(part_P, old_P[:size], new_P[:size])}

    forced = [
        {"network": network, "voice": voice, "temperature": temperature, "n": len(each_P)}
        | of(each_P, samples[network, voice, temperature]["n"])
        for (network, voice, temperature), each_P in right.items()
    ]
    empty_P, direct_P, worked_P = 1 - chances[BEFORE], right[BEFORE, DIRECT, 1.0], right[BEFORE, WORKED, 1.0]
    biased = []
    for bias in BIASES:
        left_P = empty_P / (empty_P + (1 - empty_P) * np.exp(bias))
        part_P = left_P * direct_P + (1 - left_P) * worked_P
        biased.append({"bias": bias, "reasons": float(1 - left_P.mean()), **of(part_P, SAMPLES)})
    steered = [
        {
            "vector": row["vector"],
            "layer": row["layer"],
            "scale": row["scale"],
            "reasons": float(np.mean(row["reasons"])),
        }
        | of(np.array(row["right"]) / row["n"], row["n"])
        for row in rows
        if row["what"] == "steered"
    ]
    sharp_P = right[BEFORE, WORKED, 0.0]
    equal = [
        {"voice": voice, "temperature": each, "difference": gap(right[BEFORE, voice, each], right[AFTER, voice, each])}
        for voice in (DIRECT, WORKED)
        for each in TEMPERATURES
        if (AFTER, voice, each) in right
    ]
    return {
        "n": len(old_P),
        "gain": gap(old_P, new_P),
        "voices": {
            row["network"]: row["voices"] for row in rows if row.get("voice") == FREE and row["what"] == "right"
        },
        "reasons": {name: share(each) for name, each in chances.items()},
        "forced": forced,
        "biased": biased,
        "equal": equal,
        "steered": steered,
        "parts": {
            "voice": recovered(worked_P, old_P, new_P),
            "temperature": recovered(old_P + sharp_P - worked_P, old_P, new_P),
            "rest": recovered(old_P + new_P - sharp_P, old_P, new_P),
        },
    }
