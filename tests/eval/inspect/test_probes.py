"""Linear probes on planted codes, on labels without meaning, and on networks whose states are known."""

import re
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from eval.analysis.stats import wilson
from eval.inspect.case import AFTER, BEFORE, Case, Marks, Network, Written
from eval.inspect.probes import DRAWS, carries, control, examples, hits, is_test, looks, measure, probe, table
from r1_mini.completion import grade, write
from r1_mini.data.mix import draw, source_of
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.arithmetic import canonical_key, parse
from r1_mini.problems.families.sum import Sum
from r1_mini.problems.languages import written


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
        found, usual = hits(states, labels, 10 * tens + ones, test)
        assert len(found) == len(usual) == len({*zip(tens[test], ones[test], strict=True)})
        assert sum(found) / test.sum() >= 0.99 and sum(usual) / test.sum() < 0.15


def nulls(states, labels, values, test, draws):
    """Selectivities of labels that are drawn for each value, each from the mean of others, as in the rows."""
    shuffled = [control(labels, values, seed) for seed in range(draws)]
    found = [hits(states, each, values, test) for each in shuffled]
    n = np.unique(values[test], return_counts=True)[1].tolist()
    for one in range(0, draws, DRAWS + 1):
        first, *others = found[one : one + DRAWS + 1]
        row = {"network": AFTER, "layer": 0, "place": "=", "what": "ones", "trivial": False}
        (cell,) = table([{**row, "n": n, "task": first, "shuffled": first, "control": others}])["cells"]
        assert cell["selectivity"] == cell["shuffled"]
        yield cell["selectivity"]


@pytest.fixture(scope="module")
def planted():
    """States that hold the value, labels and values of some more common than others, and which are tested."""
    rng = np.random.default_rng(0)
    values = rng.permutation(np.repeat(np.arange(10, 100), rng.integers(5, 40, 90)))
    code = rng.normal(size=(100, 48))
    states = (code[values] + rng.normal(size=(len(values), 48))).astype(np.float32)
    return states, values % 10, values, rng.random(len(values)) < 0.5


def test_shuffled_labels_have_selectivity_0_within_the_interval_though_they_are_learned_by_heart(planted):
    states, labels, values, test = planted
    found, usual = hits(states, control(labels, values, 0), values, test)
    assert sum(found) > 2 * sum(usual)
    cells = list(nulls(*planted, draws=20 * (DRAWS + 1)))
    holding = [cell["low"] <= 0 <= cell["high"] for cell in cells]
    assert len(cells) == 20 and sum(holding) >= 18
    assert abs(np.mean([cell["estimate"] for cell in cells])) < 0.03


def test_where_all_states_are_alike_selectivity_is_0_whatever_the_most_common_label(planted):
    states, labels, values, test = planted
    alike = np.full_like(states, 0.1)
    for cell in nulls(alike, labels, values, test, draws=4 * (DRAWS + 1)):
        assert cell["estimate"] == 0 and -0.05 < cell["low"] < 0 < cell["high"] < 0.05


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


@pytest.mark.parametrize(("language", "signs"), [("signs", "+-="), ("words", (" plus ", " minus ", " is "))])
def test_places_and_labels_of_a_problem_by_hand(language, signs):
    plus, minus, equals = signs
    text = f"<think>47{plus}25{equals}72\n72{minus}13{equals}59</think><answer>"
    problem = solved("47+25-13")
    found = looks(problem, 1, written(problem.steps, language), len("<think>"))
    assert {name: text[: look.character] + text[look.character] for name, look in found.items()} == {
        "prompt end": "<think>",
        "=": f"<think>47{plus}25{equals}72\n72{minus}13{equals}",
        "first digit": f"<think>47{plus}25{equals}72\n72{minus}13{equals}5",
        "answer": text,
    }
    assert found["prompt end"].targets == {"first tens": (7, 72), "answer tens": (5, 59), "answer ones": (9, 59)}
    assert found["="].targets == {"tens": (5, 59), "ones": (9, 59), "carry": (1, 59)}
    assert found["answer"].targets == {"answer tens": (5, 59), "answer ones": (9, 59)}
    assert (found["="].fact, found["answer"].fact) == ("72-13", canonical_key(parse("47+25")))


@pytest.mark.parametrize(("most", "other"), [("words", "signs"), ("signs", "words"), ("mixed", "signs")])
def test_chains_are_written_in_the_language_of_most_steps_of_a_few_own_ones(case, most, other):
    def answer(problems, voice, longest):
        chains = [written(each.steps, other if n % 4 == 0 else most) for n, each in enumerate(problems)]
        texts = [write(chain, each.answer) for chain, each in zip(chains, problems, strict=True)]
        return [[Written(t, (), grade(each, t, "stop"))] for t, each in zip(texts, problems, strict=True)]

    asked = replace(case, problems=[solved("47+25+13")] * 40 + [solved("72-13-9-1-1")], share=1.0)
    assert asked.language(SimpleNamespace(answer=answer)) == ("words" if most == "words" else "signs")


def test_commuted_operands_are_one_fact_and_half_of_the_facts_are_kept_for_the_test():
    one, other = (looks(each, 0, each.steps, 7) for each in map(solved, ("47+25-13", "25+47-13")))
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


def test_sums_and_differences_of_any_family_are_examples(case):
    learned = list(islice(draw([source_of({"family": "expression", "operators": "+-*"})], "train", 0), 600))
    chosen = examples(replace(case, learned=learned, share=1.0))
    assert {re.sub(r"\d", "", problem.steps[0]) for problem, _ in chosen} == {"*=", "+=", "-="}
    assert {re.sub(r"\d", "", problem.steps[step]) for problem, step in chosen} == {"+=", "-="}


def test_a_token_that_is_the_label_is_read_off_its_embedding_and_marked(rows):
    (row,) = (
        r for r in rows if (r["network"], r["layer"], r["place"], r["what"]) == (BEFORE, -1, "first digit", "tens")
    )
    assert row["trivial"] and row["task"][0] == row["n"]
    assert {(r["place"], r["what"]) for r in rows if r["trivial"]} == {("first digit", "tens")}


def test_where_every_state_is_alike_a_probe_guesses_the_most_common_label(rows):
    alike = [row for row in rows if row["layer"] == -1 and row["place"] != "first digit"]
    assert len(alike) == 2 * 8
    for row in alike:
        for found, usual in (row["task"], row["shuffled"], *row["control"]):
            assert found == usual
    for cell in table(alike)["cells"]:
        assert cell["selectivity"]["estimate"] == 0 and cell["accuracy"]["estimate"] == pytest.approx(cell["majority"])


def test_rows_count_test_examples_by_value(rows):
    for row in rows:
        assert len(row["control"]) == DRAWS
        for counts in (row["task"][0], row["task"][1], row["shuffled"][0], row["control"][0][0]):
            assert len(counts) == len(row["n"]) <= 90
            assert all(0 <= hit <= n for hit, n in zip(counts, row["n"], strict=True))
        assert 300 < sum(row["n"]) < 500
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
        where = {"network": network, "layer": 0, "place": "=", "what": what, "trivial": trivial}
        task, control = [hits, [1] * 8], [[[2, 0] * 4, [1, 0] * 4]] * DRAWS
        return {**where, "n": [2] * 8, "task": task, "shuffled": [[1] * 8, [1] * 8], "control": control}

    none, every, half = [0] * 8, [2] * 8, [2] * 6 + [0] * 2
    rows = [row(BEFORE, "tens", none), row(BEFORE, "ones", half), row(BEFORE, "carry", every, True)]
    rows += [row(AFTER, "tens", every), row(AFTER, "ones", half[::-1]), row(AFTER, "carry", none, True)]
    found = table(rows)
    assert found["n_test"] == 16
    tens = found["cells"][3]
    assert (tens["accuracy"]["estimate"], tens["control"]["estimate"], tens["majority"]) == (1, 0.5, 0.5)
    assert tens["selectivity"]["estimate"] == 0.25  # 1 - .5, less .5 - .25
    assert tens["shuffled"]["estimate"] == -0.25  # .5 - .5, less .5 - .25
    tens, ones = found["differences"]  # the trivial one is left out
    assert (tens["what"], tens["difference"]["estimate"], tens["verdict"]) == ("tens", 1.0, "shown")
    assert tens["p_adjusted"] == pytest.approx(2 * 2 / 2**8)  # one of two tests
    assert (ones["difference"]["estimate"], ones["p_adjusted"], ones["verdict"]) == (0.0, 1.0, "not shown")
