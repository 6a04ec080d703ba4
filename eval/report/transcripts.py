"""Sample 0 of every problem and column, each step judged: what the page shows of them and in which form.

Model text is hostile: it is bounded in length, and characters that cannot be seen or that reorder their neighbors are
written as escapes. The page then inserts it as text alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.exam.samples import VOICES, Question, Samples
from eval.report.words import Summary
from r1_mini.completion import read
from r1_mini.problems.steps import CheckedStep, check_chain

FIXED = 10
MOST_TEXT = (2_000, 500, 120)  # characters of one completion, and where a page would grow too large with that, fewer
MOST_ANSWER = 100
MOST_PAGE = 2_000_000  # bytes of all transcripts
VERDICTS = ("right", "wrong", "retracted")
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_HTML = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


@dataclass(frozen=True, slots=True)
class Chain:
    """One completion, ready to be shown once its texts are made visible."""

    correct: bool
    voice: str
    n_tokens: int
    answer: str | None
    raw: str | None  # the completion, where it has no thinking to take apart
    steps: tuple[CheckedStep, ...]
    left_out: int  # characters of the thinking, or of `raw`, that are not shown


@dataclass(frozen=True, slots=True)
class Shown:
    """A problem and one chain per column."""

    problem: Question
    chains: tuple[Chain, ...]


def all_shown(samples: Mapping[str, Samples]) -> list[Shown]:
    """Every problem, in the order of the exam."""
    sides = list(samples.values())
    for side in sides:
        assert [question.key for question in side.questions] == [question.key for question in sides[0].questions]
    rows = zip(*(side.first for side in sides), strict=True)
    return [Shown(question, tuple(map(_chain, row))) for question, row in zip(sides[0].questions, rows, strict=True)]


def fixed(samples: Samples) -> list[int]:
    """Places of problems 0, n/10, 2n/10, … of the exam proper, shallow problems first, so that nobody picked them.

    An exam deals its depths in turn, so a fixed stride through its own order could land on one depth every time.
    The sort is stable: within a depth the exam's order stands.
    """
    places = [place for place, question in enumerate(samples.questions) if question.axis is None]
    places = sorted(places or range(len(samples.questions)), key=lambda place: samples.questions[place].depth)
    return [places[index] for index in dict.fromkeys(number * len(places) // FIXED for number in range(FIXED))]


def visible(text: str) -> str:
    r"""The text with control characters, bidirectional controls and lone surrogates written as `\u202e`."""
    return _UNSEEN.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def cut(chain: Chain, most: int) -> Chain:
    """The chain with `most` characters of its text, the others counted."""
    if chain.raw is not None:
        return replace(chain, raw=chain.raw[:most], left_out=chain.left_out + len(chain.raw[most:]))
    steps, room = [], most
    for step in chain.steps:
        if room > 0:
            steps.append(replace(step, text=step.text[:room]))
        room -= len(step.text)
    return replace(chain, steps=tuple(steps), left_out=chain.left_out + max(0, -room))


def _chain(row: Mapping[str, Any]) -> Chain:
    transcript = read(row["completion"], row["finish"])
    answer = transcript.answer
    if answer is not None and len(answer) > MOST_ANSWER:
        answer = f"{answer[:MOST_ANSWER]} … {len(answer) - MOST_ANSWER:,} more characters"
    chain = Chain(row["correct"], row["voice"], row["n_tokens"], answer, row["completion"], (), 0)
    if transcript.well_formed and transcript.thinking is not None and row["formula"] is not None:
        steps = tuple(check_chain(row["formula"], transcript.thinking))
        written = sum(len(line.strip()) for line in transcript.thinking.split("\n"))
        chain = replace(chain, raw=None, steps=steps, left_out=written - sum(len(step.text) for step in steps))
    return cut(chain, MOST_TEXT[0])


def embedded(summary: Summary, samples: Mapping[str, Samples], shown: Sequence[Shown]) -> str:
    """All transcripts as JSON for the script of the page, harmless inside `<script>` whatever the models wrote.

    Lists instead of objects, places in lists instead of names, and of a step that is right the text alone: a page
    stays below 3 MB for thousands of problems. browser.js reads them in this order.
    """
    families = list(dict.fromkeys(one.problem.family for one in shown))
    axes = list(dict.fromkeys(one.problem.axis for one in shown))
    data = {
        "columns": [summary["names"][column] for column in samples],
        "changed": _changed(summary, list(samples)),
        "voices": VOICES,
        "families": families,
        "axes": axes,
        "fixed": fixed(next(iter(samples.values()))),
    }
    for most in MOST_TEXT:
        data["problems"] = [
            [
                visible(one.problem.question),
                visible(one.problem.answer),
                families.index(one.problem.family),
                axes.index(one.problem.axis),
                one.problem.depth,
                [_packed(cut(chain, most)) for chain in one.chains],
            ]
            for one in shown
        ]
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_HTML)
        if len(text.encode("utf-8", "backslashreplace")) <= MOST_PAGE:
            break
    return text


def _changed(summary: Summary, columns: Sequence[str]) -> list[int] | None:
    """The places of the two columns of the first comparison, None without one."""
    if not summary["comparisons"]:
        return None
    return [columns.index(summary["comparisons"][0][side]) for side in ("before", "after")]


def _packed(chain: Chain) -> list[Any]:
    body: str | list[Any]
    if chain.raw is not None:
        body = visible(chain.raw)
    else:
        body = [
            visible(step.text)
            if step.verdict == "right"
            else [VERDICTS.index(step.verdict), visible(step.text), visible(step.reason)]
            for step in chain.steps
        ]
    answer = None if chain.answer is None else visible(chain.answer)
    return [int(chain.correct), VOICES.index(chain.voice), chain.n_tokens, answer, body, chain.left_out]
