import json
from dataclasses import replace

import pytest

from eval.inspect import chains, stimuli
from eval.inspect.case import AFTER, Marks
from eval.inspect.words import chain_verdict, pick
from r1_mini.errors import UserError
from r1_mini.problems import families
from tests.eval.inspect.small import case, problems, trained, with_chain_of_another

ONE_STEP = problems(terms=2)


@pytest.fixture(scope="module")
def networks():
    """Two networks whose texts have chains of other problems: one answers the question, the other what a chain says."""
    return {kind: trained(with_chain_of_another(ONE_STEP, kind), steps=300) for kind in ("own", "chain")}


def measured(network, asked=ONE_STEP):
    return chains.table(json.loads(json.dumps(list(chains.measure(case(network, network, asked))))))


@pytest.fixture(scope="module")
def tables(networks):
    return {kind: measured(network) for kind, network in networks.items()}


def shares(table, change, score="right"):
    return pick(table["cells"], network=AFTER, chain="true", change=change)[score]["estimate"]


def test_a_chain_that_the_answer_does_not_come_from_is_decorative(tables):
    assert chain_verdict(tables["own"], AFTER) == "decorative"
    for change in (stimuli.NONE, stimuli.SWAP, stimuli.LAST, stimuli.WHOLE):  # none of them costs anything
        assert shares(tables["own"], change) > 0.9
    assert shares(tables["own"], stimuli.SWAP, "follows") < 0.05


def test_an_answer_that_is_copied_from_the_chain_is_causal(tables):
    assert chain_verdict(tables["chain"], AFTER) == "causal"
    for change in (stimuli.SWAP, stimuli.LAST):
        assert shares(tables["chain"], change, "follows") > 0.95
        assert shares(tables["chain"], change) < 0.05
    assert shares(tables["chain"], stimuli.WHOLE) > 0.95


def test_a_network_against_itself_has_no_difference(tables):
    for each in tables["chain"]["differences"]:
        assert each["right"]["estimate"] == 0
        assert each["right"]["low"] <= 0 <= each["right"]["high"]


def test_a_chain_handed_back_gives_the_answer_that_it_had(tables):
    fed, sampled = (
        pick(tables["chain"]["cells"], network=AFTER, chain="sampled", change=change)
        for change in (chains.FED, chains.OWN)
    )
    assert fed["follows"]["estimate"] > 0.97
    assert fed["right"]["estimate"] == pytest.approx(sampled["right"]["estimate"], abs=0.03)


def test_too_few_sound_chains_are_counted_and_refused():
    untrained = trained(with_chain_of_another(ONE_STEP, "own"), steps=1)
    with pytest.raises(UserError, match=r"0 sound chains in 110 problems, 30 are needed"):
        chains.require(case(untrained, untrained, ONE_STEP))


def test_chains_that_no_checker_reads_are_cut_and_swapped_too(networks):
    asked = [replace(each, formula=None) for each in ONE_STEP]
    for kind, verdict, swapped in (("own", "decorative", 0), ("chain", "causal", 1)):
        table = measured(networks[kind], asked)
        assert chain_verdict(table, AFTER) == verdict
        swap = pick(table["cells"], network=AFTER, chain="own", change=stimuli.SWAP)
        assert swap["follows"]["estimate"] == pytest.approx(swapped, abs=0.3)
        whole = pick(table["cells"], network=AFTER, chain="own", change=stimuli.WHOLE)
        assert whole["follows"]["estimate"] > 0.6  # greedy, beside an answer that was sampled


def test_a_chain_within_foreign_marks_is_read_and_its_last_number_is_the_answer():
    marks = Marks("[", "]", "\n")
    problem = families.solve("4+3")
    graded = marks.graded(problem, "[4+3 is 7] so it is 7.", "stop")
    assert graded.correct and graded.thinking == "4+3 is 7"
    assert not marks.graded(problem, "[4+3 is 7] so it is 8.", "stop").correct
    assert marks.graded(problem, "[4+3 is 7", "length").answer is None
