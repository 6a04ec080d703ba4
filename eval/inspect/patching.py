"""Where does the result of a step live? The state at one place of a problem is put into another, its text unchanged.

Activation patching (interchange interventions: Geiger et al. 2021, 2106.02997; Meng et al. 2022, 2202.05262) on the
first line of true chains: what the network then writes is compared with what the other problem's result implies, and
with its own continuation. The control is a step from the own state as long as the one to the other's, in a random
direction. Nothing is generated: a text that agrees everywhere with the most likely tokens is the one that greedy
decoding would give.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from eval.inspect.case import AFTER, BEFORE, Case, Network, Row
from eval.inspect.figures import bits, share, unbits
from eval.inspect.residual import batches, layers_of, replaced, states, token_of
from eval.inspect.stimuli import largest, standing, with_value, within
from r1_mini.completion import TAGS, write
from r1_mini.problems.families.base import worked_out
from r1_mini.problems.languages import written
from r1_mini.problems.problem import Problem

PAIRS, OF_CONTROLS = 400, 200
UNPATCHED, DIGITS, END = "nothing", "digits of the value", "end of line"
OTHER, RANDOM = "the other's state", "random direction"
SCORES = ("implied", "own", "next_implied", "next_own")
Patch = tuple[int, Tensor, Tensor]
"""The layer, places (P, K) and the states (P, K, D) that are put there."""


@dataclass(frozen=True)
class Pair:
    """A problem whose state is changed, and the one whose state is put in. Their first lines align, digit for digit."""

    own: Problem
    other: Problem

    @property
    def false(self) -> tuple[str, ...]:
        """The first line, with the other problem's result."""
        return with_value(self.own.steps, 0, _result(self.other))[:1]

    @property
    def implied(self) -> tuple[tuple[str, ...], str]:
        """The steps after the first, and the answer, if the false line is believed."""
        steps, _, answer = worked_out(standing(self.own, self.false))
        return steps, answer


def pairs(problems: Sequence[Problem], network: Network) -> Iterator[Pair]:
    """Each problem with the next one of its family and layout whose result implies another answer, in as many steps, by
    values on the way that are among those of the family."""
    alike: defaultdict[tuple[str, str, int], list[int]] = defaultdict(list)
    for place, (each, prompt) in enumerate(zip(problems, network.prompts(problems), strict=True)):
        if len(each.steps) > 1 and _result(each).isdigit():
            layout = re.sub(r"\d", "0", re.sub(r"[-+*/]", "+", f"{each.question} {each.steps[0]}"))
            alike[each.family, layout, len(prompt)].append(place)
    rank = {place: (group, index) for group in alike.values() for index, place in enumerate(group)}
    most = largest(problems)
    for place in sorted(rank):
        group, index = rank[place]
        rest = (Pair(problems[place], problems[other]) for other in [*group[index + 1 :], *group[:index]])
        yield from islice((pair for pair in rest if _fits(pair, most[pair.own.family])), 1)


def _fits(pair: Pair, most: int) -> bool:
    if _result(pair.own) == _result(pair.other) or not within(standing(pair.own, pair.false), most):
        return False
    steps, answer = pair.implied
    return len(steps) == len(pair.own.steps) - 1 and answer != pair.own.answer


def _result(problem: Problem) -> str:
    return problem.steps[0].rpartition("=")[2]


@dataclass(frozen=True)
class Texts:
    """A pair as token ids. The prompt, the first line and its end are of `start` tokens in all three."""

    own: list[int]
    implied: list[int]
    other: list[int]
    start: int
    places: dict[str, list[int]]
    """Tokens of the first line, by name."""


def texts_of(network: Network, chosen: Sequence[Pair], language: str) -> list[Texts]:
    """The tokens of pairs: a problem's own true completion, the implied one, and the other problem up to its result."""

    def text(lines: Sequence[str], answer: str) -> str:
        return network.begin + write(written(lines, language), answer).removeprefix(TAGS[0])

    found = []
    for pair in chosen:
        steps, answer = pair.implied
        own = text(pair.own.steps, pair.own.answer)
        texts = own, text((pair.own.steps[0], *steps), answer), text(pair.other.steps, pair.other.answer)
        rows = network.encoded([pair.own, pair.own, pair.other], texts)
        token = token_of(network.tokenizer, own)
        token = [len(rows[0]) - 1 - token[-1] + place for place in token]
        first, end = len(network.begin), own.index("\n", len(network.begin))
        digits = end - len(_result(pair.own))
        places = {
            DIGITS: token[digits:end],
            END: [token[end]],
            "=": [token[digits - 1]],
            "operands": list(range(token[first], token[digits - 1])),
        }
        found.append(Texts(rows[0], rows[1], rows[2][: token[end + 1]], token[end + 1], places))
    return found


@torch.no_grad()
def guesses(network: Network, rows: Sequence[list[int]], patch: Patch | None) -> list[list[int]]:
    """The most likely token after each token of each of P rows."""
    found: list[list[int]] = [[] for _ in rows]
    for some, ids_BS in batches(rows, network.model):
        with nullcontext() if patch is None else replaced(network.model, patch[0], patch[1][some], patch[2][some]):
            best_BS = network.model(input_ids=ids_BS, use_cache=False).logits.argmax(dim=-1)
        for row, best in zip(some, best_BS.tolist(), strict=True):
            found[row] = best
    return found


def scores(network: Network, some: Sequence[Texts], patch: Patch | None) -> dict[str, str]:
    """Whether each pair's own and whether the implied continuation is written, and the same of the first token where
    the two differ in it: bits of each score."""
    found: dict[str, list[bool]] = {score: [] for score in SCORES}
    forked = []  # those that write the implied text where it leaves the own one; the others do not write it
    for place, (text, guess) in enumerate(zip(some, guesses(network, [t.own for t in some], patch), strict=True)):
        start, own, implied = text.start, text.own, text.implied
        fork = next(at for at, (mine, its) in enumerate(zip(own, implied, strict=False)) if mine != its)
        forked += [place] if guess[fork - 1] == implied[fork] else []
        found["own"].append(guess[start - 1 : -1] == own[start:])
        if fork == start:
            found["next_own"].append(guess[start - 1] == own[start])
            found["next_implied"].append(guess[start - 1] == implied[start])
    part = patch and (patch[0], patch[1][forked], patch[2][forked])
    found["implied"] = [False] * len(some)
    for place, guess in zip(forked, guesses(network, [some[place].implied for place in forked], part), strict=True):
        found["implied"][place] = guess[some[place].start - 1 : -1] == some[place].implied[some[place].start :]
    return {score: bits(hits) for score, hits in found.items()}


def patches(
    network: Network, some: Sequence[Texts], layers: Sequence[int], seed: int
) -> Iterator[tuple[str, str, Patch]]:
    """Everything that is put into the pairs: the place, whose state it is, and the patch."""
    generator = torch.Generator().manual_seed(seed)
    for place in some[0].places:
        width = max(len(text.places[place]) for text in some)
        at = [(text.places[place] * width)[:width] for text in some]
        mine, theirs = (
            states(network.model, [getattr(text, side) for text in some], at, layers) for side in ("own", "other")
        )
        for layer, own_PKD, other_PKD in zip(layers, mine, theirs, strict=True):
            random_P1D = torch.randn(len(some), 1, own_PKD.shape[-1], generator=generator)
            step_PK1 = (other_PKD - own_PKD).norm(dim=-1, keepdim=True) / random_P1D.norm(dim=-1, keepdim=True)
            yield place, OTHER, (layer, torch.tensor(at), other_PKD)
            if place in (DIGITS, END):  # where the result is
                yield place, RANDOM, (layer, torch.tensor(at), own_PKD + step_PK1 * random_P1D)


def measure(case: Case) -> Iterator[Row]:
    """A row for each network, layer and place, and one unpatched; none without at least two pairs."""
    of_case = pairs(case.problems, case.before) if case.exact else iter(())
    chosen = list(islice(of_case, max(2, round(PAIRS * case.share))))
    if len(chosen) < 2:
        return
    for name, network in case.networks.items():
        mine = chosen if name in (BEFORE, AFTER) else chosen[: max(2, round(OF_CONTROLS * case.share))]
        texts = texts_of(network, mine, case.language(network))
        none = {"network": name, "layer": None, "place": UNPATCHED, "what": OTHER}
        yield none | scores(network, texts, None)
        for place, what, patch in patches(network, texts, layers_of(network.model, case.layers), case.seed):
            where = {"layer": patch[0], "place": place, "what": what}
            yield none | where | scores(network, texts, patch)


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """How often each continuation is written, of each network, layer, place and state."""
    cells = [
        {name: row[name] for name in ("network", "layer", "place", "what")}
        | {score: share(unbits(row[score])) if row[score] else None for score in SCORES}
        for row in rows
    ]
    return {"n": max((len(row["own"]) for row in rows), default=0), "cells": cells}
