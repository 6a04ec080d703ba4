"""Splits: a function of the canonical key, and nothing held out is taught."""

from collections import Counter

from r1_mini.problems.families import solve
from r1_mini.problems.problem import Problem, is_held_out, may_teach, split_of


def problem(key: str, inside: set[str]) -> Problem:
    return Problem(family="sum", question=key, answer="0", difficulty={"depth": 1}, key=key, inside=frozenset(inside))


def first_of(split: str, prefix: str = "1+") -> str:
    return next(key for key in (f"{prefix}{number}" for number in range(1000)) if split_of(key) == split)


def test_splits_of_known_keys_never_change() -> None:
    assert split_of("12+7-3") == split_of("16+38-7") == "base"
    assert split_of("24*37") == split_of("13+8-5") == "train"
    assert split_of("8-3") == "dev"
    assert split_of("5") == "test"


def test_shares_of_the_splits_are_fifty_thirty_ten_and_ten_percent() -> None:
    counts = Counter(split_of(f"{a}+{b}") for a in range(200) for b in range(100))
    shares = {"base": 0.5, "train": 0.3, "dev": 0.1, "test": 0.1}
    assert counts.keys() == shares.keys()
    assert all(abs(counts[split] / 20_000 - share) < 0.012 for split, share in shares.items())  # 3.4 standard errors


def test_commuted_operands_fall_into_the_same_split() -> None:
    for question, commuted in [("12+7-3", "7-3+12"), ("37*24", "24*37"), ("(1+2)*3", "3 * (2+1)")]:
        assert split_of(solve(question).key) == split_of(solve(commuted).key)


def test_a_problem_may_teach_only_in_its_own_split_and_only_without_held_out_problems_inside() -> None:
    base, train, dev, test = (first_of(split) for split in ("base", "train", "dev", "test"))
    assert may_teach(problem(base, set()), "base")
    assert may_teach(problem(base, {train, base}), "base")
    assert not may_teach(problem(base, set()), "train")
    assert not may_teach(problem(base, {train, dev}), "base")
    assert not may_teach(problem(base, {test}), "base")
    assert not may_teach(problem(train, {test}), "train")
    assert may_teach(problem(dev, {base}), "dev")
    assert [is_held_out(key) for key in (base, train, dev, test)] == [False, False, True, True]


def test_problems_can_be_hashed_and_compared() -> None:
    assert len({solve("12+7"), solve("12 + 7"), solve("7+12")}) == 2
