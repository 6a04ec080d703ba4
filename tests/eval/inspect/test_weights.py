"""Surgery on weights: planted differences are found where they are, and nothing of it stays."""

from copy import deepcopy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from eval.inspect import weights
from eval.inspect.case import AFTER, BEFORE, TEXT, Case, Network, changed, difference, weights_of
from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems.problem import Problem

PROBLEMS = [
    Problem(family="sum", question=f"{a}+2", answer=str(a + 2), difficulty={"depth": 1}, key=f"{a}+2", formula=f"{a}+2")
    for a in range(3, 9)
]


def network(seed):
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, hidden_size=16, layers=2, heads=2, intermediate_size=32, seed=seed)
    return Network(model.eval(), tokenizer)


@pytest.fixture
def before():
    return network(0)


def trained(before, **deltas):
    """The network with these differences, by the ends of the names of its weights."""
    model = deepcopy(before.model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            for end, delta in deltas.items():
                if name.endswith(end.replace("__", ".")):
                    weight.add_(delta(weight))
    return Network(model, before.tokenizer)


def noisy(weight):
    return torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def by_change(case):
    """(change, value) -> all weights of BEFORE after that change."""
    found = {}
    for change, value, new in weights.changes(case):
        with changed(case.before, new) as network:
            found[change, value] = {name: weight.clone() for name, weight in weights_of(network.model).items()}
    return found


def test_alpha_0_and_1_are_before_and_after_bit_for_bit(before):
    after = network(1)
    sum_of_both = {name: old + difference(before, after)[name] for name, old in weights_of(before.model).items()}
    assert not same(sum_of_both, weights_of(after.model))  # what rounding would do
    found = by_change(Case({BEFORE: before, AFTER: after}, PROBLEMS, []))
    assert same(found["alpha", 0.0], weights_of(before.model))
    assert same(found["alpha", 1.0], weights_of(after.model))
    old, new = weights_of(before.model)["lm_head.weight"], weights_of(after.model)["lm_head.weight"]
    torch.testing.assert_close(found["alpha", 0.3]["lm_head.weight"], 0.7 * old + 0.3 * new)
    torch.testing.assert_close(found["alpha", 1.5]["lm_head.weight"], 1.5 * new - 0.5 * old)


def test_a_difference_in_the_head_is_all_in_the_head(before):
    after = trained(before, lm_head__weight=noisy)
    found = by_change(Case({BEFORE: before, AFTER: after}, PROBLEMS, []))
    assert same(found["only", "head"], weights_of(after.model))
    assert same(found["without", "head"], weights_of(before.model))
    assert same(found["only", "mlp"], weights_of(before.model))
    assert same(found["without", "layer 1"], weights_of(after.model))


def test_a_layer_is_its_attention_its_mlp_and_its_norms(before):
    after = trained(before, weight=noisy)
    found = by_change(Case({BEFORE: before, AFTER: after}, PROBLEMS, [], layers=(1,)))
    assert ("only", "layer 0") not in found
    for name, old in weights_of(before.model).items():
        new = weights_of(after.model)[name]
        assert torch.equal(found["only", "layer 1"][name], new if ".layers.1." in name else old)
        assert torch.equal(found["without", "layer 1"][name], old if ".layers.1." in name else new)


def test_a_planted_difference_of_rank_1_is_whole_at_rank_1(before):
    def outer(weight):
        left, right = noisy(weight[:, :1]), noisy(weight[:1])
        return left * right

    after = trained(before, mlp__up_proj__weight=outer, input_layernorm__weight=noisy)
    found = by_change(Case({BEFORE: before, AFTER: after}, PROBLEMS, []))
    for name, new in weights_of(after.model).items():
        torch.testing.assert_close(found["rank", 1][name], new, atol=1e-5, rtol=0)


def test_rank_keeps_the_largest_singular_values():
    delta = {"weight": torch.diag(torch.tensor([1.0, 5.0, 3.0])), "bias": torch.ones(3)}
    found = dict(weights.low_rank(delta, (1, 2)))
    torch.testing.assert_close(found[1]["weight"], torch.diag(torch.tensor([0.0, 5.0, 0.0])))
    torch.testing.assert_close(found[2]["weight"], torch.diag(torch.tensor([0.0, 5.0, 3.0])))
    assert torch.equal(found[1]["bias"], torch.ones(3))  # a vector is kept whole


def test_controls_have_the_size_of_the_difference_and_not_its_places(before):
    after = trained(before, weight=noisy)
    found = by_change(Case({BEFORE: before, AFTER: after}, PROBLEMS, []))
    for name, old in weights_of(before.model).items():
        delta = weights_of(after.model)[name] - old
        for control in ("random", "shuffled"):
            other = found[control, 0][name] - old
            torch.testing.assert_close(other.norm(), delta.norm(), rtol=1e-4, atol=0)
            assert not torch.allclose(other, delta, atol=1e-3)
        moved = (found["shuffled", 0][name] - old).flatten().sort().values
        torch.testing.assert_close(moved, delta.flatten().sort().values, atol=1e-5, rtol=0)


def test_kinds_of_modules_part_the_weights_of_a_llama_and_of_a_gpt2(before):
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
    for model, kinds in (
        (before.model, {"norms", "head", "embeddings", "attention", "mlp"}),
        (gpt2, {"norms", "embeddings", "attention", "mlp"}),  # its head is tied
    ):
        found = weights.by_kind(list(weights_of(model)))
        assert found.keys() == kinds
        assert sorted(name for names in found.values() for name in names) == sorted(weights_of(model))
    assert weights.by_layer(gpt2, None)["layer 0"] == [n for n in weights_of(gpt2) if n.startswith("transformer.h.0.")]
    expected = {
        "model.layers.0.post_attention_layernorm.weight": "norms",
        "model.layers.0.self_attn.q_norm.weight": "norms",
        "model.layers.0.self_attn.q_proj.bias": "attention",
        "transformer.ln_f.weight": "norms",
        "transformer.h.0.mlp.c_fc.weight": "mlp",
        "transformer.wpe.weight": "embeddings",
        "embed_out.weight": "head",
        "router.gate": "other",
    }
    assert {name: weights.kind_of(name) for name in expected} == expected


def test_sizes_are_relative_norms(before):
    after = trained(before, lm_head__weight=lambda weight: -0.5 * weight)
    case = Case({BEFORE: before, AFTER: after, TEXT: trained(before)}, PROBLEMS, [])
    found = {(row["network"], row["kind"]): row["size"] for row in weights.sizes(case)}
    assert found[AFTER, "head"] == 0.5
    assert found[AFTER, "mlp"] == found[TEXT, "all"] == 0.0
    assert 0 < found[AFTER, "all"] < 0.5


def test_reasons_is_the_probability_that_the_chain_is_not_closed_at_once(before):
    ids = [*before.prompts(PROBLEMS)[1], *before.ids("<think>")]
    with torch.no_grad():
        closed = before.model(torch.tensor([ids])).logits[0, -1].softmax(-1)[before.ids("</think>")[0]]
    assert before.reasons(PROBLEMS)[1] == pytest.approx(1 - float(closed), abs=1e-5)


def test_rows_tell_what_every_change_does_and_leave_no_trace(before):
    after = trained(before, weight=lambda weight: 0.1 * noisy(weight))
    case = Case({BEFORE: before, AFTER: after, TEXT: trained(before)}, PROBLEMS, [], max_tokens=4, share=0.01)
    kept = {name: weight.clone() for name, weight in weights_of(before.model).items()}
    rows = []
    for row in weights.measure(case):
        rows.append(row)
        assert same(kept, weights_of(before.model))
    of = {(row["change"], row["value"]): row for row in rows if "change" in row}
    assert rows[0]["keys"] == [problem.key for problem in PROBLEMS[:4]]
    assert of[TEXT, 1.0]["reasons"] == of["alpha", 0.0]["reasons"] != of["alpha", 1.0]["reasons"]
    assert of["alpha", 1.0]["reasons"] == after.reasons(PROBLEMS[:4])
    assert len(of["rank", 4]["right"]) == 2 and len(of["rank", 4]["greedy"]) == 4


def test_table_gives_what_a_change_recovers_of_the_gain():
    def row(change, value, *right, reasons=0.5):
        greedy = "1" * 15 + "0" * 5
        return {"change": change, "value": value, "right": right, "reasons": [reasons] * 20, "greedy": greedy}

    none, half, all_ = "0" * 20, "1" * 10 + "0" * 10, "1" * 20
    rows = [
        {"keys": list("abcdefghijklmnopqrst"), "samples": 2},
        {"sizes": []},
        row("alpha", 0.0, none, none),
        row("alpha", 1.0, all_, half),
        row("only", "mlp", half, none, reasons=0.25),
    ]
    found = weights.table(rows)
    assert (found["n"], found["samples"]) == (20, 2)
    before, after, mlp = found["changes"]
    assert after["right"]["estimate"] == 0.75 and mlp["right"]["estimate"] == 0.25
    assert before["recovered"]["estimate"] == 0 and after["recovered"]["estimate"] == 1
    assert mlp["recovered"]["estimate"] == pytest.approx(1 / 3, abs=1e-6)
    assert mlp["reasons"]["estimate"] == 0.25 and mlp["greedy"]["estimate"] == 0.75
