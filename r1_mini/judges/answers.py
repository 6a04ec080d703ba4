"""What an answer says, in the notations of models and data sets: an amount, the letter of an option, a text, a formula.

What was written is hostile: each reader is total, takes time linear in a text of bounded length, and says None where
the text leaves open what is meant, such as `18 or 20`.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

LONGEST_ANSWER = 1000  # characters
LONGEST_AMOUNT = 64  # digits and separators

_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|\\[dt]?frac\s*(\d)\s*(\d)(?!\d)")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boldsymbol)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,!;: ]|\\q?quad(?![a-z])|\\(?:left|right)(?![a-z])|\\[()\[\]]|~|\*\*|__")
_CURRENCY = re.compile(r"([+-]?)\s*[$€£¥₹]\s*(?=([+-]?))")
_NUMBER = re.compile(r"(?:(?<![\w.])\.)?\d[\d.,/]*")
_VALUE = re.compile(r"(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?(?:/(\d+))?")
_SCALE = re.compile(r"\s*(k|thousand|million|billion|trillion)\b")
_SCALES = {"k": 10**3, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_CALCULATES = re.compile(
    r"[\\^√π<>≤≥±\u00d7\u00f7*_]|\d\s*!|\b(?:half|halves|dozens?|hundreds?|squared|cubed|sqrt|root|pi|plus|minus|times)\b"
    r"|\ban? (?:third|quarter|fifth)\b|n't\b|\bnot\b|\bor\b"
)
_BOUND = re.compile(r"\b(?:than|least|most|under|over|below|above|between|about a)\s*$")
_CURRENCY_NAME = re.compile(r"\b(?:usd?|eur|gbp|rs\.?)$")
_SAME_AGAIN = re.compile(r"[=\n]|\s\(")


def boxed(text: str) -> str | None:
    r"""What the last `\boxed{…}` holds, braces inside it included; None if there is none, or it is not closed."""
    start = text.rfind(r"\boxed")
    if start < 0:
        return None
    start += len(r"\boxed")
    while text[start : start + 1] == " ":
        start += 1
    if text[start : start + 1] != "{":  # `\boxed 5`, as some solutions write it
        short = re.match(r"[^\s$\\]+", text[start : start + LONGEST_ANSWER])
        return short.group().rstrip(".") if short else None
    depth, place = 0, start
    while place < len(text):
        if text[place] == "\\":  # `\{` is a character of the answer
            place += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + 1 : place]
        place += 1
    return None


def _inside_box(text: str) -> str:
    inside = boxed(text)
    return text if inside is None else inside


def _unwrapped(text: str) -> str:
    for _ in range(3):  # \textbf{\text{…}}
        text = _WRAPPER.sub(r"\1", text)
    return text


@lru_cache(maxsize=1024)
def amount(text: str) -> Fraction | None:
    r"""The exact value of an answer that names one number: `$1,234.50`, `18 dollars`, `72%` (72), `\boxed{18}`, `3/4`.

    None if it names none or several, or if what stands around the number may change it: `2*9`, `5!`, `half of 18`,
    `more than 18`, `2 dozen`. A number may be said again after `=`, on another line or in parentheses.
    """
    if len(text) > LONGEST_ANSWER:
        return None
    text = _without_latex(_inside_box(text))
    if _CALCULATES.search(text) or any(sign.isnumeric() and not sign.isascii() for sign in text):
        return None
    values: set[Fraction] = set()
    end = 0
    for number in _NUMBER.finditer(text):
        if values and not _SAME_AGAIN.search(text, end, number.start()):
            return None
        value = _value(text[: number.start()], number.group())
        if value is None:
            return None
        end = number.start() + len(number.group().rstrip(".,/"))
        scale = _SCALE.match(text, end)
        if scale:
            value, end = value * _SCALES[scale[1]], scale.end()
        values.add(value)
    return values.pop() if len(values) == 1 else None


def _value(before: str, written: str) -> Fraction | None:
    """The value of digits and separators, with the sign that stands before them."""
    match = _VALUE.fullmatch(written.rstrip(".,/"))
    if match is None or len(written) > LONGEST_AMOUNT or (match[3] is not None and int(match[3]) == 0):
        return None
    value = Fraction(f"{(match[1] or '0').replace(',', '')}{match[2] or ''}") / int(match[3] or 1)
    rest = before.rstrip()
    if rest.endswith(("+", "-")):
        sign, rest = rest[-1], rest[:-1]
        if (rest and before[-1:].isspace()) or rest[-1:].isalnum() or rest.endswith((")", "+", "-")):
            return None  # an operator, a hyphen or a range
        value = -value if sign == "-" else value
    elif before[-1:].isalpha() and not _CURRENCY_NAME.search(before):
        return None  # x2
    return None if _BOUND.search(rest) else value


def _without_latex(text: str) -> str:
    """The text in lower case with the notations of LaTeX and Markdown for plain things written plainly."""
    text = unicodedata.normalize("NFC", text).replace("\u2212", "-").replace("\u00a0", " ").replace("\u202f", " ")
    text = text.replace("{,}", ",").replace(r"\$", "$").replace(r"\%", "%")
    text = _FRACTION.sub(lambda match: f"{match[1] or match[3]}/{match[2] or match[4]}", text)
    text = _unwrapped(text)
    return _CURRENCY.sub(lambda match: match[1] or ("" if match[2] else " "), _SPACING.sub("", text)).lower()


_OPTION = re.compile(r"[A-Ea-e]")
_BRACKETED = re.compile(r"[(\[{]\s*([A-Ea-e])\s*[)\]}]")
_LABEL = re.compile(r"^[\s*>-]*([A-E])\s*[.):](?=\s|\*|$)", re.MULTILINE)
_NAMED = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+(?:is|was|should be))?(?:\s+(?:option|choice))?\s*[:=]?\s*"
    r"[*(\[]*(?:([A-E])(?![\w'])(?!\s+[a-z])|([a-e])(?=[\s).\]*]*$))",
    re.IGNORECASE,
)
_HEDGED = re.compile(r"\b(?:or|and|not|nor|neither|except)\s+(?:option\s+|choice\s+)?[(\[]?[A-E](?![\w'])(?!\s+[a-z])")


@lru_cache(maxsize=1024)
def choice(text: str) -> str | None:
    r"""The option, A to E, that an answer names: `B`, `(b)`, `B.`, `B) Paris`, `Answer: B`, `\boxed{\text{B}}`.

    None if it names none or several.
    """
    if len(text) > LONGEST_ANSWER:
        return None
    text = _unwrapped(_inside_box(text)).replace("$", " ").replace(r"\(", " ").replace(r"\)", " ").strip()
    bare = text.strip("*_ ()[]{}.,:;\"'`\n\t")
    if len(bare) == 1:
        return bare.upper() if _OPTION.fullmatch(bare) else None
    if _HEDGED.search(text):
        return None
    named = [match[1] or match[2] for match in _NAMED.finditer(text)]
    found = {letter.upper() for letter in (*named, *_LABEL.findall(text), *_BRACKETED.findall(text))}
    return found.pop() if len(found) == 1 else None


_UNSAID = re.compile(r"[;:?!\"'`()\[\]{}\u2018-\u201f\u00ab\u00bb]|[.,](?!\d)|(?<!\d)[.,]|(?<=\w)-(?=[^\W\d])|-(?!\w)")


@lru_cache(maxsize=1024)
def plain_text(text: str) -> str | None:
    """An answer without case, punctuation and spacing; signs, decimal points and symbols stay. None if none is left."""
    if len(text) > LONGEST_ANSWER:
        return None
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    return " ".join(_UNSAID.sub(" ", text).split()) or None


_MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LEAD = re.compile(r"^(?:so |thus,? |therefore,? )?(?:the )?(?:final )?answer(?: is|:)\s*:?\s*", re.IGNORECASE)


def formula(text: str) -> str | None:
    r"""The formula of an answer, without `$`: of the last `\boxed{…}`, the only `$…$` or `\(…\)`, else the whole.

    None if it has several that differ, or is too long.
    """
    if len(text) > LONGEST_ANSWER:
        return None
    text = _inside_box(text).replace(r"\$", "")  # dollars
    found = {next(filter(None, match.groups())).strip() for match in _MATH.finditer(text)}
    if len(found) > 1:
        return None
    text = found.pop() if found else _LEAD.sub("", text.strip())
    text = text.replace("$", "").replace("\u00b0", r"^\circ").strip().removesuffix(".")
    return re.sub(r"(?<!\\)%", r"\\%", text) or None


def words_of(formula: str) -> str | None:
    r"""What a formula says that is nothing but words: `\text{east}`, `east`; None for every other."""
    plain = _WRAPPER.sub(r"\1", formula).strip()
    return plain.casefold() if re.fullmatch(r"[^\W\d_]{2,}(?: [^\W\d_]+)*", plain) else None
