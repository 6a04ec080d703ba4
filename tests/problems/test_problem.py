"""Splits: a function of the canonical key, and nothing held out is taught."""

from collections import Counter
from typing import get_args

import pytest

from r1_mini.problems.problem import Problem, Split, may_teach, split_of


def test_splits_of_known_keys_never_change_and_have_fifty_thirty_ten_and_ten_percent() -> None:
    known = {"12+7-3": "base", "16+38-7": "base", "24*37": "train", "13+8-5": "train", "8-3": "dev", "5": "test"}
    assert {key: split_of(key) for key in known} == known
    counts = Counter(split_of(f"{a}+{b}") for a in range(200) for b in range(100))
    expected = {"base": 10_000, "train": 6_000, "dev": 2_000, "test": 2_000}
    assert counts == pytest.approx(expected, abs=240)  # 3.4 standard errors


def test_a_problem_may_teach_only_in_its_own_split_and_only_without_held_out_problems_inside() -> None:
    for key, inside, teaches in (
        ("12+7-3", [], ["base"]),
        ("12+7-3", ["16+38-7", "24*37"], ["base"]),
        ("12+7-3", ["16+38-7", "8-3"], []),  # a dev problem is solved on the way
        ("12+7-3", ["5"], []),
        ("24*37", ["5"], []),
        ("8-3", ["12+7-3"], ["dev"]),
    ):
        problem = Problem(family="sum", question=key, answer="", difficulty={}, key=key, inside=frozenset(inside))
        assert [split for split in get_args(Split) if may_teach(problem, split)] == teaches
