"""Log-probabilities of given completions against the plain forward pass, and the cutting by hand."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers

from r1_mini.model.prompts import encode
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.likelihood import Prefill, log_likelihoods, parts, score
from r1_mini.rollout.params import SamplingParams
from r1_mini.rollout.tuning import TUNED


def rows(number, prompt_places, places):
    """Random rows with padding on both sides: ids, and which are real."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 20, (number, prompt_places + places), generator=generator)
    starts = torch.randint(0, prompt_places, (number, 1), generator=generator)
    ends = prompt_places + torch.randint(1, places + 1, (number, 1), generator=generator)
    at = torch.arange(prompt_places + places)[None]
    return ids, (at >= starts) & (at < ends)


def read_by(model, reads=None):
    """What TRL's model with its fused head gives, by the plain one."""

    def forward(ids, labels, **more):
        if reads is not None:
            reads.append(tuple(ids.shape))
        logps = model(input_ids=ids, **more).logits[:, :-1].log_softmax(-1)
        chosen = logps.gather(2, labels[:, 1:, None].clamp(min=0))[..., 0]
        return SimpleNamespace(log_probs=chosen, entropy=-(logps.exp() * logps).sum(-1))

    return forward


def plain(model, prompt, completion):
    """Log-probabilities of all tokens at the places of a completion, (T, V)."""
    ids = torch.tensor([[*prompt, *completion]])
    return model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)


@torch.no_grad()
def test_every_log_probability_and_entropy_lands_in_its_own_row(model):
    ids, real = rows(13, 6, 9)
    logps, entropies = score(read_by(model), ids, real, 9)
    for row in range(13):
        prompt, completion = ids[row, :6][real[row, :6]], ids[row, 6:][real[row, 6:]]
        expected = plain(model, prompt, completion)
        there = len(completion)
        torch.testing.assert_close(logps[row, :there], expected.gather(1, completion[:, None])[:, 0], atol=1e-4, rtol=0)
        assert torch.allclose(entropies[row, :there], -(expected.exp() * expected).sum(-1), atol=1e-4)
        assert logps[row, there:].abs().sum() == 0


def test_rows_that_are_alike_are_read_once_whatever_their_padding_and_all_have_a_gradient(model):
    ids, real = rows(3, 4, 5)
    again, reads = torch.tensor([0, 1, 0, 2, 0]), []
    padded = ids[again].where(real[again], torch.tensor([7, 7, 8, 8, 9])[:, None])
    logps, _ = score(read_by(model, reads), padded, real[again], 5)
    assert sum(number for number, _ in reads) == 3
    gradients = []
    single, _ = score(read_by(model), ids, real, 5)
    for values, weights in ((logps, [1.0, 2, 3, 4, 5]), (single, [1.0 + 3 + 5, 2, 4])):
        gradients += torch.autograd.grad((values * torch.tensor(weights)[:, None]).sum(), model.lm_head.weight)
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("overhead", "most", "passes"), [(100, 10_000, 3), (100, 200, 8), (10_000, 10_000, 1)])
def test_rows_share_their_prompt_where_this_saves_more_than_a_pass(model, monkeypatch, overhead, most, passes):
    """Six prompts of up to 40 tokens, five completions of each: log-probabilities and gradients stay what they are."""
    monkeypatch.setitem(TUNED, "cpu", replace(TUNED["cpu"], overhead=overhead))
    ids, real = rows(30, 40, 9)
    of_prompt = torch.arange(6).repeat_interleave(5)
    ids[:, :40], real[:, :40] = ids[of_prompt, :40], real[of_prompt, :40]
    weights = torch.randn(30, 9, generator=torch.Generator().manual_seed(0))
    found, reads = [], []
    assert Prefill(model).allowed(49)  # which tries the model, once
    for prefill in (None, Prefill(model)):
        reads.clear()
        hook = model.model.embed_tokens.register_forward_pre_hook(lambda _, read: reads.append(read[0].shape))
        logps, entropies = score(read_by(model), ids, real, 9, most, prefill)
        hook.remove()
        found.append([logps, entropies, *torch.autograd.grad((logps * weights).sum(), list(model.parameters()))])
    assert len(reads) == passes
    for alone, together in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_gradients_are_the_same_bits_each_time_with_several_threads(model, monkeypatch):
    monkeypatch.setitem(TUNED, "cpu", replace(TUNED["cpu"], overhead=100, part=100_000))  # large enough for two threads
    ids, real = rows(600, 40, 9)
    of_prompt, again = torch.arange(6).repeat_interleave(100), torch.arange(600).repeat_interleave(10)
    ids[:, :40], real[:, :40] = ids[of_prompt, :40], real[of_prompt, :40]
    threads, seen = torch.get_num_threads(), set()
    torch.set_num_threads(2)
    for _ in range(5):
        logps, _ = score(read_by(model), ids[again], real[again], 9, prefill=Prefill(model))
        made = torch.autograd.grad((logps * torch.linspace(-1, 1, 6_000)[:, None]).sum(), list(model.parameters()))
        seen.add(tuple(grad.numpy().tobytes() for grad in made))
    torch.set_num_threads(threads)
    assert len(seen) == 1


def test_no_prompt_is_shared_where_a_layer_sees_a_window_or_keeps_no_keys(model):
    def made(config):
        return transformers.AutoModelForCausalLM.from_config(config)

    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    window = made(transformers.MistralConfig(**sizes, num_key_value_heads=2, intermediate_size=32, sliding_window=20))
    mamba = made(transformers.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2))
    assert [Prefill(window).allowed(width) for width in (20, 21)] == [True, False]
    assert not Prefill(mamba).allowed(20)
    model.gradient_checkpointing_enable()
    assert not Prefill(model).allowed(20)
    model.gradient_checkpointing_disable()
    assert Prefill(model).allowed(20)


@pytest.mark.parametrize("real", [[True, True, False, False], [False, True, False, False]])
def test_a_row_without_completion_has_nothing_but_zeros(model, real):
    for values in score(read_by(model), torch.tensor([[5, 6, 7, 8]]), torch.tensor([real]), 2):
        assert values.tolist() == [[0.0, 0.0]]


@torch.no_grad()
def test_another_model_is_asked_by_its_own_forward_pass_whatever_the_batch(model, tokenizer, monkeypatch):
    prompts = encode(tokenizer, ["User: 1+2\nAssistant:", "User: 12+7-3\nAssistant:", "x"])
    groups = rollout(model, prompts, SamplingParams(6, 20, seed=3), stop=[tokenizer.eos_token_id])
    other = copy.deepcopy(model)
    other.lm_head.weight.mul_(-0.5)
    expected = []
    for prompt, group in zip(prompts, groups, strict=True):
        for done in group:
            logps = plain(other, prompt, done.tokens)
            expected.append(sum(logps[place, token].item() for place, token in enumerate(done.tokens)))
    for most in (1, 100, 10_000):
        monkeypatch.setitem(TUNED, "cpu", replace(TUNED["cpu"], part=most))
        found = [value for group in log_likelihoods(other, prompts, groups) for value in group]
        assert found == pytest.approx(expected, abs=1e-3)


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
    assert [(part.start, part.stop) for part in parts(lengths, most=4096, overhead=1000)] == cuts
