"""Examine a checkpoint: it answers each problem several times, and samples.jsonl holds every answer, graded.

An exam is sampled in chunks, each a file that appears whole, so an interrupted exam only samples those that are missing
and several processes share them. Within a chunk, rows that end are filled again; only at its end do they wait for the
longest. samples.jsonl is the chunks in order. Which problems are asked: `suite.py`.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.exam.samples import row
from eval.exam.suite import ExamProblem, Suite
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.pipeline.store import Store, checkpoint_hash, fingerprint, read_note, say
from r1_mini.rollout.fallback import why_not_engine
from r1_mini.rollout.generate import generate
from r1_mini.rollout.params import SamplingParams
from r1_mini.rollout.tuning import tuned
from r1_mini.system import distributed as processes
from r1_mini.system import environment, plugin
from r1_mini.system.files import write_text_atomic
from r1_mini.train.callbacks import progress_bar

VERSION = 2
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
        **({"own": own} if (own := plugin.sources(each.problem.judge for each in problems)) else {}),
    }
    with store.open(identity, folder, console) as node:
        if not node.finished:
            dtype, device = getattr(torch, suite.dtype), processes.state().device
            load = partial(load_checkpoint, device=device, prompt=suite.prompt, dtype=dtype)
            model, tokenizer = load(checkpoint)
            sample = partial(graded, model, tokenizer, suite, load(reference)[0] if reference else None)
            for name, params in {"samples": suite.sampling(voice), "greedy": suite.greedy_sampling(voice)}.items():
                if params is not None:
                    parts = node.scratch / name
                    parts.mkdir(exist_ok=True)
                    files = _sample_missing(sample, problems, params, parts, f"{folder.name}, {name}", console)
                    if processes.is_main():
                        with (node.work / f"{name}.jsonl").open("wb") as whole:
                            for file in files:
                                with file.open("rb") as part:
                                    shutil.copyfileobj(part, whole)
            if why := why_not_engine(model):
                say(console, why)
    return read_note(folder)


def graded(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suite: Suite,
    reference: PreTrainedModel | None,
    problems: Sequence[ExamProblem],
    params: SamplingParams,
    first_sample: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of samples.jsonl for some problems: `params.n` completions of each, numbered from `first_sample`.

    `progress` is called with each number of new completions.
    """
    questions = [each.problem for each in problems]
    groups = generate(
        model, tokenizer, questions, params, progress=progress, first_sample=first_sample, reference=reference
    )
    for problem, group in zip(problems, groups, strict=True):
        for index, sample in enumerate(group, start=first_sample):
            yield row(problem, sample, index, suite, params)


def _sample_missing(
    sample: Callable[..., Iterator[dict[str, Any]]],
    problems: Sequence[ExamProblem],
    params: SamplingParams,
    parts: Path,
    title: str,
    console: Console,
) -> list[Path]:
    """Sample the completions that no file in `parts` has yet, each process its share; the files of all, in order.

    Completions are numbered problem by problem, and a file is named after the first of its own and the one after its
    last, so that an exam that ran out of memory goes on with fewer `rows`. On a CPU the chunks are the same however
    many processes sample them, as the last digits of a log-probability depend on the batch.
    """
    total = len(problems) * params.n
    most = params.rows
    if params.n <= most:  # else a chunk is a part of one problem's group, whose completions are all in progress at once
        share = -(-total // processes.count())
        most = max(most, min(share, most * tuned(environment.kind()).refills))
    names = (path.stem.split("-") for path in parts.glob("[0-9]*.jsonl"))
    there = sorted((int(first), int(end)) for first, end in names)
    gaps = pairwise([(0, 0), *there, (total, total)])
    missing = [chunk for (_, first), (end, _) in gaps for chunk in _chunks(first, end, params.n, most)]
    done, correct, sampled = total - sum(end - first for first, end in missing), 0, 0
    processes.wait()  # all have looked before the first one writes
    with progress_bar(console) as progress:
        bar = progress.add_task(title, total=total, completed=done, note="", visible=processes.is_main())

        def advance(ended: int) -> None:
            progress.advance(bar, ended * processes.count())

        for first, end in missing[processes.rank() :: processes.count()]:
            chosen, first_sample = problems[first // params.n : -(-end // params.n)], first % params.n
            rows = list(sample(chosen, replace(params, n=(end - first) // len(chosen)), first_sample, advance))
            text = "".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in rows)
            write_text_atomic(parts / f"{first}-{end}.jsonl", text)
            done, sampled = done + len(rows) * processes.count(), sampled + len(rows)
            correct += sum(each["correct"] for each in rows)
            progress.update(bar, completed=min(total, done), note=f"{100 * correct / sampled:.1f}% right")
    processes.wait()
    return [parts / f"{first}-{end}.jsonl" for first, end in sorted([*there, *missing])]


def _chunks(first: int, end: int, n: int, most: int) -> Iterator[tuple[int, int]]:
    """Completions `first` to `end` in chunks of at most `most`: of whole problems of `n`, or all of one problem."""
    while first < end:
        following = (first // n + 1) * n  # the first of the next problem
        if first % n or min(first + most, end) < following:
            last = min(first + most, following, end)
        else:
            last = min(first + most, end) // n * n
        yield first, last
        first = last
