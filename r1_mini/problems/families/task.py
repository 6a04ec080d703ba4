"""The base class of a task of your own: `problems: [{family: "./clock.py:Clock", …}]`. docs/YOURS.md has a whole one.

Not here: how a task becomes a source of problems and what is checked before it trains (`data/own.py`).
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from r1_mini.config.base import Strict
from r1_mini.problems.wording import canonical_text


class Task(ABC):
    """How questions are asked and solved. In an exam the task has the name of its class, in lower case.

    What follows from a question must follow from its text alone: the same question has the same solution and key.
    """

    axes: type[Strict] = Strict
    """The settings of its difficulty, with defaults; a recipe gives them beside `family`."""
    judge: str | Callable[[str, str], bool] = "text"
    """Whether an answer is right: a key of `JUDGES`, or a method `judge(self, answer, right)`. An answer on which that
    raises is wrong."""

    def depths(self, axes: Any) -> range:
        """Every depth (number of steps) that the axes allow, ascending; 0 where it is not known.

        As of every family, the exams ask depth 0, or 2 and more.
        """
        return range(1)

    @abstractmethod
    def sample(self, rng: random.Random, axes: Any, depth: int) -> str:
        """Sample a question of this depth; all that is random comes from `rng`."""

    @abstractmethod
    def solve(self, question: str) -> tuple[Sequence[str], str]:
        """The lines of a worked solution and the right answer; ValueError if the question is of another task."""

    def key(self, question: str) -> str:
        """The canonical form, the same for whatever else asks this problem: it decides the split."""
        return canonical_text(question)

    def formula(self, question: str) -> str | None:
        """The arithmetic that the question means, if the steps reduce it: then each step is checked exactly."""
        return None
