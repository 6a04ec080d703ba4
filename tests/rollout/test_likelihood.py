"""How likely a model finds what it or another one wrote."""

import copy

import pytest
import torch

from r1_mini.rollout import likelihood
from r1_mini.rollout.engine import SamplingParams, rollout
from r1_mini.rollout.likelihood import log_likelihoods


@pytest.fixture
def written(model, tokenizer):
    """Prompts of different lengths, and completions of the model."""
    prompts = tokenizer(["User: 1+2\nAssistant:", "User: 12+7-3\nAssistant:", "x"], add_special_tokens=False)[
        "input_ids"
    ]
    return prompts, rollout(model, prompts, SamplingParams(6, 20, seed=3), stop=[tokenizer.eos_token_id])


def test_a_model_finds_its_own_completions_as_likely_as_when_it_drew_them(model, written):
    found = log_likelihoods(model, *written)
    drawn = [[sum(done.logprobs) for done in group] for group in written[1]]
    assert [len(group) for group in found] == [6, 6, 6]
    torch.testing.assert_close(torch.tensor(found), torch.tensor(drawn), atol=1e-3, rtol=0)


def test_another_model_is_asked_by_its_own_forward_pass_whatever_the_batch(model, written, monkeypatch):
    prompts, groups = written
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.lm_head.weight.mul_(-0.5)
        expected = []
        for prompt, group in zip(prompts, groups, strict=True):
            for done in group:
                logps = other(torch.tensor([prompt + done.tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                expected.append(sum(logps[place, token].item() for place, token in enumerate(done.tokens)))
    for most in (1, 100, 10_000):
        monkeypatch.setattr(likelihood, "TOKENS", most)
        found = [value for group in log_likelihoods(other, prompts, groups) for value in group]
        assert found == pytest.approx(expected, abs=1e-3)
