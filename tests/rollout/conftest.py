"""A small model of random weights."""

import pytest
import torch

from r1_mini.model.architecture import make_model
from r1_mini.model.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    model = make_model(tokenizer, hidden_size=32, layers=2, heads=2, intermediate_size=64, seed=0)
    with torch.no_grad():  # sharper than fresh weights, so that tokens differ in probability
        model.lm_head.weight.mul_(8)
    return model.eval()
