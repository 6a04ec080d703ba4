"""Examine a checkpoint: it answers each problem several times, and samples.jsonl holds every answer, graded.

A completion depends on the checkpoint, the seed, the problem and its number alone. So an exam that was interrupted only
samples what is missing, and several processes share the work: each appends its completions to a file of its own. At the
end the main process joins these files, in the order of the problems. Not here: which problems (`suite.py`), statistics.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
from r1_mini.train.callbacks import progress_bar

VERSION = 1
"""Raise it when the same exam gives other samples than before."""


class Place(NamedTuple):
    """Where a line of a file is, and whether its completion is correct."""

    path: Path
    offset: int
    correct: bool


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
                    parts = node.scratch / name
                    parts.mkdir(exist_ok=True)
                    _sample_missing(sample, problems, params, parts, f"{folder.name}, {name}", console)
                    if processes.is_main():
                        _join(parts, problems, params.n, node.work / f"{name}.jsonl")
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
) -> None:
    """Sample the chunks of which a completion is missing, each process its share, into files in `parts`.

    The chunks are the same whoever samples them, as the last digits of a log-probability depend on the batch.
    """
    written = _written(parts)
    missing = [
        (chosen, numbers)
        for chosen, numbers in _chunks(problems, params)
        if any((each.problem.key, number) not in written for each in chosen for number in numbers)
    ]
    total, done, correct = len(problems) * params.n, len(written), sum(place.correct for place in written.values())
    file_of_this_process = parts / f"{processes.rank()}-{len(list(parts.glob('*')))}.jsonl"
    processes.wait()  # all have read before the first one writes
    with file_of_this_process.open("x", encoding="utf-8") as file, progress_bar(console) as progress:
        bar = progress.add_task(title, total=total, completed=done, note="", visible=processes.is_main())
        for chosen, numbers in missing[processes.rank() :: processes.count()]:
            rows = list(sample(chosen, replace(params, n=len(numbers)), numbers.start))
            file.writelines(f"{json.dumps(each, ensure_ascii=False)}\n" for each in rows)
            file.flush()
            done, correct = done + len(rows), correct + sum(each["correct"] for each in rows)
            by_all = len(written) + (done - len(written)) * processes.count()
            progress.update(bar, completed=min(total, by_all), note=f"{100 * correct / done:.1f}% right")
    processes.wait()


def _chunks(problems: Sequence[ExamProblem], params: SamplingParams) -> list[tuple[Sequence[ExamProblem], range]]:
    """The exam in chunks of at most `params.rows` completions: some problems, and the numbers of the completions."""
    n_problems, n_samples = max(1, params.rows // params.n), min(params.rows, params.n)
    return [
        (problems[first : first + n_problems], range(number, min(number + n_samples, params.n)))
        for first in range(0, len(problems), n_problems)
        for number in range(0, params.n, n_samples)
    ]


def _written(parts: Path) -> dict[tuple[str, int], Place]:
    """Where each completion is, by problem and number; a process that was killed may have left half a line."""
    written = {}
    for path in sorted(parts.glob("*")):
        with path.open("rb") as file:
            offset = 0
            for line in file:
                if line.endswith(b"\n"):
                    entry = json.loads(line)
                    written[entry["key"], entry["sample_index"]] = Place(path, offset, entry["correct"])
                offset += len(line)
    return written


def _join(parts: Path, problems: Sequence[ExamProblem], n: int, target: Path) -> None:
    """Write the completions to one file, in order; a line at a time, as an exam may be larger than memory."""
    written = _written(parts)
    with contextlib.ExitStack() as stack, target.open("wb") as out:
        files = {path: stack.enter_context(path.open("rb")) for path in parts.glob("*")}
        for problem in problems:
            for number in range(n):
                place = written[problem.problem.key, number]
                files[place.path].seek(place.offset)
                out.write(files[place.path].readline())
