"""Examine a checkpoint: it answers each problem several times, and samples.jsonl holds every answer, graded.

An exam is sampled in chunks, each a file that appears whole, so an interrupted exam only samples those that are missing
and several processes share them. samples.jsonl is the chunks in order. Which problems are asked: `suite.py`.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.exam.samples import row
from eval.exam.suite import ExamProblem, Suite
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.model.prompts import require_known
from r1_mini.pipeline.store import Store, checkpoint_hash, fingerprint, read_note
from r1_mini.rollout.engine import SamplingParams
from r1_mini.rollout.generate import generate
from r1_mini.system import distributed as processes
from r1_mini.system.files import write_text_atomic
from r1_mini.train.callbacks import progress_bar

VERSION = 1
"""Raise it when the same exam gives other samples than before."""


def examine(
    checkpoint: Path,
    suite: Suite,
    problems: Sequence[ExamProblem],
    folder: Path,
    store: Store,
    console: Console,
    voice: str | None = None,
    reference: Path | None = None,
) -> dict[str, Any]:
    """Fill `folder` with samples.jsonl, and with greedy.jsonl if the suite has greedy answers; return its node.json.

    The checkpoint may be forced to a voice; the KL divergence is measured from `reference`, the checkpoint that its
    training started from. An exam that is finished, here or elsewhere in the store, is not sampled again.
    """
    problems = sorted(problems, key=lambda each: len(each.problem.question))  # prompts of one length need no padding
    identity = {
        "exam": VERSION,
        "suite": {"name": suite.name, **suite.model_dump(mode="json", exclude={"rows"})},
        "number": len(problems),
        "problems": fingerprint([(each.problem.question, each.problem.answer, each.axis) for each in problems]),
        "voice": voice,
        "checkpoint": checkpoint_hash(checkpoint),
        "reference": checkpoint_hash(reference) if reference else None,
    }
    with store.open(identity, folder, console) as node:
        if not node.finished:
            dtype, device = getattr(torch, suite.dtype), processes.state().device
            load = partial(load_checkpoint, device=device, prompt=suite.prompt, dtype=dtype)
            model, tokenizer = load(checkpoint)
            require_known(tokenizer, (each.problem for each in problems))
            sample = partial(graded, model, tokenizer, suite, load(reference)[0] if reference else None)
            for name, params in {"samples": suite.sampling(voice), "greedy": suite.greedy_sampling(voice)}.items():
                if params is not None:
                    parts = node.scratch / f"{name}-{params.rows}"
                    parts.mkdir(exist_ok=True)
                    files = _sample_missing(sample, problems, params, parts, f"{folder.name}, {name}", console)
                    if processes.is_main():
                        with (node.work / f"{name}.jsonl").open("wb") as whole:
                            for file in files:
                                with file.open("rb") as part:
                                    shutil.copyfileobj(part, whole)
    return read_note(folder)


def graded(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Suite,
    reference: PreTrainedModel | None,
    problems: Sequence[ExamProblem],
    params: SamplingParams,
    first_sample: int = 0,
) -> Iterator[dict[str, Any]]:
    """The rows of samples.jsonl for some problems: `params.n` completions of each, numbered from `first_sample`."""
    questions = [each.problem for each in problems]
    groups = generate(model, tokenizer, questions, params, first_sample=first_sample, reference=reference)
    for problem, group in zip(problems, groups, strict=True):
        for index, sample in enumerate(group, start=first_sample):
            yield row(problem, sample, index, suite, params)


def _sample_missing(
    sample: Callable[[Sequence[ExamProblem], SamplingParams, int], Iterator[dict[str, Any]]],
    problems: Sequence[ExamProblem],
    params: SamplingParams,
    parts: Path,
    title: str,
    console: Console,
) -> list[Path]:
    """Sample the chunks whose file is missing in `parts`, each process its share; the files of all, in order.

    The chunks are the same whoever samples them, as the last digits of a log-probability depend on the batch.
    """
    files = {parts / f"{number}.jsonl": chunk for number, chunk in enumerate(_chunks(problems, params))}
    missing = [(path, *chunk) for path, chunk in files.items() if not path.exists()]
    total = len(problems) * params.n
    done, correct, sampled = total - sum(len(chosen) * len(numbers) for _, chosen, numbers in missing), 0, 0
    processes.wait()  # all have looked before the first one writes
    with progress_bar(console) as progress:
        bar = progress.add_task(title, total=total, completed=done, note="", visible=processes.is_main())
        for path, chosen, numbers in missing[processes.rank() :: processes.count()]:
            rows = list(sample(chosen, replace(params, n=len(numbers)), numbers.start))
            write_text_atomic(path, "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in rows))
            done, sampled = done + len(rows) * processes.count(), sampled + len(rows)
            correct += sum(each["correct"] for each in rows)
            progress.update(bar, completed=min(total, done), note=f"{100 * correct / sampled:.1f}% right")
    processes.wait()
    return list(files)


def _chunks(problems: Sequence[ExamProblem], params: SamplingParams) -> list[tuple[Sequence[ExamProblem], range]]:
    """The exam in chunks of at most `params.rows` completions: some problems, and the numbers of the completions."""
    n_problems, n_samples = max(1, params.rows // params.n), min(params.rows, params.n)
    return [
        (problems[first : first + n_problems], range(number, min(number + n_samples, params.n)))
        for first in range(0, len(problems), n_problems)
        for number in range(0, params.n, n_samples)
    ]
