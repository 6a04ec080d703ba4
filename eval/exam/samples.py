"""samples.jsonl: one object per completion and how it was graded; a whole file as arrays of problems by samples."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eval.exam.suite import ExamProblem, Suite
from r1_mini.errors import UserError, shown
from r1_mini.judges.judges import VALUES
from r1_mini.problems.problem import Problem
from r1_mini.rewards import RULES
from r1_mini.rollout.engine import SamplingParams
from r1_mini.rollout.generate import Sample

VOICES = ("direct", "worked", "checked", "none")
CHAINS = ("right", "wrong", "none", "unchecked")
"""What is known of a chain of steps: `none` has no steps, `unchecked` has steps that no exact checker reads."""
SOUND, NONE, UNCHECKED = (CHAINS.index(chain) for chain in ("right", "none", "unchecked"))
EXAM = ("suite", "split", "temperature", "top_p", "max_tokens", "seed")
"""Fields that are the same in every row of a file, and have to be the same in all files that are compared."""
PROBLEM = ("key", "family", "question", "answer", "judge", "formula")
"""Fields of a row that are those of its problem, besides `difficulty`."""


def row(one: ExamProblem, sample: Sample, index: int, suite: Suite, params: SamplingParams) -> dict[str, Any]:
    """What samples.jsonl holds of one completion: the problem, the text, how it was graded, how it was sampled."""
    problem, graded = one.problem, sample.graded
    logp, reference = (None if each is None else round(each, 4) for each in (sample.logp, sample.logp_reference))
    return {
        **{name: getattr(problem, name) for name in PROBLEM},
        **{"axis": one.axis, "difficulty": dict(problem.difficulty), "sample_index": index},
        **{"prompt": sample.prompt, "completion": sample.text, "finish": sample.finish, "n_tokens": sample.n_tokens},
        **{"logp": logp, "logp_reference": reference, "parsed": graded.answer},
        **{name: getattr(graded, name) for name in ("correct", "well_formed", "voice", "chain", "first_wrong")},
        **{"rewards": {name: rule(graded, problem) for name, rule in RULES.items()}},
        **{"suite": suite.name, "split": suite.split},
        **{name: getattr(params, name) for name in ("temperature", "top_p", "max_tokens", "seed")},
    }


def problem_of(row: Mapping[str, Any]) -> Problem:
    """The problem of a row, to grade its text again; the worked solution is not saved."""
    return Problem(**{name: row[name] for name in PROBLEM}, difficulty=row["difficulty"])


@dataclass(frozen=True, slots=True)
class Question:
    """A problem as samples.jsonl has it."""

    key: str
    family: str
    axis: str | None
    depth: int
    question: str
    answer: str


@dataclass(frozen=True, eq=False, slots=True)
class Samples:
    """The exam of one checkpoint: P problems, N completions each. Only `first` grows with the length of the texts."""

    questions: tuple[Question, ...]
    settings: Mapping[str, Any]  # the fields of `EXAM`
    first: tuple[Mapping[str, Any], ...]  # the row of each problem's sample 0, for reading
    correct_PN: NDArray[np.bool_]
    tokens_PN: NDArray[np.int64]
    stopped_PN: NDArray[np.bool_]
    parsed_PN: NDArray[np.bool_]  # stopped, and the answer tags contain an answer
    formed_PN: NDArray[np.bool_]
    voice_PN: NDArray[np.int64]  # index into VOICES
    chain_PN: NDArray[np.int64]  # index into CHAINS
    first_wrong_PN: NDArray[np.int64]  # 0: no wrong step
    answer_PN: NDArray[np.int64]  # equal numbers are equal answers of a problem; -1 is no answer
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
        return self.where(np.array([question.axis == axis for question in self.questions], dtype=bool))

    def where(self, keep_P: NDArray[np.bool_]) -> "Samples":
        """The exam on some of the problems."""
        places = np.flatnonzero(keep_P)
        tables: dict[str, Any] = {name: getattr(self, name)[keep_P] for name in TABLES}
        questions = tuple(self.questions[place] for place in places)
        return replace(self, questions=questions, first=tuple(self.first[place] for place in places), **tables)


TABLES = [each.name for each in fields(Samples) if each.name.endswith("_PN")]


def load_samples(path: Path) -> Samples:
    """Read a samples file of one exam."""
    with path.open(encoding="utf-8") as lines:
        return tabled(map(json.loads, lines))


def tabled(rows: Iterable[Mapping[str, Any]]) -> Samples:
    """Rows, in any order, as arrays; problems in order of first appearance."""
    questions: dict[str, Question] = {}
    first: dict[str, Mapping[str, Any]] = {}
    codes: defaultdict[str, dict[Any, int]] = defaultdict(dict)  # of the answers of each problem
    cells = []
    for entry in rows:
        key, index, stopped = entry["key"], entry["sample_index"], entry["finish"] == "stop"
        if key not in questions:
            depth, texts = entry["difficulty"]["depth"], (entry["question"], entry["answer"])
            questions[key] = Question(key, entry["family"], entry["axis"], depth, *texts)
        if index == 0:
            first[key] = entry
        value = VALUES[entry["judge"]](entry["parsed"]) if stopped and entry["parsed"] is not None else None
        answer = -1 if value is None else codes[key].setdefault(value, len(codes[key]))
        voice, chain = VOICES.index(entry["voice"]), CHAINS.index(entry["chain"])
        graded = (entry["correct"], entry["n_tokens"], stopped, value is not None, entry["well_formed"], voice, chain)
        cells.append((key, index, *graded, entry["first_wrong"] or 0, answer, entry["logp"], entry["logp_reference"]))
    frame = pd.DataFrame(cells, columns=["key", "sample", *TABLES])
    frame = frame.astype({"logp_PN": np.float32, "reference_PN": np.float32})  # None is NaN
    wide = frame.set_index(["key", "sample"]).unstack().loc[list(questions)]
    assert not wide["tokens_PN"].isna().to_numpy().any(), "problems have not equally many samples"
    settings = {name: entry[name] for name in EXAM}
    tables: dict[str, Any] = {name: wide[name].to_numpy() for name in TABLES}
    return Samples(tuple(questions.values()), settings, tuple(first[key] for key in questions), **tables)


def pooled(several: Sequence[Samples]) -> Samples:
    """The completions of several checkpoints on the same problems as if they were those of one."""
    tables: Any = {name: np.concatenate([getattr(each, name) for each in several], axis=1) for name in TABLES}
    return replace(several[0], **tables)


def require_same_exam(named: Mapping[str, Samples]) -> None:
    """Raise UserError, naming what differs, unless all have the same problems and were sampled alike."""

    def exam(samples: Samples) -> dict[str, Any]:
        problems = {f"problem {each.key}": astuple(each)[1:] for each in samples.questions}
        return {**samples.settings, "samples": samples.n, **problems}

    (first, reference), *others = named.items()
    ours = exam(reference)
    for name, samples in others:
        theirs = exam(samples)
        key = next((key for key in (*ours, *theirs) if ours.get(key) != theirs.get(key)), None)
        if key is not None:
            what = f"they differ in `{key}`: {shown(ours.get(key))} and {shown(theirs.get(key))}"
            raise UserError(what, where=f"{first} and {name}", fix="examine both with the same settings")
