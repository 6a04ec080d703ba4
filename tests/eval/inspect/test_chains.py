import json
import random
from dataclasses import replace

import pytest

from eval.inspect import chains
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
    for change in (chains.NONE, chains.SWAP, chains.LAST, chains.WHOLE):  # none of them costs anything
        assert shares(tables["own"], change) > 0.9
    assert shares(tables["own"], chains.SWAP, "follows") < 0.05


def test_an_answer_that_is_copied_from_the_chain_is_causal(tables):
    assert chain_verdict(tables["chain"], AFTER) == "causal"
    for change in (chains.SWAP, chains.LAST):
        assert shares(tables["chain"], change, "follows") > 0.95
        assert shares(tables["chain"], change) < 0.05
    assert shares(tables["chain"], chains.WHOLE) > 0.95


def test_a_network_against_itself_has_no_difference(tables):
    for each in tables["chain"]["differences"]:
        assert each["right"]["estimate"] == 0
        assert each["right"]["low"] <= 0 <= each["right"]["high"]


def test_a_chain_handed_back_gives_the_answer_that_it_had(tables):
    fed, sampled = (
        pick(tables["chain"]["cells"], network=AFTER, chain="as sampled", change=change)
        for change in (chains.FED, chains.OWN)
    )
    assert fed["follows"]["estimate"] > 0.97
    assert fed["right"]["estimate"] == pytest.approx(sampled["right"]["estimate"], abs=0.03)


def changed(question, seed=0, most=99):
    problem, other = families.solve(question), families.solve("7-2+3")
    return {each.name: each for each in chains.changes(problem, problem.steps, other, most, seed)}


def test_changes_of_a_chain_are_what_they_say():
    found = changed("12+7-3")
    assert found[chains.WHOLE].lines == ("12+7=19", "19-3=16")
    assert [found[name].lines for name in chains.CUTS] == [(), (), ("12+7=19",), ("12+7=19",)]
    assert [found[name].implied for name in chains.CUTS] == [None, None, "19", "19"]
    assert found[chains.FILLER].lines == ("0000000", "0000000")
    assert (found[chains.SWAP].lines, found[chains.SWAP].implied) == (("7-2=5", "5+3=8"), "8")
    first = found[chains.FIRST]
    value = int(first.lines[0].removeprefix("12+7="))
    assert 10 <= value <= 99 and value != 19 and not first.answers
    assert first.implied == str(value - 3)
    assert found[chains.REST].lines == (first.lines[0], "19-3=16") and found[chains.REST].implied == "16"
    operation, _, result = found[chains.OPERAND].lines[0].partition("=")
    assert result == "19" and operation.endswith("+7") and operation != "12+7"
    assert found[chains.LAST].lines[0] == "12+7=19" and found[chains.LAST].implied not in ("16", None)


def test_a_replaced_value_keeps_its_digits_and_its_future_within_bounds():
    problem = families.solve("50+40-85+9")  # 90, 5, 14: of two digits only 85..99 keep all totals within 0..99
    for seed in range(20):
        assert 85 <= int(chains.replacement(problem, problem.steps, 0, 99, random.Random(seed))) <= 99
    assert chains.replacement(families.solve("90+9-99"), ("90+9=99", "99-99=0"), 0, 99, random.Random(0)) is None


def test_what_a_false_line_implies_is_computed_from_what_stands():
    problem = families.solve("12+7-3+20")
    assert chains.implied(problem, ["12+7=18"]) == "35"
    assert chains.implied(problem, ["12+7=19", "19-3=11"]) == "31"


def test_chains_are_swapped_among_those_of_equal_length_with_another_answer():
    asked = [families.solve(question) for question in ("1+2", "2+1", "1+2+3", "4+4", "3+3")]
    partners = chains.swapped(asked)
    assert [each.question for each in partners] == ["4+4", "4+4", "1+2+3", "3+3", "1+2"]


def test_too_few_sound_chains_are_counted_and_refused():
    untrained = trained(with_chain_of_another(ONE_STEP, "own"), steps=1)
    with pytest.raises(UserError, match=r"0 sound chains in 110 problems, 30 are needed"):
        chains.require(case(untrained, untrained, ONE_STEP))


def test_chains_that_no_checker_reads_are_cut_and_swapped_too(networks):
    asked = [replace(each, formula=None) for each in ONE_STEP]
    for kind, verdict, swapped in (("own", "decorative", 0), ("chain", "causal", 1)):
        table = measured(networks[kind], asked)
        assert chain_verdict(table, AFTER) == verdict
        swap = pick(table["cells"], network=AFTER, chain="own", change=chains.SWAP)
        assert swap["follows"]["estimate"] == pytest.approx(swapped, abs=0.3)
        whole = pick(table["cells"], network=AFTER, chain="own", change=chains.WHOLE)
        assert whole["follows"]["estimate"] > 0.6  # greedy, beside an answer that was sampled


def test_a_chain_within_foreign_marks_is_read_and_its_last_number_is_the_answer():
    marks = Marks("[", "]", "\n")
    problem = families.solve("4+3")
    graded = marks.graded(problem, "[4+3 is 7] so it is 7.", "stop")
    assert graded.correct and graded.thinking == "4+3 is 7" and graded.chain != "none"
    assert not marks.graded(problem, "[4+3 is 7] so it is 8.", "stop").correct
    assert marks.graded(problem, "[4+3 is 7", "length").answer is None
