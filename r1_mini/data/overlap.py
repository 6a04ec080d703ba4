"""What an exam asks must not be trained on: problems that are the same, or share a long run of words.

Within one source the split by key sees to that. Between sources, and between a data set's own train and test, it does
not: a test question may stand in another table, or in an own train split with a word changed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from r1_mini.data.source import Source
from r1_mini.errors import shown
from r1_mini.problems.problem import Problem, is_held_out
from r1_mini.problems.wording import arithmetic_in, words

RUN = 13
"""Words in a row that make two questions overlap, as in GPT-3's decontamination (2005.14165, appendix C)."""
COMMON = 10
"""A run of words in more questions than this is the data set's manner of speaking, and no overlap (same place)."""


def runs_of(question: str) -> Iterator[str]:
    """Every run of `RUN` words of a question; of a shorter one none: there the key decides."""
    found = words(question)
    return (" ".join(found[start : start + RUN]) for start in range(len(found) - RUN + 1))


def separated(sources: Sequence[Source], asked: Sequence[Problem]) -> tuple[tuple[Source, ...], list[str]]:
    """The sources without the problems that an exam asks, and a line on each that had some of them.

    What is sampled on the spot, not listed, is only kept from the keys: its questions are all in one manner of
    speaking.
    """
    kept: list[Source] = []
    lines: list[str] = []
    keys = frozenset(problem.key for problem in asked)
    sums = {key for key in keys if key in arithmetic_in(key)[0]}
    for source in sources:
        listed = source.listed("train")
        if listed is None:
            loose = {key for key in keys if not is_held_out(key) or "=" in key}  # a sum may solve a countdown
            kept.append(source.without(loose) if loose else source)
            continue
        runs = _telling_runs(asked, listed)
        alike = [
            each
            for each in listed
            if each.key in keys
            or not runs.isdisjoint(runs_of(each.question))
            or (sums and not sums.isdisjoint(arithmetic_in(each.question)[0]))
        ]
        kept.append(source.without(problem.key for problem in alike) if alike else source)
        if alike:
            what = (
                f"{len(alike)} of {len(listed):,} training problems are asked in an exam, or share {RUN} words in a row"
            )
            lines.append(f"{source.name}: {what}, and are left out, such as {shown(alike[0].question)}")
    return tuple(kept), lines


def _telling_runs(asked: Iterable[Problem], listed: Iterable[Problem]) -> frozenset[str]:
    """The runs of words that an exam's questions have and few others."""
    held = {run for problem in asked for run in runs_of(problem.question)}
    if not held:
        return frozenset()
    each = (set(runs_of(problem.question)) & held for problem in chain(asked, listed))
    counts = Counter(run for runs in each for run in runs)
    return frozenset(run for run in held if counts[run] <= COMMON)
