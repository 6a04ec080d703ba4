import pytest

from eval import metrics


def test_each_problem_counts_alike_however_many_samples_it_has(sample):
    samples = [sample("a", True), *(sample("b", False, index) for index in range(3))]
    assert metrics.pass_at_1(samples) == 0.5  # over samples it would be 1/4
    assert metrics.accuracy_per_problem(samples) == {"a": 1.0, "b": 0.0}


def test_mean_tokens_counts_right_and_wrong_completions(sample):
    assert metrics.mean_tokens([sample("a", True, n_tokens=10), sample("a", False, 1, n_tokens=30)]) == 20


def test_voice_shares_add_up_to_one(sample):
    voices = ("direct", "direct", "worked", "none")
    samples = [sample("a", True, index, voice=voice) for index, voice in enumerate(voices)]
    assert metrics.voice_shares(samples) == {"direct": 0.5, "worked": 0.25, "checked": 0.0, "none": 0.25}


def test_a_completion_cut_off_at_the_limit_is_truncated_and_one_that_stops_is_not(sample):
    samples = [
        sample("a", False, index, finish=finish) for index, finish in enumerate(("length", "stop", "stop", "stop"))
    ]
    assert metrics.truncated_share(samples) == 0.25


def test_well_formed_share_counts_the_well_formed(sample):
    samples = [sample("a", True, index, well_formed=index > 0) for index in range(4)]
    assert metrics.well_formed_share(samples) == 0.75


def test_samples_fall_into_the_cell_of_their_depth_shallowest_first(sample):
    cells = metrics.by_depth([sample("a", True, depth=10), sample("b", False, depth=2), sample("c", True, depth=2)])
    assert list(cells) == [2, 10]
    assert metrics.pass_at_1(cells[2]) == 0.5


@pytest.mark.parametrize(("low", "high", "keys"), [(2, 9, "bc"), (0, 1, "a"), (3, float("inf"), "c")])
def test_depth_bounds_are_inclusive(sample, low, high, keys):
    samples = [sample(key, True, depth=depth) for key, depth in (("a", 1), ("b", 2), ("c", 9))]
    assert "".join(row["key"] for row in metrics.at_depth(samples, low, high)) == keys
