"""The exported tasks: what they hold, that they judge as we do, and that the command of the harness agrees."""

import json
import os
from functools import partialmethod

import pytest
import torch

from eval.exam.suite import load_suite
from eval.export.lm_eval import export, judged
from r1_mini.completion import grade, write
from r1_mini.errors import UserError
from r1_mini.model.architecture import make_model
from r1_mini.model.checkpoint import load_checkpoint, save_checkpoint
from r1_mini.model.prompts import prompt_for
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.rollout.generate import generate
from r1_mini.rollout.params import SamplingParams
from r1_mini.system.files import read_jsonl
from tests.chat import chat_tokenizer
from tests.commands import Started

SUITE = """
samples: 1
max_tokens: 64
seed: 5
problems:
  - {family: sum, terms: [3, 4], digits: 1, largest: 9, number: 20}
  - {family: sum, terms: [5, 6], digits: 1, largest: 9, number: 10, axis: more operands}
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
    export(*suite, chat_tokenizer([], 300), tmp_path / "new")
    assert "judged(doc, results[0], None)" in (tmp_path / "new" / "utils.py").read_text()
    assert read_jsonl(tmp_path / "new" / f"{TASKS[0]}.jsonl")[0]["prompt"].startswith("<|im_start|>")


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
    for _ in range(120):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_checkpoint(model, tokenizer, folder)


def harness(arguments):
    """Its command, offline, and without its own 14,000 tasks, whose list takes it seconds."""
    import datasets
    import huggingface_hub
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.tasks import TaskManager

    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    datasets.config.HF_DATASETS_CACHE = os.path.abspath("cache")
    TaskManager.__init__ = partialmethod(TaskManager.__init__, include_defaults=False)
    cli_evaluate()


@pytest.mark.slow
def test_the_command_of_the_harness_agrees_problem_by_problem(suite, folder, tokenizer, tmp_path):
    pytest.importorskip("lm_eval")
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    settings, problems = suite
    save_memorizer(problems, tokenizer, checkpoint)
    model, loaded = load_checkpoint(checkpoint)
    params = SamplingParams(1, settings.max_tokens, temperature=0.0)
    samples = generate(model, loaded, [one.problem for one in problems], params)
    pairs = [(one.problem, text) for one, (text,) in zip(problems, samples, strict=True)]
    ours = {problem.key: (text.text, text.graded.correct) for problem, text in pairs}
    cut_off = sum(text.finish == "length" and grade(problem, text.text, "stop").correct for problem, text in pairs)
    accuracy = sum(right for _, right in ours.values()) / len(ours)
    assert 0.3 < accuracy < 0.9 and cut_off >= 3  # these would be right, had they ended

    arguments = [
        *("--model", "hf", "--model_args", f"pretrained={checkpoint},dtype=float32", "--device", "cpu"),
        *("--include_path", folder, "--tasks", "r1_mini_a_bridge", "--log_samples", "--output_path", out),
        *("--batch_size", "8"),
    ]
    ran = Started(*arguments, cwd=tmp_path, main=harness).done()
    assert ran.returncode == 0, ran.stderr[-3000:]
    logged = [row for path in out.rglob("samples_*.jsonl") for row in read_jsonl(path)]
    theirs = {row["doc"]["key"]: (row["resps"][0][0], row["exact_match"] == 1.0) for row in logged}
    prompts = {prompt_for(loaded, one.problem.question) for one in problems}
    assert {row["arguments"]["gen_args_0"]["arg_0"] for row in logged} == prompts
    assert theirs == ours
    (results,) = out.rglob("results_*.json")
    groups = json.loads(results.read_text())["groups"]
    assert groups["r1_mini_a_bridge"]["exact_match,none"] == pytest.approx(accuracy)
