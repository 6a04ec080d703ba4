"""samples.jsonl: one object per completion, how it is judged, and the whole file as compact tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.exam.suite import Asked, Suite
from r1_mini.errors import UserError, shown
from r1_mini.judges.judges import JUDGES, VALUES
from r1_mini.rewards import RULES
from r1_mini.rollout.engine import SamplingParams
from r1_mini.rollout.generate import Sample

VOICES = ("direct", "worked", "checked", "none")
CHAINS = ("right", "wrong", "none", "unchecked")
"""What is known of a chain of steps: `none` is none there, `unchecked` one that no exact checker reads."""
SOUND, NONE, UNCHECKED = (CHAINS.index(chain) for chain in ("right", "none", "unchecked"))
EXAM = ("suite", "split", "temperature", "top_p", "max_tokens", "seed")
"""Fields that are the same in every row of a file, and have to be in every file that is compared."""
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("key", "family", "question", "answer", "prompt", "completion", "finish", "voice", "chain"), str),
    "judge": str,
    **dict.fromkeys(("suite", "split", "model"), str),
    **dict.fromkeys(("n_tokens", "sample_index", "max_tokens", "seed"), int),
    **dict.fromkeys(("correct", "well_formed"), bool),
    **dict.fromkeys(("temperature", "top_p", "logp"), (int, float)),
    "logp_reference": (int, float, type(None)),
    "difficulty": dict,
    "axis": (str, type(None)),
    "formula": (str, type(None)),
    "parsed": (str, type(None)),
    "first_wrong": (int, type(None)),
}


def row(asked: Asked, made: Sample, index: int, model: str, suite: Suite, drawing: SamplingParams) -> dict[str, Any]:
    """One completion, judged: what samples.jsonl holds of it."""
    problem = asked.problem
    graded = made.graded
    return {
        "key": problem.key,
        "family": problem.family,
        "axis": asked.axis,
        "difficulty": dict(problem.difficulty),
        "split": suite.split,
        "question": problem.question,
        "answer": problem.answer,
        "judge": problem.judge,
        "formula": problem.formula,
        "prompt": made.prompt,
        "completion": made.text,
        "n_tokens": made.n_tokens,
        "logp": round(made.logp, 4),
        "logp_reference": None if made.logp_reference is None else round(made.logp_reference, 4),
        "finish": made.finish,
        "parsed": graded.answer,
        "correct": graded.correct,
        "well_formed": graded.well_formed,
        "voice": graded.voice,
        "chain": graded.chain,
        "first_wrong": graded.first_wrong,
        "rewards": {name: rule(graded, problem) for name, rule in RULES.items()},
        "sample_index": index,
        "model": model,
        "suite": suite.name,
        "seed": drawing.seed,
        "temperature": drawing.temperature,
        "top_p": drawing.top_p,
        "max_tokens": drawing.max_tokens,
    }


@dataclass(frozen=True, slots=True)
class Question:
    """A problem as samples tell of it."""

    key: str
    family: str
    axis: str | None
    depth: int
    question: str
    answer: str


@dataclass(frozen=True, eq=False, slots=True)
class Samples:
    """A checkpoint's exam: P problems, N completions each. Nothing grows with the length of the texts but `first`."""

    questions: tuple[Question, ...]
    settings: Mapping[str, Any]  # the fields of `EXAM`
    first: tuple[Mapping[str, Any], ...]  # the row of each problem's sample 0, for reading
    correct_PN: NDArray[np.bool_]
    tokens_PN: NDArray[np.int32]
    stopped_PN: NDArray[np.bool_]
    parsed_PN: NDArray[np.bool_]  # stopped, and what is in the answer tags is an answer
    formed_PN: NDArray[np.bool_]
    voice_PN: NDArray[np.int8]  # index into VOICES
    chain_PN: NDArray[np.int8]  # index into CHAINS
    first_wrong_PN: NDArray[np.int16]  # 0: no wrong step
    answer_PN: NDArray[np.int16]  # equal numbers are equal answers of a problem; -1 is no answer
    logp_PN: NDArray[np.float32]  # nats, by the model itself
    reference_PN: NDArray[np.float32]  # nats, by the model that training started from; NaN if it was not asked

    @property
    def n(self) -> int:
        """Completions per problem."""
        return int(self.correct_PN.shape[1])

    def where(self, keep_P: NDArray[np.bool_]) -> Samples:
        """The exam of some of the problems."""
        tables = {name: getattr(self, name)[keep_P] for name in self.__slots__ if name.endswith("_PN")}
        kept = [place for place, keep in enumerate(keep_P) if keep]
        return Samples(
            tuple(self.questions[i] for i in kept), self.settings, tuple(self.first[i] for i in kept), **tables
        )


def pooled(parts: Sequence[Samples]) -> Samples:
    """The completions of several checkpoints on the same problems as if they were one's."""
    first = parts[0]
    tables: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in first.__slots__
        if name.endswith("_PN")
    }
    return first if len(parts) == 1 else replace(first, **tables)


def load_samples(path: Path) -> Samples:
    """A whole samples file; UserError with file and line if it is damaged, cut off or not of one exam."""
    return tabled(_rows(path), str(path))


def tabled(rows: Iterable[Mapping[str, Any]], where: str) -> Samples:
    """Rows as tables, problems in order of first appearance; UserError if problems have not equally many samples."""
    again = "examine this checkpoint again"
    place: dict[str, int] = {}
    questions: list[Question] = []
    first: list[Mapping[str, Any]] = []
    cells: list[dict[int, tuple[float, ...]]] = []
    codes: list[dict[Any, int]] = []
    settings: dict[str, Any] | None = None
    for entry in rows:
        here = {field: entry[field] for field in EXAM}
        if settings is None:
            settings = here
        elif here != settings:
            field = next(field for field in EXAM if here[field] != settings[field])
            what = f"`{field}` is not the same in all samples: {shown(settings[field])} and {shown(here[field])}"
            raise UserError(what, where=where, fix=again)
        problem = place.setdefault(entry["key"], len(place))
        if problem == len(questions):
            question = Question(
                entry["key"],
                entry["family"],
                entry["axis"],
                entry["difficulty"]["depth"],
                entry["question"],
                entry["answer"],
            )
            questions.append(question)
            first.append(entry)
            cells.append({})
            codes.append({})
        if entry["sample_index"] in cells[problem]:
            what = f"`key` {entry['key']} has sample {entry['sample_index']} twice"
            raise UserError(what, where=where, fix=again)
        said = entry["parsed"] if entry["finish"] == "stop" else None
        value = None if said is None else VALUES[entry["judge"]](said)
        cells[problem][entry["sample_index"]] = (
            entry["correct"],
            entry["n_tokens"],
            entry["finish"] == "stop",
            value is not None,
            entry["well_formed"],
            VOICES.index(entry["voice"]),
            CHAINS.index(entry["chain"]),
            entry["first_wrong"] or 0,
            -1 if value is None else codes[problem].setdefault(value, len(codes[problem])),
            entry["logp"],
            math.nan if entry["logp_reference"] is None else entry["logp_reference"],
        )
    if settings is None:
        raise UserError("no samples", where=where, fix=again)
    most = max(map(len, cells))
    for question, cell in zip(questions, cells, strict=True):
        if len(cell) < most:
            raise UserError(f"`key` {question.key} has {len(cell)} samples, others have {most}", where=where, fix=again)
    table = np.array([[cell[index] for index in sorted(cell)] for cell in cells])
    kinds = (bool, np.int32, bool, bool, bool, np.int8, np.int8, np.int16, np.int16, np.float32, np.float32)
    columns = (table[:, :, column].astype(kind) for column, kind in enumerate(kinds))
    return Samples(tuple(questions), settings, tuple(first), *columns)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, each with every field in its type."""
    again = "delete the file and examine again"
    try:
        lines = path.open(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("no such file", where=str(path), fix="examine this checkpoint first") from None
    with lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            try:
                entry = json.loads(line)
            except ValueError:
                what = "cut off in the middle of a line" if not line.endswith("\n") else "not a line of JSON"
                raise UserError(what, where=where, fix=again) from None
            if not isinstance(entry, dict):
                raise UserError("not an object", where=where, fix=again)
            for field, kind in _TYPES.items():
                if field not in entry:
                    raise UserError(f"field `{field}` is missing", where=where, fix=again)
                if not isinstance(entry[field], kind):
                    raise UserError(f"field `{field}` is {shown(entry[field])}", where=where, fix=again)
            known = entry["voice"] in VOICES and entry["chain"] in CHAINS and entry["judge"] in JUDGES
            if not known or "depth" not in entry["difficulty"]:
                raise UserError("not a sample that this program wrote", where=where, fix=again)
            yield entry


def require_same_exam(named: Mapping[str, Samples]) -> None:
    """UserError, naming what differs, unless all got the same problems in the same form, equally often, drawn alike."""
    (first, reference), *others = named.items()
    for name, samples in others:
        both = f"{first} and {name}"
        for field in EXAM:
            if samples.settings[field] != reference.settings[field]:
                what = (
                    f"they differ in `{field}`: {shown(reference.settings[field])} and {shown(samples.settings[field])}"
                )
                raise UserError(what, where=both, fix="examine both with the same settings")
        if samples.n != reference.n:
            what = f"they differ in `samples`: {reference.n} and {samples.n} completions per problem"
            raise UserError(what, where=both, fix="examine both with the same settings")
        keys = [{question.key for question in side.questions} for side in (reference, samples)]
        if keys[0] != keys[1]:
            key = min(keys[0] ^ keys[1])
            raise UserError(f"`key` {key} is in one of them only", where=both, fix="examine both again")
        for ours, theirs in zip(reference.questions, samples.questions, strict=True):
            if ours != theirs:
                what = f"they differ in the problem `{ours.key}`: {shown(ours.question)} and {shown(theirs.question)}"
                raise UserError(what, where=both, fix="examine both again")


def at_axis(samples: Samples, axis: str | None) -> Samples:
    """The exam on one out-of-distribution axis; None is the exam proper."""
    return samples.where(np.array([question.axis == axis for question in samples.questions], dtype=bool))


def axes_of(samples: Samples) -> Sequence[str]:
    """The out-of-distribution axes, in order of appearance."""
    return list(dict.fromkeys(question.axis for question in samples.questions if question.axis is not None))
