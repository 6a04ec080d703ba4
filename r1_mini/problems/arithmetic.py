"""Arithmetic as text: parsing, exact values, reductions one at a time, and the canonical key.

An expression is a `Tree`: an integer, or `(operator, left, right)` with one of `+ - * /`. Precedence is the standard
one, equal operators group to the left, parentheses leave no trace in the tree. A fraction has no node of its own: it is
a division that cannot be done any further, `("/", 7, 2)`. So `7/2+1` reduces in one step, to `9/2`.
Not here: judging the steps of a completion (`steps.py`).
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache, reduce
from math import gcd, isqrt
from operator import add, mul, sub, truediv
from typing import Any, TypeAlias

Tree: TypeAlias = "int | tuple[str, Tree, Tree]"

LONGEST_TEXT = 400  # characters
LONGEST_NUMBER = 64  # digits
DEEPEST_NESTING = 64  # parentheses inside parentheses

RANK = {"+": 1, "-": 1, "*": 2, "/": 2}
CALCULATE: dict[str, Callable[..., Any]] = {"+": add, "-": sub, "*": mul, "/": truediv}
_END = "the end"  # the token after the last
_DIGITS = f"[0-9]{{1,{LONGEST_NUMBER}}}"
_TOKEN = re.compile(rf"{_DIGITS}|[^ \t]")
_INTEGER = re.compile(rf"-?{_DIGITS}")
_NUMBER = re.compile(rf"[+-]?{_DIGITS}(?:/({_DIGITS})|\.{_DIGITS})?")


def parse(text: str) -> Tree:
    """Read an expression; ValueError says what is wrong with it. A sign may stand only at the start or after `(`."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"longer than {LONGEST_TEXT} characters")
    return _whole(deque([*_TOKEN.findall(text), _END]), _END, nesting=0)


def _whole(tokens: deque[str], closing: str, nesting: int) -> Tree:
    """Read what stands alone or between parentheses; its first number may have a minus sign."""
    if tokens[0] == "-":
        tokens.popleft()
        tokens[0] = f"-{tokens[0]}"
    tree = _chain(tokens, 1, nesting)
    found = tokens.popleft()
    if found != closing:
        raise ValueError(f"an operator or {closing!r} is missing before {found!r}")
    return tree


def _chain(tokens: deque[str], rank: int, nesting: int) -> Tree:
    """Read operands joined by operators that bind at least as tightly as `rank`, grouped to the left."""
    tree = _operand(tokens, nesting)
    while RANK.get(tokens[0], 0) >= rank:
        operator = tokens.popleft()
        tree = (operator, tree, _chain(tokens, RANK[operator] + 1, nesting))
    return tree


def _operand(tokens: deque[str], nesting: int) -> Tree:
    token = tokens.popleft()
    if token == "(" and nesting < DEEPEST_NESTING:
        return _whole(tokens, ")", nesting + 1)
    if _INTEGER.fullmatch(token) is None:
        raise ValueError(f"a number is missing before {token!r}")
    return int(token)


@lru_cache(maxsize=1024)
def parse_number(text: str) -> Fraction | None:
    """The value of `16`, `-3`, `+7/2`, `007` or `0.5`; None for everything else, however long, and for `4/0`."""
    match = _NUMBER.fullmatch(text.strip(" \t\r\n"))
    if match is None or (match[1] is not None and int(match[1]) == 0):
        return None
    return Fraction(match[0])


def is_plain(tree: Tree) -> bool:
    """Whether nothing is left to do: an integer, or a fraction in lowest terms."""
    if isinstance(tree, int):
        return True
    operator, left, right = tree
    return operator == "/" and isinstance(left, int) and isinstance(right, int) and right > 1 and gcd(left, right) == 1


def from_fraction(value: Fraction) -> Tree:
    """The plain tree of a value."""
    return value.numerator if value.denominator == 1 else ("/", value.numerator, value.denominator)


def evaluate(tree: Tree) -> Fraction:
    """The exact value; ValueError on division by zero."""
    if isinstance(tree, int):
        return Fraction(tree)
    operator, left, right = tree
    a, b = evaluate(left), evaluate(right)
    if operator == "/" and not b:
        raise ValueError("division by zero")
    value: Fraction = CALCULATE[operator](a, b)
    return value


def combine(operator: str, left: Tree, right: Tree) -> Tree:
    """The plain result of one operation on two plain numbers; ValueError on division by zero."""
    if isinstance(left, int) and isinstance(right, int):  # the common case, without fractions
        if operator != "/":
            return int(CALCULATE[operator](left, right))
        if right and left % right == 0:
            return left // right
    return from_fraction(evaluate((operator, left, right)))


def reduce_once(tree: Tree) -> tuple[Tree, Tree, Tree]:
    """Does the leftmost operation on two plain numbers: (the operation, its result, what stands afterwards)."""
    assert not isinstance(tree, int), "a number has no operation left"
    operator, left, right = tree
    if not is_plain(left):
        operation, result, left = reduce_once(left)
    elif not is_plain(right):
        operation, result, right = reduce_once(right)
    else:
        result = combine(operator, left, right)
        return tree, result, result
    return operation, result, (operator, left, right)


def operations(tree: Tree) -> int:
    """How many operators the expression has."""
    return 0 if isinstance(tree, int) else 1 + operations(tree[1]) + operations(tree[2])


def passed_through(tree: Tree) -> Iterator[Tree]:
    """Each expression of two or more operations solved on the way: proper sub-expressions, then what stands in turn."""
    yield from (part for part in _parts(tree) if operations(part) >= 2)
    while operations(tree) > 2:
        _, _, tree = reduce_once(tree)
        yield tree


def _parts(tree: Tree) -> Iterator[Tree]:
    """The proper sub-expressions, inner ones first."""
    if not isinstance(tree, int):
        for side in tree[1:]:
            yield from _parts(side)
            yield side


def numbers(tree: Tree) -> Iterator[int]:
    """The numbers of the expression, from the left."""
    if isinstance(tree, int):
        yield tree
    else:
        yield from numbers(tree[1])
        yield from numbers(tree[2])


@lru_cache(maxsize=4096)
def divisors(value: int) -> tuple[int, ...]:
    """What divides a positive number, ascending, 1 and the number itself included."""
    small = [a for a in range(1, isqrt(value) + 1) if value % a == 0]
    return tuple(sorted({*small, *(value // a for a in small)}))


def partial_products(tree: Tree) -> "Tree | None":
    """A product of two numbers over the nonzero digits of the second, 37*24 as 37*20+37*4; None of any other tree."""
    match tree:
        case ("*", int(left), int(right)):
            digits = str(abs(right))
            parts = [int(digit) * 10 ** (len(digits) - place) for place, digit in enumerate(digits, start=1)]
            signed = [part if right > 0 else -part for part in parts if part] or [0]
            products: list[Tree] = [("*", left, part) for part in signed]
            return reduce(lambda done, product: ("+", done, product), products)
    return None


def render(tree: Tree, leading: bool = True) -> str:
    """The shortest text that parses back to this tree. `leading`: at the start or after `(`, where -3 needs no `()`."""
    after = ""
    while not isinstance(tree, int):
        operator, left, right = tree
        rank = RANK[operator]
        if isinstance(right, int):
            after = f"{operator}{right}{after}" if right >= 0 else f"{operator}({right}){after}"
        elif RANK[right[0]] > rank:
            after = f"{operator}{render(right, leading=False)}{after}"
        else:
            after = f"{operator}({render(right)}){after}"
        if not isinstance(left, int) and RANK[left[0]] < rank:
            return f"({render(left)}){after}"
        tree = left
    return f"{tree}{after}" if tree >= 0 or leading else f"({tree}){after}"


def canonical_key(tree: Tree) -> str:
    """One text for all orders and groupings that commute: `3-(7-12)` and `12 + 3 - 7` share `12+3-7`."""
    if isinstance(tree, int):
        return str(tree)
    kept: list[str] = []
    inverted: list[str] = []  # subtracted terms, or divisors
    pair = "+-" if tree[0] in "+-" else "*/"
    _collect(tree, pair, kept, inverted)
    return pair[1].join([pair[0].join(sorted(kept)), *sorted(inverted)])


def _collect(tree: Tree, pair: str, kept: list[str], inverted: list[str]) -> None:
    """Spreads a chain of the two operators in `pair` into the keys of its operands, by sign."""
    while not isinstance(tree, int) and tree[0] in pair:
        operator, tree, right = tree
        same, opposite = (kept, inverted) if operator == pair[0] else (inverted, kept)
        if isinstance(right, int) and right >= 0:  # the common case, without a call
            same.append(str(right))
        else:
            _collect(right, pair, same, opposite)
    if not isinstance(tree, int):
        key = canonical_key(tree)
        kept.append(key if pair == "+-" else f"({key})")
    elif tree >= 0:
        kept.append(str(tree))
    elif pair == "+-":
        inverted.append(str(-tree))  # -4+2 is 2-4
    else:
        kept.append(f"({tree})")
