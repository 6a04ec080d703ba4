"""A task of the user's own as a family of problems, tried before anything is trained. Its base class is `Task`."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, NamedTuple

from r1_mini.completion import grade, write
from r1_mini.config.base import Strict
from r1_mini.errors import UserError, nearest, shown
from r1_mini.judges.judges import JUDGES
from r1_mini.problems.arithmetic import canonical_key, operations, parse, passed_through
from r1_mini.problems.families import FAMILIES
from r1_mini.problems.families.task import Task
from r1_mini.problems.languages import in_signs
from r1_mini.problems.problem import Problem
from r1_mini.system import plugin

DRAWS = 200
"""Problems that a task is tried on."""


class Asked(NamedTuple):
    """A question that is not yet solved."""

    question: str
    depth: int


class Own:
    """The task that a plug-in names, with what a `Family` offers. What its file raises is a UserError."""

    def __init__(self, reference: str) -> None:
        kind = plugin.load(reference)
        is_task = isinstance(kind, type) and issubclass(kind, Task)
        if not is_task or not isinstance(kind.axes, type) or not issubclass(kind.axes, Strict):
            what, fix = "is no task", "write `class Clock(Task)`, its `axes` a class that inherits from Strict"
            raise UserError(what, where=reference, fix=fix)
        self.reference, self.name, self.axes = reference, kind.__name__.lower(), kind.axes
        if self.name in FAMILIES:
            raise UserError(f"'{self.name}' is a family of ours", where=reference, fix="give the class another name")
        grade.cache_clear()  # what an earlier text of the file has judged
        with plugin.called(reference, "when it was made", "correct it"):
            self.task: Task = kind()
        if isinstance(kind.judge, str) and kind.judge not in (known := JUDGES.keys() - {"reasoning_gym"}):
            raise UserError(f"no judge is called '{kind.judge}'", where=reference, fix=nearest(kind.judge, known))

    def _asked(self, question: str) -> AbstractContextManager[None]:
        return plugin.called(self.reference, f"asked {shown(question)}", "correct it")

    def depths(self, axes: Strict) -> range:
        with plugin.called(self.reference, f"with {axes!r}", "correct `depths`"):
            depths = self.task.depths(axes)
        if not depths:
            raise UserError(f"`depths` is empty with {axes!r}", where=self.reference, fix="allow at least one")
        return depths

    def sketch(self, rng: random.Random, axes: Strict, depth: int) -> Asked:
        with plugin.called(self.reference, f"with {axes!r} at depth {depth}", "correct `sample`"):
            return Asked(self._text("sample", self.task.sample(rng, axes, depth)), depth)

    def key(self, sketch: Asked) -> str:
        with self._asked(sketch.question):
            return self._text("key", self.task.key(sketch.question))

    def inside(self, sketch: Asked) -> Iterator[str]:
        """As of every family, where a formula tells it."""
        own = self.key(sketch)
        with self._asked(sketch.question):
            tree = parse(formula) if (formula := self.task.formula(sketch.question)) else 0
        solved = chain(passed_through(tree), [tree] if operations(tree) >= 2 else [])
        return (key for key in map(canonical_key, solved) if key != own)

    def problem(self, sketch: Asked, axes: Strict | None = None) -> Problem:
        """Solve the question. Without a formula its steps are a solution that is learned as it stands."""
        question, depth = sketch
        with self._asked(question):
            solution: object = self.task.solve(question)
            formula = self.task.formula(question)
            if not isinstance(solution, tuple) or len(solution) != 2:
                what = f"`solve` gave {shown(solution)}, asked {shown(question)}"
                raise UserError(what, where=self.reference, fix="return the steps and the answer")
            lines, answer = solution[0], str(solution[1])
            steps = tuple(map(str, lines.split("\n") if isinstance(lines, str) else lines))
        return Problem(
            family=self.name,
            question=question,
            answer=answer,
            steps=tuple(map(in_signs, steps)) if formula else steps,
            difficulty={"depth": depth},
            key=self.key(sketch),
            inside=frozenset(self.inside(sketch)),
            judge=self.task.judge if isinstance(self.task.judge, str) else self.reference,
            solution=None if formula else write(steps, answer),
            formula=formula,
        )

    def draws(self, axes: Strict) -> Iterator[Problem]:
        """The `DRAWS` problems that it is tried on, evenly from all depths."""
        rng, depths = random.Random("own"), self.depths(axes)
        return (self.problem(self.sketch(rng, axes, depths[place % len(depths)])) for place in range(DRAWS))

    def proved(self, axes: Strict) -> str:
        """Hash, hex, of its source.

        UserError if it holds its own solutions wrong, or nonsense right, or if one seed gives two problems.
        """
        for problem, again in zip(self.draws(axes), self.draws(axes), strict=True):
            with self._asked(problem.question):
                if callable(self.task.judge):
                    self.task.judge(problem.answer, problem.answer)
            worked = grade(problem, problem.solution or write(problem.steps, problem.answer), "stop")
            direct = grade(problem, write((), problem.answer), "stop")
            what, fix = "", "correct `solve` or `judge`"
            if not (worked.correct and direct.correct):
                what = f"its judge holds its own solution wrong, {shown((direct if worked.correct else worked).text)}"
            elif grade(problem, write((), "no answer"), "stop").correct:
                what = 'its judge holds nonsense right, "no answer"'
            elif problem.formula and worked.chain != "right":
                reason = next((step.reason for step in worked.steps or () if step.reason), "no number is reached")
                what, fix = f"its steps do not solve its formula {shown(problem.formula)}: {reason}", "correct either"
            elif problem != again:
                name = next(
                    name
                    for name in ("question", "key", "answer", "steps", "formula")
                    if getattr(problem, name) != getattr(again, name)
                )
                what = f"its {name} is another the second time, {shown(getattr(again, name))}"
                fix = "let all that is random come from `rng`"
            if what:
                raise UserError(f"{what}, asked {shown(problem.question)}", where=self.reference, fix=fix)
        return plugin.sha256(self.reference)

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise UserError(
                f"`{name}` gave {shown(value)}", where=self.reference, fix="return a text that is not empty"
            )
        return value
