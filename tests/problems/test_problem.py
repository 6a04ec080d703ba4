"""Splits: a function of the canonical key, and nothing held out is taught."""

from collections import Counter
from typing import get_args

import pytest

from r1_mini.problems.families import solve
from r1_mini.problems.problem import Problem, Split, is_held_out, may_teach, split_of


def test_splits_of_known_keys_never_change() -> None:
    assert split_of("12+7-3") == split_of("16+38-7") == "base"
    assert split_of("24*37") == split_of("13+8-5") == "train"
    assert split_of("8-3") == "dev"
    assert split_of("5") == "test"


def test_shares_of_the_splits_are_fifty_thirty_ten_and_ten_percent() -> None:
    counts = Counter(split_of(f"{a}+{b}") for a in range(200) for b in range(100))
    expected = {"base": 10_000, "train": 6_000, "dev": 2_000, "test": 2_000}
    assert counts == pytest.approx(expected, abs=240)  # 3.4 standard errors


def test_commuted_operands_have_one_key_and_so_one_split() -> None:
    for question, commuted in [("12+7-3", "7-3+12"), ("37*24", "24*37"), ("(1+2)*3", "3 * (2+1)")]:
        assert solve(question).key == solve(commuted).key


@pytest.mark.parametrize(
    ("key", "inside", "teaches"),
    [
        ("12+7-3", [], ["base"]),
        ("12+7-3", ["16+38-7", "24*37"], ["base"]),
        ("12+7-3", ["16+38-7", "8-3"], []),  # a dev problem is solved on the way
        ("12+7-3", ["5"], []),
        ("24*37", ["5"], []),
        ("8-3", ["12+7-3"], ["dev"]),
    ],
)
def test_a_problem_may_teach_only_in_its_own_split_and_only_without_held_out_problems_inside(
    key: str, inside: list[str], teaches: list[str]
) -> None:
    problem = Problem(family="sum", question=key, answer="", difficulty={}, key=key, inside=frozenset(inside))
    assert [split for split in get_args(Split) if may_teach(problem, split)] == teaches


def test_dev_and_test_are_held_out() -> None:
    assert [is_held_out(key) for key in ("12+7-3", "24*37", "8-3", "5")] == [False, False, True, True]


def test_problems_can_be_hashed_and_compared() -> None:
    assert len({solve("12+7"), solve("12 + 7"), solve("7+12")}) == 2
