"""Rewards of the user's own: a function in a file of theirs, each reward of it checked. `"./mine.py:brevity": 0.1`

It is `(completion: str, problem: Problem) -> float | None`, or TRL's: that has an argument `completions`, gets prompts,
completion_ids, trainer_state, question, answer and problem as far as it accepts them, and returns a list.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from transformers import TrainerState

from r1_mini.completion import Graded
from r1_mini.errors import UserError, shown
from r1_mini.system import plugin

Columns = Mapping[str, Sequence[Any]]
OwnReward = Callable[[Sequence[Graded], Columns, TrainerState | None], list[float | None]]
"""(B completions, TRL's columns of them, the trainer's state) -> the reward of each."""

COLUMNS = ("prompts", "completions", "completion_ids", "question", "answer", "problem", "trainer_state")
"""What TRL's form may ask for."""
MOST = 1e38
"""Beyond this a reward is infinite in float32, which TRL computes in."""


def own_reward(name: str) -> OwnReward:
    """The function of that name. UserError if it is none, and later if it raises or returns what is no reward."""
    function = plugin.load(name, reread=False)
    if not callable(function):
        raise UserError("is no function", where=name, fix="write one: `def brevity(completion, problem)`")
    with plugin.called(name, "when its arguments were read", "write a function: `def brevity(completion, problem)`"):
        signature = inspect.signature(function)
    takes_all = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
    accepted = [each for each in COLUMNS if takes_all or each in signature.parameters]
    try:
        signature.bind(**dict.fromkeys(accepted)) if "completions" in signature.parameters else signature.bind("", None)
    except TypeError as error:
        fix = f"let it take (completion, problem), or completions and some of {', '.join(COLUMNS)}"
        raise UserError(f"cannot be called: {error}", where=name, fix=fix) from None

    def each_alone(graded: Sequence[Graded], columns: Columns, state: TrainerState | None) -> list[float | None]:
        rewards = []
        for each in graded:
            with plugin.called(name, f"for {_about(each)}", "let it reward any text"):
                value = function(each.text, each.problem)
            rewards.append(_reward(value, name, each))
        return rewards

    def all_at_once(graded: Sequence[Graded], columns: Columns, state: TrainerState | None) -> list[float | None]:
        problems = [each.problem for each in graded]
        known = {"question": [each.question for each in problems], "answer": [each.answer for each in problems]}
        copied = {key: list(column) for key, column in columns.items()}  # TRL reads its own lists again
        every: dict[str, Any] = {**copied, **known, "problem": problems, "trainer_state": state}
        with plugin.called(name, f"for {_about(graded[0])}", "let it reward any text"):
            try:
                values = function(**{key: every[key] for key in accepted})
                values = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else values
            except Exception:
                for place in range(len(graded) if len(graded) > 1 else 0):  # which one is it?
                    one = slice(place, place + 1)
                    all_at_once(graded[one], {key: column[one] for key, column in columns.items()}, state)
                raise
        if not isinstance(values, list) or len(values) != len(graded):
            what = f"{len(values)} rewards" if isinstance(values, list) else shown(values)
            what = f"returned {what} for {len(graded)} completions, of which one is {_about(graded[0])}"
            raise UserError(what, where=name, fix="return a list with a reward for each")
        return [_reward(value, name, each) for value, each in zip(values, graded, strict=True)]

    return all_at_once if "completions" in signature.parameters else each_alone


def _about(graded: Graded) -> str:
    return f"the completion {shown(graded.text)} of {shown(graded.problem.question)}"


def _reward(value: Any, name: str, graded: Graded) -> float | None:
    """What a function returned for a completion, if it is a reward: a finite number, or None, which adds nothing."""
    if value is None:
        return None
    try:
        reward = float("nan" if isinstance(value, str) else value)
    except (TypeError, ValueError, OverflowError):
        reward = float("nan")
    if not abs(reward) < MOST:
        what = f"returned {shown(value)} for {_about(graded)}"
        raise UserError(what, where=name, fix="return a finite number, or None where it does not apply")
    return reward
