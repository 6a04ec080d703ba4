"""What is known where? Linear probes read digits off the residual stream of true chains, at some places of the text.

A probe that finds a digit may have learned it by heart, so each stands beside a control task (Hewitt and Liang 2019,
1909.03368): a random label for every value, which only memory can give. A probe's selectivity is what it finds more
than the control's probes do, each less what its most common label alone would give. Examples with the same value are
not independent, so all shares are means over values. Whether the network uses what a probe finds: `patching.py`.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from eval.analysis import stats
from eval.inspect.case import AFTER, BEFORE, Case, Network, Row
from eval.inspect.figures import figure, gap, share
from eval.inspect.residual import layers_of, states, token_of
from r1_mini.problems.arithmetic import canonical_key, parse
from r1_mini.problems.languages import written
from r1_mini.problems.problem import Problem

EXAMPLES, FEWEST = 4_000, 100
DRAWS = 4
"""Control tasks over which their accuracy is averaged."""
_STEP, _RESULT = re.compile(r"((\d+)([-+])(\d+))=(\d\d)"), re.compile(r"(.+)=(\d\d)")
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


def looks(problem: Problem, step: int, lines: Sequence[str], begin: int) -> dict[str, Look]:
    """Every place at which a problem's true chain is read, by name; `step` is the one whose `=` is. The steps are
    written as `lines`, from character `begin` on."""
    start, found = _RESULT.fullmatch(problem.steps[0]), _STEP.fullmatch(problem.steps[step])
    assert start and found
    fact, left, sign, right, result = found.groups()
    first, value, answer = int(start[2]), int(result), int(problem.answer)
    operands, operation = (canonical_key(parse(text)) for text in (start[1], fact))
    digit = begin + len("\n".join(lines[: step + 1])) - len(result)
    carry = carries(int(left), sign, int(right))
    asked = {"tens": (value // 10, value), "ones": (value % 10, value), "carry": (carry, value)}
    last = {"answer tens": (answer // 10, answer), "answer ones": (answer % 10, answer)}
    return {
        "prompt end": Look(begin - 1, operands, {"first tens": (first // 10, first), **last}),
        "=": Look(digit - 1, operation, asked),
        "first digit": Look(digit, operation, asked),
        "answer": Look(-1, operands, last),
    }


def examples(case: Case) -> list[tuple[Problem, int]]:
    """Different problems, and a random sum or difference of each. First result, answer and its result have two
    digits."""
    found: dict[str, tuple[Problem, int]] = {}
    for each in case.learned:
        fitting = [number for number, line in enumerate(each.steps) if _STEP.fullmatch(line)]
        if len(each.steps) > 1 and fitting and _RESULT.fullmatch(each.steps[0]) and re.fullmatch(r"\d\d", each.answer):
            rng = random.Random(f"{case.seed} {each.key}")
            found.setdefault(each.key, (each, rng.choice(fitting)))
    return list(found.values())[: round(EXAMPLES * case.share)]


def is_test(fact: str, seed: int) -> bool:
    """Whether a fact is kept from the probes' training: half of all, by a hash."""
    return bool(blake2b(f"{seed} {fact}".encode(), digest_size=1).digest()[0] & 1)


def probe(train_ND: Floats, labels_N: Labels, test_MD: Floats) -> Labels:
    """Labels of test states, (M,), by linear discriminants of standardized states: in closed form, as there are
    thousands of probes."""
    from sklearn import config_context  # a second that no other command needs
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if len(np.unique(labels_N)) == 1:
        return np.full(len(test_MD), labels_N[0])
    mean_D, scale_D = train_ND.mean(axis=0, dtype=float), train_ND.std(axis=0, dtype=float) + 1e-6
    with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):  # small matrices
        fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-3).fit((train_ND - mean_D) / scale_D, labels_N)
        predicted: Labels = fitted.predict((test_MD - mean_D) / scale_D)
    return predicted


def hits(state_PD: Floats, label_P: Labels, value_P: Labels, test_P: Labels) -> list[list[int]]:
    """Of the test examples with each value: how many a probe that is fitted on the others labels right, and how many
    have the most common label of the others."""
    labels, counts = np.unique(label_P[~test_P], return_counts=True)
    found = probe(state_PD[~test_P], label_P[~test_P], state_PD[test_P]), labels[counts.argmax()]
    index = np.unique(value_P[test_P], return_inverse=True)[1]
    return [np.bincount(index, label_P[test_P] == each).astype(int).tolist() for each in found]


def control(label_P: Labels, value_P: Labels, seed: int) -> Labels:
    """The labels of the control task, (P,): a random one for each value, each for about as many examples as it has in
    `label_P`."""
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
    rows, places_PK = network.encoded(problems, texts), []
    for row, text, characters in zip(rows, texts, characters_PK, strict=True):
        token = token_of(network.tokenizer, text)
        places_PK.append([len(row) - 1 - token[-1] + token[character] for character in characters])
    tokens_PK = np.array([[row[place] for place in places] for row, places in zip(rows, places_PK, strict=True)])
    return tokens_PK, states(network.model, rows, places_PK, layers).numpy()


def measure(case: Case) -> Iterator[Row]:
    """A row for each network, place, target and layer; none where steps do not add or subtract.

    The labels of `shuffled` are those of one more control task: what no network can know.
    """
    chosen = examples(case) if case.exact else []
    if len(chosen) < FEWEST:
        return
    problems = [problem for problem, _ in chosen]
    for name, network in case.networks.items():
        layers, language, begin = layers_of(network.model, case.layers), case.language(network), network.begin
        lines = [written(each.steps, language) for each in problems]
        seen = [looks(each, step, own, len(begin)) for (each, step), own in zip(chosen, lines, strict=True)]
        texts = [begin + "\n".join(own) + network.marks.end + network.marks.answer for own in lines]
        characters = [[look.character for look in each.values()] for each in seen]
        tokens_PK, states_LPKD = read(network, problems, texts, characters, layers)
        for k, place in enumerate(seen[0]):
            here = [each[place] for each in seen]
            test_P = np.array([is_test(look.fact, case.seed) for look in here])
            for what in here[0].targets:
                label_P, value_P = np.array([look.targets[what] for look in here]).T
                shuffled, *controls = (control(label_P, value_P, case.seed + draw) for draw in range(DRAWS + 1))
                known = {
                    "trivial": len({*zip(tokens_PK[:, k], label_P, strict=True)}) == len({*tokens_PK[:, k]}),
                    "n": np.unique(value_P[test_P], return_counts=True)[1].tolist(),
                }
                for layer, state_PKD in zip(layers, states_LPKD, strict=True):
                    each = partial(hits, state_PKD[:, k], value_P=value_P, test_P=test_P)
                    found = {"task": each(label_P), "shuffled": each(shuffled), "control": [each(c) for c in controls]}
                    yield {"network": name, "layer": layer, "place": place, "what": what, **known, **found}


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """Accuracy, control and selectivity of each probe, and AFTER - BEFORE of the accuracy, of the same test examples.

    p-values are adjusted for all differences (Holm); probes of a token that is the label itself are left out.
    """
    cells, found = [], {}
    for row in rows:
        n_V = np.array(row["n"])
        right_V, usual_V = np.array(row["task"]) / n_V
        null_V, null_usual_V = np.array(row["shuffled"]) / n_V
        memory_V, memory_usual_V = np.mean(row["control"], axis=0) / n_V
        found[row["network"], row["layer"], row["place"], row["what"]] = right_V
        figures = {
            "majority": round(float(usual_V.mean()), 6),
            "accuracy": share(right_V, round(n_V.mean())),
            "control": share(memory_V, round(n_V.mean())),
            "selectivity": gap(memory_V - memory_usual_V, right_V - usual_V),
            "shuffled": gap(memory_V - memory_usual_V, null_V - null_usual_V),
        }
        cells.append({name: row[name] for name in ("network", "layer", "place", "what", "trivial")} | figures)
    compared = [cell for cell in cells if cell["network"] == BEFORE and not cell["trivial"]]
    keys = [(cell["layer"], cell["place"], cell["what"]) for cell in compared]
    pairs = [(found[BEFORE, *key], found[AFTER, *key]) for key in keys]
    differences = []
    for key, pair, p_value in zip(keys, pairs, stats.holm([stats.permutation_p(*pair) for pair in pairs]), strict=True):
        interval = stats.paired_difference(*pair)
        tested = {"difference": figure(interval), "p_adjusted": p_value, "verdict": stats.verdict(interval, p_value)}
        differences.append(dict(zip(("layer", "place", "what"), key, strict=True)) | tested)
    return {"n_test": min((sum(row["n"]) for row in rows), default=0), "cells": cells, "differences": differences}
