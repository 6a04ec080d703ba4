import random

import pytest

from eval.exam.suite import load_suite
from eval.inspect import stimuli
from r1_mini.problems import families


def changed(question, seed=0, most=99):
    problem, other = families.solve(question), families.solve("7-2+3")
    return {each.name: each for each in stimuli.changes(problem, problem.steps, other, most, seed)}


def test_changes_of_a_chain_are_what_they_say():
    found = changed("12+7-3")
    assert found[stimuli.WHOLE].lines == ("12+7=19", "19-3=16")
    assert [found[name].lines for name in stimuli.CUTS if name in found] == [(), ("12+7=19",)]  # 50 and 75 % cut alike
    assert [found[name].implied for name in stimuli.CUTS if name in found] == [None, "19"]
    assert found[stimuli.FILLER].lines == ("0000000", "0000000")
    assert (found[stimuli.SWAP].lines, found[stimuli.SWAP].implied) == (("7-2=5", "5+3=8"), "8")
    first = found[stimuli.FIRST]
    value = int(first.lines[0].removeprefix("12+7="))
    assert 10 <= value <= 99 and value != 19 and not first.answers
    assert first.implied == str(value - 3)
    assert found[stimuli.REST].lines == (first.lines[0], "19-3=16") and found[stimuli.REST].implied == "16"
    operation, _, result = found[stimuli.OPERAND].lines[0].partition("=")
    assert result == "19" and operation.endswith("+7") and operation != "12+7"
    assert found[stimuli.LAST].lines[0] == "12+7=19" and found[stimuli.LAST].implied not in ("16", None)


def test_a_replaced_value_keeps_its_digits_and_its_future_within_bounds():
    problem = families.solve("50+40-85+9")  # 90, 5, 14: of two digits only 85..99 keep all totals within 0..99
    for seed in range(20):
        assert 85 <= int(stimuli.replacement(problem, problem.steps, 0, 99, random.Random(seed))) <= 99
    assert stimuli.replacement(families.solve("90+9-99"), ("90+9=99", "99-99=0"), 0, 99, random.Random(0)) is None


def test_what_a_false_line_implies_is_computed_from_what_stands():
    problem = families.solve("12+7-3+20")
    assert stimuli.implied(problem, ["12+7=18"]) == "35"
    assert stimuli.implied(problem, ["12+7=19", "19-3=11"]) == "31"


def test_chains_are_swapped_among_those_of_equal_length_with_another_answer():
    asked = [families.solve(question) for question in ("1+2", "2+1", "1+2+3", "4+4", "3+3")]
    partners = stimuli.swapped(asked)
    assert [each and each.question for each in partners] == ["4+4", "4+4", None, "3+3", "1+2"]


def test_values_stay_within_what_the_family_has_in_its_chains():
    asked = [families.solve(question) for question in ("12+7-3", "37*24", "(2+3)*4")]
    assert stimuli.largest(asked) == {"sum": 19, "product": 888, "expression": 20}


def test_a_division_by_zero_on_the_way_is_no_future():
    problem = families.solve("29/(76/76)")
    assert stimuli.replacement(problem, problem.steps, 0, 99, random.Random(0)) in {None, "1"}
    assert not stimuli.within(("/", 5, ("-", 3, 3)), 99)


@pytest.mark.parametrize("family", ["sum", "expression", "product"])
def test_every_problem_of_the_default_exam_can_be_changed(family):
    problems = [each.problem for each in load_suite("arithmetic", families=[family], limit=200)[1]]
    most, partners = stimuli.largest(problems), stimuli.swapped(problems)
    for problem, other in zip(problems, partners, strict=True):
        found = {each.name: each for each in stimuli.changes(problem, problem.steps, other, most[family], 0)}
        assert found[stimuli.WHOLE].implied == problem.answer
        if stimuli.FIRST in found:
            first = found[stimuli.FIRST]
            assert first.lines[0] != problem.steps[0] and first.implied is not None
            assert 0 <= int(first.implied) <= most[family]
