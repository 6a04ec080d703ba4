"""Sample 0 of every problem and column, each step judged, as the JSON that the page embeds.

Model text is hostile: it is bounded in length, and characters that are invisible or that reorder their neighbors are
written as escapes. The script of the page then inserts it as text nodes only.
"""

import json
from collections.abc import Mapping
from statistics import median_low
from typing import Any

from eval.analysis.compare import Comparison
from eval.exam.samples import Samples, problem_of
from r1_mini.completion import grade
from r1_mini.text import short, visible

FIXED = 10
MOST_TEXT = (2_000, 500, 120)  # characters of one completion; the next one is used where the page would be too large
MOST_ANSWER = 100
MOST_PICKED = 300  # characters of each completion of the problem on the first screen
MOST_PAGE = 1_000_000  # bytes of all transcripts
_HTML = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def embedded(summary: Comparison, samples: Mapping[str, Samples]) -> str:
    """The transcripts of all columns as JSON, harmless inside `<script>` whatever the models wrote."""
    keys = list(summary.scores)
    changed = [keys.index(key) for each in summary.comparisons[:1] for key in (each.before, each.after)]
    columns = [samples[key] for key in keys]
    page = {"columns": [summary.names[key] for key in keys], "changed": changed, "fixed": fixed(columns[0])}
    for most in MOST_TEXT:
        problems = [
            {
                **{"family": short(question.family), "axis": question.axis and visible(question.axis)},
                **{"depth": question.depth, "question": visible(question.question), "answer": visible(question.answer)},
                "chains": [transcript(row, most) for row in rows],
            }
            for question, *rows in zip(columns[0].questions, *(column.first for column in columns), strict=True)
        ]
        text = harmless({**page, "problems": problems})
        if len(text.encode("utf-8", "backslashreplace")) <= MOST_PAGE:
            break
    return text


def harmless(page: Any) -> str:
    """What the page embeds, as JSON without a character that ends a `<script>`."""
    return json.dumps(page, ensure_ascii=False, separators=(",", ":")).translate(_HTML)


def judged(text: str, verdict: str, *reason: str) -> list[str]:
    """[text] of a right step, and [text, verdict, reason] of another one."""
    return [visible(text)] if verdict == "right" else [visible(text), verdict, *map(visible, reason)]


def picked(summary: Comparison, samples: Mapping[str, Samples]) -> dict[str, Any]:
    """The problem of the first screen, before and after, and how many of its depth went like it or the other way.

    Of the problems of median depth whose sample 0 went the way of the difference, from wrong to right for example, it
    is the middle one in the order of the exam; of all of that depth, if there is none.
    """
    first = summary.comparisons[0]
    old, new, rises = samples[first.before], samples[first.after], first.estimate >= 0
    places = proper(old)
    median = median_low(old.questions[place].depth for place in places)
    places = [place for place in places if old.questions[place].depth == median]
    moves = {place: (old.first[place]["correct"], new.first[place]["correct"]) for place in places}
    like = [place for place, move in moves.items() if move == (not rises, rises)]
    place = (like or places)[len(like or places) // 2]
    question, chains = old.questions[place], [transcript(each.first[place], MOST_PICKED) for each in (old, new)]
    return {
        **{"question": visible(question.question), "answer": visible(question.answer), "depth": median},
        **{"rises": rises, "like": len(like), "unlike": list(moves.values()).count((rises, not rises))},
        **{"n": len(places), "chains": dict(zip((first.before, first.after), chains, strict=True))},
    }


def transcript(row: Mapping[str, Any], most: int) -> dict[str, Any]:
    """A saved sample with at most `most` characters of its text, the others counted in `left_out`.

    `steps` holds [text] of a right step and [text, verdict, reason] of another one. Where nothing reads the steps they
    are text, `raw`; so is all of a malformed completion, which `malformed` says.
    """
    answer, text = row["parsed"], row["completion"]
    if answer is not None and len(answer) > MOST_ANSWER:
        answer = f"{answer[:MOST_ANSWER]} … {len(answer) - MOST_ANSWER:,} more characters"
    found = {"correct": row["correct"], "voice": row["voice"], "tokens": row["n_tokens"]}
    found["answer"] = answer and visible(answer)
    graded = grade(problem_of(row), text, row["finish"], row["prompt"])
    if not row["well_formed"] or (row["formula"] is None and (graded.thinking or "").strip()):
        raw = text if not row["well_formed"] else (graded.thinking or "").strip()
        found["malformed"] = not row["well_formed"]
        return {**found, "raw": visible(raw[:most]), "left_out": len(raw[most:])}
    steps, left_out = [], sum(len(line.strip()) for line in (graded.thinking or "").split("\n"))
    for step in graded.steps or ():
        text = step.text[:most]
        if text:
            steps.append(judged(text, step.verdict, step.reason))
        most -= len(text)
        left_out -= len(text)
    return {**found, "steps": steps, "left_out": left_out}


def fixed(samples: Samples) -> list[int]:
    """Indices of problems 0, n/10, 2n/10, … of the exam proper, shallow problems first: a choice that nobody made.

    An exam deals its depths in turn, so a fixed stride through its own order could hit one depth every time.
    """
    places = proper(samples)
    return [places[index] for index in dict.fromkeys(number * len(places) // FIXED for number in range(FIXED))]


def proper(samples: Samples) -> list[int]:
    """Indices of the problems of the exam proper, or of all if it has none, shallow problems first."""
    places = [place for place, question in enumerate(samples.questions) if question.axis is None]
    return sorted(places or range(len(samples.questions)), key=lambda place: samples.questions[place].depth)
