"""The recipes for GPUs, read as they stand: the memory they state, and the whole path with everything small.

Models and data sets of the Hub are folders of the same names here, made on the spot.
"""

import json
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from eval.exam.exam import Exam
from r1_mini import cli
from r1_mini.model.prompts import R1_SYSTEM
from r1_mini.pipeline.recipe import load
from r1_mini.plan.plan import plan
from r1_mini.plan.stages import Share
from r1_mini.system.environment import gpu_of
from r1_mini.system.files import read_jsonl

RECIPES = Path(__file__).parents[1] / "recipes" / "gpu"
FORMATS = Path(__file__).parent / "judges" / "formats"
LAUNCHED = {  # recipe -> memory of a card in GiB, how its launch command divides the work
    "countdown_qwen2.5_3b": (80, Share()),
    "gsm8k_qwen2.5_0.5b_lora": (24, Share()),
    "gsm8k_qwen2.5_1.5b": (80, Share()),
    "math_qwen2.5_7b_fsdp": (80, Share(8, "fsdp")),
    "scratch_100m": (40, Share()),
}
QWEN = {  # width, width of the MLP, layers, heads, key-value heads, vocabulary, tied: config.json of each
    "Qwen2.5-0.5B-Instruct": (896, 4864, 24, 14, 2, 151_936, True),
    "Qwen2.5-1.5B-Instruct": (1536, 8960, 28, 12, 2, 151_936, True),
    "Qwen2.5-3B": (2048, 11_008, 36, 16, 2, 151_936, True),
    "Qwen2.5-7B": (3584, 18_944, 28, 28, 4, 152_064, False),
}
TINY = (32, 64, 2, 2, 1, 1200, True)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SETS = {"openai/gsm8k": ("main", "gsm8k"), "DigitalLearningGmbH/MATH-lighteval": ("default", "math_boxed")}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder in which every id of the recipes is a data set, or a model without weights."""
    root = tmp_path_factory.mktemp("hub")
    for name, (config, rows) in SETS.items():
        folder = root / name
        folder.mkdir(parents=True)
        text = (FORMATS / f"{rows}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "train.jsonl").write_text("".join(text[:60]), encoding="utf-8")
        (folder / "test.jsonl").write_text("".join(text[60:]), encoding="utf-8")
        files = "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in ("train", "test"))
        (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n")
    tokenizer = a_tokenizer()
    for name, shape in QWEN.items():
        config_of(shape, tokenizer).save_pretrained(root / "Qwen" / name)
        tokenizer.save_pretrained(root / "Qwen" / name)
    return root


def a_tokenizer():
    """Byte-level BPE of Qwen's kind; English as short as there, for it has read these texts."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    texts = [path.read_text(encoding="utf-8") for path in FORMATS.glob("*.jsonl")]
    core.train_from_iterator([*texts, *[R1_SYSTEM] * 100], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT
    )


def config_of(shape, tokenizer):
    width, mlp, layers, heads, groups, vocabulary, tied = shape
    return Qwen2Config(
        hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=32_768,
        eos_token_id=tokenizer.eos_token_id, dtype=torch.bfloat16,
    )  # fmt: skip


def test_every_recipe_is_here():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == LAUNCHED.keys()


def planned(name, hub, monkeypatch):
    monkeypatch.chdir(hub)
    recipe = load(RECIPES / f"{name}.yaml")
    exam = Exam(recipe)
    memory, share = LAUNCHED[name]
    return plan(recipe, exam.planned(), exam.planned_on_dev(), gpu_of(memory), share, 0)


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_memory_that_a_recipe_states_is_what_is_planned_and_fits_its_card(name, hub, monkeypatch):
    made = planned(name, hub, monkeypatch)
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    stated = float(re.search(r"^# memory:  ([\d.]+) GiB planned", text, re.M)[1])
    assert made.needed / 2**30 == pytest.approx(stated, rel=0.03)
    assert made.fits
    card = int(re.search(r"^# memory:.* cards? of (\d+) GB", text, re.M)[1])
    assert made.needed < 0.9 * card * 10**9
    fatal = ("take more than the memory", "has room for", "has no EOS")
    assert not [text for text in made.warnings if any(word in text for word in fatal)]


@pytest.mark.parametrize("name", LAUNCHED)
def test_a_recipe_says_how_it_is_launched(name):
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    launch = re.search(r"^# launch:  (.*)$", text, re.M)[1]
    assert f"run recipes/gpu/{name}.yaml" in launch
    files = re.findall(r"recipes/\S+\.yaml", launch)
    assert all((RECIPES.parents[1] / file).is_file() for file in files)
    assert ("fsdp2.yaml" in launch) is (LAUNCHED[name][1].sharding == "fsdp")


SMALL = {
    "base.model": "{hidden_size: 32, layers: 1, heads: 2}", "base.trainer.max_steps": "2",
    "base.trainer.per_device_train_batch_size": "4", "base.trainer.bf16": "false", "base.trainer.tf32": "null",
    "grpo.trainer.max_steps": "1", "grpo.trainer.per_device_train_batch_size": "16",
    "grpo.trainer.gradient_accumulation_steps": "1", "grpo.trainer.max_completion_length": "8",
    "grpo.trainer.bf16": "false", "grpo.trainer.tf32": "null", "grpo.trainer.use_vllm": "false",
    "grpo.trainer.learning_rate": "1.0e-2", "grpo.rewards": "{length: 1.0}",
    "evaluate.limit": "6", "evaluate.samples": "1", "evaluate.max_tokens": "8",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHED)
def test_the_whole_path_of_a_recipe_works_with_everything_small(name, hub, tmp_path, monkeypatch, capsys):
    for entry in hub.iterdir():
        if entry.name != "Qwen":
            (tmp_path / entry.name).symlink_to(entry)
    tokenizer = a_tokenizer()
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config_of(TINY, tokenizer)).to(torch.bfloat16)
    for of_a_card in QWEN:
        model.save_pretrained(tmp_path / "Qwen" / of_a_card)
        tokenizer.save_pretrained(tmp_path / "Qwen" / of_a_card)
    monkeypatch.chdir(tmp_path)
    recipe = load(RECIPES / f"{name}.yaml")
    small = [f"{k}={v}" for k, v in SMALL.items() if not k.startswith("base.") or recipe.stages[0].kind == "base"]
    assert cli.main(["run", str(RECIPES / f"{name}.yaml"), *small, "--out", "run"]) == 0, capsys.readouterr().err
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "0 operations" not in page.replace("10 operations", "")
    (samples,) = (tmp_path / "run" / "eval" / "own").glob("*-grpo/samples.jsonl")
    rows = read_jsonl(samples)
    assert len(rows) == 6
    if recipe.model is not None:
        chat = rows[0]["prompt"].startswith("<|im_start|>system\n" + R1_SYSTEM)
        assert chat is (recipe.prompt != "base") and (chat or rows[0]["prompt"].startswith(R1_SYSTEM))


def test_answers_of_gsm8k_and_math_are_read_as_the_recipes_say(hub, monkeypatch):
    """What the columns say by eye: the number after the marks, the inside of the box."""
    monkeypatch.chdir(hub)
    for name in ("gsm8k_qwen2.5_0.5b_lora", "math_qwen2.5_7b_fsdp"):
        (source,) = load(RECIPES / f"{name}.yaml").problems
        assert source.jsonl is None
        gold = {problem.question: problem.answer for problem in source.listed("test")}
        for line in (Path(source.dataset) / "test.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            solution = row[source.answer]
            expected = solution.rpartition("####")[2].strip().replace(",", "") if "####" in solution else None
            answer = gold.get(row[source.question])
            if answer is not None:
                assert answer == expected if expected else rf"\boxed{{{answer}}}" in solution


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("scratch_100m", "stages.0.trainer.tf32: needs a GPU of NVIDIA's Ampere generation or later; set it to null"),
        ("math_qwen2.5_7b_fsdp", "stages.0.trainer.use_vllm: needs the package vllm; pip install 'trl[vllm]', or leave it out"),
    ],
)  # fmt: skip
def test_what_the_machine_lacks_is_said_before_anything_is_trained(name, line, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(hub)
    assert cli.main(["run", str(RECIPES / f"{name}.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == f"error: {line}\n"
    assert not (tmp_path / "run").exists()
