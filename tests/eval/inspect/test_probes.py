"""Linear probes on planted codes, on labels without meaning, and on networks whose states are known."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from eval.analysis.stats import wilson
from eval.inspect.case import AFTER, BEFORE, Case, Marks, Network
from eval.inspect.figures import bits, unbits
from eval.inspect.probes import carries, control, examples, hits, is_test, looks, measure, probe, table
from r1_mini.data.mix import draw, source_of
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.arithmetic import canonical_key, parse
from r1_mini.problems.families.sum import Sum


def solved(question):
    return Sum().problem(parse(question))


@pytest.fixture(scope="module")
def case():
    tokenizer = make_tokenizer()
    networks = {
        name: Network(
            make_model(tokenizer, hidden_size=32, layers=2, heads=2, intermediate_size=64, seed=seed).eval(), tokenizer
        )
        for seed, name in enumerate((BEFORE, AFTER))
    }
    source = source_of({"family": "sum", "terms": [2, 6], "digits": 2, "largest": 99})
    learned = list(islice(draw([source], "train", 0), 2_000))
    return Case(networks, learned[:3], learned, share=0.2)


@pytest.fixture(scope="module")
def rows(case):
    return list(measure(replace(case, layers=(0,))))


def test_a_planted_linear_code_is_found_in_values_that_were_never_seen():
    rng = np.random.default_rng(0)
    tens, ones = rng.integers(0, 10, (2, 2_000))
    code = rng.normal(size=(20, 32))
    states = (code[tens] + code[10 + ones] + 0.05 * rng.normal(size=(2_000, 32))).astype(np.float32)
    test = (tens + ones) % 2 == 1  # no value is on both sides
    for labels in (tens, ones):
        assert unbits(hits(states, labels, test)).mean() >= 0.99


def test_shuffled_labels_are_found_as_often_as_by_guessing():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(4_000, 32)).astype(np.float32)
    labels = np.argsort(np.argsort(states[:, 0])) // 400  # 0 to 9, equally many
    assert (probe(states[:2_000], labels[:2_000], states[2_000:]) == labels[2_000:]).mean() > 0.5
    found = probe(states[:2_000], rng.permutation(labels[:2_000]), states[2_000:]) == labels[2_000:]
    assert wilson(found.sum(), 2_000).low <= 0.1 <= wilson(found.sum(), 2_000).high


def test_one_label_alone_is_all_that_a_probe_can_say():
    states = np.eye(4, dtype=np.float32)
    assert probe(states, np.array([3, 3, 3, 3]), states[:2]).tolist() == [3, 3]


def test_the_control_is_a_function_of_the_value_with_labels_as_common_as_those_of_the_task():
    values = np.repeat(np.arange(10, 100), 40)
    tens = values // 10
    drawn = control(tens, values, seed=0)
    assert all(len(set(drawn[values == value])) == 1 for value in values)
    assert np.bincount(drawn)[1:].tolist() == [400] * 9
    assert 0.02 < (drawn == tens).mean() < 0.25  # by chance 1 in 9
    assert (drawn != control(tens, values, seed=1)).any()


@pytest.mark.parametrize(
    ("step", "expected"),
    [("47+25", 1), ("42+25", 0), ("45+25", 1), ("44+25", 0), ("52-27", 1), ("57-22", 0), ("55-25", 0), ("54-25", 1)],
)
def test_carry_and_borrow_by_hand(step, expected):
    assert carries(int(step[:2]), step[2], int(step[3:])) == expected


def test_places_and_labels_of_a_problem_by_hand():
    text = "<think>47+25=72\n72-13=59</think><answer>"
    found = looks(solved("47+25-13"), 1, text)
    assert {name: text[: look.character + 1] for name, look in found.items()} == {
        "prompt end": "<think>",
        "=": "<think>47+25=72\n72-13=",
        "first digit": "<think>47+25=72\n72-13=5",
        "answer": text,
    }
    assert found["prompt end"].targets == {"first tens": (7, 72), "answer tens": (5, 59), "answer ones": (9, 59)}
    assert found["="].targets == {"tens": (5, 59), "ones": (9, 59), "carry": (1, 59)}
    assert found["answer"].targets == {"answer tens": (5, 59), "answer ones": (9, 59)}
    assert (found["="].fact, found["answer"].fact) == ("72-13", canonical_key(parse("47+25")))


def test_commuted_operands_are_one_fact_and_half_of_the_facts_are_kept_for_the_test():
    texts = [f"<think>{line}\n72-13=59</think><answer>" for line in ("47+25=72", "25+47=72")]
    one, other = (looks(solved(q), 0, text) for q, text in zip(("47+25-13", "25+47-13"), texts, strict=True))
    assert one["="].fact == other["="].fact
    kept = [is_test(f"{left}+{right}", seed=0) for left in range(50) for right in range(50)]
    assert 0.47 < np.mean(kept) < 0.53
    assert kept != [is_test(f"{left}+{right}", seed=1) for left in range(50) for right in range(50)]


def test_examples_are_different_problems_of_two_digit_values_and_share_no_fact_across_the_split(case):
    chosen = examples(case)
    assert len(chosen) == 800
    assert len({problem.key for problem, _ in chosen}) == 800
    sides = {False: set(), True: set()}
    for problem, step in chosen:
        values = problem.steps[0].rpartition("=")[2], problem.steps[step].rpartition("=")[2], problem.answer
        assert all(10 <= int(value) <= 99 for value in values)
        fact = problem.steps[step].partition("=")[0]
        sides[is_test(canonical_key(parse(fact)), case.seed)].add(fact)
    assert not sides[False] & sides[True]
    assert len({step for _, step in chosen}) == 5


def test_a_token_that_is_the_label_is_read_off_its_embedding_and_marked(rows):
    (row,) = (
        r for r in rows if (r["network"], r["layer"], r["place"], r["what"]) == (BEFORE, -1, "first digit", "tens")
    )
    assert row["trivial"] and set(row["hits"]) == {"1"}
    assert {(r["place"], r["what"]) for r in rows if r["trivial"]} == {("first digit", "tens")}


def test_where_every_state_is_alike_a_probe_guesses_the_most_common_label(rows):
    alike = [row for row in rows if row["layer"] == -1 and row["place"] != "first digit"]
    assert len(alike) == 2 * 8
    for row in alike:
        assert unbits(row["hits"]).mean() == pytest.approx(row["majority"], abs=1e-6)
        if "shuffled" in row:
            assert row["shuffled"] == row["hits"]


def test_one_target_of_each_place_has_shuffled_labels_and_all_have_as_many_examples(rows):
    for row in rows:
        assert len(row["hits"]) == len(row["control"]) == 800 - row["n_train"]
        assert ("shuffled" in row) == row["what"].endswith("ones")
    assert {row["layer"] for row in rows} == {-1, 0}


def test_the_same_case_gives_the_same_rows(case, rows):
    assert list(measure(replace(case, layers=(0,)))) == rows


def test_only_chains_in_our_form_that_add_and_subtract_are_probed(case):
    foreign = {name: replace(each, marks=Marks("<a>", "</a>")) for name, each in case.networks.items()}
    assert list(measure(replace(case, networks=foreign))) == []
    assert list(measure(replace(case, learned=case.learned[:50]))) == []
    assert table([]) == {"n_test": 0, "cells": [], "differences": []}


def test_the_table_sets_accuracy_beside_its_control_and_tests_all_differences_together():
    def row(network, what, hits, trivial=False):
        where = {"network": network, "layer": 0, "place": "=", "what": what}
        return {**where, "n_train": 8, "majority": 0.5, "trivial": trivial, "hits": hits, "control": bits([1, 0] * 4)}

    rows = [row(BEFORE, "tens", "0" * 8), row(BEFORE, "ones", "1" * 6 + "00"), row(BEFORE, "carry", "1" * 8, True)]
    rows += [row(AFTER, "tens", "1" * 8), row(AFTER, "ones", "00" + "1" * 6), row(AFTER, "carry", "0" * 8, True)]
    found = table(rows)
    assert found["n_test"] == 8
    tens = found["cells"][3]
    assert (tens["accuracy"]["estimate"], tens["control"]["estimate"], tens["selectivity"]["estimate"]) == (1, 0.5, 0.5)
    assert tens["shuffled"] is None
    tens, ones = found["differences"]  # the trivial one is left out
    assert (tens["what"], tens["difference"]["estimate"], tens["verdict"]) == ("tens", 1.0, "shown")
    assert tens["p_adjusted"] == pytest.approx(2 * 2 / 2**8)  # one of two tests
    assert (ones["difference"]["estimate"], ones["p_adjusted"], ones["verdict"]) == (0.0, 1.0, "not shown")
