"""An exam as tasks of EleutherAI's lm-evaluation-harness, so that its command can examine the same checkpoint.

The folder has a task (YAML) and its problems (JSONL) for each family and axis, a group of all tasks, and `utils.py`,
through which the harness calls `judged` below. docs/LM_EVAL.md says what differs from our own exam.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from eval.exam.suite import ExamProblem, Suite
from r1_mini.completion import is_correct, read
from r1_mini.config.yaml_file import dump
from r1_mini.errors import UserError
from r1_mini.model.prompts import prompts_for
from r1_mini.model.tokenizer import WORDS

UTILS = '''"""lm-evaluation-harness judges a completion as r1_mini does, which must be installed too."""

from eval.export.lm_eval import judged


def process_results(doc, results):
    return judged(doc, results[0], {budget})
'''
TOKEN = re.compile("|".join([*map(re.escape, WORDS), r"[\s\S]"]))


def export(
    suite: Suite, problems: Sequence[ExamProblem], tokenizer: PreTrainedTokenizerBase, folder: Path
) -> list[str]:
    """Write the tasks into a new folder; returns their names, in order of appearance.

    UserError if the folder holds something, or if the tokenizer cannot write a problem.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError("is there already and not empty", where=str(folder), fix="name another folder, or remove it")
    tasks: dict[str, list[dict[str, Any]]] = {}
    prompts = prompts_for(tokenizer, [one.problem for one in problems])
    for one, prompt in zip(problems, prompts, strict=True):
        fields = {key: getattr(one.problem, key) for key in ("key", "question", "answer", "judge", "family")}
        document = {**fields, "prompt": prompt, "depth": one.depth, "axis": one.axis}
        tasks.setdefault(_name(suite.name, one.problem.family, one.axis or ""), []).append(document)
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in tasks.items():
        path = folder.resolve() / f"{name}.jsonl"
        path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in documents), encoding="utf-8")
        settings = dump(_task(name, path, suite, tokenizer))
        (folder / f"{name}.yaml").write_text(f"{settings}process_results: !function utils.process_results\n")
    group = {
        "group": _name(suite.name),
        "task": list(tasks),
        "aggregate_metric_list": [{"metric": "exact_match", "weight_by_size": True}],
    }
    (folder / f"_{_name(suite.name)}.yaml").write_text(dump(group))
    ours = tokenizer.get_vocab().keys() >= set(WORDS)
    (folder / "utils.py").write_text(UTILS.format(budget=suite.max_tokens if ours else None))
    return list(tasks)


def judged(doc: Mapping[str, Any], text: str, budget: int | None) -> dict[str, float]:
    """The harness's metric of a completion of `doc`. `budget` is its most tokens by our tokenizer, else None.

    The harness gives the text without its stop token, so a truncated completion looks as if it had ended. Our tokenizer
    writes a text in one way only, hence counting its tokens tells the two apart: one that ended has a token less than
    the budget. Completions of other tokenizers cannot be counted and are taken to have ended.
    """
    truncated = budget is not None and sum(1 for _ in TOKEN.finditer(text)) >= budget
    transcript = read(text, "length" if truncated else "stop", doc["prompt"])
    return {"exact_match": float(is_correct(transcript, doc["answer"], doc["judge"]))}


def _name(*words: str) -> str:
    """`arithmetic-ood`, `sum`, `more operands` as `r1_mini_arithmetic_ood_sum_more_operands`."""
    return "_".join(["r1_mini", *re.findall(r"[^\W_]+", " ".join(words).lower())])


def _task(name: str, documents: Path, suite: Suite, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A task's settings. The harness cuts a completion off before a stop string, so `</answer>` must not be one."""
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(documents)}},  # a relative path would depend on where it runs
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "generation_kwargs": {
            "until": [tokenizer.eos_token] if tokenizer.eos_token else [],
            "do_sample": False,
            "max_gen_toks": suite.max_tokens,
            "repetition_penalty": 1.0,  # some chat models bring another one, and it changes greedy decoding too
        },
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0, "suite": suite.name, "split": suite.split, "seed": suite.seed},
    }
