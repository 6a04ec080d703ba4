"""When two questions are the same: a canonical form for keys, the arithmetic in a question, and its words."""

import re
import unicodedata
from contextlib import suppress

from r1_mini.problems.arithmetic import canonical_key, parse

_DASHES = re.compile(r"[\u2010-\u2015\u2212]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SENTENCE_MARKS = re.compile(r"(?<!\d)[.,](?=\d)|[.,](?!\d)|[;:?\"'`\u2018-\u201f\u00ab\u00bb]|(?<!\d)!")
_AROUND_SYMBOLS = re.compile(r"\s*([^\w\s])\s*")
_WORD = re.compile(r"[^\W_]+(?:[.,/]\d+)*")

SHORT = 20  # words around a sum, up to which a question counts as that sum
_ASKS = re.compile(
    "a|answer|calculate|compute|determine|equals?|evaluate|expression|find|following|give|how|is|it|me|much|of|out|please"
    "|problem|q|question|result|s|simplify|solve|sum|tell|the|this|to|value|whats?|work|x|y"
)
_SPELLED = {
    r"\\times|\\cdot|[\u00d7\u00b7\u2217\u2219\u22c5\u2715\u2716]|\b(?:times|multiplied by)\b|(?<=\d) *x *(?=\d)": "*",
    r"\u2795|\bplus\b|\badded to\b": "+",
    r"\bminus\b": "-",
    r"\\div|[\u00f7\u2044\u2215]|\bdivided by\b|\bover\b": "/",
    r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}": r"(\1)/(\2)",
    r"\\(?:left|right|[,;!()\[\]])|\*\*|[${}\\`_]": " ",
}
_LISTED = re.compile(r"\b(?:sum of|total of|add)((?: \d+(?:,| and|, and))+ \d+)")
_SUM = re.compile(r"(?:(?<![^\W\d_])|(?=\s))([\d(+*/). -]++)(?:(?<=[\s(])|(?![^\W\d_]))|[\d(+*/).-]+")


def arithmetic_in(question: str) -> tuple[frozenset[str], bool]:
    """The keys of the sums in a short question, however they are written, and whether it asks for one and no more."""
    text = _DASHES.sub("-", unicodedata.normalize("NFKC", question).casefold())
    for spelled, sign in _SPELLED.items():
        text = re.sub(spelled, sign, text)
    text = _LISTED.sub(lambda found: "+".join(re.findall(r"\d+", found[1])), _THOUSANDS.sub("", text))
    text = re.sub(r"^\s*\(?\d+[.)]\s", "", " ".join(text.split()))  # the number of a question
    around = set(re.findall(r"[^\W\d_]+", text))
    keys: list[str] = []
    for found in _SUM.finditer(text) if len(around) <= SHORT else ():
        whole = (found[1] or "").strip(" .").lstrip(") ").rstrip("( ").removesuffix(" -")
        if re.search(r"\d[ )]*[+*/-]", whole) and not whole.startswith("- "):
            with suppress(ValueError):
                keys.append(canonical_key(parse(whole)))
    return frozenset(keys), len(keys) == 1 and all(map(_ASKS.fullmatch, around))


def canonical_text(question: str) -> str:
    """One text for a question however it is cased, spaced and punctuated; of a sum, however it is asked or commutes.

    Signs that calculate stay: `(1+2)*3` is not `1+2*3`, and 5! is not 5.
    """
    sums, alone = arithmetic_in(question)
    if alone:
        return next(iter(sums))
    text = _DASHES.sub("-", unicodedata.normalize("NFKC", question).casefold())
    text = _SENTENCE_MARKS.sub(" ", _THOUSANDS.sub("", text))
    return " ".join(_AROUND_SYMBOLS.sub(r"\1", text).split())


def words(question: str) -> list[str]:
    """The words and numbers of a question, without case and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", question).casefold())
