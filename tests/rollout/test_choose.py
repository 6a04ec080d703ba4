import numpy as np
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


@pytest.mark.parametrize("position", [0, 1, 500])
def test_random_numbers_are_splitmix64(position):
    states = [0, 1, 2**62 + 12345, 2**63 - 1]
    assert uniform(torch.tensor(states), torch.tensor(position)).tolist() == [
        splitmix64(state, position) for state in states
    ]


def test_random_numbers_are_uniform_and_independent_of_neighbors():
    numbers = uniform(torch.arange(100_000), torch.tensor(3)).numpy()
    assert abs(numbers.mean() - 0.5) < 0.003
    assert abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 0.01


def test_a_token_is_where_the_cumulative_distribution_passes_the_number():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().repeat(4, 1)
    tokens, logprobs = choose(
        logits, torch.arange(4), torch.tensor([0.0, 0.19, 0.21, 0.71], dtype=torch.double), 1.0, 1.0
    )
    assert tokens.tolist() == [0, 0, 1, 2]
    assert logprobs.exp().tolist() == pytest.approx([0.2, 0.2, 0.5, 0.3], abs=1e-6)


def test_completions_of_one_row_draw_from_it_with_numbers_of_their_own():
    logits = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    numbers = torch.tensor([0.6, 0.4, 0.95], dtype=torch.double)
    tokens, logprobs = choose(logits, torch.tensor([1, 0, 0]), numbers, 1.0, 1.0)
    assert tokens.tolist() == [1, 0, 1]
    assert logprobs.exp().tolist() == pytest.approx([0.5, 0.9, 0.1], abs=1e-6)


def test_an_impossible_token_is_never_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    for number in (0.0, 0.5, 1 - 2.0**-53):
        assert choose(logits, torch.tensor([0]), torch.tensor([number], dtype=torch.double), 1.0, 1.0)[0].item() == 1


def test_temperature_two_takes_the_square_root_of_the_odds():
    logits = torch.tensor([[0.0, torch.log(torch.tensor(9.0)).item()]])
    _, logprob = choose(logits, torch.tensor([0]), torch.tensor([0.99], dtype=torch.double), 2.0, 1.0)
    assert logprob.exp().item() == pytest.approx(0.75)


def test_top_p_keeps_the_fewest_tokens_that_hold_p():
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log().repeat(100, 1)
    numbers = torch.linspace(0, 0.999, 100, dtype=torch.double)
    tokens, _ = choose(logits, torch.arange(100), numbers, 1.0, 0.7)
    assert sorted(set(tokens.tolist())) == [1, 3]
    assert (tokens == 1).float().mean().item() == pytest.approx(0.5 / 0.8, abs=0.02)
    tokens, _ = choose(logits, torch.arange(100), numbers, 1.0, 0.49)
    assert set(tokens.tolist()) == {1}
