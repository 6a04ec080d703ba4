"""Models of many makers, tiny and random, against their plain forward pass: by the engine, or by what replaces it."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from r1_mini.rollout import batch, engine
from r1_mini.rollout.cache import visible
from r1_mini.rollout.engine import rollout
from r1_mini.rollout.fallback import by_generate, why_not_engine
from r1_mini.rollout.params import SamplingParams

SHAPE = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2}
SHAPE |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
OPENAI = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
FULL = {
    "Llama": {},
    "Qwen2": {},
    "Qwen3": {},
    "Gemma": {},
    "Phi": {},
    "Olmo2": {},
    "GPTNeoX": {},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "GPT2": OPENAI,
    "GPTBigCode": OPENAI,
    "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    "SmolLM3": {},
    "Cohere": {},
}
WINDOW, MIXED = {"sliding_window": 8}, {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
SLIDING = {
    "Gemma2": WINDOW,
    "Gemma3Text": MIXED,
    "Olmo3": MIXED,
    "Cohere2": MIXED,
    "GptOss": {**WINDOW, "num_local_experts": 2, "num_experts_per_tok": 1},
    "Ministral": WINDOW,
    "Qwen2": {**WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    "Mistral": WINDOW,
    "Starcoder2": WINDOW,
    "Phi3": WINDOW,
}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
LINEAR |= {"layer_types": ["linear_attention", "full_attention"]}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
OTHERS = {
    "GPTNeo": {"num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "Bloom": {"n_layer": 2, "n_head": 4},  # ALiBi
    "Lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "Qwen3_5Text": LINEAR,
    "Mamba2": {"state_size": 8, "num_heads": 8, "n_groups": 1, "chunk_size": 8},
    "GraniteMoeHybrid": {**MAMBA, "layer_types": ["mamba", "attention"], "num_local_experts": 0},
    "Llama4Text": {"attention_chunk_size": 8, "intermediate_size_mlp": 48, "num_local_experts": 1},
    "Rwkv": {"attention_hidden_size": 32},  # its own cache is wrong, too
}


def make(kind, **fields):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPE | fields)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def random_prompts(*lengths):
    numbers = torch.Generator().manual_seed(5)
    return [torch.randint(3, 97, (length,), generator=numbers).tolist() for length in lengths]


def gap(model, prompts, groups):
    """The largest difference to log-probabilities of the plain forward pass."""
    gaps = []
    for prompt, group in zip(prompts, groups, strict=True):
        for done in group:
            with torch.no_grad():
                logits = model(torch.tensor([prompt + done.tokens]), use_cache=False).logits[0, len(prompt) - 1 : -1]
            plain = logits.log_softmax(-1).gather(1, torch.tensor(done.tokens)[:, None])[:, 0]
            gaps.append((plain - torch.tensor(done.logprobs)).abs().max())
    return max(gaps)


@pytest.mark.parametrize("kind,fields", [*FULL.items(), *SLIDING.items()])
def test_the_engine_is_right_where_layers_see_everything_and_where_they_see_a_window(kind, fields):
    model, prompts = make(kind, **fields), random_prompts(20, 5, 1)
    assert gap(model, prompts, rollout(model, prompts, SamplingParams(3, 10), stop=[])) <= 2e-5
    assert not why_not_engine(model)


@pytest.mark.parametrize("kind,fields", OTHERS.items())
def test_what_the_engine_cannot_sample_is_sampled_right_by_transformers_and_training_keeps_its_random_numbers(
    kind, fields
):
    model, prompts, state = make(kind, **fields), random_prompts(12, 5, 5, 2), torch.get_rng_state()
    groups = rollout(model, prompts, SamplingParams(3, 12), stop=[])
    assert gap(model, prompts, groups) <= 2e-5
    assert "transformers' generate samples, since " in why_not_engine(model)
    assert groups == rollout(model, prompts, SamplingParams(3, 12), stop=[])
    one_by_one = rollout(model, prompts, SamplingParams(3, 12, rows=1), stop=[])
    assert [[done.tokens for done in group] for group in one_by_one] == [[d.tokens for d in group] for group in groups]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("kind", ["Gemma3Text", "Mistral", "Qwen2"])
def test_a_window_that_the_engine_forgot_would_be_found(kind, monkeypatch):
    model = make(kind, **SLIDING[kind])
    monkeypatch.setattr(batch, "visible", lambda config, *args: visible(transformers.LlamaConfig(), *args))
    rollout(model, random_prompts(20), SamplingParams(1, 1), stop=[])
    assert "log-probabilities of r1-mini's sampler are off by" in why_not_engine(model)


def test_in_16_bits_rounding_is_no_fault_and_a_fault_is_still_one():
    for kind, is_wrong in (("Llama", False), ("Mistral", False), ("GPTNeo", True)):
        model = make(kind, **{**FULL, **SLIDING, **OTHERS}[kind]).to(torch.bfloat16)
        rollout(model, random_prompts(20), SamplingParams(1, 1), stop=[])
        assert bool(why_not_engine(model)) is is_wrong


def test_a_model_is_tried_once_and_beyond_its_window_only_if_so_much_is_asked():
    model, widths = make("GPTNeo", **OTHERS["GPTNeo"] | {"window_size": 32}), []
    model.register_forward_pre_hook(lambda _, args, given: widths.append(given["input_ids"].shape[1]), with_kwargs=True)
    for length, width, why in ((20, 16, False), (30, 64, True)):
        widths.clear()
        rollout(model, random_prompts(length), SamplingParams(1, 4), stop=[])
        assert max(widths) == max(length - 1, width)
        assert bool(why_not_engine(model)) is why
        widths.clear()
        rollout(model, random_prompts(length), SamplingParams(1, 4), stop=[])
        assert len(widths) <= 5


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(8, 40, seed=3),
        SamplingParams(8, 40, 0.7, top_p=0.8, rows=20),
        SamplingParams(2, 40, 0.0),
    ],
)
def test_both_samplers_write_the_same_completions(model, tokenizer, params, monkeypatch):
    prompts = tokenizer([f"User: {each}\nAssistant:" for each in ("1+2", "12+7-3", "1+2")])["input_ids"]
    think, end = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    told = []
    options = {"stop": [tokenizer.eos_token_id], "prefix": [think], "banned_first": [end], "first_sample": 5}
    ours = rollout(model, prompts, params, **options)
    model.generation_config.repetition_penalty = 2.0  # no part of the policy
    monkeypatch.setattr(engine, "sampler_for", lambda *args: by_generate)
    theirs = rollout(model, prompts, params, **options, progress=told.append)
    assert model.generation_config.repetition_penalty == 2.0
    model.generation_config.repetition_penalty = None
    assert sum(told) == 3 * params.n
    assert {done.finish for group in ours for done in group} == {"stop", "length"} or params.temperature == 0
    for group, other in zip(ours, theirs, strict=True):
        for a, b in zip(group, other, strict=True):
            assert (a.tokens, a.finish) == (b.tokens, b.finish)
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
