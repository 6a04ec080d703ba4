"""An exam as tasks of EleutherAI's lm-evaluation-harness, so that its command can examine the same checkpoint.

The folder stands alone: a task (YAML) and its problems (JSONL) per family and axis, a group over all of them, and
`utils.py`, which judges completions with the very functions that judge them here. docs/LM_EVAL.md tells what differs.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from eval.exam.suite import Asked, Suite
from r1_mini import completion as transcript
from r1_mini.config.yaml_file import dump
from r1_mini.errors import UserError
from r1_mini.judges.judges import same_number
from r1_mini.model.tokenizer import WORDS
from r1_mini.problems import arithmetic
from r1_mini.rollout.generate import prompt_for, require_known
from r1_mini.system.files import folder_atomic, write_text_atomic

METRIC = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}


def export(suite: Suite, asked: Sequence[Asked], tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[str]:
    """Writes `folder`, whole or not at all; returns the names of the tasks, in order of appearance.

    UserError if something is there already, if two axes would give tasks of the same name, if an answer is no number,
    which `utils.py` could not judge, or if the tokenizer cannot write a problem.
    """
    require_known(tokenizer, (one.problem for one in asked))
    for one in asked:
        if one.problem.judge != "number":
            what = f"answers of {one.problem.family} are no numbers, and only those are judged there"
            raise UserError(what, where=suite.name, fix="name the other families with --family")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError("is there already and not empty", where=str(folder), fix="name another folder, or remove it")
    tasks = _tasks(suite, asked)
    with folder_atomic(folder) as aside:
        for name, problems in tasks.items():
            rows = [json.dumps(_document(one, tokenizer), ensure_ascii=False) + "\n" for one in problems]
            write_text_atomic(aside / f"{name}.jsonl", "".join(rows))
            settings = _task(name, folder.resolve() / f"{name}.jsonl", suite, tokenizer)
            judge = "process_results: !function utils.process_results\n"
            write_text_atomic(aside / f"{name}.yaml", dump(settings) + judge)
        group = {
            "group": _name(suite.name),
            "task": list(tasks),
            "aggregate_metric_list": [{"metric": "exact_match", "weight_by_size": True}],
        }
        write_text_atomic(aside / f"_{_name(suite.name)}.yaml", dump(group))
        ours = tokenizer.get_vocab().keys() >= set(WORDS)
        write_text_atomic(aside / "utils.py", scorer(suite.max_tokens if ours else None))
    return list(tasks)


def _tasks(suite: Suite, asked: Sequence[Asked]) -> dict[str, list[Asked]]:
    """The problems of each task."""
    tasks: dict[str, list[Asked]] = {}
    for one in asked:
        name = _name(suite.name, one.problem.family, one.axis or "")
        first = tasks.setdefault(name, [])
        if first and first[0].axis != one.axis:
            what = f"the axes '{first[0].axis}' and '{one.axis}' would both be the task {name}"
            raise UserError(what, where=suite.name, fix="rename one of them")
        first.append(one)
    return tasks


def _name(*parts: str) -> str:
    """`arithmetic-ood`, `sum`, `more operands` as `r1_mini_arithmetic_ood_sum_more_operands`."""
    words = [word for part in parts for word in re.split(r"[\W_]+", part.lower()) if word]
    return "_".join(["r1_mini", *words])


def _document(one: Asked, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    problem = one.problem
    return {
        "key": problem.key,
        "question": problem.question,
        "answer": problem.answer,
        "prompt": prompt_for(tokenizer, problem.question),
        "family": problem.family,
        "depth": one.depth,
        "axis": one.axis,
    }


def _task(name: str, documents: Path, suite: Suite, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A task's settings. The harness cuts a completion off before a stop string, so `</answer>` must not be one."""
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(documents)}},  # it would look for a relative path where it runs
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "generation_kwargs": {
            "until": [tokenizer.eos_token] if tokenizer.eos_token else [],
            "do_sample": False,
            "max_gen_toks": suite.max_tokens,
            "repetition_penalty": 1.0,  # some chat models come with another one, and it bends greedy decoding too
        },
        "metric_list": [METRIC],
        "metadata": {"version": 1.0, "suite": suite.name, "split": suite.split, "seed": suite.seed},
    }


def scorer(max_tokens: int | None) -> str:
    """The text of `utils.py`. `max_tokens` is the budget of a completion by our tokenizer, None for another one.

    The harness hands over text without its stop token, so what was cut off at the budget looks as if it had ended. Our
    tokenizer writes a text in one way only, hence counting its tokens tells the two apart: one that ended has room for
    the stop token. Texts of other tokenizers cannot be counted so, and are taken to have ended.
    """
    ours = (transcript.Transcript, transcript.begun, transcript.read, transcript.is_correct)
    judge = (arithmetic.parse_number, same_number, *ours)
    head = _HEAD.format(tags=transcript.TAGS, tag=transcript._TAG.pattern, number=arithmetic._NUMBER.pattern)
    tail = _TAIL.format(budget=max_tokens, token="|".join([*WORDS, r"[\s\S]"]))
    return "\n\n".join([head, *(inspect.getsource(part) for part in judge), tail])


_HEAD = '''"""How r1_mini judges a completion. Written by eval/export/lm_eval.py; needs nothing but Python."""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import islice

Finish = Voice = str
TAGS = {tags!r}
_TAG = re.compile({tag!r})
_NUMBER = re.compile({number!r})
'''

_TAIL = '''JUDGES = {{"number": same_number}}
BUDGET = {budget!r}  # tokens, None if they cannot be counted
TOKEN = re.compile({token!r})


def finish(completion):
    """`length` if the completion fills its budget: one that ended has room for the stop token, which is cut off."""
    if BUDGET is None:
        return "stop"
    return "length" if sum(1 for _ in TOKEN.finditer(completion)) >= BUDGET else "stop"


def process_results(doc, results):
    completion = results[0]
    transcript = read(completion, finish(completion), doc.get("prompt", ""))
    return {{"exact_match": float(is_correct(transcript, doc["answer"]))}}
'''
