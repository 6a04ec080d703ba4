"""Whether an answer is right: a judge for each form that right answers have.

What a model wrote is hostile: a judge never executes it, never raises, and is bounded in time; what it cannot read is
wrong. A new form is a line in `JUDGES` and one in `VALUES`. Verifiers of other packages run apart (`sandbox.py`).
"""

import re
from collections.abc import Callable, Hashable
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache

from r1_mini.judges.answers import amount, choice, formula, plain_text, qualifiers, words_of
from r1_mini.judges.sandbox import verified
from r1_mini.problems.arithmetic import evaluate, numbers, parse, parse_number
from r1_mini.system import plugin

Judge = Callable[[str, str], bool]
"""(the model's answer, the right answer in the judge's own form) -> whether it is right."""


def comparing(value: Callable[[str], Hashable | None], goal: Callable[[str], Hashable | None] | None = None) -> Judge:
    """The judge to whom an answer is right if it has exactly the value of the right one, read by `goal` if given."""

    def judge(answer: str, gold: str) -> bool:
        said = value(answer)
        return said is not None and said == (goal or value)(gold)

    return judge


Reached = tuple[tuple[int, ...], Fraction]
"""The numbers that an expression uses, without their signs and ascending, and its exact value."""


_OPERATORS = str.maketrans({"\u00d7": "*", "\u00f7": "/", "\u2212": "-", "\u2013": "-"})


@lru_cache(maxsize=1024)
def parse_countdown(text: str) -> Reached | None:
    """Read an expression of + - * / and parentheses, with its value after `=` or without; else None."""
    expression, equals, said = text.translate(_OPERATORS).strip(" \t\r\n").removeprefix("+").partition("=")
    try:
        tree = parse(expression)
        reached = tuple(sorted(map(abs, numbers(tree)))), evaluate(tree)
    except ValueError:
        return None
    return reached if not equals or parse_number(said) == reached[1] else None


def parse_goal(gold: str) -> Reached | None:
    """What a countdown asks for: an expression, or numbers and target, `44 19 35=98`, where no solution is known."""
    given, equals, target = gold.partition("=")
    if not equals:
        return parse_countdown(gold)
    value = parse_number(target)
    try:
        used = tuple(sorted(abs(int(number)) for number in given.split()))
    except ValueError:
        return None
    return (used, value) if used and value is not None else None


same_countdown = comparing(parse_countdown, parse_goal)
"""Right is an expression of exactly the goal's numbers, each as often, and of exactly its value."""


_CONTAINER = re.compile(
    r"(?:[a-z]\s*(?:\\in|=)\s*)?(?:\\left\s*)?(\\\{|[(\[]).*,.*?(?:\\right\s*)?(\\\}|[)\]])", re.DOTALL
)
_OVERLOOKED = re.compile(r"\\[lcv]?dots|\.\.\.|\u2026|('+)|(?<=\d)_\{?(\d+)|\^\{?(\\prime|\\top|T\b)")
_HEAVY = re.compile(
    r"\\(?:sum|prod|int|lim|iint|oint|big)|\\[dt]?binom[^\\]*(?:\^|\d{5})|!\s*!|[)}\]]\s*!|\d{5}\s*!|\d{60}"
    r"|\^\s*\{?\s*\d{5}|[)}\]]\s*\^\s*\{?\s*\d{3}|\^\s*\w+\s*\^|\^\s*\{(?!-?\d?[a-z]\^\{?[1-4]\}?\})[^}]*\^"
)


def _container(text: str) -> str:
    """The brackets of a pair, an interval or a set; empty for anything else."""
    found = _CONTAINER.fullmatch(text)
    return "" if found is None else found[1] + found[2]


def same_formula(answer: str, gold: str) -> bool:
    r"""Equal by math-verify, exactly: fractions, intervals, sets; units and degrees are left out.

    What it would overlook has to be alike too: brackets, `\ldots`, primes, bases, words such as million. What could
    keep it busy for seconds, such as a tower of powers, is wrong.
    """
    ours, theirs = formula(answer), formula(gold)
    if ours is None or theirs is None or len(ours) > 300 or _HEAVY.search(ours):
        return False
    words = words_of(theirs)
    if words is not None and (words != theirs.casefold() or len(words) > 3):  # not xy, a product
        return words_of(ours) == words  # math-verify takes a bare word for a product of its letters
    brackets = {_container(ours), _container(theirs)}
    if len(brackets) > 1 and brackets != {"", r"\{\}"}:
        return False
    if qualifiers(ours) != qualifiers(theirs) or set(_OVERLOOKED.findall(ours)) != set(_OVERLOOKED.findall(theirs)):
        return False
    return verified("latex", ours, theirs)


VALUES: dict[str, Callable[[str], Hashable | None]] = {
    "number": parse_number,
    "countdown": parse_countdown,  # all solutions of a countdown are one answer, right or wrong as a whole
    "amount": amount,
    "choice": choice,
    "text": plain_text,
    "latex": formula,  # as written: 1/2 and 0.5 are two answers in a vote
    "reasoning_gym": plain_text,
}
"""What an answer counts as in a vote, where equal values are one answer; None is no answer."""

JUDGES: dict[str, Judge] = {
    "number": comparing(parse_number),  # 3.5, 7/2
    "countdown": same_countdown,
    "amount": comparing(amount),  # the one number of a text, as in GSM8K: $1,234.50, 18 dollars
    "choice": comparing(choice),  # the option of a multiple choice, A to E: (B), B., Answer: B
    "text": comparing(plain_text),
    "latex": same_formula,
    "reasoning_gym": lambda answer, task: verified("reasoning_gym", answer.strip(), task),  # full marks of its verifier
}


def judge_of(name: str) -> Judge:
    """The judge of that name; of a plug-in that is a task, its `judge`, to whom an answer is wrong if it raises."""
    if not plugin.is_own(name):
        return JUDGES[name]
    own = plugin.load(name, reread=False)().judge

    def judge(answer: str, gold: str) -> bool:
        with suppress(Exception):
            return bool(own(answer, gold))
        return False

    return judge


def value_of(judge: str, answer: str) -> Hashable | None:
    """What an answer counts as in a vote, where equal values are one answer; None is no answer."""
    return VALUES.get(judge, plain_text)(answer)


def can_read(judge: str, gold: str) -> bool:
    """Whether a judge understands a right answer: it holds it right itself, or it is the goal of a countdown."""
    return parse_goal(gold) is not None if judge == "countdown" else JUDGES[judge](gold, gold)
