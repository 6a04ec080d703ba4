"""Where a gain comes from: parts by hand, and that they add up."""

import random

import pytest

from eval.analysis.gain import DIVIDED, PARTS, gain_parts, sharpened_or_new
from tests.eval.conftest import make_samples


@pytest.mark.parametrize(
    "before,after,name,value",
    [
        (["1--1"], ["1111"], "stops in time", 0.5),
        (["1??1"], ["1111"], "gives a number", 0.5),
        (["1x1x"], ["1111"], "chooses to reason", 0.5),
        (["1001"], ["1111"], "reasons without a slip", 0.5),
        (["1001"], ["1ll1"], "is right despite a slip", 0.5),
        (["xxxd"], ["dddd"], "guesses better", 0.75),
        (["1111"], ["11--"], "stops in time", -0.5),
        (["10xx"], ["1111"], "chooses to reason, reasons without a slip", 3 / 8),
    ],
)
def test_a_change_of_one_kind_is_all_in_its_part_and_two_share_what_they_make_together(before, after, name, value):
    found = {part.name: part.estimate for part in gain_parts(make_samples(*before), make_samples(*after))}
    # Of two changes, before: half reason, half of those rightly, no guess is right: 1/4. After: all reason rightly: 1.
    # Choosing first adds 1/4, then care 1/2; care first adds 1/4, then choosing 1/2: each 3/8 on average.
    shares = dict.fromkeys(name.split(", "), value)
    assert found == {part: pytest.approx(shares.get(part, 0.0), abs=1e-12) for part in PARTS}


def test_the_parts_of_any_two_exams_add_up_to_the_difference():
    rng = random.Random(0)
    for _ in range(20):
        sides = [["".join(rng.choices("10dxl?-", k=4)) for _ in range(6)] for _ in range(2)]
        before, after = (make_samples(*marks) for marks in sides)
        difference, found = after.correct_PN.mean() - before.correct_PN.mean(), gain_parts(before, after)
        assert sum(part.estimate for part in found) == pytest.approx(difference, abs=1e-12)
        assert all(part.low <= part.estimate <= part.high for part in found)


@pytest.mark.parametrize(
    "before,cooled,after,sharper,slips",
    [
        ("1000", "1110", "1111", 0.5, 0.25),  # a temperature makes 3 of 4 chains sound, and training the last
        ("1000", "1111", "1111", 0.75, 0.0),  # a base that is only made sharper
        ("1000", "1000", "1111", 0.0, 0.75),  # a temperature gives nothing
        ("1100", "1111", "1110", 0.25, 0.0),  # a temperature gives more than training did
        ("1100", "1111", "1100", 0.0, 0.0),  # the same checkpoint
        ("1100", "1111", "1000", 0.0, -0.25),  # training made it worse
        ("1110", "1100", "1111", 0.0, 0.25),  # a temperature that costs something is taken from no part
        ("10xx", "1110", "1111", 3 / 16, 3 / 16),  # the part is 3/8 as above, and the temperature goes half of the way
        ("xxxx", "1110", "1111", 0.0, 0.0),  # of a start that never reasons nothing is known
        ("1000", "1x-?", "1111", 0.75, 0.0),  # only what its chains are worth counts, not how it answers else
    ],
)
def test_what_a_temperature_gives_is_told_from_fewer_slips(before, cooled, after, sharper, slips):
    samples = [make_samples(marks) for marks in (before, after, cooled)]
    whole, parts = gain_parts(*samples[:2]), {part.name: part.estimate for part in gain_parts(*samples)}
    assert tuple(parts) == DIVIDED
    assert parts["sharper sampling"] == pytest.approx(sharper, abs=1e-12)
    assert parts["fewer slips"] == pytest.approx(slips, abs=1e-12)
    left = {part.name: part.estimate for part in whole if part.name != "reasons without a slip"}
    assert {name: parts[name] for name in left} == pytest.approx(left, abs=1e-12)
    assert sum(parts.values()) == pytest.approx(sum(part.estimate for part in whole), abs=1e-12)


def test_divided_parts_of_any_three_exams_add_up_to_the_difference_within_their_intervals():
    rng = random.Random(1)
    for _ in range(10):
        before, after, cooled = (make_samples(*("".join(rng.choices("10dxl?-", k=4)) for _ in range(6))) for _ in "123")
        difference, found = after.correct_PN.mean() - before.correct_PN.mean(), gain_parts(before, after, cooled)
        assert sum(part.estimate for part in found) == pytest.approx(difference, abs=1e-12)
        assert all(part.low <= part.estimate <= part.high for part in found)


def test_problems_solved_anew_are_counted_with_the_bound_that_a_zero_leaves():
    found = sharpened_or_new(
        [make_samples("0000", "1000", "0010", "00" * 2)], [make_samples("1110", "1111", "0000", "0000")]
    )
    assert (found.n_problems, found.n, found.n_solved_anew, found.n_lost) == (4, 4, 1, 1)
    assert (1 - found.bound) ** 4 == pytest.approx(0.05)


def test_sharpening_crosses_where_the_base_catches_up():
    # pass@1: 1/4 against 1/2. pass@2: 1/2 against 1/2.
    assert sharpened_or_new([make_samples("1000", "1000")], [make_samples("1111", "0000")]).crossing == 2
    assert sharpened_or_new([make_samples("1000", "0000")], [make_samples("1111", "1111")]).crossing is None
    worse = sharpened_or_new([make_samples("1111", "1111")], [make_samples("1000", "0000")])
    assert (worse.crossing, worse.leads) == (None, False)


def test_several_seeds_cross_where_their_mean_curves_do_and_not_as_an_ensemble():
    base = [make_samples("1100", "0000"), make_samples("0000", "1100")]  # together they solve both problems
    after = [make_samples("1110", "0000"), make_samples("1110", "0000")]
    found = sharpened_or_new(base, after)
    assert (found.crossing, found.n, found.n_lost) == (3, 8, 1)
