"""Attention of one token per row is what torch's kernel computes, and the model is given back as it was."""

from types import SimpleNamespace

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.attention import attend, decoding_attention


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shared", [1, 3])
@pytest.mark.parametrize("rows", [4, 40])
def test_one_token_per_row_sees_what_torchs_kernel_sees(rows, shared, masked):
    torch.manual_seed(0)
    key, value = torch.randn(2, rows, 2, 30, 8)
    key, value = key[:, :, :11], value[:, :, :11]  # a view, as the cache gives it
    query = torch.randn(rows, 2 * shared, 1, 8)
    mask = (torch.arange(11) <= torch.arange(rows)[:, None] % 11)[:, None, None] if masked else None
    module = SimpleNamespace(num_key_value_groups=shared)
    ours, _ = attend(module, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    assert ours.shape == (rows, 1, 2 * shared, 8)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_models_own_attention_is_back_afterwards_also_after_an_error():
    model = make_model(make_tokenizer(), hidden_size=32, layers=2, heads=2, intermediate_size=64, seed=0)
    with pytest.raises(RuntimeError), decoding_attention(model):
        assert model.config._attn_implementation == "r1_mini_decoding"
        raise RuntimeError
    assert model.config._attn_implementation == "sdpa"


def test_a_model_with_eager_attention_keeps_it():
    model = make_model(make_tokenizer(), hidden_size=32, layers=2, heads=2, intermediate_size=64, seed=0)
    model.set_attn_implementation("eager")
    with decoding_attention(model):
        assert model.config._attn_implementation == "eager"
