"""A checkpoint and a suite become samples.jsonl: written as it goes, continued where it was cut off.

The exam is cut into chunks of completions. Each is drawn at once, on one of the processes, and is the same whoever
draws it and whenever; samples.jsonl is the chunks in order. So a file is whole, or a whole number of chunks.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.exam.samples import row
from eval.exam.suite import Asked, Suite
from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.model.prompts import require_known
from r1_mini.pipeline.store import checkpoint_hash, fingerprint, first_difference
from r1_mini.rollout.engine import SamplingParams
from r1_mini.rollout.generate import generate
from r1_mini.system import distributed as processes
from r1_mini.system.environment import source, versions
from r1_mini.system.files import remove, sha256, write_json_atomic, write_text_atomic
from r1_mini.system.locks import locked
from r1_mini.train.callbacks import progress_bar

NOTE = "exam.json"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who sits the exam: a checkpoint, made to answer in a voice or not."""

    name: str
    checkpoint: Path
    voice: str | None = None
    reference: Path | None = None
    """The checkpoint that its training started from: how far its samples are from that one's is measured."""


def examine(
    candidate: Candidate,
    suite: Suite,
    asked: Sequence[Asked],
    folder: Path,
    console: Console,
    replaces: bool = False,
    beside: Sequence[Path] = (),
) -> float:
    """Fill `folder` with samples.jsonl, greedy.jsonl if the suite wants one, and exam.json, which says of what.

    Returns the seconds that it took, now or when it was done.

    What is there from the same exam is kept, a part of it continued; a whole one that lies in a folder `beside` is
    copied. UserError if another exam's samples are there, unless it `replaces` them, or if another process is at work.
    """
    state = processes.state()
    asked = sorted(asked, key=lambda each: len(each.problem.question))  # prompts of one length need no padding
    identity = {
        "candidate": candidate.name,
        "voice": candidate.voice,
        "suite": suite.model_dump(mode="json"),
        "number": len(asked),
        "problems": fingerprint([(each.problem.question, each.problem.answer, each.axis) for each in asked]),
        "checkpoint": checkpoint_hash(candidate.checkpoint),
        "reference": checkpoint_hash(candidate.reference) if candidate.reference else None,
        "source": [source(), source(Path(__file__).parents[1])],
        "versions": versions(),
    }
    drawing = drawing_of(suite, candidate.voice)
    parts = [_Part(folder / "samples.jsonl", drawing, len(asked))]
    if suite.greedy and suite.temperature:
        parts.append(_Part(folder / "greedy.jsonl", replace(drawing, n=1, temperature=0.0), len(asked)))
    with contextlib.ExitStack() as held:
        if state.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(folder))
            _claim(folder, identity, replaces)
            _copy(identity, beside, folder)
            for part in parts:
                part.drop_half_chunk()
        state.wait_for_everyone()
        if is_finished(folder):
            return float(read_note(folder)["seconds"])
        begun = time.perf_counter()
        load = partial(load_checkpoint, device=state.device, prompt=suite.prompt, dtype=getattr(torch, suite.dtype))
        model, tokenizer = load(candidate.checkpoint)
        require_known(tokenizer, (each.problem for each in asked))
        reference = load(candidate.reference)[0] if candidate.reference else None
        draw = partial(drawn, model, tokenizer, candidate.name, suite, reference=reference)
        there = [part.tally() for part in parts]
        state.wait_for_everyone()  # all have read before the first one writes
        for part, tally in zip(parts, there, strict=True):
            title = candidate.name if part.drawing.temperature else f"{candidate.name}, greedy"
            _fill(part, tally, draw, asked, title, console, state)
        seconds = round(time.perf_counter() - begun, 3)
        if state.is_main_process:
            for leftover in folder.glob(".chunk-*"):  # collected, and a kill came before it was removed
                remove(leftover)
            hashes = {part.path.name: sha256(part.path) for part in parts}
            write_json_atomic(folder / NOTE, {**identity, "sha256": hashes, "seconds": seconds})
        state.wait_for_everyone()
        return seconds


def read_note(folder: Path) -> dict[str, Any]:
    """What exam.json says; empty if there is none. UserError if it is damaged."""
    path = folder / NOTE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError):
        raise UserError("damaged", where=str(path), fix=f"delete {folder} and examine again") from None


def is_finished(folder: Path) -> bool:
    """Whether a whole exam lies in the folder; UserError if its samples have been changed since they were written."""
    hashes = read_note(folder).get("sha256") or {}
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            what = "has been changed since it was written" if path.is_file() else "is missing"
            raise UserError(what, where=str(path), fix=f"delete {folder} and examine again")
    return bool(hashes)


def _claim(folder: Path, identity: dict[str, Any], replaces: bool) -> None:
    """Make the folder this exam's: what another one left is refused, or cleared if it may be replaced."""
    there = read_note(folder)
    own = [path for path in (folder / "samples.jsonl", folder / "greedy.jsonl") if path.exists()]
    if own and not there:
        raise UserError(f"samples, but no {NOTE} that says of what", where=str(own[0]), fix="choose another folder")
    if there:
        mine = {key: there.get(key) for key in identity}
        difference = first_difference(mine, json.loads(json.dumps(identity)))
        if difference is None:
            return
        if not replaces:
            key, old, new = difference
            what = f"holds the samples of another exam: {key} is {old} there and {new} now"
            raise UserError(what, where=str(folder), fix="choose another folder with --out, or delete this one")
    for old_file in (*own, *folder.glob(".chunk-*")):
        remove(old_file)
    write_json_atomic(folder / NOTE, identity)


def _copy(identity: dict[str, Any], beside: Sequence[Path], folder: Path) -> None:
    """Take over a whole exam of this identity from one of the folders `beside`, if it is not here already."""
    if is_finished(folder):
        return
    for other in beside:
        with contextlib.suppress(OSError, UserError):  # it may be damaged, or going away
            note = read_note(other)
            if {key: note.get(key) for key in identity} == json.loads(json.dumps(identity)) and is_finished(other):
                for name in note["sha256"]:
                    shutil.copy(other / name, folder / name)
                write_json_atomic(folder / NOTE, note)
                return


class _Part:
    """One file of samples, made of chunks: (problems, sample numbers) of at most `rows` completions."""

    def __init__(self, path: Path, drawing: SamplingParams, number: int) -> None:
        self.path, self.drawing = path, drawing
        problems, samples = max(1, drawing.rows // drawing.n), min(drawing.rows, drawing.n)
        self.chunks = [
            (range(p, min(p + problems, number)), range(s, min(s + samples, drawing.n)))
            for p in range(0, number, problems)
            for s in range(0, drawing.n, samples)
        ]

    def chunk_file(self, index: int) -> Path:
        """Where a chunk waits for those before it."""
        return self.path.with_name(f".chunk-{self.path.stem}-{index:06d}")

    def drop_half_chunk(self) -> None:
        """Cut the file back to whole chunks."""
        if not self.path.exists():
            return
        lines, size, whole = 0, 0, 0
        ends = set(accumulate(len(problems) * len(samples) for problems, samples in self.chunks))
        with self.path.open("rb") as file:
            for line in file:
                lines, size = lines + line.endswith(b"\n"), size + len(line)
                if lines in ends and line.endswith(b"\n"):
                    whole = size
        with self.path.open("r+b") as file:
            file.truncate(whole)

    def tally(self) -> tuple[int, int, int]:
        """(chunks, completions, right ones) in the file."""
        completions = right = 0
        if self.path.exists():
            with self.path.open(encoding="utf-8") as file:
                for line in file:
                    try:
                        right += bool(json.loads(line)["correct"])
                    except (ValueError, KeyError, TypeError):
                        where, fix = f"{self.path}:{completions + 1}", "delete the folder and examine again"
                        raise UserError("not a sample that this program wrote", where=where, fix=fix) from None
                    completions += 1
        sizes = accumulate(len(problems) * len(samples) for problems, samples in self.chunks)
        return sum(size <= completions for size in sizes), completions, right

    def collect(self, done: int) -> int:
        """Append the chunks that are ready, in order; how many the file then holds."""
        while done < len(self.chunks) and (ready := self.chunk_file(done)).exists():
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(ready.read_text(encoding="utf-8"))
            ready.unlink()
            done += 1
        return done


def _fill(
    part: _Part,
    tally: tuple[int, int, int],
    draw: Callable[..., Iterator[dict[str, Any]]],
    asked: Sequence[Asked],
    title: str,
    console: Console,
    state: PartialState,
) -> None:
    """Draw the chunks that are not there yet, each process its share. `draw`: `drawn` of a model and a suite."""
    done, completions, right = tally
    mine = [index for index in range(done, len(part.chunks)) if index % state.num_processes == state.process_index]
    total = len(asked) * part.drawing.n
    with progress_bar(console) as progress:
        bar = progress.add_task(title, total=total, completed=completions, note="", visible=state.is_main_process)
        for index in mine:
            if part.chunk_file(index).exists():  # drawn before a cut, and not yet collected
                continue
            lines = []
            problems, samples = part.chunks[index]
            chosen = [asked[problem] for problem in problems]
            for line in draw(chosen, replace(part.drawing, n=len(samples)), samples.start):
                lines.append(json.dumps(line, ensure_ascii=False))
                completions, right = completions + 1, right + line["correct"]
            write_text_atomic(part.chunk_file(index), "".join(f"{line}\n" for line in lines))
            by_all = min(total, tally[1] + (completions - tally[1]) * state.num_processes)
            progress.update(bar, completed=by_all, note=f"{100 * right / completions:.1f}% right")
            if state.is_main_process:
                done = part.collect(done)
    state.wait_for_everyone()
    if state.is_main_process:
        done = part.collect(done)
        assert done == len(part.chunks), f"{done} of {len(part.chunks)} chunks of {part.path}"


def drawn(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    suite: Suite,
    asked: Sequence[Asked],
    drawing: SamplingParams,
    first_sample: int = 0,
    reference: PreTrainedModel | None = None,
) -> Iterator[dict[str, Any]]:
    """The judged rows of some problems, all at once: `drawing.n` completions of each."""
    problems = [each.problem for each in asked]
    groups = generate(model, tokenizer, problems, drawing, first_sample=first_sample, reference=reference)
    for each, group in zip(asked, groups, strict=True):
        for number, sample in enumerate(group, start=first_sample):
            yield row(each, sample, number, name, suite, drawing)


def drawing_of(suite: Suite, voice: str | None = None) -> SamplingParams:
    """How a suite draws completions."""
    return SamplingParams(
        suite.samples, suite.max_tokens, suite.temperature, suite.top_p, suite.seed, voice, suite.rows
    )
