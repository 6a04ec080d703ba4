"""The recipes for GPUs, read as they stand: the memory they state, and the whole path with everything small.

Models and data sets of the Hub are folders of the same names here, made on the spot.
"""

import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import Qwen2Config, Qwen2ForCausalLM

from eval.exam.exam import Exam
from r1_mini import cli
from r1_mini.errors import UserError
from r1_mini.model.templates import R1_SYSTEM
from r1_mini.pipeline.recipe import load
from r1_mini.pipeline.start import check
from r1_mini.plan.plan import plan
from r1_mini.plan.stages import Share
from r1_mini.system.environment import gpu_of, kind
from r1_mini.system.files import read_jsonl
from r1_mini.train.collect import Keep
from tests.chat import chat_tokenizer

RECIPES = sorted((Path(__file__).parents[1] / "recipes" / "gpu").glob("*.yaml"))
FORMATS = Path(__file__).parent / "judges" / "formats"
QWEN = {  # width, width of the MLP, layers, heads, key-value heads, vocabulary, tied: config.json of each
    "Qwen2.5-0.5B-Instruct": (896, 4864, 24, 14, 2, 151_936, True),
    "Qwen2.5-1.5B-Instruct": (1536, 8960, 28, 12, 2, 151_936, True),
    "Qwen2.5-1.5B": (1536, 8960, 28, 12, 2, 151_936, True),
    "Qwen2.5-3B": (2048, 11_008, 36, 16, 2, 151_936, True),
    "Qwen2.5-7B": (3584, 18_944, 28, 28, 4, 152_064, False),
}
TINY = (32, 64, 2, 2, 1, 1200, True)
SETS = {"openai/gsm8k": ("main", "gsm8k"), "DigitalLearningGmbH/MATH-lighteval": ("default", "math_boxed")}
on_each = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def tokenizer():
    """English is as short as with Qwen's, for it has read these texts."""
    texts = [path.read_text(encoding="utf-8") for path in FORMATS.glob("*.jsonl")]
    return chat_tokenizer([*texts, *[R1_SYSTEM] * 100], 1200)


def config_of(shape, tokenizer):
    width, mlp, layers, heads, groups, vocabulary, tied = shape
    return Qwen2Config(
        hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, vocab_size=vocabulary, tie_word_embeddings=tied, max_position_embeddings=32_768,
        eos_token_id=tokenizer.eos_token_id, dtype=torch.bfloat16,
    )  # fmt: skip


@pytest.fixture
def hub(tmp_path, tokenizer, monkeypatch):
    """The current folder, in which every id of the recipes is a data set, or a model without weights."""
    for name, (config, rows) in SETS.items():
        (tmp_path / name).mkdir(parents=True)
        text = (FORMATS / f"{rows}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        files = ""
        for split, lines in (("train", text[:60]), ("test", text[60:])):
            (tmp_path / name / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
            files += f"  - split: {split}\n    path: {split}.jsonl\n"
        (tmp_path / name / "README.md").write_text(
            f"---\nconfigs:\n- config_name: {config}\n  data_files:\n{files}---\n"
        )
    for name, shape in QWEN.items():
        config_of(shape, tokenizer).save_pretrained(tmp_path / "Qwen" / name)
        tokenizer.save_pretrained(tmp_path / "Qwen" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@on_each
def test_a_recipe_says_how_it_is_launched_and_the_memory_that_is_planned_which_fits_its_card(path, hub):
    text = path.read_text(encoding="utf-8")
    launch = re.search(r"^# launch:  (.*)$", text, re.M)[1]
    assert f"run recipes/gpu/{path.name}" in launch
    assert all((path.parents[2] / file).is_file() for file in re.findall(r"recipes/\S+\.yaml", launch))
    stated, card = re.search(r"^# memory:  ([\d.]+) GiB planned.* cards? of (\d+) GB", text, re.M).groups()

    recipe = load(path)
    exam = Exam(recipe)
    share = Share(8, "fsdp") if "fsdp2.yaml" in launch else Share()
    made = plan(recipe, *exam.planned(), gpu_of(float(card)), share, 0)
    assert made.needed / 2**30 == pytest.approx(float(stated), rel=0.03)
    assert made.fits and made.needed < 0.9 * int(card) * 10**9
    fatal = ("take more than the memory", "has room for", "has no EOS")
    assert not [text for text in made.warnings if any(word in text for word in fatal)]


@pytest.mark.skipif(kind() == "cuda", reason="a CUDA device is here")
@on_each
def test_a_recipe_for_gpus_does_not_start_on_a_processor(path):
    with pytest.raises(UserError, match=r"tf32: needs a GPU of NVIDIA.s Ampere generation .* with --gpu"):
        check(load(path), [], Console(quiet=True))


BASE = {"model": "{hidden_size: 32, layers: 1, heads: 2}", "trainer": "{max_steps: 2, per_device_train_batch_size: 4}"}
HERE = {"bf16": "false", "tf32": "null"}
SMALL = {
    "grpo": HERE | {
        "max_steps": 1, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1, "max_completion_length": 8,
        "use_vllm": "false", "learning_rate": "1.0e-2",
    },
    "sft": HERE | {"max_steps": 2, "per_device_train_batch_size": 2},
}  # fmt: skip


@pytest.mark.slow
@on_each
def test_the_whole_path_of_a_recipe_works_with_everything_small(path, hub, tokenizer, capsys, monkeypatch):
    monkeypatch.setattr(Keep, "why_not", lambda *_: None)  # random weights are never right
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config_of(TINY, tokenizer)).to(torch.bfloat16)
    recipe = load(path)
    if recipe.model is not None:
        model.save_pretrained(recipe.model)
    small = ["evaluate.limit=6", "evaluate.samples=1", "evaluate.max_tokens=8"]
    for place, stage in enumerate(recipe.stages):
        name = stage.name or f"stages.{place}"
        small += [f"{name}.trainer.{field}={value}" for field, value in SMALL.get(stage.kind, {}).items()]
        small += [f"{name}.rewards={{length: 1.0}}"] if stage.kind == "grpo" else []
        small += [f"{name}.{key}=8" for key in ("prompts", "max_tokens") if stage.kind == "collect"]
    small += [f"base.{key}={value}" for key, value in BASE.items() if recipe.model is None]
    assert cli.main(["run", str(path), *small, "--out", "run"]) == 0, capsys.readouterr().err
    page = (hub / "run" / "report.html").read_text(encoding="utf-8")
    assert "0 operations" not in page.replace("10 operations", "")
    rows = read_jsonl(hub / "run" / "eval" / "own" / list(recipe.nodes)[-1] / "samples.jsonl")
    assert len(rows) == 6
    if recipe.model is not None:
        chat = rows[0]["prompt"].startswith("<|im_start|>system\n" + R1_SYSTEM)
        assert chat is (recipe.prompt != "base") and (chat or rows[0]["prompt"].startswith(R1_SYSTEM))


@pytest.mark.parametrize("name", ["gsm8k_qwen2.5_0.5b_lora", "math_qwen2.5_7b_fsdp"])
def test_answers_of_gsm8k_and_math_are_read_as_the_recipes_say(name, hub):
    """What the columns say by eye: the number after the marks, the inside of the box."""
    (source,) = load(RECIPES[0].with_name(f"{name}.yaml")).problems
    rows = read_jsonl(Path(source.dataset) / "test.jsonl")
    solutions = {row[source.question]: row[source.answer] for row in rows}
    problems = list(source.listed("test"))
    assert problems
    for problem in problems:
        _, marks, number = solutions[problem.question].rpartition("####")
        if marks:
            assert float(problem.answer) == float(number.replace(",", ""))
        else:
            assert f"\\boxed{{{problem.answer}}}" in solutions[problem.question]
