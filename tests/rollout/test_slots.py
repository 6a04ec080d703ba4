"""The batch of a GPU against that of the CPU, both on the CPU, where nothing is captured."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from r1_mini.rollout import choose, engine
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.params import SamplingParams
from r1_mini.rollout.slots import STEPS, WIDTH, Slots

STOPS = [2, 7]  # </s>, and a token that is sampled soon


def both(model, prompts, params, monkeypatch, **options):
    """The completions of the engine, and of its batch with slots."""
    expected = rollout(model, prompts, params, stop=STOPS, **options)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "Batch", Slots)
        return expected, rollout(model, prompts, params, stop=STOPS, **options)


def prompts_of(tokenizer, number, longest=18):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, longest, (number,), generator=generator).tolist()
    return [torch.randint(3, len(tokenizer), (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.parametrize(
    ("params", "options"),
    [
        (SamplingParams(4, 35, seed=3), {}),
        (SamplingParams(4, 35, seed=3, rows=16), {}),  # few rows, which are filled again
        (SamplingParams(6, 20, seed=4, rows=5), {}),  # a group that is larger than allowed
        (SamplingParams(1, 20, seed=5, rows=4, temperature=0.7, top_p=0.8), {}),
        (SamplingParams(2, 20, temperature=0.0), {"first_sample": 3}),
        (SamplingParams(3, 17, seed=6, rows=9), {"prefix": [9, 11, 4], "banned_first": [5, 2]}),
        (SamplingParams(2, 1), {}),
    ],
)
def test_slots_sample_what_the_engine_of_the_cpu_does(model, tokenizer, monkeypatch, params, options):
    told = []
    pairs = both(model, prompts_of(tokenizer, 9), params, monkeypatch, progress=told.append, **options)
    for expected, found in zip(*pairs, strict=True):
        for one, other in zip(expected, found, strict=True):
            assert (one.tokens, one.finish) == (other.tokens, other.finish)
            assert other.logprobs == pytest.approx(one.logprobs, abs=1e-5)
    assert sum(told) == 2 * 9 * params.n


def test_a_width_of_its_own_is_computed_for_short_rows(model, tokenizer, monkeypatch):
    prompts = [*prompts_of(tokenizer, 5), [5] * (WIDTH + 3)]
    seen, whole = set(), Slots._decode
    monkeypatch.setattr(Slots, "_decode", lambda batch, *shape: (seen.add(shape), whole(batch, *shape))[1])
    expected, found = both(model, prompts, SamplingParams(2, 20, seed=1, rows=4), monkeypatch)
    assert [[one.tokens for one in group] for group in expected] == [[one.tokens for one in group] for group in found]
    assert {width for _, width in seen} == {WIDTH, WIDTH + 3 + 20}
    assert min(seen)[0] < 4 == max(seen)[0]  # half the rows or fewer, when no more are in progress


class Waits(TorchDispatchMode):
    """Counts the operations for which a host would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        masked = any(each is not None and each.dtype == torch.bool for each in by)
        self.number += masked or name in ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "equal")
        return function(*args, **(kwargs or {}))


def waits_per_token(model, prompts, params, monkeypatch):
    tolist = torch.Tensor.tolist
    with monkeypatch.context() as patch, Waits() as waits:
        patch.setattr(
            torch.Tensor, "tolist", lambda each: (setattr(waits, "number", waits.number + 1), tolist(each))[1]
        )
        rollout(model, prompts, params, stop=[])
    return waits.number / params.max_tokens


def test_the_host_waits_for_the_device_at_most_once_in_eight_tokens(model, tokenizer, monkeypatch):
    prompts, params = prompts_of(tokenizer, 2), SamplingParams(4, 6 * STEPS, seed=2)
    assert waits_per_token(model, prompts, replace(params, max_tokens=8), monkeypatch) > 4  # so they are counted
    monkeypatch.setattr(engine, "Batch", Slots)
    assert waits_per_token(model, prompts, params, monkeypatch) <= 1 / 8


def test_numbers_of_24_bits_choose_the_same_tokens_and_never_an_impossible_one(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 300, generator=generator)
    logits[:, 7], logits[:, -1] = -torch.inf, -torch.inf
    streams, position = torch.arange(50), torch.full((50,), 4)
    exact = choose.uniform(streams, position)
    tokens, logprobs = choose.choose(logits, torch.arange(50), exact, 0.9, 0.95)
    cut, found = choose.choose(logits, None, (exact * 2**24).floor().float() * 2.0**-24, 0.9, 0.95)
    assert tokens.tolist() == cut.tolist() and torch.equal(logprobs, found)
    edges = torch.tensor([0.0, 1 - 2.0**-24]).repeat(25)
    for number in (edges, edges.double()):
        assert choose.choose(logits, None, number, 1.0, 1.0)[1].isfinite().all()
