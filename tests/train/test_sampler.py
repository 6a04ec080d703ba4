"""The twin that samples under `bf16`, against the model that it samples for."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from r1_mini.rollout.engine import rollout
from r1_mini.rollout.fallback import why_not_engine
from r1_mini.rollout.params import SamplingParams
from r1_mini.train.sampler import Twin
from tests.train.test_grpo import make_trainer

PROMPTS = [[5, 6, 7], [8, 9, 10, 11]]


def qwen(tied=False):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = Qwen2Config(**shape, num_key_value_heads=2, vocab_size=300, tie_word_embeddings=tied)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    model.get_output_embeddings().weight.data *= 3 if tied else 60
    return model


def adapted():
    model = get_peft_model(qwen(), LoraConfig(r=4, target_modules="all-linear")).eval()
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.02)
    return model


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=300)).eval()


def gap_of(model, head=True):
    """Mean difference of log-probabilities, sampled by the twin and scored by TRL's fused head."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    add_fused_lm_head(plain, cast_lm_head_to_fp32=head)  # which the twin must not call
    twin, gaps = Twin(model, torch.bfloat16), []
    twin.refresh()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        groups = rollout(twin.model, PROMPTS, SamplingParams(8, 25, seed=1), stop=[])
        assert not why_not_engine(twin.model)
        for prompt, group in zip(PROMPTS, groups, strict=True):
            for done in group:
                ids = torch.tensor([prompt + done.tokens])
                labels = torch.tensor([[-100] * len(prompt) + done.tokens])
                scored = model(input_ids=ids, labels=labels, fused_lm_head=True).log_probs[0, len(prompt) - 1 :]
                gaps += (scored - torch.tensor(done.logprobs)).abs().tolist()
    return sum(gaps) / len(gaps)


@pytest.mark.parametrize("make", [qwen, lambda: qwen(tied=True), adapted, gpt2, lambda: qwen().to(torch.bfloat16)])
def test_what_the_twin_samples_is_as_likely_as_the_trainer_finds_it_and_its_head_must_be_float32(make):
    assert 2 * gap_of(make()) < gap_of(make(), head=False)  # TRL's default, which rounds logits to 16 bits
    assert gap_of(make()) < 0.006


@pytest.mark.parametrize("make", [qwen, adapted])
def test_copies_follow_the_trained_weights_and_stay_where_they_are(make):
    model = make()
    twin, before = Twin(model, torch.bfloat16), {name: each.clone() for name, each in model.named_parameters()}
    places = [copied.data_ptr() for copied, _ in twin.copies]
    ids = torch.tensor(PROMPTS[:1])
    for _ in range(2):
        twin.refresh()
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            assert torch.allclose(twin.model(ids).logits, model(ids).logits.float(), atol=0.3)
            next(module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)).mul_(-3)
    assert [copied.data_ptr() for copied, _ in twin.copies] == places
    assert sum(not torch.equal(each, before[name]) for name, each in model.named_parameters()) == 1  # that one


class Casts(TorchDispatchMode):
    """The sizes of what is cast to 16 bits."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ == "_to_copy" and out.dtype == torch.bfloat16:
            self.sizes.append(out.numel())
        return out


def test_neither_weights_nor_cached_keys_are_cast_for_a_token():
    twin, casts = Twin(qwen(), torch.bfloat16), Casts()
    twin.refresh()
    with torch.autocast("cpu", torch.bfloat16), casts:
        rollout(twin.model, [[5] * 40], SamplingParams(1, 4), stop=[])
    after = casts.sizes[-3 * 7 * 3 :]  # of three tokens: 7 casts a layer, of one token's activations
    assert max(after) <= 64  # a row of an MLP
    assert max(casts.sizes) > 64  # in the prefill, so they are counted


def test_a_trainer_samples_with_its_twin_and_gets_the_weights_of_the_moment(tmp_path):
    trainer = make_trainer(tmp_path, bf16=True, reward="length", max_steps=3, max_completion_length=40)
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(30)
    trainer.train()
    steps = [each for each in trainer.state.log_history if "logp_gap_mean" in each]
    assert len(steps) == 3 and max(step["logp_gap_max"] for step in steps) < 0.02 and steps[0]["grad_norm"] > 0
    assert all(weights.dtype == torch.float32 for weights in trainer.model.parameters())
    plain = make_trainer(tmp_path)
    with plain.sampler() as model:
        assert model is plain.model and not torch.is_autocast_enabled("cpu")
