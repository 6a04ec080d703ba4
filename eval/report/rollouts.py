"""Completions that a stage kept while it trained, for the page: the same prompts at each kept step, each step judged.

Model text is as hostile here as in `transcripts.py`, and is bounded and made visible in the same way.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from eval.report.plots import Rows
from eval.report.transcripts import MOST_ANSWER, harmless, judged
from eval.report.words import operations
from r1_mini.completion import grade
from r1_mini.problems.problem import Problem
from r1_mini.text import short, visible

MOST_TEXT = 600  # characters of a completion; the middle of a longer one is left out
MOST_STEPS = 20  # kept steps of a stage, at equal distances where there are more
MOST_PROBLEMS, MOST_SAMPLES = 20, 8

Problems = Sequence[Mapping[str, Any]]
"""What is `asked`, something `about` it, and its completions by step, `rows`."""


def read(rows: Rows) -> Problems:
    """What the page shows of a stage; `rows` are the lines of its rollouts.jsonl."""
    every = sorted({row["step"] for row in rows})
    shown = {every[place * (len(every) - 1) // (MOST_STEPS - 1)] for place in range(MOST_STEPS)}
    found: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["problem"], row["step"], row["sample"])):
        if row["step"] in shown and row["problem"] < MOST_PROBLEMS and row["sample"] < MOST_SAMPLES:
            asked = f"{short(row['question'], MOST_TEXT)} = {short(row['right'], MOST_ANSWER)}"
            about = short(row["family"]) + (f", {operations(row['depth'])}" if row["depth"] else "")
            one = found.setdefault(row["problem"], {"asked": asked, "about": about, "rows": []})
            one["rows"].append(completion(row))
    return list(found.values())


def steps(problems: Problems) -> list[int]:
    """The steps on the page."""
    return sorted({row["step"] for problem in problems for row in problem["rows"]})


def completion(row: Mapping[str, Any]) -> dict[str, Any]:
    """A kept completion. Its `text` is its steps, as `judged` gives them; where nothing reads them, or it is malformed,
    plain text. A number in between counts the characters that are left out there.
    """
    problem = Problem(family=row["family"], question=row["question"], answer=row["right"], difficulty={}, key="")
    graded = grade(problem, row["text"], row["finish"], row["prompt"])
    if row["well_formed"] and row["steps"]:
        first, last, left_out = _middle([step[0] for step in row["steps"]])
        ends: list[list[Any]] = [
            [judged(*step) for step in part] for part in (row["steps"][:first], row["steps"][last:])
        ]
    else:
        raw = (graded.thinking or "").strip() if row["well_formed"] else row["text"]
        first, last, left_out = _middle(raw)
        ends = [[visible(part)] if part else [] for part in (raw[:first], raw[last:])]
    parts = ", ".join(f"{short(name)} {_number(value)}" for name, value in row["rewards"].items())
    return {
        **{"step": row["step"], "sample": row["sample"], "voice": row["voice"], "tokens": row["tokens"]},
        **{"truncated": int(row["finish"] == "length"), "correct": int(row["correct"])},
        **{
            "answer": graded.answer and short(graded.answer, MOST_ANSWER),
            "reward": f"{_number(row['reward'])}: {parts}",
        },
        "text": [*ends[0], left_out, *ends[1]] if left_out else ends[0],
    }


def embedded(stages: Mapping[str, Problems]) -> str:
    """All stages as JSON, harmless inside `<script>`."""
    return harmless(
        [{"stage": short(name), "problems": [_packed(each) for each in problems]} for name, problems in stages.items()]
    )


def _packed(problem: Mapping[str, Any]) -> dict[str, Any]:
    """A problem whose `rows` are for each field the values that occur, and which of them each row has."""
    columns = {}
    for key in problem["rows"][0]:
        cells = [row[key] for row in problem["rows"]]
        values = [cell for place, cell in enumerate(cells) if cell not in cells[:place]]
        columns[key] = [values, [values.index(cell) for cell in cells]]
    return {**problem, "rows": columns}


def _middle(pieces: Sequence[str]) -> tuple[int, int, int]:
    """Where the pieces to leave out begin and end, and their characters: at each end half of `MOST_TEXT` stays."""
    ends = [0, *accumulate(map(len, pieces))]
    if ends[-1] <= MOST_TEXT:
        return len(pieces), len(pieces), 0
    first, last = bisect_right(ends, MOST_TEXT // 2) - 1, bisect_left(ends, ends[-1] - MOST_TEXT // 2)
    return first, last, ends[last] - ends[first]


def _number(value: float | None) -> str:
    """`1.1`; a reward that does not apply to the problem has no value."""
    return "none" if value is None else f"{value:.3g}"
