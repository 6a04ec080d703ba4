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

from eval.exam.samples import PROBLEM, problem_of
from eval.exam.suite import ExamProblem, Suite
from eval.report import words
from r1_mini.completion import grade
from r1_mini.errors import UserError
from r1_mini.model.prompts import prompts_for
from r1_mini.model.tokenizer import WORDS

TOKEN = re.compile("|".join([*map(re.escape, WORDS), r"[\s\S]"]))


def export(
    suite: Suite, problems: Sequence[ExamProblem], tokenizer: PreTrainedTokenizerBase, folder: Path
) -> list[str]:
    """Write the tasks into a new folder; returns their names, in order of appearance.

    UserError if the folder holds something, or if the tokenizer cannot write a problem.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError("is there already and not empty", where=str(folder), fix="name another folder, or remove it")
    tasks: dict[str, list[str]] = {}
    prompts = prompts_for(tokenizer, [one.problem for one in problems])
    for one, prompt in zip(problems, prompts, strict=True):
        fields = {name: getattr(one.problem, name) for name in PROBLEM} | {"difficulty": dict(one.problem.difficulty)}
        document = json.dumps({**fields, "prompt": prompt, "axis": one.axis}, ensure_ascii=False)
        tasks.setdefault(_name(suite.name, one.problem.family, one.axis or ""), []).append(document + "\n")
    folder.mkdir(parents=True, exist_ok=True)
    for name, documents in tasks.items():
        path = folder.resolve() / f"{name}.jsonl"
        path.write_text("".join(documents), encoding="utf-8")
        task = words.render(
            "export/task.yaml.jinja",
            name=name,
            documents=str(path),  # a relative path would depend on where it runs
            eos=tokenizer.eos_token,
            suite=suite,
        )
        (folder / f"{name}.yaml").write_text(task, encoding="utf-8")
    group = _name(suite.name)
    (folder / f"_{group}.yaml").write_text(words.render("export/group.yaml.jinja", name=group, tasks=list(tasks)))
    ours = tokenizer.get_vocab().keys() >= set(WORDS)
    budget = suite.max_tokens if ours else None
    (folder / "utils.py").write_text(words.render("export/utils.py.jinja", budget=budget))
    return list(tasks)


def judged(doc: Mapping[str, Any], text: str, budget: int | None) -> dict[str, float]:
    """The harness's metric of a completion of `doc`. `budget` is its most tokens by our tokenizer, else None.

    The harness gives the text without its stop token, so a truncated completion looks as if it had ended. Our tokenizer
    writes a text in one way only, hence counting its tokens tells the two apart: one that ended has a token less than
    the budget. Completions of other tokenizers cannot be counted and are taken to have ended.
    """
    truncated = budget is not None and len(TOKEN.findall(text)) >= budget
    graded = grade(problem_of(doc), text, "length" if truncated else "stop", doc["prompt"])
    return {"exact_match": float(graded.correct)}


def _name(*parts: str) -> str:
    """`arithmetic-ood`, `sum`, `more operands` as `r1_mini_arithmetic_ood_sum_more_operands`."""
    return "_".join(["r1_mini", *re.findall(r"[^\W_]+", " ".join(parts).lower())])
