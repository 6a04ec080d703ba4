"""Which tokens: where the network's next-token distribution changed, and whether the gain is made at those places.

KL(other || BEFORE) at every token of the other's own completions; then completions that both write together, see
`mixture.py`: one of them with the other's distribution where the two differ most, at as many random tokens, or at the
single token that chooses the voice.
"""

import math
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from eval.analysis import stats
from eval.inspect.case import AFTER, BEFORE, Case, Marks, Network, Row
from eval.inspect.figures import Figure, figure, recovered, share, unbits
from eval.inspect.mixture import divergence, mixtures, written
from eval.inspect.residual import batches
from r1_mini.problems.problem import Problem

PROBLEMS, MIXED = 600, 400
OVER = (0.1, 0.01)
"""Nats above which a token counts as changed."""
TOP = 0.05
ROLES = {
    "v": "voice",
    "1": "first number",
    "o": "operator",
    "2": "second number",
    "=": "=",
    "r": "result, first digit",
    "d": "result, later digits",
    "n": "end of line",
    "w": "wait",
    "c": "chain",
    "e": "end of chain",
    "a": "answer",
    "f": "frame",
}
"""What a token is written for. `voice` is the first after the mark that begins a chain, whatever it is; `chain` is what
no other role of a chain fits, `frame` is what stands outside."""
_LINE = re.compile(r"(-?\d+)(?:([-+*/])(?:(-?\d+)(?:(=)(?:(-?\d)(\d*))?)?)?)?")


def _roles_of_line(line: str) -> str:
    """The role of each character of a line `a op b=c`, as far as it is one."""
    body, found = line.rstrip("\n"), _LINE.match(line)
    groups = found.groups("") if found else ()
    roles = "".join(role * len(part) for role, part in zip("1o2=rd", groups, strict=False))
    return roles.ljust(len(body), "w" if body == "wait" else "c") + "n" * (len(line) - len(body))


def roles_of(pieces: Sequence[str], marks: Marks, exact: bool) -> str:
    """The role of each token, a key of ROLES, from the text of each; "" is that of a special token.

    Only an `exact` chain has lines `a op b=c`. A token of several characters has the role of the first that is not a
    space.
    """
    text = "".join(pieces)
    head, begin, rest = text.partition(marks.begin)
    chain, end, answer = rest.partition(marks.end)
    lines = re.findall(r"[^\n]*\n|[^\n]+", chain) if exact else []
    steps = "".join(map(_roles_of_line, lines)) or "c" * len(chain)
    letters = "f" * len(head + begin) + steps + "e" * len(end) + "a" * len(answer) + "f"
    starts = list(accumulate(map(len, pieces), initial=0))
    roles = [letters[starts[i + 1] - len(piece.lstrip(" "))] for i, piece in enumerate(pieces)]
    voice = bisect_left(starts, len(head + begin))
    if begin and voice < len(pieces):
        roles[voice] = "v"
    return "".join(roles)


@torch.no_grad()
def divergences(
    first: PreTrainedModel, second: PreTrainedModel, prompts: Sequence[list[int]], completions: Sequence[Sequence[int]]
) -> list[list[float]]:
    """KL(first || second) in nats, exact over the vocabulary, at each token of each completion of a prompt."""
    texts = [[*prompt, *tokens] for prompt, tokens in zip(prompts, completions, strict=True)]
    found: list[list[float]] = [[] for _ in texts]
    for some, ids_BS in batches(texts, first):
        kl_BS = divergence(*(model(input_ids=ids_BS, use_cache=False).logits for model in (first, second)))
        for i, kl in zip(some, kl_BS.tolist(), strict=True):
            found[i] = kl[len(prompts[i]) - 1 : -1]
    return found


def compared(case: Case, other: Network, problems: Sequence[Problem]) -> Iterator[Row]:
    """Each free completion of another network: its tokens, what each is written for, and how far BEFORE is there."""
    tokens = [done.tokens for done in written(case, other, problems)]
    special = set(other.tokenizer.all_special_ids)
    text = {token: other.tokenizer.decode([token]) for token in {token for each in tokens for token in each}}
    prompts = other.encoded(problems, [other.opening] * len(problems))
    kls = divergences(other.model, case.before.model, prompts, tokens)
    for problem, each, kl in zip(problems, tokens, kls, strict=True):
        seen = [other.opening, *("" if token in special else text[token] for token in each)]
        roles = roles_of(seen, other.marks, case.exact)[1:]
        pieces = [text[token] for token in each]
        yield {"key": problem.key, "pieces": pieces, "roles": roles, "kl": [round(nats, 5) for nats in kl]}


def measure(case: Case) -> Iterator[Row]:
    """A row for each free completion of each network but BEFORE, then one for each mixture."""
    for name, network in case.networks.items():
        if name != BEFORE:
            for row in compared(case, network, case.some(PROBLEMS)):
                yield {"part": "tokens", "network": name, **row}
    problems = case.some(MIXED)
    yield {"part": "tokens", "keys": [problem.key for problem in problems]}
    for row in mixtures(case, problems):
        yield {"part": "tokens", **row}


def per(total_C: ArrayLike, number_C: ArrayLike) -> Figure:
    """Sum of one over sum of the other, 0 where there is nothing; bootstrap over completions."""
    columns = np.stack([np.asarray(total_C, dtype=float), np.asarray(number_C, dtype=float)], axis=1)
    means_R2 = np.concatenate([columns.mean(axis=0)[None], stats.bootstrap_means(columns, stats.RESAMPLES // 5)])
    ratios = means_R2[:, 0] / np.maximum(means_R2[:, 1], 1e-12)
    return figure(stats.interval_of(ratios[1:], float(ratios[0])))


def visible(piece: str) -> str:
    return piece.replace(" ", "␣").replace("\n", "⏎")


def places_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Where a network's completions have their KL from BEFORE. `of_kl` is a share of its sum over all tokens.

    A piece is counted by role: the digit that chooses the voice is not the digit of a result.
    """
    kl_T = np.concatenate([row["kl"] for row in rows])
    lengths = [len(row["kl"]) for row in rows]
    row_T = np.repeat(np.arange(len(rows)), lengths)
    sums = np.bincount(row_T, kl_T)

    def line(chosen: Any) -> dict[str, Any]:
        here = kl_T[chosen]
        return {
            "n": len(here),
            "mean": round(float(here.mean()), 5),
            "of_kl": per(np.bincount(row_T[chosen], here, len(rows)), sums),
            "over": round(float((here > OVER[0]).mean()), 5),
        }

    of_role: dict[str, list[int]] = defaultdict(list)
    of_piece: dict[tuple[str, str], list[int]] = defaultdict(list)
    letters, pieces = "".join(row["roles"] for row in rows), [piece for row in rows for piece in row["pieces"]]
    for place, (role, piece) in enumerate(zip(letters, pieces, strict=True)):
        of_role[role].append(place)
        of_piece[role, piece].append(place)
    most = sorted(of_piece, key=lambda name: -kl_T[of_piece[name]].sum())[:12]
    top = np.argsort(-kl_T, kind="stable")[: math.ceil(TOP * len(kl_T))]
    return {
        "n": len(rows),
        "tokens": len(kl_T),
        "per_token": per(sums, lengths),
        "per_completion": per(sums, [1.0] * len(rows)),
        "over": {f"{nats:g}": round(float((kl_T > nats).mean()), 5) for nats in OVER},
        "top": {"tokens": TOP, "of_kl": line(top)["of_kl"]},
        "roles": [{"role": name, **line(of_role[role])} for role, name in ROLES.items() if role in letters],
        "pieces": [{"piece": visible(name[1]), "role": ROLES[name[0]], **line(of_piece[name])} for name in most],
    }


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """Where each network's distribution changed, and what the mixtures recover of the gain from BEFORE to AFTER."""
    of: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if "network" in row:
            of[row["network"]].append(row)
    mixed = [row for row in rows if "exchanged" in row]
    alone = {row["keeps"]: unbits(row["right"]) for row in mixed if row["exchanged"] == "nothing"}
    return {
        "networks": [{"network": name, **places_of(each)} for name, each in of.items()],
        "mixtures": [
            {
                **{key: row[key] for key in ("keeps", "exchanged", "like", "places") if key in row},
                "right": share(unbits(row["right"])),
                "recovered": recovered(unbits(row["right"]), alone[BEFORE], alone[AFTER]),
            }
            for row in mixed
        ],
    }
