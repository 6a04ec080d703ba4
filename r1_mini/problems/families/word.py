"""Word problems: a story in a few sentences that means an expression. `Ben had 12 marbles. He lost 3 of the marbles. …`

The stories stand in `stories.yaml`. Templates with names and numbers sampled anew follow GSM-Symbolic, and sentences
that play no part in the answer its GSM-NoOp (Mirzadeh et al. 2024, 2410.05229).
"""

import random
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isqrt
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from ruamel.yaml import YAML

from r1_mini.config.base import Strict
from r1_mini.problems.arithmetic import Tree, canonical_key, divisors, evaluate, parse
from r1_mini.problems.families.base import Family, Range, upto

WORDINGS = 3


class WordAxes(Strict):
    """How many operations on how large numbers, and how they are told."""

    depth: Range[Annotated[int, Field(ge=1, le=8)]] = (1, 4)
    """How many operations; each count is equally likely."""
    digits: int = Field(2, ge=1, le=6)
    """The most digits a number in the story may have."""
    largest: int = Field(99, ge=10, le=10**6)
    """Every intermediate value is a whole number in 1..largest."""
    distractors: Range[Annotated[int, Field(ge=0, le=2)]] = (0, 0)
    """How many sentences tell a number that plays no part in the answer; each count is equally likely."""
    wording: Range[Annotated[int, Field(ge=1, le=WORDINGS)]] = (1, WORDINGS)
    """Which wordings of a sentence occur, such as [1, 2] in training and 3 in an exam."""


Texts = Mapping[str, Sequence[str]]
"""What an event makes of the number that stands, such as `s+a*b`, with numbers of its own -> its wordings."""


class Story(NamedTuple):
    """An opening, some events, and a closing, which asks; asides may stand between."""

    name: str
    things: Sequence[str]
    openings: Texts
    events: Texts
    closings: Texts
    asides: Sequence[Mapping[str, Any]]


@lru_cache(maxsize=1)
def stories() -> tuple[tuple[Story, ...], dict[str, dict[str, str]]]:
    """The stories of `stories.yaml`, and the pronouns of each name."""
    texts = YAML(typ="safe", pure=True).load(Path(__file__).with_name("stories.yaml"))
    pronouns = {name: texts["pronouns"][who] for who, names in texts["names"].items() for name in names}
    return tuple(Story(**story) for story in texts["stories"]), pronouns


class Event(NamedTuple):
    """A sentence of a story with its numbers."""

    wordings: Sequence[str]
    numbers: tuple[int, ...]
    value: int  # what stands after it


class Tale(NamedTuple):
    """A story with its numbers; names and wordings are still open."""

    story: Story
    events: tuple[Event, ...]  # the opening and the closing included
    formula: Tree
    axes: WordAxes
    seed: int  # of the names and wordings


class Word(Family[WordAxes, Tale]):
    name = "word"
    axes = WordAxes

    def depths(self, axes: WordAxes) -> range:
        return range(axes.depth[0], axes.depth[1] + 1)

    def attempt(self, rng: random.Random, axes: WordAxes, depth: int) -> Tale | None:
        story = rng.choice(stories()[0])
        opening = _choose(rng, story.openings, depth)
        left = depth - _operations(opening)
        closing = _choose(rng, story.closings, left)
        left -= _operations(closing)
        between = []
        while left:
            between.append(_choose(rng, story.events, left))
            left -= _operations(between[-1])
        formula, value = "", 0
        events: list[Event] = []
        for form, wordings in (opening, *between, closing):
            own = _numbers(rng, form, value, min(10**axes.digits - 1, axes.largest), axes.largest)
            if own is None:
                return None
            formula = filled(form, formula, own)
            value = int(evaluate(parse(formula)))
            events.append(Event(wordings, own, value))
        return Tale(story, tuple(events), parse(formula), axes, rng.getrandbits(32))

    def formula(self, sketch: Tale) -> Tree:
        return sketch.formula

    def keys(self, sketch: Tale, tree: Tree) -> tuple[str, ...]:
        """The story and the expression, whatever the names, the wording and what else is told."""
        expression = canonical_key(tree)
        return f"{sketch.story.name} {expression}", expression

    def measure(self, sketch: Tale) -> dict[str, int]:
        return super().measure(sketch) | {"distractors": _telling(sketch)[1]}

    def question(self, sketch: Tale, axes: WordAxes) -> str:
        rng, distractors = _telling(sketch)
        pronouns = stories()[1]
        name = rng.choice(list(pronouns))
        thing = rng.choice(sketch.story.things)
        words = {"name": name, **pronouns[name], "thing": thing, "things": thing.split("|")[1]}
        first, last = sketch.axes.wording
        sentences = []
        for event in sketch.events:
            told = dict(zip("ab", map(Number, event.numbers), strict=False))
            sentences.append(rng.choice(event.wordings[first - 1 : last]).format(**words, **told))
        most = 10**sketch.axes.digits - 1
        asides = list(sketch.story.asides)
        for place in sorted((rng.randrange(1, len(sentences)) for _ in range(distractors)), reverse=True):
            fewer = sketch.events[place - 1].value - 1
            aside = rng.choice([aside for aside in asides if "limits" in aside or fewer])
            asides.remove(aside)
            low, high = aside.get("limits", (1, fewer))
            sentences.insert(place, aside["text"].format(**words, d=Number(rng.randint(low, min(high, most)))))
        return " ".join(sentences)


def _telling(tale: Tale) -> tuple[random.Random, int]:
    """The random numbers that tell a tale, and how many distractors they put into it."""
    rng = random.Random(tale.seed)
    return rng, rng.randint(*tale.axes.distractors)


def filled(form: str, standing: str, own: Sequence[int]) -> str:
    """The expression that an event makes of the one that stands, with numbers of its own."""
    texts = dict(zip("sab", (f"({standing})", *map(str, own)), strict=False))
    return "".join(texts.get(character, character) for character in form)


def _operations(event: tuple[str, Sequence[str]]) -> int:
    return len(event[0]) // 2


def _choose(rng: random.Random, texts: Texts, most: int) -> tuple[str, Sequence[str]]:
    """Choose a form, with its wordings, that takes at most so many operations."""
    return rng.choice([event for event in texts.items() if _operations(event) <= most])


def _numbers(rng: random.Random, form: str, value: int, most: int, largest: int) -> tuple[int, ...] | None:
    """Numbers up to `most` with which this form makes a whole number in 1..largest of `value`; None if none do.

    Factors and divisors are at least 2, and so is a quotient.
    """
    match form:
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
    limit = {"a*b": largest, "s+a*b": largest - value, "s-a*b": value - 1}[form]
    smaller = _between(rng, 2, min(most, isqrt(max(0, limit))))
    larger = smaller and _between(rng, 2, min(most, limit // smaller[0]))
    if not smaller or not larger:
        return None
    return smaller + larger if rng.random() < 0.5 else larger + smaller


def _between(rng: random.Random, low: int, high: int) -> tuple[int] | None:
    return (low + upto(rng, high - low),) if low <= high else None


class Number(int):
    """A number in a sentence: `{a}` is 12, and `{a:egg|eggs}` the one of two words that agrees with it."""

    def __format__(self, words: str) -> str:
        if not words:
            return str(int(self))
        one, many = words.split("|")
        return one if self == 1 else many
