"""Where does the result of a step live? The state at one place of a problem is put into another, its text unchanged.

Activation patching (interchange interventions: Geiger et al. 2021, 2106.02997; Meng et al. 2022, 2202.05262) on the
first line of true chains: what the network then writes is compared with what the other problem's result implies, and
with its own continuation. Nothing is generated: a text that agrees everywhere with the most likely tokens is the one
that greedy decoding would give.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from eval.inspect.case import AFTER, BEFORE, Case, Network, Row
from eval.inspect.figures import bits, share, unbits
from eval.inspect.residual import batches, layers_of, padded, replaced, states, token_of
from r1_mini.completion import TAGS, write
from r1_mini.problems.arithmetic import parse_number
from r1_mini.problems.families.base import worked_out
from r1_mini.problems.problem import Problem
from r1_mini.problems.steps import check_chain

PAIRS, OF_CONTROLS = 600, 200
UNPATCHED = "nothing"
FLOATS = 2**27
"""Most logits of one forward pass."""


@dataclass(frozen=True)
class Pair:
    """A problem whose state is changed, and the one whose state is put in. Their first lines align, digit for digit."""

    own: Problem
    other: Problem

    @property
    def implied(self) -> tuple[tuple[str, ...], str]:
        """The steps after the first, and the answer, if the first had the other problem's result."""
        return continued(self.own, _result(self.other))


def continued(problem: Problem, result: str) -> tuple[tuple[str, ...], str]:
    """The steps after the first, and the answer, if the first had this result; ValueError if it leads nowhere."""
    assert problem.formula is not None
    tree = check_chain(problem.formula, f"{problem.steps[0].rpartition('=')[0]}={result}")[0].stands
    assert tree is not None
    steps, _, answer = worked_out(tree)
    return steps, answer


def pairs(problems: Sequence[Problem], network: Network) -> Iterator[Pair]:
    """Each problem with the next one of its layout whose result implies another answer, by values on the way that are
    among those of the problems."""
    values = [parse_number(line.rpartition("=")[2]) for each in problems for line in each.steps]
    known = [value for value in values if value is not None]
    alike: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
    for place, (each, prompt) in enumerate(zip(problems, network.prompts(problems), strict=True)):
        if len(each.steps) > 1 and _result(each).isdigit():
            layout = re.sub(r"\d", "0", re.sub(r"[-+*/]", "+", f"{each.question} {each.steps[0]}"))
            alike[layout, len(prompt)].append(place)
    rank = {place: (group, index) for group in alike.values() for index, place in enumerate(group)}
    for place in sorted(rank):
        group, index = rank[place]
        rest = (Pair(problems[place], problems[other]) for other in [*group[index + 1 :], *group[:index]])
        yield from islice((pair for pair in rest if _fits(pair, min(known), max(known))), 1)


def _fits(pair: Pair, least: Fraction, most: Fraction) -> bool:
    if _result(pair.own) == _result(pair.other):
        return False
    try:
        steps, answer = pair.implied
    except ValueError:  # it divides by zero
        return False
    values = [parse_number(line.rpartition("=")[2]) for line in steps]
    within = all(value is not None and least <= value <= most for value in values)
    return within and answer != pair.own.answer


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


def texts_of(network: Network, chosen: Sequence[Pair]) -> list[Texts]:
    """The tokens of pairs: a problem's own true completion, the implied one, and the other problem up to its result."""
    found = []
    prompts = network.prompts([pair.own for pair in chosen]), network.prompts([pair.other for pair in chosen])
    for pair, prompt, of_other in zip(chosen, *prompts, strict=True):
        line, (steps, answer) = pair.own.steps[0], pair.implied
        own = write(pair.own.steps, pair.own.answer)
        token = [len(prompt) + token for token in token_of(network.tokenizer, own)]
        first, equals, end = len(TAGS[0]), len(TAGS[0]) + line.index("="), len(TAGS[0]) + len(line)
        places = {
            "digits of the value": token[equals + 1 : end],
            "end of line": token[end : end + 1],
            "=": token[equals : equals + 1],
            "operands": token[first:equals],
        }
        other = [*of_other, *network.ids(write(pair.other.steps, pair.other.answer))][: token[end + 1]]
        implied = [*prompt, *network.ids(write((line, *steps), answer))]
        found.append(Texts([*prompt, *network.ids(own)], implied, other, token[end + 1], places))
    return found


@torch.no_grad()
def guesses(network: Network, rows: Sequence[list[int]], patch: tuple[int, Tensor, Tensor] | None) -> Tensor:
    """The most likely token after each token of each row, (B, S). `patch`: the layer, places (B, K) and the states
    (B, K, D) that are put there."""
    with nullcontext() if patch is None else replaced(network.model, *patch):
        found: Tensor = network.model(input_ids=padded(rows, network.model), use_cache=False).logits.argmax(dim=-1)
    return found.cpu()


def scores(network: Network, some: Sequence[Texts], patch: tuple[int, Tensor, Tensor] | None) -> list[dict[str, Any]]:
    """For each pair whether its own and whether the implied continuation is written, and the same of the first token
    where the two differ in it."""
    found: list[dict[str, Any]] = []
    forks = []
    for text, guess in zip(some, guesses(network, [text.own for text in some], patch).tolist(), strict=True):
        start, own, implied = text.start, text.own, text.implied
        differ = enumerate(zip(own, implied, strict=False))
        fork = next(place for place, (mine, its) in differ if mine != its)
        forks.append(guess[fork - 1] == implied[fork])
        found.append({"own": guess[start - 1 : len(own) - 1] == own[start:], "implied": False})
        if own[start] != implied[start]:
            found[-1] |= {
                "next_own": guess[start - 1] == own[start],
                "next_implied": guess[start - 1] == implied[start],
            }
    taken = [place for place, fork in enumerate(forks) if fork]  # the others differ from the implied text there
    if taken:
        part = None if patch is None else (patch[0], patch[1][taken], patch[2][taken])
        again = guesses(network, [some[place].implied for place in taken], part).tolist()
        for place, guess in zip(taken, again, strict=True):
            start, implied = some[place].start, some[place].implied
            found[place]["implied"] = guess[start - 1 : len(implied) - 1] == implied[start:]
    return found


def measure(case: Case) -> Iterator[Row]:
    """A row for each network, layer and place, and one unpatched; none without at least two pairs."""
    of_case = pairs(case.problems, case.before) if case.exact else iter(())
    chosen = list(islice(of_case, max(2, round(PAIRS * case.share))))
    if len(chosen) < 2:
        return
    for name, network in case.networks.items():
        mine = chosen if name in (BEFORE, AFTER) else chosen[: max(2, round(OF_CONTROLS * case.share))]
        layers, texts = layers_of(network.model, case.layers), texts_of(network, mine)
        found: dict[tuple[int | None, str], dict[int, dict[str, Any]]] = defaultdict(dict)
        most = min(16_384, FLOATS // network.model.config.vocab_size)
        for rows in batches([max(len(text.own), len(text.implied)) for text in texts], most):
            some = [texts[row] for row in rows]
            found[None, UNPATCHED] |= zip(rows, scores(network, some, None), strict=True)
            given = states(network.model, padded([text.other for text in some], network.model), layers)
            for place in some[0].places:
                width = max(len(text.places[place]) for text in some)
                at = [(text.places[place] * width)[:width] for text in some]
                at_BK = torch.tensor(at, device=network.model.device)
                for layer, state in zip(layers, given, strict=True):
                    patch = layer, at_BK, state[torch.arange(len(some))[:, None], at_BK]
                    found[layer, place] |= zip(rows, scores(network, some, patch), strict=True)
        for (after, where), each in found.items():
            row: dict[str, Any] = {"network": name, "layer": after, "place": where}
            for what in ("implied", "own", "next_implied", "next_own"):
                row[what] = bits([each[pair][what] for pair in range(len(texts)) if what in each[pair]])
            yield row


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """How often each continuation is written, of each network, layer and place."""
    cells = []
    for row in rows:
        figures = {
            what: share(unbits(row[what])) if row[what] else None
            for what in ("implied", "own", "next_implied", "next_own")
        }
        cells.append({"network": row["network"], "layer": row["layer"], "place": row["place"], **figures})
    return {"n": max((len(row["own"]) for row in rows), default=0), "cells": cells}
