"""samples.jsonl: one object per completion and how it was graded; a whole file as arrays of problems by samples."""

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.exam.suite import ExamProblem, Suite
from r1_mini.errors import UserError, shown
from r1_mini.judges.judges import value_of
from r1_mini.problems.problem import Problem
from r1_mini.rewards import RULES
from r1_mini.rollout.generate import Sample
from r1_mini.rollout.params import SamplingParams
from r1_mini.system.files import reading

VOICES = ("direct", "worked", "checked", "none")
CHAINS = ("right", "wrong", "none", "unchecked")
"""What is known of a chain of steps: `none` has no steps, `unchecked` has steps that no exact checker reads."""
LANGUAGES = ("signs", "words", "mixed")
EXAM = ("suite", "split", "temperature", "top_p", "max_tokens", "seed")
"""Fields that are the same in every row of a file, and have to be the same in all files that are compared."""
RIGHT = ("right",)
"""What every right answer counts as in a vote, however it is written."""
PROBLEM = ("key", "family", "question", "answer", "judge", "formula")
"""Fields of a row that are those of its problem, besides `difficulty`."""
GRADES = ("correct", "lenient", "well_formed", "voice", "chain", "language", "first_wrong")
"""Fields of a row that are those of its graded completion."""


def row(one: ExamProblem, sample: Sample, index: int, suite: Suite, params: SamplingParams) -> dict[str, Any]:
    """What samples.jsonl holds of one completion: the problem, the text, how it was graded, how it was sampled."""
    problem, graded = one.problem, sample.graded
    logp, reference = (None if each is None else round(each, 4) for each in (sample.logp, sample.logp_reference))
    return {
        **{name: getattr(problem, name) for name in PROBLEM},
        **{"axis": one.axis, "difficulty": dict(problem.difficulty), "sample_index": index},
        **{"prompt": sample.prompt, "completion": sample.text, "finish": sample.finish, "n_tokens": len(sample.tokens)},
        **{"logp": logp, "logp_reference": reference, "parsed": graded.answer},
        **{name: getattr(graded, name) for name in GRADES},
        **{"rewards": {name: rule(graded) for name, rule in RULES.items()}},
        **{"suite": suite.name, "split": suite.split},
        **{name: getattr(params, name) for name in ("temperature", "top_p", "max_tokens", "seed")},
    }


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The problem of a row, to grade its text again; the worked solution is not saved."""
    return Problem(**{name: row[name] for name in PROBLEM}, difficulty=row["difficulty"])


class Question(NamedTuple):
    """A problem as samples.jsonl has it."""

    key: str
    family: str
    axis: str | None
    depth: int
    question: str
    answer: str


@dataclass(frozen=True, eq=False)
class Samples:
    """The exam of one checkpoint: P problems, N completions each. Only `first` grows with the length of the texts."""

    questions: tuple[Question, ...]
    settings: Mapping[str, Any]  # the fields of `EXAM`
    first: tuple[Mapping[str, Any], ...]  # the row of each problem's sample 0, for reading
    correct_PN: NDArray[np.bool_]
    lenient_PN: NDArray[np.bool_]  # correct, or the last number is right in another form
    tokens_PN: NDArray[np.int64]
    stopped_PN: NDArray[np.bool_]
    formed_PN: NDArray[np.bool_]
    voice_PN: NDArray[np.object_]  # of VOICES
    chain_PN: NDArray[np.object_]  # of CHAINS
    language_PN: NDArray[np.object_]  # of LANGUAGES; "" without steps that an exact checker reads
    slip_PN: NDArray[np.int64]  # number of the first wrong step; 0 without one
    answer_PN: NDArray[np.int64]  # equal numbers are equal answers of a problem; -1: cut off, or none in the tags
    logp_PN: NDArray[np.float32]  # nats, by the model itself
    reference_PN: NDArray[np.float32]  # nats, by the model that training started from; NaN if it was not computed

    @property
    def n(self) -> int:
        """Completions per problem."""
        return int(self.correct_PN.shape[1])

    @property
    def axes(self) -> list[str]:
        """The out-of-distribution axes, in order of appearance."""
        return list(dict.fromkeys(question.axis for question in self.questions if question.axis is not None))

    def at(self, axis: str | None) -> "Samples":
        """The exam on one out-of-distribution axis; None is the exam proper."""
        return self.where([question.axis == axis for question in self.questions])

    def where(self, keep: Sequence[bool]) -> "Samples":
        """The exam on some of the problems."""
        changes: dict[str, Any] = {name: getattr(self, name)[np.flatnonzero(keep)] for name in TABLES}
        changes |= {name: tuple(compress(getattr(self, name), keep)) for name in ("questions", "first")}
        return replace(self, **changes)


TABLES = [each.name for each in fields(Samples) if each.name.endswith("_PN")]


def load_samples(path: Path) -> Samples:
    """Read a samples file of one exam."""
    with reading(path), path.open(encoding="utf-8") as lines:
        return tabled(map(json.loads, lines))


def tabled(rows: Iterable[Mapping[str, Any]]) -> Samples:
    """Rows, in any order, as arrays; problems in order of their sample 0."""
    first: dict[str, Mapping[str, Any]] = {}
    answers: dict[Any, int] = {}
    cells = []
    for entry in rows:
        key, index, stopped = entry["key"], entry["sample_index"], entry["finish"] == "stop"
        if index == 0:
            first[key] = entry
        value: Hashable = RIGHT if entry["correct"] else None
        if value is None and stopped and entry["parsed"] is not None:
            value = value_of(entry["judge"], entry["parsed"])
        answer = -1 if value is None else answers.setdefault(value, len(answers))
        form = (
            entry["well_formed"],
            entry["voice"],
            entry["chain"],
            entry.get("language") or "",
            entry["first_wrong"] or 0,
        )
        graded = (entry["correct"], entry["lenient"], entry["n_tokens"], stopped, *form, answer)
        cells.append((key, index, *graded, entry["logp"], entry["logp_reference"]))
    frame = pd.DataFrame(cells, columns=["key", "sample", *TABLES])
    frame = frame.astype({"logp_PN": np.float32, "reference_PN": np.float32})  # None is NaN
    wide = frame.set_index(["key", "sample"]).unstack()
    assert not wide["tokens_PN"].isna().to_numpy().any(), "problems have not equally many samples"
    tables: dict[str, Any] = {name: wide.loc[list(first), name].to_numpy() for name in TABLES}
    settings = {name: entry[name] for name in EXAM}
    named = [name for name in Question._fields if name != "depth"]
    questions = (
        Question(depth=row["difficulty"]["depth"], **{name: row[name] for name in named}) for row in first.values()
    )
    return Samples(tuple(questions), settings, tuple(first.values()), **tables)


def pooled(several: Sequence[Samples]) -> Samples:
    """The completions of several checkpoints on the same problems as if they were those of one."""
    tables: Any = {name: np.concatenate([getattr(each, name) for each in several], axis=1) for name in TABLES}
    return replace(several[0], **tables)


def require_same_exam(named: Mapping[str, Samples]) -> None:
    """Raise UserError, naming what differs, unless all have the same problems and were sampled alike."""
    exams = {}
    for name, samples in named.items():
        problems = {f"problem {each.key}": each[1:] for each in samples.questions}
        exams[name] = {**samples.settings, "samples": samples.n, **problems}
    (first, ours), *others = exams.items()
    for name, theirs in others:
        for key in (*ours, *theirs):
            if ours.get(key) != theirs.get(key):
                what = f"they differ in `{key}`: {shown(ours.get(key))} and {shown(theirs.get(key))}"
                raise UserError(what, where=f"{first} and {name}", fix="examine both with the same settings")
