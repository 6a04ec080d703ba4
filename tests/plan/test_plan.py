"""The plan of a recipe: each part of memory by hand, what usually goes wrong, and how the command ends."""

import json
import platform
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config

from r1_mini import cli
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_config, make_model
from r1_mini.model.optimizer import MuonAdamW
from r1_mini.model.prompts import encode, prompt_for
from r1_mini.model.templates import give_template, template_fault
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.pipeline.recipe import load
from r1_mini.plan.dry_run import DryModel, Ledger
from r1_mini.plan.plan import Plan, fix_of, plan, show
from r1_mini.plan.stages import Exam, Part, Share, largest_pass, sampling
from r1_mini.plan.timing import Clock
from r1_mini.rollout.cache import RolloutCache
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import environment
from r1_mini.train.logps import narrow_tiles
from r1_mini.train.stage import Work
from tests.chat import chat_tokenizer
from tests.commands import r1_mini
from tests.conftest import TINY

SHAPE = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 64}
VOCABULARY = len(make_tokenizer())
MIB = 2**20
CPU = environment.Device("cpu", "a processor", 24 * 2**30, 20 * 2**30)
GPU = environment.Device("cuda", "a GPU", 80 * 2**30, 80 * 2**30)
EXAM = Exam("smoke", ("1+2+3", "9-4+1"), SamplingParams(4, 64), True, "float32", 500, (False, "60 problems"))
BASE = TINY[: TINY.index("  - kind: grpo")]


def dry_model(dtype=torch.float32, *how, **options):
    return DryModel(make_config(make_tokenizer(), **SHAPE), dtype, *how, **options)


def real_model():
    return make_model(make_tokenizer(), **SHAPE, seed=0)


@pytest.fixture(scope="module")
def dry():
    return dry_model()


PLANS: dict = {}  # made once for all tests; nobody changes one


def planned(recipe_file, *overrides, text=TINY, exam=EXAM, device=CPU, share=Share()):  # noqa: B008
    key = (text, overrides, exam, device, share)
    if key not in PLANS:
        PLANS[key] = plan(load(recipe_file(text), overrides), exam, {}, device, share, framework=500 * MIB)
    return PLANS[key]


def part(made, name):
    return next(part for part in made.parts if part.name == name)


def sizes(made, name, phase):
    """Name of a part of memory -> bytes."""
    return part(made, name).phases[phase]


def remarks(made):
    return " | ".join([*(f"warning {text}" for text in made.warnings), *(f"note {text}" for text in made.notes)])


def test_parameters_are_those_of_the_real_model_and_of_the_sum_by_hand(dry):
    layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32  # attention, MLP, two norms
    assert dry.parameters == 2 * VOCABULARY * 32 + 2 * layer + 32
    assert dry.parameters == real_model().num_parameters()
    assert dry.weights == dry.gradients == 4 * dry.parameters
    assert dry.gathered() == 4 * (2 * VOCABULARY * 32 + layer + 32)


def test_a_model_of_billions_takes_no_memory_to_plan_and_tied_weights_are_counted_once():
    before = environment.resident()
    shape = {"vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 28, "num_key_value_heads": 4}
    untied, tied = (
        DryModel(Qwen2Config(**shape, **heads, tie_word_embeddings=tie), torch.float32) for tie in (False, True)
    )
    assert untied.parameters == 7_615_616_512  # Qwen2.5-7B
    assert untied.weights - tied.weights == 4 * 152_064 * 3584
    assert environment.resident() - before < 200 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_memory_goes_back_to_the_system_though_memory_above_it_is_in_use_of_large_blocks_at_once():
    environment.return_freed_blocks()
    torch.ones(2**23 - 2**16)  # freed at once: glibc would keep all that is not larger in its heap from now on
    for number, size, free, least in ((4000, 10_000, environment.free_memory, 100), (30, 2**22, bool, 250)):
        blocks = [torch.ones(size) for _ in range(number)]
        last, before = blocks.pop(), environment.resident()
        del blocks
        free()
        assert before - environment.resident() > least * MIB  # of 153, and of 464 but for gaps that were there before
        assert last.sum() == size


def test_a_mixture_of_experts_is_refused():
    with pytest.raises(UserError, match="mixture of experts depends on its tokens"):
        DryModel(LlamaConfig(num_experts=8), torch.float32)


def test_the_dry_update_takes_what_a_real_one_takes(dry):
    from trl.trainer.utils import add_fused_lm_head

    model = real_model()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    ids = torch.zeros(6, 20, dtype=torch.long)
    ledger = Ledger([*model.parameters(), *model.buffers()])
    with ledger, narrow_tiles(VOCABULARY):
        model(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum().backward()
    masks = 6 * 20 * 20 * (4 * 2 + 1)  # fake tensors always get a mask: a float for each layer, and a bool
    assert ledger.peak <= dry.update(6, 20) + dry.gradients <= ledger.peak + 2 * masks


def test_passes_that_add_to_gradients_recompute_or_work_in_bfloat16(dry):
    other = dry_model()
    plain, again = dry.update(64, 64), other.update(64, 64, again=True)
    assert plain < again <= plain + dry.gradients
    assert other.update(64, 64) == plain  # nothing is left over from the other
    assert dry.update(64, 64, bf16=True) < plain
    assert dry_model(recompute=True).update(64, 64) < 0.7 * plain


@pytest.mark.parametrize("more", [{}, {"head_dim": 24}])
def test_the_cache_is_as_large_as_the_samplers_of_grouped_heads_of_any_width(more):
    shape = {"vocab_size": 50, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3}
    config = LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2, **more)
    cache = RolloutCache(config, 10, 7)
    cache.begin(torch.arange(10))
    ids = torch.zeros(10, 3, dtype=torch.long)
    with torch.no_grad():
        LlamaForCausalLM(config)(input_ids=ids, past_key_values=cache, use_cache=True)
    real = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    parts = sampling(DryModel(config, torch.float32), SamplingParams(1, 4), rows=10, prompt=3, kind="cpu")
    assert parts["keys and values"] == real == 10 * 7 * 3 * 2 * more.get("head_dim", 16) * 2 * 4


def test_sampling_counts_logits_their_logarithms_and_sums(dry):
    # logits, their quotient by the temperature and its logarithms as float; probabilities and their sums as double
    assert 24 * 50 * VOCABULARY <= dry.choice(50, 1.0, 1.0) <= 40 * 50 * VOCABULARY < dry.choice(50, 1.0, 0.9)


def test_states_of_optimizers_by_hand(dry):
    rows_and_columns = 2 * (VOCABULARY + 32) + 2 * (4 * (32 + 32) + 3 * (32 + 64))  # of all matrices; and five vectors
    for name, size, tried in (
        ("adamw_torch_fused", 8 * dry.parameters, True),
        ("sgd", 0, True),
        ("rmsprop", 4 * dry.parameters, True),
        ("adafactor", 4 * (rows_and_columns + 5 * 32), True),
        ("adamw_8bit", 2 * dry.parameters, False),
        ("nobody_knows", 8 * dry.parameters, False),
    ):
        states, _, was_tried = dry.optimizer(name)
        assert (states, was_tried) == (pytest.approx(size, abs=100), tried), name  # and a step counter a tensor


def test_muon_keeps_one_number_for_hidden_matrices_and_two_for_the_rest_as_the_real_one_does(dry):
    hidden = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    states, temporaries, tried = dry.optimizer("muon")
    assert tried and states == 4 * hidden + 8 * (dry.parameters - hidden)
    assert temporaries > 4 * hidden  # the update looked ahead, and stacked
    model = real_model()
    optimizer = MuonAdamW(model, lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert sum(t.nbytes for state in optimizer.state.values() for t in state.values()) == states


def test_an_adapter_is_what_is_trained_and_kept_in_the_optimizer_and_bfloat16_halves_the_rest():
    lora = {"r": 4, "target_modules": ["q_proj"]}
    whole, adapted = dry_model(), dry_model(torch.bfloat16, lora, recompute=True)
    adapter = 2 * (4 * 32 + 32 * 4)  # layers x (A + B), float32
    assert adapted.gradients == 4 * adapter
    assert adapted.optimizer("adamw_torch")[0] == pytest.approx(8 * adapter, abs=100)
    assert adapted.weights == 2 * whole.parameters + 4 * adapter
    assert adapted.parameters == whole.parameters
    assert adapted.update(8, 40) > 0
    caches = [sampling(each, SamplingParams(1, 30), 8, 10, "cpu")["keys and values"] for each in (whole, adapted)]
    assert caches[0] == 2 * caches[1] == 8 * 40 * 2 * 2 * 16 * 2 * 4


def test_bf16_copies_the_matrices_but_the_head_and_halves_the_cache(recipe_file):
    whole, half = planned(recipe_file), planned(recipe_file, "grpo.trainer.bf16=true")
    one, two = (sizes(each, "02-grpo", "sampling") for each in (whole, half))
    shape = part(half, "02-grpo").parameters
    assert 0.8 * 2 * shape < two["16-bit copies"] < 2 * shape and not one["16-bit copies"]
    assert sizes(half, "02-grpo", "update")["16-bit copies"] == two["16-bit copies"]  # they stay
    assert two["keys and values"] == one["keys and values"] / 2
    assert "16-bit copies" not in sizes(half, "exam smoke", "sampling")


def test_the_largest_pass_by_hand():
    work = Work(1, micro_batch=64, accumulation=1, texts=64)
    lengths = [10, 14], [20, 30]
    assert largest_pass(work, *lengths, "cpu") == (64, 44)
    work = replace(work, sampling=SamplingParams(4, 86), batching="by length")
    assert largest_pass(work, *lengths, "cpu") == (54, 44)  # the mean: 64 x (12 + 25) tokens
    assert largest_pass(work, [10, 14], [], "cpu") == (63, 100)  # 64 x (12 + 86) tokens in rows of 14 + 86
    assert largest_pass(replace(work, batching="padded"), *lengths, "cpu") == (64, 100)
    work = replace(work, batching="in backward")
    assert largest_pass(work, *lengths, "cpu") == (20, 100)  # 2,048 tokens
    assert largest_pass(work, *lengths, "cuda") == (64, 100)  # 8,192 tokens


@pytest.mark.parametrize(
    ("sharding", "weights", "gradients"), [("none", 1, 1), ("zero2", 1, 2), ("zero3", 2, 2), ("fsdp", 2, 2)]
)
def test_sharding_divides_what_it_divides(recipe_file, sharding, weights, gradients):
    whole, made = planned(recipe_file), planned(recipe_file, share=Share(2, sharding))
    one, two = (sizes(each, "02-grpo", "optimizer") for each in (whole, made))
    assert (two["weights"], two["gradients"]) == (one["weights"] / weights, one["gradients"] / gradients)
    assert two["optimizer"] == pytest.approx(one["optimizer"] / gradients, abs=1)
    assert not one["copies of processes"]
    if sharding == "none":  # DDP's buckets
        assert two["copies of processes"] == one["gradients"]
    else:  # gathered weights: the largest layer and what is outside layers
        assert (0 < two["copies of processes"] < one["weights"]) == (weights == 2)
    if sharding == "zero3":  # it gathers all weights to sample
        assert sizes(made, "02-grpo", "sampling")["copies of processes"] == one["weights"]
    assert made.needed == 2 * made.peak[0]  # they share a CPU's memory


def test_counts_are_those_of_the_recipe_by_hand(recipe_file):
    made = planned(recipe_file, "grpo.trainer.steps_per_generation=2", "grpo.trainer.max_steps=10")
    assert part(made, "01-base").counts["texts"] == 3 * 8
    grpo = part(made, "02-grpo").counts
    assert (grpo["rollouts"], grpo["prompts"], grpo["completions"]) == (5, 5 * 32 // 4, 160)
    assert grpo["tokens, at most"] == 160 * 128
    exam = {"checkpoints": 3, "problems": 2, "completions": 30, "tokens, at most": 30 * 64}
    assert part(made, "exam smoke").counts == exam
    assert part(made, "exam smoke").disk == 30 * 500
    cooled = part(planned(recipe_file, exam=replace(EXAM, columns=4, more=12)), "exam smoke")
    assert (cooled.counts["completions"], cooled.disk) == (4 * 2 * 5 + 12, 52 * 500)


def test_a_reference_model_is_counted_where_there_is_a_kl_and_no_adapter(recipe_file):
    made = planned(recipe_file)
    weights = 4 * made.parameters
    assert not sizes(made, "02-grpo", "update")["reference"]
    assert sizes(made, "02-grpo", "update")["weights"] == weights
    assert sizes(made, "02-grpo", "optimizer")["optimizer"] == pytest.approx(2 * weights, abs=500)
    kl = planned(recipe_file, "grpo.trainer.beta=0.04")
    assert {sizes(kl, "02-grpo", phase)["reference"] for phase in ("update", "sampling")} == {weights}
    adapter = planned(recipe_file, "grpo.trainer.beta=0.04", "grpo.peft={r: 2, target_modules: all-linear}")
    assert not sizes(adapter, "02-grpo", "update")["reference"]
    step = sizes(adapter, "02-grpo", "optimizer")
    assert step["optimizer"] == pytest.approx(2 * step["gradients"], abs=500) and step["optimizer"] < weights / 10


def test_stages_and_an_exam_of_one_shape_are_run_dry_once(recipe_file, monkeypatch):
    made, make = [], DryModel.__init__
    monkeypatch.setattr(DryModel, "__init__", lambda self, *shape: made.append(shape) or make(self, *shape))
    for lora, shapes in ((), 1), (("grpo.peft={r: 2, target_modules: all-linear}",), 2):
        made.clear()
        plan(load(recipe_file(), lora), EXAM, {}, CPU, Share(), 0)
        assert len(made) == shapes


PUPIL = """
name: pupil
problems: [{family: sum, terms: [2, 3], digits: 1, largest: 9}]
stages:
  big: {kind: base, model: {hidden_size: 64, layers: 1, heads: 2}, trainer: {max_steps: 1}}
  data: {kind: collect, from: big, prompts: 70, samples: 3, max_tokens: 20, rows: 50}
  small: {kind: base, model: {hidden_size: 16, layers: 1, heads: 2}, trainer: {max_steps: 1}}
  pupil: {kind: distill, from: small, teacher: big, trainer: {max_steps: 2, max_completion_length: 20}}
  taught: {kind: sft, from: small, problems: [{collected: data}], trainer: {max_steps: 2}}
evaluate: {columns: [small, pupil]}
"""


def test_a_teacher_is_in_memory_beside_its_student_and_a_collection_only_samples(recipe_file):
    made = planned(recipe_file, text=PUPIL)
    weights = {name: 4 * part(made, name).parameters for name in ("big", "small")}
    assert weights["big"] > 3 * weights["small"]
    for phase in ("update", "sampling"):
        held = sizes(made, "pupil", phase)
        assert (held["weights"], held["reference"]) == (weights["small"], weights["big"])
    assert part(made, "data").phases.keys() == {"sampling"}
    assert part(made, "data").counts["completions"] == 210
    heads = 2 * 4 * 64  # keys and values of a place, float32
    assert (
        sizes(made, "data", "sampling")["keys and values"] == 50 * (part(made, "data").longest["prompts"] + 20) * heads
    )
    assert part(made, "taught").counts["texts"] == 2 * 16


def test_an_update_that_cannot_wait_holds_all_rows_at_once_and_rows_bound_the_samplers_cache(recipe_file):
    big = ("grpo.trainer.per_device_train_batch_size=256", "grpo.trainer.max_completion_length=60")
    waits = planned(recipe_file, *big)
    old = planned(recipe_file, *big, "grpo.trainer.num_iterations=2", "grpo.rows=64")
    activations = [sizes(made, "02-grpo", "update")["activations"] for made in (old, waits)]
    assert 2 < activations[0] / activations[1] < 8  # 256 texts of mean length, not 2,048 tokens
    caches = [sizes(made, "02-grpo", "sampling")["keys and values"] for made in (waits, old)]
    assert caches[0] == 4 * caches[1]


def test_vllm_keeps_its_share_of_the_card_from_its_stage_on(recipe_file):
    fields = ("use_vllm=true", "vllm_mode=colocate", "vllm_gpu_memory_utilization=0.25")
    made = planned(recipe_file, *(f"grpo.trainer.{field}" for field in fields), device=GPU, share=Share(2))
    assert made.needed == made.peak[0]  # each process has a GPU
    assert not sizes(made, "02-grpo", "update")["framework"]
    assert "vLLM" not in sizes(made, "01-base", "update")
    assert {sizes(made, *at)["vLLM"] for at in (("02-grpo", "update"), ("exam smoke", "sampling"))} == {20 * 2**30}
    assert "keys and values" not in sizes(made, "02-grpo", "sampling")


def test_a_rejection_stage_samples_without_an_optimizer(recipe_file):
    text = BASE + "  - {kind: rejection, rounds: 2, prompts: 10, samples: 4, max_tokens: 30}\n"
    made = part(planned(recipe_file, text=text), "02-rejection")
    assert (made.counts["completions"], made.counts["tokens, at most"], made.counts["steps, at most"]) == (80, 2400, 2)
    assert not made.phases["sampling"].get("optimizer") and made.phases["update"]["optimizer"]
    assert made.disk_meanwhile == 2 * (made.disk + made.disk + made.phases["update"]["optimizer"])


def test_an_exam_on_dev_is_a_phase_of_its_stage(recipe_file):
    made = plan(load(recipe_file()), EXAM, {2: EXAM}, CPU, Share(), 0)
    during, after = sizes(made, "02-grpo", "exam on dev"), sizes(made, "exam smoke", "sampling")
    assert during["keys and values"] == after["keys and values"]
    assert during["optimizer"] and not during["reference"] and after["reference"]


def test_prompts_are_shown_as_the_sampler_is_given_them(recipe_file):
    made = planned(recipe_file)
    text, tokens = part(made, "02-grpo").prompts[0]
    assert text.startswith("User: ") and text.endswith("\nAssistant:")
    (ids,) = encode(make_tokenizer(), [text])
    assert [int(token.rpartition("·")[2]) for token in tokens.replace("User: ", "User:").split(" ")] == ids
    asked = [f"User: {question}\nAssistant:" for question in ("1+2+3", "9-4+1")]
    assert [text for text, _ in part(made, "exam smoke").prompts] == asked
    for _, tokens in part(made, "01-base").prompts:  # a stage that reads shows what it reads
        assert tokens.endswith(" <eos>·1") and " <think>·3 " in tokens


def bpe(**options):
    return chat_tokenizer(["system user assistant the answer is 12+34"], 300, **options)


def test_a_chat_template_that_ends_no_turn_as_a_completion_ends_is_said_and_a_sound_one_is_not():
    other, spaces = bpe(eos="<|endoftext|>"), bpe(template="{% for m in messages %}{{ m.content }} {% endfor %}")
    said = "ends a turn with '<|im_end|>\\n', which has none of the tokens that end a completion ('<|endoftext|>')"
    assert said in template_fault(other, None)
    assert "writes nothing at the end of a turn" in template_fault(spaces, None)
    ends = GenerationConfig(eos_token_id=[0, other.convert_tokens_to_ids("<|im_end|>")])
    for sound in ((bpe(), None), (bpe(pad="<|im_end|>"), None), (make_tokenizer(), None), (other, ends)):
        assert not template_fault(*sound)


def test_what_usually_goes_wrong_is_foreseen(recipe_file):
    for override, text in (
        ("grpo.trainer.max_completion_length=20", "worked solutions do not fit into 20 tokens"),
        ("grpo.trainer.optim=galore_adamw", "optim=galore_adamw does not run here"),
    ):
        assert text in remarks(planned(recipe_file, override)) and text not in remarks(planned(recipe_file))


def test_more_processes_than_groups_are_refused_as_a_run_would(recipe_file):
    few = ("grpo.trainer.per_device_train_batch_size=2", "grpo.trainer.generation_batch_size=4")
    with pytest.raises(UserError, match=r"^--processes 2: 02-grpo.trainer: each process generates 2 completions"):
        planned(recipe_file, *few, share=Share(2))
    assert planned(recipe_file, *few).fits
    assert part(planned(recipe_file, share=Share(2)), "02-grpo").counts["completions"] == 2 * 2 * 16


def test_remarks_on_the_exam_and_on_memory_are_of_what_there_is(recipe_file):
    made = planned(recipe_file)
    usual = remarks(made)
    assert made.fits and usual.startswith("note exam smoke: 60 problems | note memory: on a CPU, libraries and the")
    few = replace(EXAM, shows=(True, "2 problems are too few"))
    assert "warning exam smoke: 2 problems are too few" in remarks(planned(recipe_file, exam=few))
    tight = planned(recipe_file, device=replace(CPU, memory=round(1.1 * made.needed), free=made.needed - 1))
    assert tight.fits and "warning memory: on a CPU" in remarks(tight) and "and so much is not left" in remarks(tight)
    assert "other programs have too much of it" in remarks(tight) and "other programs" not in usual


def test_only_the_configuration_of_a_given_model_is_read_and_what_all_prompts_begin_with_is_printed_once(
    recipe_file, tmp_path, capsys
):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaConfig(vocab_size=len(bpe()), **shape, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    bpe().save_pretrained(tmp_path)
    stage = "{kind: grpo, trainer: {per_device_train_batch_size: 16}}"
    text = f"name: other\nmodel: {tmp_path}\nproblems: [{{family: sum}}]\nstages: [{stage}]\n"
    made = planned(recipe_file, text=text)
    assert made.parameters == 2 * len(bpe()) * 32 + (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    first, _ = made.parts[0].prompts[0]
    assert first.startswith("<|im_start|>system\n") and first.endswith("<|im_end|>\n<|im_start|>assistant\n")
    give_template(asked := bpe(), "auto", "")
    assert first == prompt_for(asked, first.rpartition("user\n")[2].partition("<|im_end|>")[0])
    assert cli.main(["plan", str(recipe_file(text))]) == 0
    out = capsys.readouterr().out
    assert out.count("A conversation between") == 1
    assert out.count("… </answer>.<|im_end|>") == 5  # 3 of the stage, 3 of the exam


def test_the_command_says_first_whether_it_fits_and_for_how_long_and_ends_with_exit_code_1_where_it_does_not(
    recipe_file, tmp_path, capsys
):
    plan_of = ["plan", str(recipe_file()), "evaluate.suite=smoke"]
    assert cli.main([*plan_of, "--json", str(tmp_path / "plan.json")]) == 0
    out = capsys.readouterr().out
    first = r"fits: \d\.\d of [\d.]+ GiB, about \d+ (seconds|minutes), [\d.]+ MiB on the disk; 60 problems show "
    on, fits, *_ = out.splitlines()
    assert re.fullmatch(r"on: CPU, \d+ cores?, 1 process", on) or "on: CPU" not in on
    assert re.fullmatch(first + r"differences from about 19\.1 points on", fits)
    for word in ("01-base: memory, MiB", "02-grpo: memory, MiB", "keys and values", "note exam smoke"):
        assert word in out
    made = json.loads((tmp_path / "plan.json").read_text())
    assert [each["name"] for each in made["parts"]] == ["01-base", "02-grpo", "exam smoke"]
    assert made["needed"] == max(sum(p.values()) for each in made["parts"] for p in each["phases"].values())
    assert made["seconds"] == sum(each["seconds"] for each in made["parts"]) > 0
    assert made["fits"] is True and not list(tmp_path.glob("runs"))
    assert "<think>·3" in made["parts"][0]["prompts"][0][1] and "<think>·3" not in out  # characters need no ids
    assert cli.main([*plan_of, "--gpu", "0.1", "grpo.trainer.per_device_train_batch_size=1024"]) == 1
    shown = capsys.readouterr()
    assert (
        re.match(r"does not fit: \d\.\d of 0\.1 GiB; stages\.1\.rows=256 .* would fit\n", shown.out) and shown.err == ""
    )
    assert "there are 102.4 MiB of a GPU of 0.1 GiB" in shown.out


@pytest.mark.parametrize(("share", "device"), [(Share(2), CPU), (Share(), GPU)])
def test_no_time_is_estimated_but_for_one_process_on_this_processor(recipe_file, share, device):
    made = plan(load(recipe_file()), EXAM, {}, device, share, 0, timed=True)
    assert made.as_json()["seconds"] is None


def test_the_time_is_the_sum_of_what_is_done_by_hand(monkeypatch):
    clock = Clock(make_config(make_tokenizer(), **SHAPE))
    asked = []

    def takes(seconds):
        return lambda *of: asked.append(of) or seconds

    for name, seconds in (("passed", 3.0), ("step", 0.49), ("rollout", 2.0)):
        monkeypatch.setattr(clock, name, takes(seconds))
    texts = Work(10, micro_batch=32, accumulation=2, texts=640)
    assert clock.stage(texts, 10, 40) == pytest.approx(20 * 3 + 10 * 0.5)  # passes of 32 texts, steps of half a second
    assert asked == [(32, 50), ()]
    asked.clear()
    # 16 prompts a rollout, four rows each, a quarter of the length is timed; in an update, 4 of 16 texts have a gradient
    rl = replace(
        texts, rollouts=10, prompts=160, sampling=SamplingParams(16, 80), in_flight=256, batching="in backward"
    )
    rl = replace(rl, micro_batch=256, accumulation=1, texts=2560)
    assert clock.stage(rl, 10, 64) == pytest.approx(10 * 4 * 2 + 640 / 27 * 3 + 10 * 0.5)
    assert asked == [(64, 10, 16), (27, 74), ()]  # 27 texts of 74 tokens are 2,048
    only = replace(rl, steps=0, texts=0)
    assert clock.stage(only, 10, 64) == pytest.approx(10 * 4 * 2)
    assert clock.sampling(100, SamplingParams(1, 80), 25, 10, 16) == pytest.approx(4 * 2)


def test_the_clock_does_the_work_that_it_times_once():
    clock = Clock(make_config(make_tokenizer(), **SHAPE))
    assert clock.passed(4, 20) == clock.passed(4, 20) > 0 and clock.rollout(4, 10, 8) > clock.rollout(4, 10, 1) > 0
    assert all(weights.grad is not None for weights in clock.model.parameters()) and clock.step() > 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "5 seconds"), (64, "65 seconds"), (200, "3 minutes"), (5000, "83 minutes"), (9000, "2 hours")],
)
def test_a_time_is_said_with_as_much_precision_as_it_has(recipe_file, capsys, seconds, said):
    made = planned(recipe_file)
    spent = [replace(each, seconds=seconds / len(made.parts)) for each in made.parts]
    show(replace(made, parts=spent), Console())
    assert f" GiB, about {said}, " in capsys.readouterr().out
    show(replace(made, parts=[*spent[1:], made.parts[-1]]), Console())
    assert "about" not in capsys.readouterr().out.partition(" on the disk")[0]


def test_what_would_fit_fits_when_it_is_set_and_reads_as_many_texts(recipe_file):
    long = ("base.trainer.per_device_train_batch_size=512", "evaluate.rows=1024")
    wide = ("base.model={hidden_size: 192, layers: 4}", "grpo.trainer.num_iterations=2")
    whole = planned(recipe_file, *long, *wide)
    device = replace(GPU, memory=whole.needed // 4)
    small = planned(recipe_file, *long, *wide, device=device)
    settings, _, rest = small.fix.partition(" would fit")
    assert not small.fits and not rest
    follows = planned(recipe_file, *long, *wide, *settings.split(), device=device)
    assert follows.fits
    texts = [part(made, "01-base").counts["texts"] for made in (small, follows)]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("phase", "memory", "fix"),
    [("update of a", 3, "set a.trainer.gradient_checkpointing=true"), ("update of a", 2, "train an adapter"),
     ("optimizer of a", 5, "train an adapter"), ("sampling of 01-grpo", 3, "lower stages.0.rows"),
     ("sampling of exam own", 3, "lower evaluate.rows")],
)  # fmt: skip
def test_what_does_not_fit_has_a_fix_for_the_fullest_phase(phase, memory, fix):
    phase, _, name = phase.partition(" of ")
    sizes = {"weights": 3, "activations": 3} if phase != "optimizer" else {"weights": 3, "temporaries": 3}
    one = Part(name, 1, {phase: sizes}, {}, {}, [], 0)
    assert fix_of(Plan("p", "m", 1, replace(GPU, memory=memory), Share(), [one])).startswith(fix)


@pytest.mark.slow
def test_a_real_run_takes_what_the_plan_says_and_what_docs_memory_allows_for(tmp_path):
    few = ["base.trainer.max_steps=2", "grpo.trainer.max_steps=1", "evaluate.limit=4", "evaluate.samples=2"]
    recipe = ["smoke", "base.trainer.per_device_train_batch_size=1024", *few]  # 300 MiB of activations
    for command in (["plan", *recipe, "--json", "plan.json"], ["run", *recipe, "--out", "run"]):
        r1_mini(*command, cwd=tmp_path)  # in a process of its own, with its imports alone
    measured = json.loads((tmp_path / "run" / "manifest.json").read_text())["peak_memory_mib"]
    assert 0.8 * measured < json.loads((tmp_path / "plan.json").read_text())["needed"] / MIB < 1.1 * measured
