"""Muon by its definition, AdamW against torch's."""

import pytest
import torch
from torch import nn

from r1_mini.model.architecture import make_model
from r1_mini.model.optimizer import MuonAdamW, orthogonalized
from r1_mini.model.tokenizer import make_tokenizer

IDS = torch.arange(3, 20)[None]


def small_model():
    return make_model(make_tokenizer(), hidden_size=16, layers=1, heads=2, intermediate_size=32, seed=0)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_orthogonalized_matrices_have_singular_values_near_one_and_their_old_directions(scale):
    matrix = scale * torch.randn(1, 20, 30, generator=torch.Generator().manual_seed(0))
    found = orthogonalized(matrix)[0]
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() <= values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    assert torch.nn.functional.cosine_similarity((u @ v).flatten(), found.flatten(), dim=0) > 0.95


def test_hidden_matrices_get_muon_and_embeddings_head_and_norms_adamw():
    model = small_model()
    muon, adamw = MuonAdamW(model, lr=0.1).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("proj" in names[id(p)] for p in muon["params"])
    rest = {"embed_tokens", "lm_head", "input_layernorm", "post_attention_layernorm", "norm"}
    assert {names[id(p)].split(".")[-2] for p in adamw["params"]} == rest
    assert len(muon["params"]) + len(adamw["params"]) == len(names)


def test_the_adamw_part_steps_like_torch_adamw():
    ours, theirs = small_model(), small_model()
    optimizer = MuonAdamW(ours, lr=0.01, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for _ in range(3):
        reference.zero_grad()
        theirs(IDS, labels=IDS).loss.backward()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = q.grad.clone()
        optimizer.step()
        reference.step()
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            if "proj" in name:
                p.data.copy_(q.data)
            else:
                assert torch.allclose(p, q, atol=1e-6), name


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (16, 32), (32, 16)])
def test_muon_steps_against_the_orthogonalized_gradient_with_the_size_that_moonlight_gives(rows, columns):
    """0.2 sqrt(max(rows, columns)) times the learning rate; a matrix that is high is orthogonalized on its side."""
    model = nn.Sequential(nn.Linear(columns, rows, bias=False))
    model.get_output_embeddings = lambda: None
    optimizer, weight, momentum = MuonAdamW(model, lr=0.5), model[0].weight, torch.zeros(rows, columns)
    for gradient in torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(0)):
        before, weight.grad = weight.detach().clone(), gradient.clone()
        optimizer.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        ahead = 0.05 * gradient + 0.95 * momentum  # Nesterov
        direction = orthogonalized(ahead[None])[0] if rows <= columns else orthogonalized(ahead.mT[None])[0].mT
        expected = -0.5 * 0.2 * 32**0.5 * direction
        torch.testing.assert_close(weight.detach() - before, expected, atol=1e-4, rtol=0)
    if rows == columns:  # an orthogonal matrix has elements of 1 / sqrt(columns): 0.2 times the rate
        assert expected.square().mean().sqrt().item() == pytest.approx(0.5 * 0.2, rel=0.25)
