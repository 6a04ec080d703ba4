"""When two questions are the same text: a canonical form for keys, and the words that overlap is looked for in."""

import re
import unicodedata

from r1_mini.problems.arithmetic import canonical_key, parse

_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SENTENCE_MARKS = re.compile(r"(?<!\d)[.,](?=\d)|[.,](?!\d)|[;:?\"'`\u2018-\u201f\u00ab\u00bb]|(?<!\d)!")
_AROUND_SYMBOLS = re.compile(r"\s*([^\w\s])\s*")
_WORD = re.compile(r"[^\W_]+(?:[.,/]\d+)*")


def canonical_text(question: str) -> str:
    """One text for a question however it is cased, spaced and punctuated; of arithmetic, however it commutes.

    Signs that calculate stay: `(1+2)*3` is not `1+2*3`, and 5! is not 5.
    """
    try:
        return canonical_key(parse(question))
    except ValueError:
        pass
    text = _DASHES.sub("-", unicodedata.normalize("NFKC", question).casefold())
    text = _SENTENCE_MARKS.sub(" ", _THOUSANDS.sub("", text))
    return " ".join(_AROUND_SYMBOLS.sub(r"\1", text).split())


def words(question: str) -> list[str]:
    """The words and numbers of a question, without case and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", question).casefold())
