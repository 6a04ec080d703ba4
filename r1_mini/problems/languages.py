"""Two languages of a chain: a step in signs, `45+17=62`, or in words, `45 plus 17 is 62`, one token a word.

They stand in for the natural languages that R1-Zero mixed (2501.12948, section 2.3.2). Both have as many tokens, so a
reward for one of them changes no length.
"""

import re
from collections.abc import Iterable
from typing import Literal

Language = Literal["signs", "words", "mixed"]

WORDS = {"+": " plus ", "-": " minus ", "*": " times ", "=": " is "}
"""Sign -> word, a token each. A fraction and a division keep their `/`, which nothing tells apart."""
_SIGNS = {word: sign for sign, word in WORDS.items()}
_SIGN = re.compile(r"(?<=[\d)])[-+*=]")  # between two values: not the sign of a number
_WORD = re.compile("|".join(_SIGNS))


def in_words(step: str) -> str:
    """The step with a word for each sign between two values."""
    return _SIGN.sub(lambda found: WORDS[found[0]], step)


def written(steps: Iterable[str], language: str) -> tuple[str, ...]:
    """The steps in a language; `mixed` adds in signs and subtracts in words."""
    return tuple(
        in_words(step) if language == "words" or (language == "mixed" and "-" in step) else step for step in steps
    )


def in_signs(step: str) -> str:
    """The step with a sign for each word; what has none stays as it is."""
    return _WORD.sub(lambda found: _SIGNS[found[0]], step)


def language_of(step: str) -> Language | None:
    """The language of a step; None if it has none: a number alone, or `wait`."""
    signs, words = _SIGN.search(step), _WORD.search(step)
    if signs:
        return "mixed" if words else "signs"
    return "words" if words else None
