import pytest
import torch

from r1_mini.rollout.choose import choose, uniform


def splitmix64(state: int, position: int) -> float:
    """The published generator in plain integers."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15 * (position + 1)) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) * 2.0**-53


def test_random_numbers_are_splitmix64():
    states = [0, 1, 2**62 + 12345, 2**63 - 1]
    for position in (0, 1, 500):
        expected = [splitmix64(state, position) for state in states]
        assert uniform(torch.tensor(states), torch.tensor(position)).tolist() == expected


def chosen(probabilities, rows, numbers, temperature=1.0, top_p=1.0):
    logits, numbers = torch.tensor(probabilities).log(), torch.tensor(numbers, dtype=torch.double)
    tokens, logprobs = choose(logits, torch.tensor(rows), numbers, temperature, top_p)
    return tokens.tolist(), logprobs.exp().tolist()


def test_completions_of_one_row_draw_from_it_where_its_cumulative_distribution_passes_their_numbers():
    rows = [[0.2, 0.5, 0.3], [0.9, 0.1, 0.0]]
    tokens, probabilities = chosen(rows, [0, 0, 0, 0, 1, 1], [0.0, 0.19, 0.21, 0.71, 0.6, 0.95])
    assert tokens == [0, 0, 1, 2, 0, 1]
    assert probabilities == pytest.approx([0.2, 0.2, 0.5, 0.3, 0.9, 0.1], abs=1e-6)


def test_an_impossible_token_is_never_drawn_and_temperature_two_takes_the_square_root_of_the_odds():
    assert chosen([[0.0, 1.0, 0.0]], [0, 0, 0], [0.0, 0.5, 1 - 2.0**-53])[0] == [1, 1, 1]
    assert chosen([[0.1, 0.9]], [0], [0.99], temperature=2.0)[1] == [pytest.approx(0.75)]


def test_top_p_keeps_the_fewest_tokens_that_hold_p():
    numbers = [place / 100 for place in range(100)]
    tokens, _ = chosen([[0.15, 0.5, 0.05, 0.3]], [0] * 100, numbers, top_p=0.7)
    assert set(tokens) == {1, 3}
    assert tokens.count(1) == pytest.approx(100 * 0.5 / 0.8, abs=2)
    assert set(chosen([[0.15, 0.5, 0.05, 0.3]], [0] * 100, numbers, top_p=0.49)[0]) == {1}
