"""What is known where? Linear probes read digits off the residual stream of true chains, at some places of the text.

A probe that finds a digit may have learned it by heart, so each stands beside a control task (Hewitt and Liang 2019,
1909.03368): a random label for every value, which only memory can give. Accuracy less that of the control task is the
probe's selectivity. Whether the network uses what a probe finds is another question: `patching.py`.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from eval.analysis import stats
from eval.inspect.case import AFTER, BEFORE, Case, Network, Row
from eval.inspect.figures import bits, figure, gap, share, unbits
from eval.inspect.residual import batches, layers_of, padded, states, token_of
from r1_mini.problems.arithmetic import canonical_key, parse
from r1_mini.problems.problem import Problem

EXAMPLES, FEWEST = 4_000, 100
SHUFFLED = "ones", "answer ones"
"""The targets whose probe is also fitted on shuffled labels: one at each place."""
_STEP = re.compile(r"((\d+)([-+])(\d+))=(\d\d)")
Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Look:
    """A place in a text, and what is asked there."""

    character: int
    fact: str
    """The operation with whose result the place has to do, `12+7`; those of train and test differ."""
    targets: dict[str, tuple[int, int]]
    """Name -> the label, and the value that it is a part of."""


def carries(left: int, sign: str, right: int) -> int:
    """Whether an addition carries from the ones, or a subtraction borrows for them."""
    return int(left % 10 + right % 10 > 9 if sign == "+" else left % 10 < right % 10)


def looks(problem: Problem, step: int, text: str) -> dict[str, Look]:
    """Every place at which a problem's true chain is read, by name; `step` is the one whose `=` is."""
    lines = [_STEP.fullmatch(problem.steps[number]) for number in (0, step)]
    assert lines[0] and lines[1]
    first, answer = int(lines[0][5]), int(problem.answer)
    fact, left, sign, right, result = lines[1].groups()
    start, value = canonical_key(parse(lines[0][1])), int(result)
    begin = text.index(problem.steps[0])
    equals = begin + len("\n".join(problem.steps[: step + 1])) - len("=NN")
    asked = {
        "tens": (value // 10, value),
        "ones": (value % 10, value),
        "carry": (carries(int(left), sign, int(right)), value),
    }
    last = {"answer tens": (answer // 10, answer), "answer ones": (answer % 10, answer)}
    return {
        "prompt end": Look(begin - 1, start, {"first tens": (first // 10, first), **last}),
        "=": Look(equals, canonical_key(parse(fact)), asked),
        "first digit": Look(equals + 1, canonical_key(parse(fact)), asked),
        "answer": Look(len(text) - 1, start, last),
    }


def examples(case: Case) -> list[tuple[Problem, int]]:
    """Different problems, and a random step of each. First result, answer and the step's result have two digits."""
    found: dict[str, tuple[Problem, int]] = {}
    for each in case.learned:
        fitting = [number for number, line in enumerate(each.steps) if _STEP.fullmatch(line)]
        if len(each.steps) > 1 and fitting[:1] == [0] and re.fullmatch(r"\d\d", each.answer):
            rng = random.Random(f"{case.seed} {each.key}")
            found.setdefault(each.key, (each, rng.choice(fitting)))
    return list(found.values())[: round(EXAMPLES * case.share)]


def is_test(fact: str, seed: int) -> bool:
    """Whether a fact is kept from the probes' training: half of all, by a hash."""
    return bool(blake2b(f"{seed} {fact}".encode(), digest_size=1).digest()[0] & 1)


def probe(train_ND: Floats, labels_N: Labels, test_MD: Floats) -> Labels:
    """Labels of test states, (M,), by multinomial logistic regression on standardized states."""
    if len(np.unique(labels_N)) == 1:
        return np.full(len(test_MD), labels_N[0])
    mean_D, scale_D = train_ND.mean(axis=0), train_ND.std(axis=0) + 1e-6
    fitted = LogisticRegression(tol=1e-3, max_iter=1_000).fit((train_ND - mean_D) / scale_D, labels_N)
    predicted: Labels = fitted.predict((test_MD - mean_D) / scale_D)
    return predicted


def hits(state_PD: Floats, label_P: Labels, test_P: Labels) -> str:
    """Bits of the test examples: whether a probe that is fitted on the others finds their labels."""
    return bits(probe(state_PD[~test_P], label_P[~test_P], state_PD[test_P]) == label_P[test_P])


def control(label_P: Labels, value_P: Labels, seed: int) -> Labels:
    """The labels of the control task, (P,): a random one for each value, each for about as many examples as it has in
    `label_P`, so that to guess the most common one is worth the same."""
    values, index_P, counts = np.unique(value_P, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(values))
    middle = np.empty(len(values), dtype=int)
    middle[order] = np.cumsum(counts[order]) - (counts[order] + 1) // 2
    drawn: Labels = np.sort(label_P)[middle][index_P]
    return drawn


def read(
    network: Network, problems: Sequence[Problem], texts: Sequence[str], characters_PK: list[list[int]], layers: Any
) -> tuple[Labels, Floats]:
    """Tokens at K characters of each text, (P, K), and the states there after every layer, (L, P, K, D)."""
    rows, places = [], []
    for prompt, text, characters in zip(network.prompts(problems), texts, characters_PK, strict=True):
        rows.append([*prompt, *network.ids(text)])
        token = token_of(network.tokenizer, text)
        places.append([len(prompt) + token[character] for character in characters])
    found: list[Any] = [None] * len(rows)
    for some in batches([len(row) for row in rows]):
        at_BK = torch.tensor([places[row] for row in some])
        every = states(network.model, padded([rows[row] for row in some], network.model), layers)
        kept_LBKD = torch.stack([state[torch.arange(len(some))[:, None], at_BK].float().cpu() for state in every])
        for index, row in enumerate(some):
            found[row] = kept_LBKD[:, index].numpy()
    tokens = [[row[place] for place in at] for row, at in zip(rows, places, strict=True)]
    return np.array(tokens), np.stack(found, axis=1)


def measure(case: Case) -> Iterator[Row]:
    """A row for each network, place, target and layer; none where steps do not add or subtract."""
    chosen = examples(case) if case.exact else []
    if len(chosen) < FEWEST:
        return
    marks = case.before.marks
    problems = [problem for problem, _ in chosen]
    texts = [marks.begin + "\n".join(each.steps) + marks.end + marks.answer for each in problems]
    seen = [looks(problem, step, text) for (problem, step), text in zip(chosen, texts, strict=True)]
    characters = [[look.character for look in each.values()] for each in seen]
    for name, network in case.networks.items():
        layers = layers_of(network.model, case.layers)
        tokens_PK, states_LPKD = read(network, problems, texts, characters, layers)
        for k, place in enumerate(seen[0]):
            here = [each[place] for each in seen]
            test_P = np.array([is_test(look.fact, case.seed) for look in here])
            facts = [{look.fact for look, tests in zip(here, test_P, strict=True) if tests == side} for side in (0, 1)]
            assert not facts[0] & facts[1]
            for what in here[0].targets:
                label_P, value_P = np.array([look.targets[what] for look in here]).T
                labels = {"hits": label_P, "control": control(label_P, value_P, case.seed)}
                if what in SHUFFLED:
                    labels["shuffled"] = label_P.copy()
                    labels["shuffled"][~test_P] = np.random.default_rng(case.seed).permutation(label_P[~test_P])
                known = {
                    "n_train": int((~test_P).sum()),
                    "majority": round(float((label_P[test_P] == np.bincount(label_P[~test_P]).argmax()).mean()), 6),
                    "trivial": len({*zip(tokens_PK[:, k], label_P, strict=True)}) == len({*tokens_PK[:, k]}),
                }
                for layer, state_PKD in zip(layers, states_LPKD, strict=True):
                    found = {each: hits(state_PKD[:, k], label, test_P) for each, label in labels.items()}
                    yield {"network": name, "layer": layer, "place": place, "what": what, **known, **found}


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracy, control and selectivity of each probe, and AFTER - BEFORE of the accuracy on the same test examples.

    p-values are adjusted for all differences (Holm); probes of a token that is the label itself are left out.
    """
    cells = []
    found = {(row["network"], row["layer"], row["place"], row["what"]): unbits(row["hits"]) for row in rows}
    for row in rows:
        kept = {name: row[name] for name in ("network", "layer", "place", "what", "majority", "trivial")}
        right, memory = unbits(row["hits"]), unbits(row["control"])
        figures = {"accuracy": share(right), "control": share(memory), "selectivity": gap(memory, right)}
        cells.append({**kept, **figures, "shuffled": share(unbits(row["shuffled"])) if "shuffled" in row else None})
    compared = [cell for cell in cells if cell["network"] == BEFORE and not cell["trivial"]]
    keys = [(cell["layer"], cell["place"], cell["what"]) for cell in compared]
    pairs = [(found[BEFORE, *key], found[AFTER, *key]) for key in keys]
    differences = []
    for key, pair, p_value in zip(keys, pairs, stats.holm([stats.permutation_p(*pair) for pair in pairs]), strict=True):
        interval = stats.paired_difference(*pair)
        where = dict(zip(("layer", "place", "what"), key, strict=True))
        tested = {"p_adjusted": p_value, "verdict": stats.verdict(interval, p_value)}
        differences.append({**where, "difference": figure(interval), **tested})
    return {"n_test": min((len(row["hits"]) for row in rows), default=0), "cells": cells, "differences": differences}
