"""Word problems: a story in a few sentences that means an expression. `Ben had 12 marbles. He lost 3 of the marbles. …`

Templates with names and numbers drawn anew, as in GSM-Symbolic, and sentences that have no part in the answer, as in
its GSM-NoOp (Mirzadeh et al. 2024, 2410.05229).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import chain
from math import isqrt
from typing import Annotated, NamedTuple

from r1_mini.problems.arithmetic import (
    Tree,
    canonical_key,
    divisors,
    evaluate,
    numbers,
    operations,
    passed_through,
    render,
)
from r1_mini.problems.families.family import Axes, Family, Range, Whole, upto, within, worked_out
from r1_mini.problems.families.stories import NAMES, STORIES, WORDINGS, Parts, Story
from r1_mini.problems.problem import Problem

TRIES = 1000  # failed attempts before the axes count as impossible

FORMS: dict[str, Callable[..., Tree]] = {
    "a": lambda s, a: a,
    "a*b": lambda s, a, b: ("*", a, b),
    "s": lambda s: s,
    "s+a": lambda s, a: ("+", s, a),
    "s-a": lambda s, a: ("-", s, a),
    "s*a": lambda s, a: ("*", s, a),
    "s/a": lambda s, a: ("/", s, a),
    "a-s": lambda s, a: ("-", a, s),
    "s+a*b": lambda s, a, b: ("+", s, ("*", a, b)),
    "s-a*b": lambda s, a, b: ("-", s, ("*", a, b)),
}
"""What the parts of a story make of the expression that stands, s, with their own numbers."""


class WordAxes(Axes):
    """How many operations on how large numbers, and how they are told."""

    depth: Annotated[Range, within(1, 8)] = (1, 4)
    """How many operations; each count is equally likely."""
    digits: Annotated[Whole, within(1, 6)] = 2
    """The most digits a number in the story may have."""
    largest: Annotated[Whole, within(10, 10**6)] = 99
    """Every intermediate value is a whole number in 1..largest."""
    distractors: Annotated[Range, within(0, 2)] = (0, 0)
    """How many sentences tell a number that has no part in the answer; each count is equally likely."""
    wording: Annotated[Range, within(1, WORDINGS)] = (1, WORDINGS)
    """Which wordings of a sentence occur, such as [1, 2] in training and 3 in an exam."""


class Told(NamedTuple):
    """One part of a story, filled in."""

    texts: tuple[str, ...]  # its wordings
    numbers: tuple[int, ...]
    value: int  # what stands after it


class Tale(NamedTuple):
    """A story with its numbers; names and wordings are still open."""

    story: Story
    told: tuple[Told, ...]  # the opening, the events, the closing
    formula: Tree
    axes: WordAxes
    seed: int  # of the names and wordings


class Word(Family[WordAxes, Tale]):
    name = "word"
    axes = WordAxes

    def cells(self, axes: WordAxes) -> list[int]:
        return list(range(axes.depth[0], axes.depth[1] + 1))

    def sketch(self, rng: random.Random, axes: WordAxes, depth: int) -> Tale:
        for _ in range(TRIES):
            tale = _filled(rng, axes, rng.choice(STORIES), depth)
            if tale is not None:
                return tale
        raise ValueError(f"no word problem of depth {depth} was found in {TRIES} tries: {axes!r}; allow more")

    def key(self, sketch: Tale) -> str:
        """The story and its expression, whatever the names, the wording and what else is told."""
        return f"{sketch.story.name} {canonical_key(sketch.formula)}"

    def inside(self, sketch: Tale) -> Iterator[str]:
        """The expression; and each part and remainder of it, as an expression and as this story's."""
        parts = [canonical_key(part) for part in passed_through(sketch.formula)]
        whole = [canonical_key(sketch.formula)] if operations(sketch.formula) >= 2 else []
        return chain(whole, parts, (f"{sketch.story.name} {part}" for part in parts))

    def problem(self, sketch: Tale) -> Problem:
        rng = random.Random(sketch.seed)
        distractors = rng.randint(*sketch.axes.distractors)
        steps, restated, answer = worked_out(sketch.formula)
        return Problem(
            family=self.name,
            question=_text(rng, sketch, distractors),
            answer=answer,
            steps=steps,
            restated=restated,
            difficulty={
                "depth": operations(sketch.formula),
                "digits": len(str(max(numbers(sketch.formula)))),
                "distractors": distractors,
            },
            key=self.key(sketch),
            inside=frozenset(self.inside(sketch)),
            formula=render(sketch.formula),
        )


def _filled(rng: random.Random, axes: WordAxes, story: Story, depth: int) -> Tale | None:
    """A story of `depth` operations; None if the numbers left no room."""
    opening = _part(rng, story.openings, depth)
    left = depth - opening.operations
    closing = _part(rng, story.closings, left)
    left -= closing.operations
    events: list[_Part] = []
    while left:
        events.append(_part(rng, story.events, left))
        left -= events[-1].operations
    formula: Tree = 0
    value = 0
    told: list[Told] = []
    for part in (opening, *events, closing):
        own = _numbers(rng, part.shape, value, min(10**axes.digits - 1, axes.largest), axes.largest)
        if own is None:
            return None
        formula = FORMS[part.shape](formula, *own)
        value = int(evaluate(FORMS[part.shape](value, *own)))
        told.append(Told(part.texts, own, value))
    return Tale(story, tuple(told), formula, axes, rng.getrandbits(32))


class _Part(NamedTuple):
    shape: str  # a key of FORMS
    texts: tuple[str, ...]

    @property
    def operations(self) -> int:
        return len(self.shape) // 2


def _part(rng: random.Random, parts: Parts, most: int) -> _Part:
    """One of the parts that take at most so many operations."""
    return rng.choice([part for part in map(_Part._make, parts.items()) if part.operations <= most])


def _numbers(rng: random.Random, shape: str, value: int, most: int, largest: int) -> tuple[int, ...] | None:
    """Numbers up to `most` with which this shape makes a whole number in 1..largest of `value`; None if none do.

    Factors and divisors are at least 2, and so is a quotient.
    """
    match shape:
        case "s":
            return ()
        case "a":
            return _between(rng, 1, most)
        case "s+a":
            return _between(rng, 1, min(most, largest - value))
        case "s-a":
            return _between(rng, 1, min(most, value - 1))
        case "a-s":
            return _between(rng, value + 1, most)
        case "s*a":
            return _between(rng, 2, min(most, largest // value))
        case "s/a":
            fitting = [a for a in divisors(value) if 2 <= a <= min(most, value // 2)]
            return (rng.choice(fitting),) if fitting else None
    room = {"a*b": largest, "s+a*b": largest - value, "s-a*b": value - 1}[shape]
    smaller = _between(rng, 2, min(most, isqrt(max(0, room))))
    larger = smaller and _between(rng, 2, min(most, room // smaller[0]))
    if not smaller or not larger:
        return None
    return smaller + larger if rng.random() < 0.5 else larger + smaller


def _between(rng: random.Random, low: int, high: int) -> tuple[int] | None:
    return (low + upto(rng, high - low),) if low <= high else None


class _Number(int):
    """A number in a sentence: `{a}` is 12, and `{a:egg|eggs}` the one of two words that agrees with it."""

    def __format__(self, words: str) -> str:
        if not words:
            return str(int(self))
        one, many = words.split("|")
        return one if self == 1 else many


def _text(rng: random.Random, tale: Tale, distractors: int) -> str:
    """The story as it is read."""
    name = rng.choice(list(NAMES))
    thing = rng.choice(tale.story.things)
    words = {"name": name, **NAMES[name], "thing": thing, "things": thing.split("|")[1]}
    first, last = tale.axes.wording
    sentences = [
        rng.choice(part.texts[first - 1 : last]).format(
            **words, **dict(zip("ab", map(_Number, part.numbers), strict=False))
        )
        for part in tale.told
    ]
    most = 10**tale.axes.digits - 1
    asides = list(tale.story.asides)
    for place in sorted((rng.randrange(1, len(sentences)) for _ in range(distractors)), reverse=True):
        fewer = tale.told[place - 1].value - 1
        aside = rng.choice([aside for aside in asides if aside.limits or fewer])
        asides.remove(aside)
        low, high = aside.limits or (1, fewer)
        sentences.insert(place, aside.text.format(**words, d=_Number(rng.randint(low, min(high, most)))))
    return " ".join(sentences)
