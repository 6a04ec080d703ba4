"""The exported tasks: what they hold, that they judge as we do, and that the command of the harness agrees."""

import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml

from eval.exam.suite import load_suite
from eval.export.lm_eval import export, judged
from r1_mini.completion import grade, write
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.model.prompts import prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.engine import SamplingParams
from r1_mini.rollout.generate import generate
from r1_mini.system.files import read_jsonl

SUITE = """
samples: 1
max_tokens: 64
seed: 5
problems:
  - {family: sum, terms: [3, 4], digits: 1, largest: 9, number: 40}
  - {family: sum, terms: [5, 6], digits: 1, largest: 9, number: 20, axis: more operands}
"""
TASKS = ["r1_mini_a_bridge_sum", "r1_mini_a_bridge_sum_more_operands"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "a-bridge.yaml"
    path.write_text(SUITE)
    return load_suite(str(path))


@pytest.fixture(scope="module")
def folder(suite, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks") / "new"
    assert export(*suite, tokenizer, folder) == TASKS
    return folder


def test_every_problem_stands_in_the_file_of_its_family_and_axis(folder, suite, tokenizer):
    _, problems = suite
    files = [read_jsonl(folder / f"{name}.jsonl") for name in TASKS]
    assert [len(file) for file in files] == [40, 20]
    assert {row["key"] for file in files for row in file} == {one.problem.key for one in problems}
    assert [{row["axis"] for row in file} for file in files] == [{None}, {"more operands"}]
    first = next(one for one in problems if one.axis)
    document = dict(files[1][0])
    prompt = document.pop("prompt")
    assert prompt == prompt_for(tokenizer, first.problem.question)
    assert document.pop("axis") == "more operands"
    assert document == {name: getattr(first.problem, name) for name in document} and len(document) == 7


def test_a_task_decodes_greedily_with_our_budget_and_stops_only_at_the_end_of_text(folder):
    text = (folder / f"{TASKS[1]}.yaml").read_text()
    settings = yaml.safe_load(text.replace("!function ", ""))
    decoding = {"until": ["<eos>"], "do_sample": False, "max_gen_toks": 64, "repetition_penalty": 1.0}
    assert "process_results: !function utils.process_results\n" in text
    assert (settings["task"], settings["generation_kwargs"]) == (TASKS[1], decoding)
    assert settings["dataset_kwargs"]["data_files"]["test"] == str(folder.resolve() / f"{TASKS[1]}.jsonl")
    assert (settings["doc_to_text"], settings["output_type"]) == ("prompt", "generate_until")
    assert {path.stem for path in folder.glob("*.yaml")} == {*TASKS, "_r1_mini_a_bridge"}
    assert yaml.safe_load((folder / "_r1_mini_a_bridge.yaml").read_text())["task"] == TASKS


def test_a_folder_that_holds_something_is_left_alone(suite, tokenizer, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty; name another folder"):
        export(*suite, tokenizer, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def document(judge="number", answer="3", prompt=""):
    problem = {"key": "1+2", "family": "sum", "question": "1+2", "formula": None, "difficulty": {"depth": 1}}
    return {**problem, "answer": answer, "judge": judge, "prompt": prompt}


def test_completions_are_judged_as_ours_are_and_one_that_fills_its_budget_was_truncated(tokenizer):
    text = "<think>1+2=3\nwait</think><answer>3</answer>"
    n = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert [judged(document(), text, budget)["exact_match"] for budget in (n, n + 1, None)] == [0.0, 1.0, 1.0]
    begun = document(prompt="Question\n<think>\n")
    assert judged(begun, "1+2=3</think><answer>3</answer>", None)["exact_match"] == 1.0
    choice = document("choice", "B")
    assert [judged(choice, write((), answer), None)["exact_match"] for answer in ("B", "C")] == [1.0, 0.0]


def test_texts_of_another_tokenizer_are_not_counted(suite, tmp_path):
    other = SimpleNamespace(
        eos_token="<|im_end|>",
        unk_token_id=None,
        chat_template="a template",
        get_vocab=lambda: {"<think>": 0},
        apply_chat_template=lambda turns, **kwargs: turns[0]["content"],
    )
    export(*suite, other, tmp_path / "new")
    assert "judged(doc, results[0], None)" in (tmp_path / "new" / "utils.py").read_text()
    assert read_jsonl(tmp_path / "new" / f"{TASKS[0]}.jsonl")[0]["prompt"].startswith("A conversation between")


def save_memorizer(problems, tokenizer, folder):
    """A checkpoint that has learned half of the problems by heart, and never to end some of them."""
    texts = []
    for place, one in enumerate(problems[: len(problems) // 2]):
        text = write(one.problem.steps, one.problem.answer) + ("<eos>" if place % 5 else "\n" * 60)
        texts.append(prompt_for(tokenizer, one.problem.question) + text)
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt", add_special_tokens=False)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    model = make_model(tokenizer, hidden_size=64, layers=2, heads=4, intermediate_size=128, seed=0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_checkpoint(model, tokenizer, folder)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed: pip install 'r1-mini[lm-eval]'"
)
def test_the_command_of_the_harness_agrees_problem_by_problem(suite, folder, tokenizer, tmp_path):
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    settings, problems = suite
    save_memorizer(problems, tokenizer, checkpoint)
    model, loaded = load_checkpoint(checkpoint)
    params = SamplingParams(1, settings.max_tokens, temperature=0.0)
    samples = generate(model, loaded, [one.problem for one in problems], params)
    ours, cut_off = {}, 0
    for one, (text,) in zip(problems, samples, strict=True):
        ours[one.problem.key] = (text.text, text.graded.correct)
        cut_off += text.finish == "length" and grade(one.problem, text.text, "stop").correct
    accuracy = sum(right for _, right in ours.values()) / len(ours)
    assert 0.3 < accuracy < 0.9 and cut_off >= 3  # these would be right, had they ended

    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    command = [
        *(sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={checkpoint},dtype=float32"),
        *("--include_path", str(folder), "--tasks", "r1_mini_a_bridge", "--log_samples", "--output_path", str(out)),
        *("--device", "cpu", "--batch_size", "8"),
    ]
    ran = subprocess.run(command, env={**os.environ, **offline}, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    logged = [row for path in out.rglob("samples_*.jsonl") for row in read_jsonl(path)]
    theirs = {row["doc"]["key"]: (row["resps"][0][0], row["exact_match"] == 1.0) for row in logged}
    prompts = {prompt_for(loaded, one.problem.question) for one in problems}
    assert {row["arguments"]["gen_args_0"]["arg_0"] for row in logged} == prompts
    assert theirs == ours
    (results,) = out.rglob("results_*.json")
    groups = json.loads(results.read_text())["groups"]
    assert groups["r1_mini_a_bridge"]["exact_match,none"] == pytest.approx(accuracy)
