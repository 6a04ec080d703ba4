"""Log-probabilities by parts against the plain forward pass, and the cutting by hand."""

from types import SimpleNamespace

import pytest
import torch

from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.train.logps import parts, score


@pytest.fixture(scope="module")
def model():
    return make_model(make_tokenizer(), hidden_size=16, layers=1, heads=2, intermediate_size=None, seed=0)


def rows(number, prompt_places, places, seed=2):
    """Random rows with padding on both sides: ids, and which are real."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 20, (number, prompt_places + places), generator=generator)
    starts = torch.randint(0, prompt_places, (number, 1), generator=generator)
    ends = prompt_places + torch.randint(1, places + 1, (number, 1), generator=generator)
    at = torch.arange(prompt_places + places)[None]
    return ids, (at >= starts) & (at < ends)


def read_by(model, reads=None):
    """What TRL's model with its fused head gives, by the plain one."""

    def forward(ids, labels):
        if reads is not None:
            reads.append(tuple(ids.shape))
        logps = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        chosen = logps.gather(2, labels[:, 1:, None].clamp(min=0))[..., 0]
        return SimpleNamespace(log_probs=chosen, entropy=-(logps.exp() * logps).sum(-1))

    return forward


def test_every_log_probability_and_entropy_lands_in_its_own_row(model):
    ids, real = rows(13, 6, 9)
    logps, entropies = score(read_by(model), ids, real, 9)
    for row in range(13):
        prompt = ids[row, :6][real[row, :6]]
        completion = ids[row, 6:][real[row, 6:]]
        plain = model(torch.cat([prompt, completion])[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        expected = plain.gather(1, completion[:, None])[:, 0]
        assert torch.allclose(logps[row, : len(completion)], expected, atol=1e-5)
        assert torch.allclose(entropies[row, : len(completion)], -(plain.exp() * plain).sum(-1), atol=1e-5)
        assert logps[row, len(completion) :].abs().sum() == 0


def test_rows_that_are_alike_are_read_once_and_all_have_a_gradient(model):
    ids, real = rows(3, 4, 5)
    again = torch.tensor([0, 1, 0, 2, 0])
    reads = []
    logps, _ = score(read_by(model, reads), ids[again], real[again], 5)
    assert sum(number for number, _ in reads) == 3
    weights = torch.arange(1.0, 6.0)[:, None]
    model.zero_grad()
    (logps * weights).sum().backward()
    ours = model.lm_head.weight.grad.clone()
    model.zero_grad()
    single, _ = score(read_by(model), ids, real, 5)
    (single * torch.tensor([1.0 + 3 + 5, 2.0, 4.0])[:, None]).sum().backward()
    assert torch.allclose(ours, model.lm_head.weight.grad, rtol=1e-4, atol=1e-6)


def test_equal_prompts_with_other_padding_are_alike(model):
    """The same tokens, once with padding that has another token id."""
    ids, real = rows(2, 4, 5)
    other = ids.where(real, 7)
    reads = []
    score(read_by(model, reads), torch.cat([ids, other]), torch.cat([real, real]), 5)
    assert sum(number for number, _ in reads) == 2


def test_a_row_without_completion_has_nothing_but_zeros(model):
    ids, real = rows(2, 4, 5)
    real[:, 4:] = False
    logps, entropies = score(read_by(model), ids, real, 5)
    assert logps.abs().sum() == 0
    assert entropies.abs().sum() == 0


def test_a_prompt_of_one_token_without_completion_is_read(model):
    logps, _ = score(read_by(model), torch.tensor([[5, 6, 7]]), torch.tensor([[True, False, False]]), 2)
    assert logps.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    "lengths,cuts",
    [
        ([5], [(0, 1)]),
        ([10] * 4, [(0, 4)]),
        ([10] * 100 + [21], [(0, 100), (100, 101)]),  # 100 rows padded by 11 are 1,100 tokens, more than a pass
        ([10] * 100 + [20], [(0, 101)]),  # 1,000 are not
        ([10] * 50 + [20] * 50 + [26], [(0, 100), (100, 101)]),  # 500, then 600 more
        ([10_000] * 3, [(0, 1), (1, 2), (2, 3)]),  # two of them are more than a pass may hold
    ],
)
def test_rows_are_cut_where_padding_costs_more_than_a_pass(lengths, cuts):
    assert [(part.start, part.stop) for part in parts(lengths, most=4096)] == cuts
