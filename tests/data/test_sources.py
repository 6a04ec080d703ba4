"""Streams and exams: deterministic, balanced over depth, and disjoint between splits."""

from collections import Counter
from itertools import islice

import pytest

from r1_mini.data.mix import draw
from r1_mini.data.source import FamilySource
from r1_mini.problems.problem import Problem, may_teach, split_of

SUM = {"family": "sum", "terms": [2, 6], "largest": 99}
PRODUCT = {"family": "product", "digits": 2}
EXPRESSION = {"family": "expression", "depth": [1, 4]}


def specs(*entries: dict) -> list[FamilySource]:
    return [FamilySource.model_validate(entry) for entry in entries]


def first(n: int, split, seed: int = 0, entries=(SUM, PRODUCT, EXPRESSION)) -> list[Problem]:
    return list(islice(draw(specs(*entries), split, seed), n))


@pytest.mark.parametrize("split", ["base", "train", "dev"])
def test_nothing_drawn_for_learning_is_or_solves_a_held_out_problem(split) -> None:
    for problem in first(3000, split):
        assert split_of(problem.key) == split
        assert not {split_of(key) for key in problem.inside} & {"dev", "test"}
        assert may_teach(problem, split)


def test_no_test_problem_is_in_any_stream_and_seeds_do_not_matter() -> None:
    tested = {
        problem.key
        for spec in specs(SUM, PRODUCT, EXPRESSION)
        for problem in spec.exam("test", 200, seed=0, min_depth=2)
    }
    seen = {
        key
        for split in ("base", "train", "dev")
        for seed in range(3)
        for problem in first(1500, split, seed)
        for key in (problem.key, *problem.inside)
    }
    assert len(seen) > 5000
    assert not tested & seen


def test_the_splits_of_the_streams_share_no_problem() -> None:
    keys = {split: {problem.key for problem in first(1500, split)} for split in ("base", "train", "dev", "test")}
    for split, own in keys.items():
        assert not any(own & other for name, other in keys.items() if name != split)


def test_the_same_seed_draws_the_same_problems_and_another_seed_draws_others() -> None:
    assert first(200, "base", seed=1) == first(200, "base", seed=1)
    assert first(200, "base", seed=1) != first(200, "base", seed=2)
    assert next(draw(specs(SUM), "base", seed=0)).question == "33+66-25+1-56"  # the same in every process


def test_every_depth_is_equally_frequent_although_deep_problems_are_rejected_more_often() -> None:
    for split in ("base", "test"):
        counts = Counter(problem.difficulty["depth"] for problem in first(5000, split, entries=(SUM,)))
        assert counts.keys() == {1, 2, 3, 4, 5}
        assert all(abs(count / 5000 - 0.2) < 0.02 for count in counts.values())  # 3.5 standard errors


def test_weights_are_the_shares_of_the_entries() -> None:
    entries = ({**SUM, "weight": 3.0}, {**PRODUCT, "weight": 1.0})
    counts = Counter(problem.family for problem in first(4000, "base", entries=entries))
    assert abs(counts["sum"] / 4000 - 0.75) < 0.025


def test_an_exam_has_distinct_problems_of_its_split_evenly_over_the_depths() -> None:
    problems = specs(SUM)[0].exam("test", 400, seed=0, min_depth=2)
    assert len({problem.key for problem in problems}) == 400
    assert {split_of(problem.key) for problem in problems} == {"test"}
    assert Counter(problem.difficulty["depth"] for problem in problems) == {2: 100, 3: 100, 4: 100, 5: 100}
    assert problems == specs(SUM)[0].exam("test", 400, seed=0, min_depth=2)
    assert problems[:100] == specs(SUM)[0].exam("test", 100, seed=0, min_depth=2)


def test_an_exam_does_not_ask_what_is_used_already() -> None:
    used = {problem.key for problem in specs(SUM)[0].exam("test", 100, seed=0)}
    assert not used & {problem.key for problem in specs(SUM)[0].exam("test", 100, seed=0, used=used)}


def test_an_exam_on_dev_holds_dev_problems_and_leaves_test_alone() -> None:
    assert {split_of(problem.key) for problem in specs(EXPRESSION)[0].exam("dev", 100, seed=0)} == {"dev"}


def test_an_exam_that_its_problems_cannot_fill_names_the_depth() -> None:
    with pytest.raises(ValueError, match=r"'product', 'digits': \[1, 1\].* no further test problem of depth 1 .*fewer"):
        specs({"family": "product", "digits": 1})[0].exam("test", 100, seed=0)
    with pytest.raises(ValueError, match="no problem of depth 9 or more"):
        specs(SUM)[0].exam("test", 10, seed=0, min_depth=9)


def test_an_entry_reads_its_axes_and_writes_them_flat() -> None:
    (spec,) = specs({"family": "sum", "terms": 3, "weight": 2})
    assert spec.weight == 2.0
    flat = {
        "family": "sum",
        "terms": [3, 3],
        "digits": 2,
        "operators": "+-",
        "largest": None,
        "carry": False,
        "weight": 2.0,
    }
    assert spec.model_dump() == flat
    assert FamilySource.model_validate(flat) == spec


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"family": "sums"}, "unknown family 'sums'; nearest known: 'sum'"),
        ({"family": "expresion"}, "unknown family 'expresion'; nearest known: 'expression'"),
        ({"family": ["sum"]}, "unknown family"),
        ({}, "unknown family None"),
        ({"family": "sum", "term": [2, 6]}, "unknown axis 'term' of family sum; nearest known: 'terms'"),
        ({"family": "sum", "wieght": 1}, "unknown axis 'wieght' of family sum; nearest known: 'weight'"),
        ({"family": "product", "digit": 2}, "unknown axis 'digit' of family product; nearest known: 'digits'"),
        ({"family": "sum", "terms": [5, 1]}, "terms [5, 1]: the first is larger than the second"),
        ({"family": "sum", "digits": "two"}, "digits 'two': "),
        ({"family": "sum", "digits": 0, "terms": [5, 1]}, "larger than the second; digits 0: must lie"),
        ({"family": "sum", "weight": 0}, "greater than 0"),
        ({"family": "sum", "weight": float("inf")}, "finite"),
        ("sum", "give a mapping"),
    ],
)
def test_a_wrong_entry_is_refused_with_the_nearest_known_name(entry, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        FamilySource.model_validate(entry)
    assert message in str(refusal.value)
