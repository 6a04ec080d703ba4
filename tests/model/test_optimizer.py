import pytest
import torch
from torch import nn

from r1_mini.model.architecture import make_model
from r1_mini.model.optimizer import MuonAdamW, orthogonalized
from r1_mini.model.tokenizer import make_tokenizer


def small_model(seed=0):
    return make_model(make_tokenizer(), hidden_size=16, layers=1, heads=2, intermediate_size=32, seed=seed)


def test_orthogonalized_matrices_have_singular_values_near_one():
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, 20, 30, generator=generator) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    values = torch.linalg.svdvals(orthogonalized(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_orthogonalizing_keeps_the_directions():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(1, 6, 9, generator=generator)
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    assert torch.nn.functional.cosine_similarity((u @ v).flatten(), orthogonalized(matrix).flatten(), dim=0) > 0.95


def test_hidden_matrices_get_muon_and_embeddings_head_and_norms_adamw():
    model = small_model()
    muon, adamw = MuonAdamW(model, lr=0.1).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("proj" in names[id(p)] for p in muon["params"])
    assert {names[id(p)].split(".")[-2] for p in adamw["params"]} == {
        "embed_tokens",
        "lm_head",
        "input_layernorm",
        "post_attention_layernorm",
        "norm",
    }
    assert len(muon["params"]) + len(adamw["params"]) == len(names)


def test_the_adamw_part_steps_like_torch_adamw():
    ours, theirs = small_model(), small_model()
    optimizer = MuonAdamW(ours, lr=0.01, weight_decay=0.1)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    ids = torch.arange(3, 20)[None]
    for _ in range(3):
        for model, stepper in ((ours, optimizer), (theirs, reference)):
            stepper.zero_grad()
            model(ids, labels=ids).loss.backward()
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = q.grad.clone()
        optimizer.step()
        reference.step()
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            if "proj" in name:
                p.data.copy_(q.data)
            else:
                assert torch.allclose(p, q, atol=1e-6), name


def test_a_muon_step_has_the_size_that_moonlight_gives():
    """Root mean square of the update: 0.2 * lr for a square matrix whose update is orthogonal."""
    model = nn.Sequential(nn.Linear(32, 32, bias=False))
    model.get_output_embeddings = lambda: None
    optimizer = MuonAdamW(model, lr=0.5)
    before = model[0].weight.detach().clone()
    model[0].weight.grad = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    size = (model[0].weight - before).square().mean().sqrt().item()
    assert size == pytest.approx(0.5 * 0.2, rel=0.25)


def test_a_muon_step_goes_downhill():
    model = nn.Sequential(nn.Linear(8, 8, bias=False))
    model.get_output_embeddings = lambda: None
    optimizer = MuonAdamW(model, lr=0.05)
    target = torch.eye(8)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = (model[0].weight - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_a_saved_and_loaded_optimizer_goes_on_as_if_it_had_not_stopped():
    ids = torch.arange(3, 20)[None]

    def steps(model, optimizer, n):
        for _ in range(n):
            optimizer.zero_grad()
            model(ids, labels=ids).loss.backward()
            optimizer.step()

    one, two = small_model(), small_model()
    straight, first = MuonAdamW(one, lr=0.01), MuonAdamW(two, lr=0.01)
    steps(one, straight, 6)
    steps(two, first, 3)
    second = MuonAdamW(two, lr=0.01)
    second.load_state_dict(first.state_dict())
    steps(two, second, 3)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
