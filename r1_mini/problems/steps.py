"""Is each step of a chain right? Every line a model wrote is judged against the expression that stands at that point.

A line with `=` lists one operation (`12+7=19`), a line without restates the whole expression after one more (`19-3`),
and `wait` takes back the step before it. Words are read as signs (`languages.py`). The lines are hostile text: judging
never raises, and lines, characters and digits are bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeGuard

from r1_mini.problems.arithmetic import (
    LONGEST_TEXT,
    Tree,
    combine,
    from_fraction,
    is_plain,
    parse,
    parse_number,
    partial_products,
    render,
)
from r1_mini.problems.languages import in_signs

MOST_LINES = 256


@dataclass(frozen=True, slots=True)
class CheckedStep:
    """One line of a chain, judged. A retracted step keeps its reason: "" says that a right step was taken back."""

    text: str
    verdict: Literal["right", "wrong", "retracted"]
    reason: str  # one short clause, "" if right
    stands: "Tree | None"  # what is left to do after this line, if it is believed; None if the question cannot be read

    @property
    def arrived(self) -> bool:
        """Whether a single number stands after this line."""
        return self.stands is not None and is_plain(self.stands)


def check_chain(question: str, thinking: str) -> list[CheckedStep]:
    """One `CheckedStep` for each line that is not blank, `wait` included; all after the 256th are one wrong step.

    After a wrong step, what the model wrote stands, so that the lines after it are judged on their own merit. A line
    that cannot be brought into the expression changes nothing.
    """
    try:
        standing = parse(question)
    except ValueError as error:
        unread = f"the question cannot be read: {error}"
        return [CheckedStep(text, "wrong", unread, stands=None) for text in _lines(thinking)]
    before: Tree | None = None  # what stood before the step that `wait` would take back
    steps: list[CheckedStep] = []
    for text in _lines(thinking):
        reason = ""
        if len(steps) == MOST_LINES:
            reason = f"more than {MOST_LINES} lines"
        elif text != "wait":
            reason, follows = _judge(standing, text)
            before, standing = standing, standing if follows is None else follows
        elif before is None:
            reason = "no step to take back"
        else:
            standing, before = before, None
            steps[-1] = replace(steps[-1], verdict="retracted")
        steps.append(CheckedStep(text, "wrong" if reason else "right", reason, standing))
    return steps


def chain_is_right(steps: Sequence[CheckedStep]) -> bool:
    """Whether no wrong step was left standing and the last line arrives at a number, which is then the true answer."""
    return bool(steps) and steps[-1].arrived and all(step.verdict != "wrong" for step in steps)


def _lines(thinking: str) -> list[str]:
    """The lines that are not blank, cut to `LONGEST_TEXT` + 1 characters each and `MOST_LINES` + 1 in number."""
    pieces = (piece.strip() for piece in thinking.split("\n"))
    return [piece[: LONGEST_TEXT + 1] for piece in pieces if piece][: MOST_LINES + 1]


def _judge(standing: Tree, text: str) -> "tuple[str, Tree | None]":
    """Judge a line: the reason, "" if right, and what stands if the line is believed, None if it does not fit."""
    if len(text) > LONGEST_TEXT:
        return f"longer than {LONGEST_TEXT} characters", None
    text = in_signs(text)
    judge = _judge_listed if "=" in text else _judge_restated
    judged: list[tuple[str, Tree | None]] = []
    for tree in (standing, partial_products(standing)):  # a product may also be done by partial products
        if tree is not None:
            try:
                judged.append(judge(tree, text))
            except ValueError as error:
                judged.append((str(error), None))
    return min(judged, key=lambda one: (one[0] != "", one[1] is None))


def _judge_listed(standing: Tree, text: str) -> tuple[str, Tree]:
    """Judge `12+7=19`: does 12+7 stand, ready to be done, and is it 19? ValueError if it does not stand there."""
    left, _, right = text.partition("=")
    value = parse_number(right)
    if value is None:
        raise ValueError("what follows = is no number")
    operation, result = parse(left), from_fraction(value)
    if not _is_ready(operation):
        raise ValueError("not one operation on two numbers")
    follows = _substitute(standing, operation, result)
    if follows is None and operation[0] in "+*":
        follows = _substitute(standing, (operation[0], operation[2], operation[1]), result)
    if follows is None:
        raise ValueError(f"{render(operation)} is not what stands to be done")
    return _fault(operation, result), follows


def _judge_restated(standing: Tree, text: str) -> tuple[str, Tree]:
    """Judge `19-3`: is it what stood, with one operation done? ValueError if it is no expression."""
    restated = parse(text)
    if restated == standing:
        return "nothing was done", restated
    old, new = _difference(standing, restated)
    if not _is_ready(old):
        return "more than one operation done, or something copied wrong", restated
    return _fault(old, new), restated


def _is_ready(tree: Tree) -> TypeGuard[tuple[str, Tree, Tree]]:
    """Whether this is one operation on two plain numbers."""
    return not isinstance(tree, int) and not is_plain(tree) and is_plain(tree[1]) and is_plain(tree[2])


def _fault(operation: tuple[str, Tree, Tree], result: Tree) -> str:
    """Why this is not the operation's result, "" if it is."""
    try:
        truth = combine(*operation)
    except ValueError as error:
        return str(error)
    return "" if truth == result else f"{render(operation)} is {render(truth)}"


def _substitute(tree: Tree, operation: Tree, result: Tree) -> "Tree | None":
    """The tree with the leftmost occurrence of an operation replaced by its result; None if it does not occur."""
    if tree == operation:
        return result
    if isinstance(tree, int):
        return None
    operator, left, right = tree
    replaced = _substitute(left, operation, result)
    if replaced is not None:
        return (operator, replaced, right)
    replaced = _substitute(right, operation, result)
    return None if replaced is None else (operator, left, replaced)


def _difference(old: Tree, new: Tree) -> tuple[Tree, Tree]:
    """The smallest parts of two trees that hold all their differences."""
    while not isinstance(old, int) and not isinstance(new, int) and old[0] == new[0]:
        if old[1] == new[1]:
            old, new = old[2], new[2]
        elif old[2] == new[2]:
            old, new = old[1], new[1]
        else:
            break
    return old, new
