"""What an answer says: an amount, the letter of an option, a text, a formula.

A reader knows a small grammar (the table in docs/DATA.md) and reads an answer whole: what stands around the answer has
to be part of the grammar too, or the answer is not read. What was written is hostile: each reader is total, takes time
linear in a text of bounded length, and says None for what it cannot read.
"""

import re
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

LONGEST_ANSWER = 1000  # characters
LONGEST_AMOUNT = 64  # characters of a number

_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2796\ufe58\ufe63\uff0d"
_TYPOGRAPHY = str.maketrans({**dict.fromkeys(_DASHES, "-"), "\uff0b": "+", "\u2795": "+", "\u2018": "'", "\u2019": "'"})
_WRAPPER = re.compile(r"\\(?:text[a-z]*|math(?:rm|bf|sf|it)|[mh]box|operatorname|boldsymbol)\s*\{([^{}]*)\}")
_EMPHASIS = re.compile(r"(?<![\w.)\]}*_`])(\*\*|__|\*|_|`)(?=[^\s*_`])([^*_`\n]*[^\s*_`])\1(?![\w(\[{*_`])")
_MATH = re.compile(r"(?<!\\)\$\$([^$]+)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+)\$|\\\(([^$]*?)\\\)|\\\[([^$]*?)\\\]", re.DOTALL)
_SPACE = re.compile(r"\\[,!;: ]|\\q?quad(?![a-z])|\\(?:left|right)(?![a-z])|(?<=[\w.,])~")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,!]|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*([+-]?\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d))(?!\d)")
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e](?!\\d)")
_RAISED = "\u00b2\u00b3\u00b9\u2070\u2074-\u2079"


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


def _undressed(text: str) -> str:
    r"""An answer without `\boxed`, Markdown's emphasis and quotes around it, its dashes as `-`."""
    inside = boxed(text)
    text = (text if inside is None else inside).translate(_TYPOGRAPHY).strip()
    for _ in range(2):  # **`…`**
        text = _EMPHASIS.sub(r"\2", text)
    quoted = len(text) > 2 and (text[0] + text[-1]) in ('""', "''", "\u201c\u201d")
    return text[1:-1].strip() if quoted else text


def _unwrapped(text: str) -> str:
    for _ in range(3):  # \textbf{\text{…}}
        text = _WRAPPER.sub(r" \1", text)
    return text.strip()


def _without_dollars(text: str) -> str:
    r"""The text without the signs that begin and end a formula: `$…$`, `\(…\)`. Other dollars are money."""
    return _MATH.sub(lambda found: f" {next(filter(None, found.groups()), '')} ", text).strip()


_UNITS = (
    r"dollar|cent|euro|pound|penny|pence|yen|rupee|buck|usd|eur|gbp|inr|percent|degree|km|"
    r"kilometer|kilometre|meter|metre|centimeter|centimetre|millimeter|cm|mm|mile|foot|feet|inch|"
    r"inches|yard|kg|kilogram|gram|mg|ton|tonne|ounce|oz|lb|liter|litre|milliliter|ml|gallon|"
    r"quart|pint|cup|second|minute|hour|hr|day|week|month|year|mph|kph|person|people|child|"
    r"children|man|men|woman|women|student|customer|mouse|mice|tooth|teeth|fish|sheep|deer|piece|"
    r"box|boxes|match|matches|bus|buses|dish|dishes|class|classes|glass|glasses|watch|watches|peach|"
    r"peaches|sandwich|sandwiches|potatoes|tomatoes|leaves|night|game|trip|ticket|bag|pack"
)
_NO_UNITS = (
    r"[a-z]*illions|thousands|hundreds|tens|dozens|scores|pairs|couples|trios|mils|gross|grosses|lakhs|crores|myriads"
    r"|googols|ones|twos|threes|fours|fives|sixes|sevens|eights|nines|elevens|twelves"
    r"|(?:twen|thir|for|four|fif|six|seven|eigh|nine)(?:teens|ties)|halves|thirds|quarters|fourths|[a-z]*(?:[fhnx]|ie|hundred|thousand)ths"
    r"|plus|minus|minuses|negatives|less|(?:some)?times|was|has|does|yes|his|its|this|thus|powers|squares|cubes|roots"
    r"|digits|multiples|perhaps|always|besides|modulus|versus|guess|unless|doubles|triples|others|decades|factors"
    r"|divides|equals|exceeds|means|needs|falls|goes|tops|sins|cos|logs|guesses|misses|fails|(?:on|up|down)wards"
)
_SCALES = {
    **{"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12},
    **{"k": 10**3, "mln": 10**6, "bn": 10**9, "tn": 10**12, "lakh": 10**5, "crore": 10**7, "m": 10**6, "b": 10**9},
}
_UNIT = rf"(?:(?:square|cubic)\s)?(?:(?:{_UNITS})s?|(?!(?:{_NO_UNITS})\b)[a-z]{{3,20}}s)\b"
_DIGITS = r"(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)"
_AMOUNT = re.compile(
    rf"""(?P<sign>[+-]?)\ ?(?:(?P<currency>[$€£¥₹]|usd\ |eur\ |gbp\ |inr\ |rs\.?\ )\ ?(?P<inner>[+-]?))?\ ?
    (?:(?:(?P<whole>{_DIGITS})\ (?:and\ )?)?(?P<top>{_DIGITS})\ ?/\ ?(?P<bottom>\d+)
      |(?P<decimal>{_DIGITS}?\.\d+|{_DIGITS}))(?![.,]*\d)
    (?:\ ?(?P<scale>{"|".join(_SCALES)})\b)?
    (?:\ ?%|\ ?°|\ ?\^\s?\{{?\\circ\}}?|\ ?[$€£¥₹]|\ ?{_UNIT})?
    (?:\ ?(?:/|\bper\ |\ban?\ |\beach\ |\bevery\ )\ ?(?:{_UNITS})\b)?""",
    re.VERBOSE | re.ASCII,
)
_SAYS = (
    r"is|are|was|were|has|have|had|gets?|got|pays?|paid|makes?|made|needs?|costs?|earns?|earned|spends?|spent|sold|bought"
    r"|saves?|saved|takes?|took"
)
_DENIES = (
    r"no|not|nor|none|nobody|nothing|neither|never|hardly|barely|scarcely|seldom|rarely|half|twice|double|triple|if|unless"
    r"|who|whoever|only|almost|nearly|about|wrong|incorrect|zero|minus|third|quarter"
)
_LEAD = re.compile(
    rf"(?:(?:so|thus|hence|therefore|and),? )?(?:#{{2,4}} ?|= ?|[a-z] ?= ?|(?!(?:{_DENIES}) )[a-z]{{1,15}} (?:{_SAYS}) "
    r"|(?:(?:the|my|our|his|her|their|its|a|in) )?(?:(?:final|correct|total|right) )?"
    r"(?:answer|result|total|sum|value|number|amount|cost|price|solution)"
    r"(?: (?:is|was|equals)(?: ?:)? ?| ?[:=] ?| ))?"
)
_TAIL = re.compile(r" (?:in all|in total|altogether|total|overall|left|remaining|each)\b")
_AGAIN = re.compile(r" ?= ?| ?\n\s*|(?P<open> ?\()")


@lru_cache(maxsize=1024)
def amount(text: str) -> Fraction | None:
    r"""The exact value of an answer that is one number: `$1,234.50`, `18 dollars`, `72%` (72), `2\frac12`, `5 dozen`.

    It may say the number again after `=`, on another line or in parentheses. None if anything else stands there, such
    as `2*9`, `5!`, `5x`, `half of 18`, `more than 18`, `not 18`.
    """
    if len(text) > LONGEST_ANSWER:
        return None
    text = _without_dollars(_unwrapped(_undressed(text)))
    text = _THOUSANDS.sub(",", unicodedata.normalize("NFC", text)).replace(r"\$", "$").replace(r"\%", "%").lower()
    text = _FRACTION.sub(lambda found: f" {found[1] or found[3]}/{found[2] or found[4]}", text)
    text = _VULGAR.sub(lambda found: f" {Fraction(unicodedata.numeric(found[0])).limit_denominator(10)}", text)
    text = re.sub(r"[^\S\n]+", " ", _SPACE.sub(" ", text)).strip()
    values: set[Fraction | None] = set()
    place, closing = 0, ""
    while True:
        found = _AMOUNT.match(text, _end(_LEAD, text, place))
        if found is None:
            return None
        values.add(_value(found))
        place = _end(_TAIL, text, found.end())
        if not text.startswith(closing, place):
            return None
        place += len(closing)
        again = _AGAIN.match(text, place)
        if again is None:
            return values.pop() if text[place:] in ("", ".") and len(values) == 1 else None
        place, closing = again.end(), ")" if again["open"] else ""


def _end(pattern: "re.Pattern[str]", text: str, place: int) -> int:
    found = pattern.match(text, place)
    return place if found is None else found.end()


def _value(found: "re.Match[str]") -> Fraction | None:
    """What `_AMOUNT` has read, exactly; None if that leaves open what is meant."""
    part = {name: (text or "").replace(",", "") for name, text in found.groupdict().items()}
    if sum(map(len, part.values())) > LONGEST_AMOUNT or (part["sign"] and part["inner"]):
        return None
    if part["scale"] in ("m", "b") and not part["currency"]:  # 2m may be meters
        return None
    if part["decimal"]:
        value = Fraction(part["decimal"])
    elif int(part["bottom"]) == 0 or (part["whole"] and int(part["top"]) >= int(part["bottom"])):
        return None
    else:
        value = int(part["whole"] or 0) + Fraction(int(part["top"]), int(part["bottom"]))
    value *= _SCALES.get(part["scale"], 1)
    return -value if "-" in (part["sign"], part["inner"]) else value


_CHOICE = re.compile(
    r"(?:(?:so|thus|hence|therefore),? )?"
    r"(?:i (?:choose|pick|select) |(?:(?:the|my) )?(?:(?:final|correct|best|right) )?(?:answer|option|choice)"
    r"(?: is| was| should be)? ?[:=]? ?)?(?:(?:option|choice) )?"
    r"(?:(?P<open>[(\[{])\s*(?P<inside>[a-e])\s*[)\]}]|(?P<bare>[a-e])(?![\w']))(?P<rest>[^\n]*)",
    re.IGNORECASE,
)
_DENIAL = re.compile(
    r"(?:n't|\b(?:is|was|are|be|not|nor|neither|never|or|wrong|incorrect|false|untrue|except|excluded?|ruled|eliminated?"
    r"|rejected?|discard(?:ed)?|dismiss(?:ed)?|crossed|invalid|inaccurate|mistaken|impossible|unlikely|doubt(?:ful)?|nope"
    r"|wait|hmm|actually|correction|second thoughts?|cannot|but|instead|rather|unless|maybe|perhaps|versus))\b"
    r"|[\u2715-\u2718\u274c?]",
    re.IGNORECASE,
)
_OTHER_OPTION = re.compile(
    r"[(\[{]\s*[A-Ea-e]\s*[)\]}]|(?<![\w'])[A-E](?![\w'])(?! [a-z])|(?<![\w'])[a-e]\)|: ?[a-e]\W*$"
)


@lru_cache(maxsize=1024)
def choice(text: str) -> str | None:
    r"""The option, A to E, that an answer is: `B`, `(b)`, `B.`, `B) Paris`, `Answer: B`, `\boxed{\text{B}}`.

    None if it names none or several, or says anything else of it, such as `(B) is wrong`.
    """
    if len(text) > LONGEST_ANSWER:
        return None
    found = _CHOICE.fullmatch(_without_dollars(_unwrapped(_undressed(text))).strip())
    if found is None:
        return None
    letter, rest = found["inside"] or found["bare"], found["rest"]
    if rest.strip(" .):"):  # the text of the option
        begins = rest.startswith((" ", ". ", ": ", ") ")) if found["open"] else rest.startswith((". ", ": ", ") "))
        if not begins or not letter.isupper() or _DENIAL.search(rest) or _OTHER_OPTION.search(rest):
            return None
    return letter.upper()


_UNSAID = re.compile(
    r"[;:?\"'`()\[\]{}\u2018-\u201f\u00ab\u00bb]|(?<!\d)!|[.,](?!\d)|(?<=[^\d\s]),|(?<=\w)-(?=[^\W\d])"
    r"|(?<!\w)-(?=\s+[^\W\d]|\s*$)"
)


@lru_cache(maxsize=1024)
def plain_text(text: str) -> str | None:
    """An answer without dress, case, punctuation and spacing; signs, decimal points and symbols stay. None if empty."""
    if len(text) > LONGEST_ANSWER:
        return None
    text = re.sub(f"(?<![{_RAISED}])(?=[{_RAISED}])", "^", _unwrapped(_undressed(text)))  # 10² is not 102
    text = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"(?<![\d.])\.(?=\d)", "0.", " ".join(_UNSAID.sub(" ", text).split())) or None


_LEADING_WORDS = re.compile(
    r"^(?:(?:so|thus|hence|therefore),? )?(?:(?:the )?(?:final )?answer(?: is|:)\s*:?\s*)?", re.IGNORECASE
)


def formula(text: str) -> str | None:
    r"""A formula: the whole answer, or its last `\boxed{…}`, without `$`, `\(` and `\)`. None if it is too long."""
    if len(text) > LONGEST_ANSWER:
        return None
    text = _LEADING_WORDS.sub("", _without_dollars(_undressed(text).replace(r"\$", "")))  # \$ is of money
    text = text.replace("$", "").replace("\u00b0", r"^\circ").strip().removesuffix(".").strip()
    return re.sub(r"(?<!\\)%", r"\\%", text) or None


def words_of(formula: str) -> str | None:
    r"""What a formula says that is nothing but words: `\text{east}`, `east`; None for every other."""
    plain = _WRAPPER.sub(r"\1", formula).strip()
    return plain.casefold() if re.fullmatch(r"[^\W\d_]{2,}(?: [^\W\d_]+)*", plain) else None


def qualifiers(formula: str) -> list[str]:
    r"""What the `\text{…}` of a formula say that is neither a unit nor `and`: `million`, `am`."""
    said = [" ".join(words.lower().split()) for words in _WRAPPER.findall(formula)]
    return [words for words in said if words not in ("", "and", "or") and not re.fullmatch(_UNIT, words)]


def written(value: Fraction) -> str:
    """A value as plain text: `18`, `2.5`, `1/3`."""
    decimal = Decimal(value.numerator) / Decimal(value.denominator)
    return f"{decimal:f}" if Fraction(decimal) == value else str(value)


def after_marks(text: str) -> str | None:
    """GSM8K's answer, `#### 1,234` at the end of the solution, as a plain number where it is one."""
    _, marks, after = text.rpartition("####")
    value = amount(after.strip())
    if not marks:
        return None
    return after.strip() if value is None else written(value)


def last_number(text: str) -> str | None:
    """The last number of a text; None if there is none, or if it is part of something else: `12-7`, `1e5`, `1,2,3`."""
    text = _FRACTION.sub(lambda found: f" {found[1] or found[3]}/{found[2] or found[4]} ", text.translate(_TYPOGRAPHY))
    pieces = [piece for piece in re.split(r"\s+|(?<=\d)=", text) if piece.strip(".,;:!?")]
    after = ""
    while pieces and not re.search(r"\d", pieces[-1]):
        after = pieces.pop().strip(".,;:!?").lower()
    if not pieces or not set("+-*/^\u00d7\u00f7").isdisjoint([*pieces[-2:-1], after]):
        return None
    number = pieces[-1].lstrip("([*=").rstrip(")]*.,;:?")
    if "/" in number and pieces[-2:-1] and pieces[-2].isdigit():  # a mixed number
        number = f"{pieces[-2]} {number}"
    value = amount(f"{number} {after}" if len(after) > 2 and after.removesuffix("s") in _SCALES else number)
    return None if value is None else written(value)
