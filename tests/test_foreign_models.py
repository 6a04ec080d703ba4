"""Models of other makers, small and random, with tokenizers trained on the spot, through every stage, exam and merge."""

import pytest
import torch
import transformers
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from eval.exam.exam import Exam
from r1_mini import cli
from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.model.prompts import encode, prompt_for, stop_tokens
from r1_mini.model.templates import R1_SYSTEM
from r1_mini.model.tokenizer import keep_tags
from r1_mini.pipeline import run as pipeline
from r1_mini.pipeline.recipe import load
from r1_mini.pipeline.start import check, pretrained
from r1_mini.system.files import read_jsonl, sha256
from r1_mini.train.grpo import Trainer
from tests.chat import CHATML, chat_tokenizer
from tests.rollout.test_fallback import OTHERS, make

QUIET = Console(quiet=True)
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPE |= {"num_key_value_heads": 1, "max_position_embeddings": 1024}
CHAT = CHATML + ("{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}")
SUMS = [f"{a}+{b}={a + b} <think>{a}-{b}</think><answer>{a}</answer> User Assistant" for a in range(60) for b in (3, 8)]


KINDS = {
    # byte-level BPE with a chat template, its turn's end beside the text's, pad = eos
    "qwen": ({"pad": "<|im_end|>", "template": CHAT}, transformers.Qwen2Config, {"tie_word_embeddings": True}),
    # BPE with byte fallback, a first token, no pad
    "llama": ({"bos_token": "<s>", "eos_token": "</s>"}, transformers.LlamaConfig, {}),
    # the same with a pad of its own
    "gemma": (
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}, transformers.GemmaConfig, {"head_dim": 16}
    ),
}  # fmt: skip
"""Kind -> fields of the tokenizer, the model's configuration, and fields of that."""


@pytest.fixture(params=KINDS)
def folder(request, tmp_path):
    """A model's folder as its maker publishes it."""
    names, config, fields = KINDS[request.param]
    if request.param == "qwen":
        tokenizer = chat_tokenizer(SUMS, 400, **names)
    else:
        core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
        core.pre_tokenizer = pre_tokenizers.Metaspace()
        core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
        special = ["<unk>", *names.values(), *(f"<0x{byte:02X}>" for byte in range(256))]
        core.train_from_iterator(SUMS, trainers.BpeTrainer(vocab_size=600, special_tokens=special))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", **names)
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SHAPE, **ids, **fields, vocab_size=len(tokenizer)))
    if request.param == "qwen":
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    path = tmp_path / request.param
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def recipe_of(folder, peft="null"):
    path = folder.parent / "recipe.yaml"
    path.write_text(
        f"name: foreign\nmodel: {folder}\nproblems: [{{family: sum, terms: [2, 3], digits: 1, largest: 9}}]\nstages:\n"
        f"  - kind: sft\n    peft: {peft}\n"
        "    trainer: {max_steps: 3, per_device_train_batch_size: 4, learning_rate: 1.0e-3}\n"
        f"  - kind: grpo\n    peft: {peft}\n    rewards: {{length: 1.0}}\n"  # random weights are never right
        "    trainer: {max_steps: 3, per_device_train_batch_size: 8, num_generations: 4, max_completion_length: 12,\n"
        "      learning_rate: 1.0e-3, save_steps: 1}\n"
        "evaluate: {suite: own, limit: 6, samples: 2, max_tokens: 12, greedy: false}\n",
        encoding="utf-8",
    )
    return path


def ran(recipe, out, examine=None):
    exam = Exam(recipe)
    problems = check(recipe, exam.problems(), QUIET)
    pipeline.run(recipe, pretrained(recipe), problems, out, QUIET, examine or exam)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["qwen"], indirect=True)
def test_a_base_model_that_has_a_chat_template_is_trained_and_examined_by_the_papers_prompt(folder, tmp_path):
    out = ran(load(recipe_of(folder), ["prompt=base"]), tmp_path / "run")
    for name in ("01-sft", "02-grpo"):
        rows = read_jsonl(out / "eval" / "own" / name / "samples.jsonl")
        assert all(row["prompt"] == f"{R1_SYSTEM} User: {row['question']}. Assistant:" for row in rows)
    _, tokenizer = load_checkpoint(out / "02-grpo")
    assert prompt_for(tokenizer, "1+2") == f"{R1_SYSTEM} User: 1+2. Assistant:"


@pytest.mark.slow
def test_a_foreign_model_goes_through_sft_grpo_and_exam_and_a_cut_run_ends_in_the_same_bits(
    folder, tmp_path, monkeypatch
):
    is_lora = folder.name == "llama"
    recipe = load(recipe_of(folder, "{r: 4, target_modules: all-linear}" if is_lora else "null"))
    out = ran(recipe, tmp_path / "apart" / "run")
    before = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for stage in ("01-sft", "02-grpo"):  # loads with plain transformers
        model, tokenizer = AutoModelForCausalLM.from_pretrained(out / stage), AutoTokenizer.from_pretrained(out / stage)
        after = model.state_dict()
        assert after.keys() == before.keys()  # merged: no trace of the adapter
        assert any(not torch.equal(after[name], before[name]) for name in after)
        assert (out / stage / "adapter" / "adapter_model.safetensors").exists() is is_lora
        assert model.generate(**tokenizer("1+2", return_tensors="pt"), max_new_tokens=4).shape[1] > 3
    if is_lora:
        from peft import AutoPeftModelForCausalLM

        ids, trained = torch.randint(5, 100, (2, 10)), AutoPeftModelForCausalLM.from_pretrained(out / stage / "adapter")
        with torch.no_grad():
            torch.testing.assert_close(model(ids).logits, trained(ids).logits, atol=1e-4, rtol=1e-4)
    rows = read_jsonl(out / "02-grpo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["logp_gap_max"] < 1e-3 for row in rows if "logp_gap_max" in row)
    columns = {"00-model", "01-sft", "01-sft-worked", "01-sft-worked-cooled", "02-grpo", "columns.json"}
    assert {path.name for path in (out / "eval" / "own").iterdir()} == columns

    def cut(self, *args, **kwargs):
        if self.state.global_step == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    original = Trainer.training_step
    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(Trainer, "training_step", cut)
        ran(recipe, tmp_path / "cut")
    again = ran(recipe, tmp_path / "cut", lambda *_: None)  # no second exam
    assert sha256(again / "02-grpo" / "model.safetensors") == sha256(out / "02-grpo" / "model.safetensors")


@pytest.mark.parametrize("folder", ["qwen"], indirect=True)
@pytest.mark.parametrize(
    ("room", "override", "line"),
    [
        (60, "seed=0", r"^evaluate.max_tokens: .* and 12 more take .* of the model is 60; leave such questions out"),
        (1024, "evaluate.max_tokens=1000", r"^evaluate.max_tokens: .* and 1000 more .* is 1024; \d+ would fit$"),
        (1024, "grpo.trainer.max_completion_length=1000", r"trainer.max_completion_length: .* \d+ would fit"),
        (1024, "grpo.peft={r: 2, target_modules: [query]}", r"^peft: .*query.*name modules of the model"),
        (1024, "grpo.trainer.model_init_kwargs={dtype: bf16}", "\"bf16\" is not a choice; did you mean 'bfloat16'"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_anything_is_trained(folder, room, override, line, tmp_path):
    config = AutoConfig.from_pretrained(folder)
    config.max_position_embeddings = room
    config.save_pretrained(folder)
    with pytest.raises(UserError, match=line):
        ran(load(recipe_of(folder), [override]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("folder", ["qwen"], indirect=True)
def test_an_exam_says_if_checkpoints_are_asked_by_different_prompts(folder, tmp_path, capsys):
    other = tmp_path / "base"
    model, tokenizer = load_checkpoint(folder, prompt="base")
    save_checkpoint(model, tokenizer, other)
    exam = ["--suite", "smoke", "limit=4", "samples=1", "max_tokens=4"]
    assert cli.main(["eval", str(folder), str(other), *exam, "--out", str(tmp_path / "a")]) == 0
    assert "note: base has another prompt than qwen" in capsys.readouterr().out
    assert cli.main(["eval", str(folder), str(other), *exam, "prompt=base", "--out", str(tmp_path / "b")]) == 0
    assert "another prompt" not in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["qwen"], indirect=True)
def test_a_variable_of_the_template_is_set_alike_in_training_exam_and_sample(folder, tmp_path, capsys):
    recipe = recipe_of(folder)
    given = "prompt={enable_thinking: false}"
    assert cli.main(["plan", str(recipe), given]) == 0
    training = capsys.readouterr().out.partition("02-grpo: memory")[2].partition("exam own: memory")[0]
    end = r"<|im_start|>assistant\n<think>\n\n</think>\n\n'"
    assert training.count(end) == training.count("user") > 0
    exam = ["--suite", "smoke", "limit=2", "samples=1", "max_tokens=4", "greedy=false", given]
    assert cli.main(["eval", str(folder), *exam, "--out", str(tmp_path / "a")]) == 0
    (samples,) = (tmp_path / "a").glob("*/samples.jsonl")
    assert all(row["prompt"].endswith("assistant\n<think>\n\n</think>\n\n") for row in read_jsonl(samples))
    sample = ["sample", str(folder), "1+2", "--max-tokens", "4", "--prompt"]
    assert cli.main([*sample, "{enable_thinking: false}"]) == 0
    capsys.readouterr()
    for style, line in (("{thinking: false}", "no variable 'thinking'"), ("[1]", '--prompt: "[1]" is no style')):
        assert cli.main([*sample, style]) == 2
        assert line in capsys.readouterr().err


def test_tags_that_are_special_tokens_are_decoded_and_no_id_changes(folder, tmp_path):
    tokenizer, text = AutoTokenizer.from_pretrained(folder), "<think>1+2=3</think><answer>3</answer>"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<answer>", "</answer>"]})
    ids = encode(tokenizer, [text, f"{text}{tokenizer.eos_token}"])
    assert "<think>" not in tokenizer.decode(ids[0], skip_special_tokens=True)
    keep_tags(tokenizer)
    tokenizer.save_pretrained(tmp_path / "saved")
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert encode(each, [text, f"{text}{tokenizer.eos_token}"]) == ids
        decoded = [each.decode(row, skip_special_tokens=True) for row in ids]
        assert [each.replace(" ", "") for each in decoded] == [text, text]


def test_sample_takes_any_question_of_a_model_that_is_not_ours_and_judges_where_it_can(folder, capsys):
    assert cli.main(["sample", str(folder), "Who was Euclid?", "--max-tokens", "5"]) == 0
    assert "no reference answer" in capsys.readouterr().out
    assert cli.main(["sample", str(folder), "1+2", "--max-tokens", "5"]) == 0
    assert "wrong, it is 3" in capsys.readouterr().out


def test_each_kind_is_asked_in_its_own_form_and_stops_at_each_of_its_ends(folder):
    model, tokenizer = load_checkpoint(folder)
    asked = prompt_for(tokenizer, "1+2")
    (ids,) = encode(tokenizer, [asked])
    stops = stop_tokens(model.generation_config, tokenizer)
    if folder.name == "qwen":
        assert asked.startswith("<|im_start|>system\n") and asked.endswith("1+2<|im_end|>\n<|im_start|>assistant\n")
        assert stops == sorted(map(tokenizer.convert_tokens_to_ids, ("<|endoftext|>", "<|im_end|>")))
    else:
        assert asked.endswith("User: 1+2. Assistant:")
        assert stops == [tokenizer.eos_token_id]
        assert tokenizer.decode(ids).count("User: 1+2") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Mamba"])
def test_a_model_that_our_sampler_does_not_know_is_planned_trained_and_examined_and_it_is_said(kind, tmp_path, capsys):
    tokenizer = chat_tokenizer(SUMS, 400)
    model = make(kind, **OTHERS.get(kind, {"state_size": 8}), vocab_size=len(tokenizer), max_position_embeddings=512)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    folder = tmp_path / kind
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    recipe, out = recipe_of(folder), tmp_path / "run"
    shorter = [
        "prompt.system=null",
        "sft.trainer.max_steps=1",
        "grpo.trainer.max_steps=2",
        "evaluate.columns=[sft,grpo]",
    ]
    assert cli.main(["plan", str(recipe), *shorter, "--gpu", "80"]) == 0
    assert cli.main(["run", str(recipe), *shorter, "--out", str(out)]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count(": transformers' generate samples, since ") == 2  # each checkpoint
    assert "transformers' generate samples" in (out / "log.txt").read_text()
    rows = read_jsonl(out / "02-grpo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert max(row.get("logp_gap_max", 0.0) for row in rows) < 1e-3
    assert cli.main(["sample", str(out / "02-grpo"), "1+2", "--max-tokens", "8"]) == 0
    assert "transformers' generate samples" in capsys.readouterr().out
