"""The plan of a recipe: each part of memory by hand, what usually goes wrong, and how the command ends."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from r1_mini import cli
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_config, make_model
from r1_mini.model.checkpoint import save_checkpoint
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.pipeline.recipe import load
from r1_mini.plan import memory
from r1_mini.plan.dry_run import MAPPED, DryModel, Ledger, Size
from r1_mini.plan.exam import Exam
from r1_mini.plan.lengths import Lengths
from r1_mini.plan.memory import KEPT, Sampling, Share, Update, phase
from r1_mini.plan.plan import as_json, plan
from r1_mini.plan.prompts import lacks, shown, shown_prompts
from r1_mini.plan.stages import corpus_bytes
from r1_mini.rollout.cache import RolloutCache
from r1_mini.system import environment as machine
from r1_mini.train.logps import narrow_tiles
from tests.conftest import TINY

SHAPE = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64}
VOCABULARY = len(make_tokenizer())
MIB = 2**20
CPU = machine.Device("cpu", "a processor", 24 * 2**30, 20 * 2**30)
EXAM = Exam("smoke", "dev", ("1+2+3", "9-4+1"), 4, True, 64, 1.0, 1.0, 1024, "float32", 500)


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


def sizes(made, part_name, phase_name):
    """Bytes by part of memory in one phase of one part."""
    chosen = next(p for p in part(made, part_name).phases if p.name == phase_name)
    return {name: size.all for name, size in chosen.parts.items()}


def remarks(made):
    return [remark.text for remark in made.remarks]


# the model


def test_parameters_are_those_of_the_real_model_and_of_the_sum_by_hand(dry):
    layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32  # attention, MLP, two norms
    assert dry.parameters == 2 * VOCABULARY * 32 + 2 * layer + 32
    assert dry.parameters == make_model(make_tokenizer(), **SHAPE, seed=0).num_parameters()
    assert dry.gathered() == 4 * (2 * VOCABULARY * 32 + layer + 32)


def test_a_model_of_billions_takes_no_memory_to_plan():
    before = machine.resident()
    config = Qwen2Config(vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28,
                         num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=False)  # fmt: skip
    assert DryModel(config).parameters == 7_615_616_512  # Qwen2.5-7B
    assert machine.resident() - before < 200 * MIB


def test_a_mixture_of_experts_is_refused_because_nobody_knows():
    with pytest.raises(UserError, match="mixture of experts cannot be told ahead"):
        DryModel(LlamaConfig(num_experts=8))


# parts of memory


def test_the_dry_update_takes_what_a_real_one_takes(dry):
    model = make_model(make_tokenizer(), **SHAPE, seed=0)
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    ids = torch.zeros(6, 20, dtype=torch.long)
    ledger = Ledger([*model.parameters(), *model.buffers()])
    with ledger, narrow_tiles(VOCABULARY):
        out = model(input_ids=ids, labels=ids, fused_lm_head=True)
        out.log_probs.sum().backward()
    assert dry.update(6, 20).all == pytest.approx(ledger.peak.all + ids.nbytes, rel=0.002)


def test_an_update_that_adds_to_gradients_takes_their_size_more_while_activations_are_there(dry):
    gradients = 4 * dry.parameters
    first, second = dry.update(64, 64).all, dry.update(64, 64, again=True).all
    assert first < second <= first + gradients
    assert second - first == pytest.approx(gradients, rel=0.05)


def test_checkpointing_and_bfloat16_take_less_and_packing_takes_its_masks(dry):
    plain = dry.update(16, 64).all
    assert dry.update(16, 64, checkpointing=True).all < 0.7 * plain
    assert dry.update(16, 64, bf16=True).all < plain
    assert (
        dry.update(16, 64, masked=True).all >= plain + 2 * 4 * 16 * 64 * 64
    )  # a float for each pair of tokens and layer
    assert dry.update(16, 64).all == plain  # nothing is left over from the others


def test_the_cache_is_rows_times_places_times_layers_times_heads_times_channels_times_two():
    grouped = LlamaConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    assert memory.cache_bytes(grouped, 10, 7) == 10 * 7 * 3 * 2 * 16 * 2 * 4
    wide = LlamaConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=24)
    assert memory.cache_bytes(wide, 10, 7) == 10 * 7 * 3 * 2 * 24 * 2 * 4


def test_the_cache_is_as_large_as_the_samplers(dry):
    model = make_model(make_tokenizer(), **SHAPE, seed=0)
    cache = RolloutCache(model.config, rows=5, room=9)
    cache.begin(torch.arange(5))
    with torch.no_grad():
        model(input_ids=torch.zeros(5, 3, dtype=torch.long), past_key_values=cache, use_cache=True)
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert memory.cache_bytes(model.config, 5, 9) == real == 5 * 9 * 2 * 2 * 16 * 2 * 4


def test_sampling_counts_the_cache_apart_from_what_the_c_library_keeps(dry):
    parts = memory.sampling(dry, Sampling(rows=50, prompt=10, completion=20), cpu=True)
    assert parts["keys and values"] == Size(50 * 30 * 2 * 2 * 16 * 2 * 4, 0)
    assert memory.sampling(dry, Sampling(50, 10, 20), cpu=False)["keys and values"].heap > 0
    # logits, their quotient by the temperature and its logarithms as float; probabilities and their sums as double
    assert 24 * 50 * VOCABULARY <= parts["logits"].all <= 40 * 50 * VOCABULARY


@pytest.mark.parametrize(
    ("optimizer", "shape", "embedding", "states"),
    [
        ("adamw_torch_fused", (100, 80), False, 8 * 8000),
        ("adamw_torch", (80,), False, 8 * 80),
        ("sgd", (100, 80), False, 0),
        ("lion_32bit", (100, 80), False, 4 * 8000),
        ("ademamix", (100, 80), False, 12 * 8000),
        ("adafactor", (100, 80), False, 4 * 180),
        ("adafactor", (80,), False, 4 * 80),
        ("adamw_bnb_8bit", (100, 80), False, 2 * 8000 + 2 * 4 * 8000 / 256),
        ("adamw_bnb_8bit", (80,), False, 8 * 80),  # too small for blocks
        ("paged_adamw_8bit", (100, 80), True, 8 * 8000),  # an embedding's stay in 32 bits
        ("adamw_torch_8bit", (100, 80), True, 2 * 8000 + 2 * 4 * 8000 / 256),
        ("nobody_knows", (100, 80), False, 8 * 8000),
    ],
)
def test_states_of_optimizers_by_hand(optimizer, shape, embedding, states):
    assert memory.state_bytes(optimizer, shape, embedding) == states


def test_muon_keeps_one_number_for_hidden_matrices_and_two_for_the_rest_as_the_real_one_does(dry):
    hidden = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    states, temporaries = dry.muon()
    assert states.all == 4 * hidden + 8 * (dry.parameters - hidden)
    assert temporaries.all > 4 * hidden  # the update looked ahead, and stacked
    model = make_model(make_tokenizer(), **SHAPE, seed=0)
    optimizer = MuonAdamW(model, lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert sum(t.nbytes for state in optimizer.state.values() for t in state.values()) == states.all


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients", "optimizer", "copies"),
    [
        ("none", 1, 1, 2, 1),
        ("zero2", 1, 0.25, 0.5, 0),
        ("zero3", 0.25, 0.25, 0.5, None),
        ("fsdp", 0.25, 0.25, 0.5, None),
    ],
)
def test_sharding_divides_what_it_divides(dry, sharding, weights, gradients, optimizer, copies):
    size = 4 * dry.parameters
    made = memory.training(dry, "adamw_torch", Share(4, sharding))
    assert made.weights.all == weights * size
    assert made.gradients.all == gradients * size
    assert made.optimizer.all == optimizer * size
    assert made.copies.all == (dry.gathered() if copies is None else copies * size)


def test_an_adapter_is_what_is_trained_and_kept_in_the_optimizer_and_bfloat16_halves_the_rest():
    lora = {"r": 4, "target_modules": ["q_proj"]}
    config = make_config(make_tokenizer(), **SHAPE)
    whole, adapted = DryModel(config), DryModel(config, torch.bfloat16, lora)
    made = memory.training(adapted, "adamw_torch", Share())
    adapter = 2 * (4 * 32 + 32 * 4)  # layers x (A + B), float32
    assert made.gradients.all == 4 * adapter
    assert made.optimizer.all == 8 * adapter
    assert made.weights.all == 2 * whole.parameters + 4 * adapter
    assert adapted.parameters == whole.parameters
    update = Update(8, 40, checkpointing=True)
    assert memory.update(adapted, update, cpu=False)["gradients"].all == 4 * adapter
    how = Sampling(8, 10, 30)
    caches = [memory.sampling(dry, how, cpu=False)["keys and values"].all for dry in (whole, adapted)]
    assert caches[0] == 2 * caches[1] == 8 * 40 * 2 * 2 * 16 * 2 * 4


def test_states_in_bfloat16_weigh_half_and_those_in_8_bits_the_same():
    assert memory.state_bytes("adamw_torch", (100, 100), width=2) == 4 * 10_000
    assert memory.state_bytes("adamw_8bit", (100, 100), width=2) == memory.state_bytes("adamw_8bit", (100, 100))


def test_one_process_divides_nothing(dry):
    for sharding in ("none", "zero2", "zero3", "fsdp"):
        made = memory.training(dry, "adamw_torch", Share(1, sharding))
        assert (made.weights.all, made.optimizer.all, made.copies.all) == (4 * dry.parameters, 8 * dry.parameters, 0)


def test_a_tile_wider_than_the_vocabulary_costs_a_page_a_token_on_a_cpu_and_all_of_it_elsewhere():
    assert memory.unused_columns(100, 31, cpu=True).all == 100 * (4096 - 4 * 31)
    assert memory.unused_columns(100, 31, cpu=False).all == 100 * 4 * (32_768 - 31)
    assert memory.unused_columns(100, 150_000, cpu=False).all == 0


def test_parts_of_an_update_sum_to_what_is_alive(dry):
    parts = memory.update(dry, Update(32, 40), cpu=True)
    assert sum(size.all for size in parts.values()) == dry.update(32, 40).all
    assert parts["gradients"].all == 4 * dry.parameters


def test_what_was_freed_is_kept_under_a_cache_but_holds_the_next_tensors():
    run = [
        phase("update", {"framework": Size(100), "activations": Size(50, 40)}),
        phase("step", {"framework": Size(100), "temporaries": Size(10, 10)}),
        phase("sampling", {"framework": Size(100), "keys and values": Size(30, 0), "logits": Size(5, 5)}),
    ]
    shown_phases = memory.on_top_of_what_is_kept(run)
    assert [p.total for p in shown_phases] == [150, 100 + 10 + 30, 100 + 30 + 5 + 35]
    assert [p.parts.get(KEPT, Size()).all for p in shown_phases] == [0, 30, 35]


def test_blocks_from_32_mib_on_are_given_back():
    with torch.device("meta"):
        ledger = Ledger()
        with ledger:
            small, large = torch.zeros(MAPPED // 4 - 1), torch.zeros(MAPPED // 4)
            view = large[1:]
        assert ledger.peak == Size(small.nbytes + large.nbytes, small.nbytes)
        del large, view
        assert ledger.now == Size(small.nbytes, small.nbytes)


# whole plans


def test_the_corpus_is_eight_bytes_a_number_and_twice_that_while_it_is_made():
    arrow, lists = corpus_bytes(10, 40)
    assert arrow.all == 2 * 10 * 40 * 8
    assert lists.all == 2 * 10 * (56 + 8 + 40 * 8)


def test_counts_are_those_of_the_recipe_by_hand(recipe_file):
    made = planned(recipe_file, "grpo.trainer.steps_per_generation=2", "grpo.trainer.max_steps=10")
    assert part(made, "01-base").counts["examples"] == 3 * 8
    grpo = part(made, "02-grpo").counts
    assert (grpo["rollouts"], grpo["prompts"], grpo["completions"]) == (5, 5 * 32 // 4, 160)
    assert grpo["tokens, at most"] == 160 * 128
    assert part(made, "exam smoke").counts == {
        "checkpoints": 3, "problems": 2, "completions": 30, "tokens, at most": 30 * 64,
    }  # fmt: skip
    assert part(made, "exam smoke").disk == 30 * 500


def test_a_reference_model_is_counted_where_there_is_a_kl(recipe_file):
    weights = (
        4
        * DryModel(make_config(make_tokenizer(), hidden_size=96, layers=3, heads=4, intermediate_size=None)).parameters
    )
    made = planned(recipe_file)
    assert "reference" not in sizes(made, "02-grpo", "update")
    assert sizes(made, "02-grpo", "update")["weights"] == weights
    assert sizes(made, "02-grpo", "optimizer")["optimizer"] == 2 * weights
    with_kl = planned(recipe_file, "grpo.trainer.beta=0.04")
    assert (
        sizes(with_kl, "02-grpo", "update")["reference"]
        == sizes(with_kl, "02-grpo", "sampling")["reference"]
        == weights
    )


def test_an_update_that_cannot_wait_holds_all_rows_at_once(recipe_file):
    big = ("grpo.trainer.per_device_train_batch_size=256", "grpo.trainer.max_completion_length=60")
    waits = sizes(planned(recipe_file, *big), "02-grpo", "update")["activations"]
    old = sizes(planned(recipe_file, *big, "grpo.trainer.num_iterations=2"), "02-grpo", "update")["activations"]
    assert 6 < old / waits < 12  # 256 x 75 tokens, not 27 x 75


def test_rows_bound_the_samplers_cache(recipe_file):
    many = "grpo.trainer.per_device_train_batch_size=64"
    all_at_once, few = (
        sizes(planned(recipe_file, many, f"grpo.rows={rows}"), "02-grpo", "sampling") for rows in (1024, 16)
    )
    assert all_at_once["keys and values"] == 4 * few["keys and values"]


def test_processes_share_a_cpus_memory_and_have_a_gpu_each(recipe_file):
    share = Share(2, "none")
    cpu = planned(recipe_file, share=share)
    assert cpu.needed == 2 * cpu.peak.total
    gpu = planned(recipe_file, share=share, device=machine.Device("cuda", "a GPU", 80 * 2**30, 80 * 2**30))
    assert gpu.needed == gpu.peak.total
    assert not any(KEPT in p.parts for each in gpu.parts for p in each.phases)


def test_a_rejection_stage_and_a_forced_prefix_are_planned(recipe_file):
    text = (
        TINY[: TINY.index("  - kind: grpo")]
        + "  - {kind: rejection, rounds: 2, prompts: 10, samples: 4, max_tokens: 30}\n"
    )
    made = planned(recipe_file, text=text)
    counts = part(made, "02-rejection").counts
    assert (counts["completions"], counts["tokens, at most"], counts["steps, at most"]) == (80, 2400, 2)
    assert {p.name for p in part(made, "02-rejection").phases} == {"sampling", "update", "optimizer"}


def test_an_sft_stage_is_planned_as_the_text_it_reads(recipe_file):
    text = (
        TINY[: TINY.index("  - kind: grpo")]
        + "  - {kind: sft, peft: {r: 2, target_modules: all-linear}, trainer: {max_steps: 5, per_device_train_batch_size: 4}}\n"
    )
    made = part(planned(recipe_file, text=text), "02-sft")
    assert made.counts["examples"] == 20
    assert "<think>" in made.prompts[0].tokens and made.prompts[0].tokens[-1] == "<eos>"
    step = {name: size.all for name, size in next(p for p in made.phases if p.name == "optimizer").parts.items()}
    assert step["optimizer"] == 2 * step["gradients"] < step["weights"] / 10


def test_generation_under_zero3_brings_all_weights_together_and_under_fsdp_a_layer(recipe_file):
    share = {
        name: sizes(planned(recipe_file, share=Share(2, name)), "02-grpo", "sampling") for name in ("zero3", "fsdp")
    }
    assert share["zero3"]["copies of processes"] == 2 * share["zero3"]["weights"] > share["fsdp"]["copies of processes"]


def test_every_plan_is_plain_data(recipe_file):
    made = as_json(planned(recipe_file))
    assert json.loads(json.dumps(made)) == made
    assert made["fits"] is True
    assert made["needed"] == max(p["total"] for each in made["parts"] for p in each["phases"])


# prompts


def test_prompts_are_shown_as_the_sampler_is_given_them(recipe_file):
    tokenizer = make_tokenizer()
    first = part(planned(recipe_file), "02-grpo").prompts[0]
    assert first.text.startswith("User: ") and first.text.endswith("\nAssistant:")
    assert list(first.ids) == encode(tokenizer, [first.text])[0]
    assert "".join(first.tokens) == first.text
    exam = part(planned(recipe_file), "exam smoke").prompts
    assert [p.text for p in exam] == ["User: 1+2+3\nAssistant:", "User: 9-4+1\nAssistant:"]


def test_the_base_stage_shows_what_it_reads_with_the_token_that_ends_it(recipe_file):
    for example in part(planned(recipe_file), "01-base").prompts:
        assert example.tokens[-1] == "<eos>" and "<think>" in example.tokens


def test_a_token_that_is_no_whole_character_is_shown_as_the_vocabulary_has_it():
    tokenizer = bpe()
    ids = tokenizer("é", add_special_tokens=False)["input_ids"]
    assert len(ids) == 2
    assert shown(tokenizer, ids).tokens == ("Ã", "©")


# what usually goes wrong


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


def complaints(tokenizer):
    return [text for is_warning, text in lacks(tokenizer, None) if is_warning]


def test_a_sound_chat_tokenizer_gets_no_warning_and_a_note_on_the_tags():
    assert complaints(bpe()) == []
    ((is_warning, text),) = lacks(bpe(), None)
    assert not is_warning and text.startswith("<think>, </think>, <answer>, </answer>: more than one token each")


def test_our_own_tokenizer_gets_neither():
    assert list(lacks(make_tokenizer(), None)) == []


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
    assert any(text in line for line in complaints(bpe(**change))), complaints(bpe(**change))


def test_the_end_of_a_turn_may_also_stand_in_the_generation_settings():
    from transformers import GenerationConfig

    tokenizer = bpe(eos="<|endoftext|>")
    ends = GenerationConfig(eos_token_id=[0, tokenizer.convert_tokens_to_ids("<|im_end|>")])
    assert not any(is_warning for is_warning, _ in lacks(tokenizer, ends))


def test_completions_that_would_be_cut_are_foreseen(recipe_file):
    made = planned(recipe_file, "grpo.trainer.max_completion_length=20")
    assert any("worked solutions do not fit into 20 tokens" in text for text in remarks(made))
    assert not any("do not fit" in text for text in remarks(planned(recipe_file)))
    assert Lengths((5,), (10, 20, 30, 40)).share_longer(20) == 0.5


def test_a_window_that_is_too_small_is_foreseen(recipe_file):
    made = planned(recipe_file, "grpo.trainer.max_completion_length=1020")
    assert any("and a completion of 1020 take 10" in text and "room for 1024" in text for text in remarks(made))


def test_more_processes_than_groups_and_groups_that_do_not_divide_are_refused_as_a_run_would(recipe_file):
    few = ("grpo.trainer.per_device_train_batch_size=2", "grpo.trainer.generation_batch_size=4")
    with pytest.raises(UserError, match=r"^--processes 2: stages.1.trainer: each process generates 2"):
        planned(recipe_file, *few, share=Share(2))
    assert planned(recipe_file, *few).fits
    assert part(planned(recipe_file, share=Share(2)), "02-grpo").counts["completions"] == 2 * 2 * 16


def test_the_test_split_is_not_for_choosing(recipe_file):
    made = planned(recipe_file, exam=replace(EXAM, split="test"))
    (note,) = [r for r in made.remarks if "evaluate.split=dev" in r.text]
    assert not note.is_warning
    assert not any("evaluate.split" in text for text in remarks(planned(recipe_file)))


def test_logits_that_alone_exceed_the_memory_are_said(recipe_file, dry):
    small = replace(CPU, memory=dry.choice(16, 1.0, 1.0).all - 1)
    made = planned(recipe_file, device=small)
    assert not made.fits
    assert any("logits of the sampling alone take more than the memory" in text for text in remarks(made))


def test_a_plan_that_barely_fits_says_so(recipe_file):
    needed = planned(recipe_file).needed
    made = planned(recipe_file, device=replace(CPU, memory=round(1.1 * needed), free=needed - 1))
    assert made.fits
    assert any("less than 20% of it are left" in text for text in remarks(made))
    assert any("other programs have too much of it" in text for text in remarks(made))


def test_the_libraries_are_counted_on_a_cpu_alone(recipe_file):
    gpu = planned(recipe_file, device=machine.Device("cuda", "a GPU", 80 * 2**30, 80 * 2**30))
    assert sizes(planned(recipe_file), "02-grpo", "update")["framework"] == 500 * MIB
    assert "framework" not in sizes(gpu, "02-grpo", "update")


def test_an_optimizer_that_is_not_known_is_counted_as_adamw_and_said(recipe_file):
    made = planned(recipe_file, "grpo.trainer.optim=galore_adamw")
    assert any("optim=galore_adamw" in text for text in remarks(made))


# a model of another make


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
    assert shown_prompts(bpe(), [first])[0] == made.parts[0].prompts[0]


# the command


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
    monkeypatch.setattr(machine, "device", lambda: replace(CPU, memory=100 * MIB))
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
        (["plan", "no.yaml", "--json", "."], "error: Invalid value for '--json': File '.' is a directory"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    shown_text = capsys.readouterr()
    assert shown_text.err.startswith(line) and shown_text.err.count("\n") == 1


def test_a_model_that_is_not_there_is_one_line_and_exit_code_2(recipe_file, tmp_path, monkeypatch, capsys):
    assert run_plan(recipe_file, text=other(tmp_path / "nothing")) == 2
    assert "nothing: no such folder; give the folder of a checkpoint" in capsys.readouterr().err

    import huggingface_hub

    def no_network(model, allow_patterns):
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    monkeypatch.chdir(tmp_path)
    assert run_plan(recipe_file, text=other("someone/some-model")) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: someone/some-model: no such folder, nor model on the Hub (no network)")
    assert err.count("\n") == 1


def test_a_folder_with_a_broken_configuration_is_one_line_and_exit_code_2(recipe_file, tmp_path, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{")
    (tmp_path / "model" / "model.safetensors").touch()
    assert run_plan(recipe_file, text=other(tmp_path / "model")) == 2
    assert "cannot be loaded" in capsys.readouterr().err


SMALL = "{hidden_size: 96, layers: 3, heads: 6}"
LARGER = "{hidden_size: 256, layers: 6, heads: 8, intermediate_size: 736}"


@pytest.mark.slow
@pytest.mark.parametrize(("model", "batch"), [(SMALL, 512), (LARGER, 64)])
def test_a_real_run_takes_what_the_plan_says_within_a_fifth(model, batch, tmp_path):
    overrides = [
        f"base.model={model}", "base.trainer.max_steps=20", "grpo.rewards={length: 1.0}", "grpo.trainer.max_steps=2",
        f"grpo.trainer.per_device_train_batch_size={batch}", "evaluate.suite=smoke", "evaluate.families=null",
    ]  # fmt: skip
    command = [sys.executable, "-m", "r1_mini"]
    made, out = tmp_path / "plan.json", tmp_path / "run"
    recipe = "recipes/tiny/r1_zero.yaml"
    subprocess.run([*command, "plan", recipe, *overrides, "--json", str(made)], check=True, capture_output=True)
    subprocess.run([*command, "run", recipe, *overrides, "--out", str(out)], check=True, capture_output=True)
    measured = json.loads((out / "manifest.json").read_text())["peak_memory_mib"]
    assert json.loads(made.read_text())["needed"] / MIB == pytest.approx(measured, rel=0.2)
