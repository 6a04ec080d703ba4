"""The plan of a recipe: each part of memory by hand, what usually goes wrong, and how the command ends."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from r1_mini import cli
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_config, make_model
from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.pipeline.recipe import load
from r1_mini.plan import Exam
from r1_mini.plan.dry_run import DryModel, Ledger
from r1_mini.plan.plan import plan, tokenizer_faults
from r1_mini.plan.stages import Share, first_prompts, largest_pass, sampling
from r1_mini.rollout.cache import RolloutCache
from r1_mini.rollout.engine import SamplingParams
from r1_mini.system import environment
from r1_mini.train.logps import narrow_tiles
from r1_mini.train.stage import Work
from tests.conftest import TINY

SHAPE = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64}
VOCABULARY = len(make_tokenizer())
MIB = 2**20
CPU = environment.Device("cpu", "a processor", 24 * 2**30, 20 * 2**30)
GPU = environment.Device("cuda", "a GPU", 80 * 2**30, 80 * 2**30)
EXAM = Exam("smoke", "dev", ("1+2+3", "9-4+1"), SamplingParams(4, 64), True, "float32", 500)
BASE = TINY[: TINY.index("  - kind: grpo")]


@pytest.fixture(scope="module")
def dry():
    return DryModel(make_config(make_tokenizer(), **SHAPE))


PLANS: dict = {}  # made once for all tests; nobody changes one


def planned(recipe_file, *overrides, text=TINY, exam=EXAM, device=CPU, share=Share()):  # noqa: B008
    key = (text, overrides, exam, device, share)
    if key not in PLANS:
        PLANS[key] = plan(load(recipe_file(text), overrides), exam, {}, device, share, framework=500 * MIB)
    return PLANS[key]


def part(made, name):
    return next(part for part in made.parts if part.name == name)


def sizes(made, part_name, phase):
    """Name of a part of memory -> bytes."""
    return part(made, part_name).phases[phase]


def remarks(made):
    return [remark.text for remark in made.remarks]


# the dry run


def test_parameters_are_those_of_the_real_model_and_of_the_sum_by_hand(dry):
    layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32  # attention, MLP, two norms
    assert dry.parameters == 2 * VOCABULARY * 32 + 2 * layer + 32
    assert dry.parameters == make_model(make_tokenizer(), **SHAPE, seed=0).num_parameters()
    assert dry.weights == dry.gradients == 4 * dry.parameters
    assert dry.gathered() == 4 * (2 * VOCABULARY * 32 + layer + 32)


def test_a_model_of_billions_takes_no_memory_to_plan():
    before = environment.resident()
    config = Qwen2Config(vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28,
                         num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False)  # fmt: skip
    assert DryModel(config).parameters == 7_615_616_512  # Qwen2.5-7B
    assert environment.resident() - before < 200 * MIB


def test_tied_weights_are_counted_once():
    config = LlamaConfig(
        vocab_size=1000, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    untied, tied = DryModel(config), DryModel(LlamaConfig(**{**config.to_dict(), "tie_word_embeddings": True}))
    assert untied.weights - tied.weights == 4 * 1000 * 32


def test_a_mixture_of_experts_is_refused():
    with pytest.raises(UserError, match="mixture of experts depends on its tokens"):
        DryModel(LlamaConfig(num_experts=8))


def test_the_dry_update_takes_what_a_real_one_takes(dry):
    from trl.trainer.utils import add_fused_lm_head

    model = make_model(make_tokenizer(), **SHAPE, seed=0)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    ids = torch.zeros(6, 20, dtype=torch.long)
    ledger = Ledger([*model.parameters(), *model.buffers()])
    with ledger, narrow_tiles(VOCABULARY):
        model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum().backward()
    masks = 6 * 20 * 20 * (4 * 2 + 1)  # fake tensors always get a mask: a float for each layer, and a bool
    assert ledger.peak <= dry.update(6, 20) + dry.gradients <= ledger.peak + 2 * masks


def test_a_pass_that_adds_to_gradients_and_its_gradients_are_counted_apart(dry):
    first, second = dry.update(64, 64), dry.update(64, 64, again=True)
    assert first < second <= first + dry.gradients
    assert dry.update(64, 64) == first  # nothing is left over from the other


def test_checkpointing_and_bfloat16_take_less(dry):
    config = make_config(make_tokenizer(), **SHAPE)
    plain = dry.update(16, 64)
    assert DryModel(config, checkpointing=True).update(16, 64) < 0.7 * plain
    assert DryModel(config, bf16=True).update(16, 64) < plain


def test_the_cache_is_as_large_as_the_samplers(dry):
    model = make_model(make_tokenizer(), **SHAPE, seed=0)
    cache = RolloutCache(model.config, 5, 9)
    cache.begin(torch.arange(5))
    with torch.no_grad():
        model(input_ids=torch.zeros(5, 3, dtype=torch.long), past_key_values=cache, use_cache=True)
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    parts = sampling(dry, SamplingParams(1, 6), rows=5, prompt=3)
    assert parts["keys and values"] == real == 5 * 9 * 2 * 2 * 16 * 2 * 4


@pytest.mark.parametrize("more", [{}, {"head_dim": 24}])
def test_grouped_heads_share_a_cache_and_a_head_may_have_its_own_width(more):
    config = LlamaConfig(vocab_size=50, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
                         num_key_value_heads=2, **more)  # fmt: skip
    parts = sampling(DryModel(config), SamplingParams(1, 4), rows=10, prompt=3)
    assert parts["keys and values"] == 10 * 7 * 3 * 2 * more.get("head_dim", 16) * 2 * 4


def test_sampling_counts_logits_their_logarithms_and_sums(dry):
    # logits, their quotient by the temperature and its logarithms as float; probabilities and their sums as double
    assert 24 * 50 * VOCABULARY <= dry.choice(50, 1.0, 1.0) <= 40 * 50 * VOCABULARY < dry.choice(50, 1.0, 0.9)


@pytest.mark.parametrize(
    ("optimizer", "each", "tried"),
    [
        ("adamw_torch_fused", 8, True),
        ("sgd", 0, True),
        ("rmsprop", 4, True),
        ("adamw_8bit", 2, False),
        ("nobody_knows", 8, False),
    ],
)
def test_states_of_optimizers_by_hand(dry, optimizer, each, tried):
    states, _, was_tried = dry.optimizer(optimizer)
    assert was_tried is tried
    assert states == pytest.approx(each * dry.parameters, abs=100)  # and a step counter a tensor


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix(dry):
    matrices = 2 * (VOCABULARY + 32) + 2 * (4 * (32 + 32) + 3 * (32 + 64))
    assert dry.optimizer("adafactor")[0] == pytest.approx(4 * (matrices + 5 * 32), abs=100)


def test_muon_keeps_one_number_for_hidden_matrices_and_two_for_the_rest_as_the_real_one_does(dry):
    hidden = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    states, temporaries, tried = dry.optimizer("muon")
    assert tried and states == 4 * hidden + 8 * (dry.parameters - hidden)
    assert temporaries > 4 * hidden  # the update looked ahead, and stacked
    model = make_model(make_tokenizer(), **SHAPE, seed=0)
    optimizer = MuonAdamW(model, lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert sum(t.nbytes for state in optimizer.state.values() for t in state.values()) == states


def test_an_adapter_is_what_is_trained_and_kept_in_the_optimizer_and_bfloat16_halves_the_rest():
    lora = {"r": 4, "target_modules": ["q_proj"]}
    config = make_config(make_tokenizer(), **SHAPE)
    whole, adapted = DryModel(config), DryModel(config, torch.bfloat16, lora, checkpointing=True)
    adapter = 2 * (4 * 32 + 32 * 4)  # layers x (A + B), float32
    assert adapted.gradients == 4 * adapter
    assert adapted.optimizer("adamw_torch")[0] == pytest.approx(8 * adapter, abs=100)
    assert adapted.weights == 2 * whole.parameters + 4 * adapter
    assert adapted.parameters == whole.parameters
    assert adapted.update(8, 40) > 0
    caches = [sampling(each, SamplingParams(1, 30), 8, 10)["keys and values"] for each in (whole, adapted)]
    assert caches[0] == 2 * caches[1] == 8 * 40 * 2 * 2 * 16 * 2 * 4


# whole plans


def test_the_largest_pass_by_hand():
    work = Work(1, micro_batch=64, accumulation=1, texts=64)
    lengths = [10, 14], [20, 30]
    assert largest_pass(work, *lengths, True) == (64, 44)
    work = replace(work, sampling=SamplingParams(4, 86), batching="by length")
    assert largest_pass(work, *lengths, True) == (54, 44)  # the mean: 64 x (12 + 25) tokens
    assert largest_pass(work, [10, 14], [], True) == (63, 100)  # 64 x (12 + 86) tokens in rows of 14 + 86
    assert largest_pass(replace(work, batching="padded"), *lengths, True) == (64, 100)
    work = replace(work, batching="in backward")
    assert largest_pass(work, *lengths, True) == (20, 100)  # 2,048 tokens
    assert largest_pass(work, *lengths, False) == (64, 100)  # 8,192 tokens


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients", "optimizer"),
    [("none", 1, 1, 1), ("zero2", 1, 4, 4), ("zero3", 4, 4, 4), ("fsdp", 4, 4, 4)],
)
def test_sharding_divides_what_it_divides(recipe_file, sharding, weights, gradients, optimizer):
    one, four = (sizes(planned(recipe_file, share=Share(n, sharding)), "02-grpo", "optimizer") for n in (1, 4))
    assert four["weights"] == one["weights"] / weights
    assert four["gradients"] == one["gradients"] / gradients
    assert four["optimizer"] == pytest.approx(one["optimizer"] / optimizer, abs=1)
    assert not one["copies of processes"]
    if sharding == "none":  # DDP's buckets
        assert four["copies of processes"] == one["gradients"]
    else:  # gathered weights: the largest layer and what is outside layers
        assert (0 < four["copies of processes"] < one["weights"]) == (weights == 4)


def test_generation_under_zero3_gathers_all_weights_and_under_fsdp_a_layer(recipe_file):
    zero3, fsdp = (
        sizes(planned(recipe_file, share=Share(2, name)), "02-grpo", "sampling") for name in ("zero3", "fsdp")
    )
    assert zero3["copies of processes"] == 2 * zero3["weights"] > fsdp["copies of processes"]


def test_counts_are_those_of_the_recipe_by_hand(recipe_file):
    made = planned(recipe_file, "grpo.trainer.steps_per_generation=2", "grpo.trainer.max_steps=10")
    assert part(made, "01-base").counts["texts"] == 3 * 8
    grpo = part(made, "02-grpo").counts
    assert (grpo["rollouts"], grpo["prompts"], grpo["completions"]) == (5, 5 * 32 // 4, 160)
    assert grpo["tokens, at most"] == 160 * 128
    assert part(made, "exam smoke").counts == {
        "checkpoints": 3, "problems": 2, "completions": 30, "tokens, at most": 30 * 64,
    }  # fmt: skip
    assert part(made, "exam smoke").disk == 30 * 500


def test_a_reference_model_is_counted_where_there_is_a_kl_and_no_adapter(recipe_file):
    weights = 4 * planned(recipe_file).parameters
    made = planned(recipe_file)
    assert not sizes(made, "02-grpo", "update")["reference"]
    assert sizes(made, "02-grpo", "update")["weights"] == weights
    assert sizes(made, "02-grpo", "optimizer")["optimizer"] == pytest.approx(2 * weights, abs=500)
    kl = planned(recipe_file, "grpo.trainer.beta=0.04")
    assert {sizes(kl, "02-grpo", phase)["reference"] for phase in ("update", "sampling")} == {weights}
    adapter = planned(recipe_file, "grpo.trainer.beta=0.04", "grpo.peft={r: 2, target_modules: all-linear}")
    assert not sizes(adapter, "02-grpo", "update")["reference"]


def test_an_update_that_cannot_wait_holds_all_rows_at_once(recipe_file):
    big = ("grpo.trainer.per_device_train_batch_size=256", "grpo.trainer.max_completion_length=60")
    waits = sizes(planned(recipe_file, *big), "02-grpo", "update")["activations"]
    old = sizes(planned(recipe_file, *big, "grpo.trainer.num_iterations=2"), "02-grpo", "update")["activations"]
    assert 2 < old / waits < 8  # 256 texts of mean length, not 2,048 tokens


def test_rows_bound_the_samplers_cache(recipe_file):
    many = "grpo.trainer.per_device_train_batch_size=64"
    all_at_once, few = (
        sizes(planned(recipe_file, many, f"grpo.rows={rows}"), "02-grpo", "sampling") for rows in (1024, 16)
    )
    assert all_at_once["keys and values"] == 4 * few["keys and values"]


def test_processes_share_a_cpus_memory_and_have_a_gpu_each(recipe_file):
    cpu, gpu = (planned(recipe_file, share=Share(2), device=device) for device in (CPU, GPU))
    assert cpu.needed == 2 * cpu.peak[0]
    assert gpu.needed == gpu.peak[0]
    assert sizes(cpu, "02-grpo", "update")["framework"] == 500 * MIB
    assert not sizes(gpu, "02-grpo", "update")["framework"]


def test_vllm_keeps_its_share_of_the_card_from_its_stage_on(recipe_file):
    vllm = (
        "grpo.trainer.use_vllm=true",
        "grpo.trainer.vllm_mode=colocate",
        "grpo.trainer.vllm_gpu_memory_utilization=0.25",
    )
    made = planned(recipe_file, *vllm, device=GPU)
    assert "vLLM" not in sizes(made, "01-base", "update")
    assert {sizes(made, *at)["vLLM"] for at in (("02-grpo", "update"), ("exam smoke", "sampling"))} == {20 * 2**30}
    assert "keys and values" not in sizes(made, "02-grpo", "sampling")


def test_a_rejection_stage_samples_without_an_optimizer(recipe_file):
    text = BASE + "  - {kind: rejection, rounds: 2, prompts: 10, samples: 4, max_tokens: 30}\n"
    made = part(planned(recipe_file, text=text), "02-rejection")
    assert (made.counts["completions"], made.counts["tokens, at most"], made.counts["steps, at most"]) == (80, 2400, 2)
    assert not made.phases["sampling"].get("optimizer") and made.phases["update"]["optimizer"]
    assert made.disk_meanwhile == 2 * (made.disk + made.disk + made.phases["update"]["optimizer"])


def test_an_sft_stage_is_planned_with_its_adapter(recipe_file):
    text = (
        BASE
        + "  - {kind: sft, peft: {r: 2, target_modules: all-linear}, trainer: {max_steps: 5, per_device_train_batch_size: 4}}\n"
    )
    made = part(planned(recipe_file, text=text), "02-sft")
    assert made.counts["texts"] == 20
    step = made.phases["optimizer"]
    assert step["optimizer"] == pytest.approx(2 * step["gradients"], abs=500)
    assert step["optimizer"] < step["weights"] / 10


def test_an_exam_on_dev_is_a_phase_of_its_stage(recipe_file):
    made = plan(load(recipe_file()), EXAM, {2: EXAM}, CPU, Share(), 0)
    during, after = sizes(made, "02-grpo", "exam on dev"), sizes(made, "exam smoke", "sampling")
    assert during["keys and values"] == after["keys and values"]
    assert during["optimizer"] and not during["reference"] and after["reference"]


def test_every_plan_is_plain_data(recipe_file):
    made = planned(recipe_file)
    data = made.as_json()
    assert json.loads(json.dumps(data)) == json.loads(json.dumps(data, default=None))
    assert data["fits"] is True
    assert data["needed"] == max(sum(p.values()) for each in data["parts"] for p in each["phases"].values())


# prompts and remarks


def test_prompts_are_shown_as_the_sampler_is_given_them(recipe_file):
    first = part(planned(recipe_file), "02-grpo").prompts[0]
    assert first.text.startswith("User: ") and first.text.endswith("\nAssistant:")
    assert list(first.ids) == encode(make_tokenizer(), [first.text])[0]
    assert "".join(first.tokens) == first.text
    exam = part(planned(recipe_file), "exam smoke").prompts
    assert [p.text for p in exam] == ["User: 1+2+3\nAssistant:", "User: 9-4+1\nAssistant:"]
    for text in part(planned(recipe_file), "01-base").prompts:  # a stage that reads shows what it reads
        assert text.tokens[-1] == "<eos>" and "<think>" in text.tokens


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bpe(eos="<|im_end|>", pad="<|pad|>", template=CHATML):
    """A small byte-level tokenizer with a chat template, trained on the spot."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["system user assistant the answer is 12+34"], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, pad_token=pad)
    made.chat_template = template
    return made


def test_a_sound_tokenizer_gets_no_warning():
    assert list(tokenizer_faults(bpe(), None)) == []
    assert list(tokenizer_faults(make_tokenizer(), None)) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"eos": "<|endoftext|>"}, r"ends a turn with '<|im_end|>\n', which has none of the tokens that end a completion ('<|endoftext|>')"),
        ({"eos": None}, "has no EOS token"),
        ({"pad": None}, "has no pad token"),
        ({"pad": "<|im_end|>"}, "the pad token is the EOS token '<|im_end|>'"),
        ({"template": "{% for m in messages %}{{ m.content }} {% endfor %}"}, "writes nothing at the end of a turn"),
        ({"template": "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}{% endfor %}"},
         "refuses an assistant's turn"),
    ],
)  # fmt: skip
def test_what_a_chat_tokenizer_lacks_is_said(change, text):
    assert any(text in fault for fault in tokenizer_faults(bpe(**change), None))


def test_the_end_of_a_turn_may_also_stand_in_the_generation_settings():
    tokenizer = bpe(eos="<|endoftext|>")
    ends = GenerationConfig(eos_token_id=[0, tokenizer.convert_tokens_to_ids("<|im_end|>")])
    assert list(tokenizer_faults(tokenizer, ends)) == []


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("grpo.trainer.max_completion_length=20", "worked solutions do not fit into 20 tokens"),
        ("grpo.trainer.max_completion_length=1020", "and a completion of 1020 do not fit into the context length of 1024"),
        ("grpo.trainer.optim=galore_adamw", "optim=galore_adamw does not run here"),
    ],
)  # fmt: skip
def test_what_usually_goes_wrong_is_foreseen(recipe_file, override, text):
    assert any(text in remark for remark in remarks(planned(recipe_file, override)))
    assert not any(text in remark for remark in remarks(planned(recipe_file)))


def test_more_processes_than_groups_are_refused_as_a_run_would(recipe_file):
    few = ("grpo.trainer.per_device_train_batch_size=2", "grpo.trainer.generation_batch_size=4")
    with pytest.raises(UserError, match=r"^--processes 2: 02-grpo.trainer: "):
        planned(recipe_file, *few, share=Share(2))
    assert planned(recipe_file, *few).fits
    assert part(planned(recipe_file, share=Share(2)), "02-grpo").counts["completions"] == 2 * 2 * 16


def test_the_test_split_is_not_for_choosing(recipe_file):
    (note,) = [r for r in planned(recipe_file, exam=replace(EXAM, split="test")).remarks if "evaluate.split" in r.text]
    assert note.kind == "note"
    assert not any("evaluate.split" in text for text in remarks(planned(recipe_file)))


def test_logits_that_alone_exceed_the_memory_are_said(recipe_file, dry):
    made = planned(recipe_file, device=replace(CPU, memory=dry.choice(8, 1.0, 1.0) - 1))
    assert not made.fits
    assert any("logits of the sampling alone take more than the memory" in text for text in remarks(made))


def test_a_plan_that_barely_fits_says_so(recipe_file):
    needed = planned(recipe_file).needed
    made = planned(recipe_file, device=replace(CPU, memory=round(1.1 * needed), free=needed - 1))
    assert made.fits
    assert any("and so much is not left" in r.text and r.kind == "warning" for r in made.remarks)
    assert any("other programs have too much of it" in text for text in remarks(made))


# a model of another make, and the command


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """A checkpoint of a small Llama with a chat tokenizer, whose weights cannot be read."""
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = bpe()
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64,
                             num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=2048))  # fmt: skip
    save_checkpoint(model, tokenizer, folder)
    (folder / "model.safetensors").write_bytes(b"nobody reads this")
    return folder


def other(folder):
    return f"name: other\nmodel: {folder}\nproblems: [{{family: sum}}]\nstages: [{{kind: grpo, trainer: {{per_device_train_batch_size: 16}}}}]\n"


def test_only_the_configuration_of_a_given_model_is_read(recipe_file, chat_model):
    made = planned(recipe_file, text=other(chat_model))
    layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32
    assert made.parameters == 2 * len(bpe()) * 32 + layer + 32
    first = made.parts[0].prompts[0].text
    assert first.startswith("<|im_start|>system\n") and first.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert first == prompt_for(bpe(), first.rpartition("user\n")[2].partition("<|im_end|>")[0])
    assert first_prompts(bpe(), encode(bpe(), [first]))[0] == made.parts[0].prompts[0]


def run_plan(recipe_file, *arguments, text=TINY):
    return cli.main(["plan", str(recipe_file(text)), "evaluate.suite=smoke", *arguments])


def test_the_command_shows_the_plan_and_writes_it(recipe_file, tmp_path, capsys):
    assert run_plan(recipe_file, "--json", str(tmp_path / "plan.json")) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("fits: ")
    for word in ("01-base: memory, MiB", "02-grpo: memory, MiB", "keys and values", "<think>·3", "note exam smoke"):
        assert word in out
    made = json.loads((tmp_path / "plan.json").read_text())
    assert [each["name"] for each in made["parts"]] == ["01-base", "02-grpo", "exam smoke"]
    assert made["parts"][1]["prompts"][0]["tokens"][0] == "User: "
    assert not list(tmp_path.glob("runs"))


def test_a_plan_can_be_made_for_a_gpu_that_is_elsewhere(recipe_file, capsys):
    assert run_plan(recipe_file, "--gpu", "0.1") == 0
    assert "there are 102.4 MiB of a GPU of 0.1 GiB" in capsys.readouterr().out


def test_what_does_not_fit_is_exit_code_1(recipe_file, monkeypatch, capsys):
    monkeypatch.setattr(environment, "device", lambda: replace(CPU, memory=100 * MIB))
    assert run_plan(recipe_file) == 1
    shown_text = capsys.readouterr()
    assert shown_text.out.splitlines()[-1].startswith("does not fit: ")
    assert shown_text.err == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plan", "no.yaml"], "error: no.yaml: no such file, and no packaged recipe"),
        (["plan"], "error: Missing argument 'RECIPE'"),
        (["plan", "no.yaml", "--processes", "0"], "error: Invalid value for '--processes'"),
        (["plan", "no.yaml", "--sharding", "zero9"], "error: Invalid value for '--sharding'"),
        (["plan", "no.yaml", "--json", "."], "error: Invalid value for '--json': file '.' is a directory"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    shown_text = capsys.readouterr()
    assert shown_text.err.startswith(line) and shown_text.err.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line_and_exit_code_2(recipe_file, tmp_path, capsys):
    assert run_plan(recipe_file, text=other(tmp_path / "nothing")) == 2
    assert "nothing: no such folder; give the folder of a checkpoint" in capsys.readouterr().err
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{")
    (tmp_path / "model" / "model.safetensors").touch()
    assert run_plan(recipe_file, text=other(tmp_path / "model")) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_of_a_model_on_the_hub_no_weights_are_fetched(recipe_file, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    def no_network(model, allow_patterns):
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.chdir(tmp_path)
    assert run_plan(recipe_file, text=other("someone/some-model")) == 2
    assert (
        "someone/some-model: cannot be used (no network); give a folder, or an id on the Hub" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_real_run_takes_what_the_plan_says_and_what_docs_memory_allows_for(tmp_path):
    overrides = [
        "base.trainer.max_steps=20", "grpo.rewards={length: 1.0}", "grpo.trainer.max_steps=2", "evaluate.suite=smoke",
        "evaluate.families=null",
    ]  # fmt: skip
    command = [sys.executable, "-m", "r1_mini"]
    made, out = tmp_path / "plan.json", tmp_path / "run"
    subprocess.run([*command, "plan", "r1_zero", *overrides, "--json", str(made)], check=True, capture_output=True)
    subprocess.run([*command, "run", "r1_zero", *overrides, "--out", str(out)], check=True, capture_output=True)
    measured = json.loads((out / "manifest.json").read_text())["peak_memory_mib"]
    assert 0.8 * measured < json.loads(made.read_text())["needed"] / MIB < 1.1 * measured
