"""The rollout engine against the model's plain forward pass and against exact enumeration."""

import contextlib
from collections import Counter
from itertools import product

import pytest
import torch
from scipy.stats import chisquare

from r1_mini.model.architecture import make_model
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.params import SamplingParams


@pytest.fixture
def prompt(tokenizer):
    return ids(tokenizer, "1+2")


def ids(tokenizer, question):
    return tokenizer(f"User: {question}\nAssistant:", add_special_tokens=False)["input_ids"]


def sample(model, tokenizer, prompts, n, max_tokens, seed=0, temperature=1.0, rows=1024, **options):
    params = SamplingParams(n, max_tokens, temperature, seed=seed, rows=rows)
    return rollout(model, prompts, params, stop=[tokenizer.eos_token_id], **options)


def tokens_of(groups):
    return [done.tokens for group in groups for done in group]


def test_log_probabilities_are_those_of_the_plain_forward_pass(model, tokenizer):
    prompts = [*(ids(tokenizer, question) for question in ("1+2", "12+7-3", "99-98+97-96+95")), [5]]
    for prompt, group in zip(prompts, sample(model, tokenizer, prompts, 8, 40), strict=True):
        for done in group:
            with torch.no_grad():
                logits = model(torch.tensor([prompt + done.tokens])).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(done.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(done.logprobs), expected, atol=1e-4, rtol=0)


def test_a_completion_is_the_same_alone_among_512_and_among_few_rows(model, tokenizer):
    """But for ties at the level of rounding: at most one in a thousand."""
    prompts = [ids(tokenizer, f"{a}+7") for a in range(10, 42)]
    alone = [sample(model, tokenizer, [prompt], 16, 60, seed=6)[0] for prompt in prompts]
    for rows in (1024, 40):
        crowd = sample(model, tokenizer, prompts, 16, 60, seed=6, rows=rows)
        pairs = list(zip(tokens_of(crowd), tokens_of(alone), strict=True))
        assert len(pairs) == 512
        assert sum(a != b for a, b in pairs) <= len(pairs) / 1000


@contextlib.contextmanager
def rows_read(model):
    """How many rows each forward pass reads, and how many tokens in each."""
    rollout(model, [[5]], SamplingParams(1, 1), stop=[])  # the model is tried the first time
    shapes = []
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda _, read: shapes.append(tuple(read[0].shape)))
    yield shapes
    hook.remove()


def test_completions_that_agree_are_read_once_and_temperature_zero_takes_the_most_likely_token(model, tokenizer):
    """Greedy samples never differ: one row a prompt, whatever the group."""
    prompts = [ids(tokenizer, question) for question in ("1+2", "7-4")]
    with rows_read(model) as shapes:
        done = sample(model, tokenizer, prompts, 8, 10, temperature=0.0)
    assert shapes[0] == (2, len(prompts[0]) - 1)
    assert all(rows <= 2 and tokens == 1 for rows, tokens in shapes[1:])
    for prompt, group in zip(prompts, done, strict=True):
        assert all(each == group[0] for each in group)
        context = list(prompt)
        for token in group[0].tokens:
            with torch.no_grad():
                assert token == int(model(torch.tensor([context])).logits[0, -1].argmax())
            context.append(token)


def test_a_group_has_as_many_rows_as_it_has_different_beginnings(model, tokenizer, prompt):
    with rows_read(model.train()) as shapes:
        (group,) = sample(model, tokenizer, [prompt], 64, 3, seed=4)
    assert model.training  # as it was
    model.eval()
    firsts = {c.tokens[0] for c in group if len(c.tokens) > 1}
    assert 1 < len(firsts) < 64
    assert shapes[1:3] == [(1, 1), (len(firsts), 1)]


def test_no_more_rows_are_in_work_than_allowed_and_the_others_wait(model, tokenizer):
    prompts = [ids(tokenizer, f"{a}+{b}") for a in range(8) for b in (3, 33, 12)]
    told = []
    with rows_read(model) as shapes:
        done = sample(model, tokenizer, prompts, 4, 30, seed=5, rows=8, progress=told.append)
    assert max(rows for rows, _ in shapes) <= 8
    assert sum(told) == 96 == sum(map(len, done))
    alone = sample(model, tokenizer, prompts, 4, 30, seed=5, rows=2)  # as a group that is larger than allowed
    assert tokens_of(alone) == tokens_of(done)


def test_another_seed_gives_other_completions_and_a_prompt_asked_twice_fresh_ones(model, tokenizer, prompt):
    once = tokens_of(sample(model, tokenizer, [prompt], 8, 10))
    assert once != tokens_of(sample(model, tokenizer, [prompt], 8, 10, seed=1))
    assert once == tokens_of(sample(model, tokenizer, [prompt, prompt], 4, 10))
    assert once[4:] == tokens_of(sample(model, tokenizer, [prompt], 4, 10, elsewhere=[prompt]))


def test_frequencies_match_exact_enumeration(model, tokenizer, prompt):
    """Two tokens drawn 20,000 times over the 40 most likely outcomes and the rest: chi-square at the 0.1 % level."""
    n = 20_000
    done = sample(model, tokenizer, [prompt], n, 2, seed=3)[0]
    seen = Counter(tuple(c.tokens) for c in done)
    with torch.no_grad():
        first = model(torch.tensor([prompt])).logits[0, -1].softmax(-1).double()
        seconds = model(torch.tensor([[*prompt, t] for t in range(len(first))])).logits[:, -1].softmax(-1).double()
    eos = tokenizer.eos_token_id
    exact = {(a, b): float(first[a] * seconds[a, b]) for a, b in product(range(len(first)), repeat=2) if a != eos}
    exact[eos,] = float(first[eos])
    common = sorted(exact, key=exact.__getitem__, reverse=True)[:40]
    observed, expected = ([each[key] for key in common] for each in (seen, {key: n * exact[key] for key in common}))
    assert min(expected) > 5
    assert chisquare([*observed, n - sum(observed)], [*expected, n - sum(expected)]).pvalue > 1e-3


def test_the_stop_token_ends_a_completion_and_is_kept(model, tokenizer, prompt):
    done = sample(model, tokenizer, [prompt], 400, 40, seed=1)[0]
    stopped = [c for c in done if c.finish == "stop"]
    assert stopped
    assert all(c.tokens.count(tokenizer.eos_token_id) == 1 and c.tokens[-1] == tokenizer.eos_token_id for c in stopped)
    assert all(len(c.tokens) == 40 and tokenizer.eos_token_id not in c.tokens for c in done if c.finish == "length")


def test_a_forced_prefix_leads_and_a_banned_token_does_not_follow(model, tokenizer, prompt):
    think, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    with torch.no_grad():
        likely = int(model(torch.tensor([[*prompt, think]])).logits[0, -1].argmax())
    done = sample(model, tokenizer, [prompt], 200, 3, prefix=(think,), banned_first=(likely, end))[0]
    assert all(c.tokens[0] == think and c.tokens[1] not in (likely, end) for c in done)
    assert all(len(c.logprobs) == len(c.tokens) and c.logprobs[0] == 0.0 for c in done)


def test_eager_attention_sees_no_padding_either(tokenizer):
    model = make_model(tokenizer, hidden_size=32, layers=2, heads=2, intermediate_size=64, seed=0)
    model.set_attn_implementation("eager")
    prompts = [ids(tokenizer, question) for question in ("1+1", "1+2+3+4+5+6", "9-8+7")]
    together = sample(model, tokenizer, prompts, 1, 12, temperature=0.0)
    alone = [sample(model, tokenizer, [prompt], 1, 12, temperature=0.0)[0] for prompt in prompts]
    assert tokens_of(together) == tokens_of(alone)
