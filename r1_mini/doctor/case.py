"""What a doctor looks at, and what a check finds.

A `Course` is a stage of RL as far as it went: its metrics, and the rollouts that it kept. That of a recipe which has
not begun is a pilot: a few prompts, asked once.
"""

import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

from r1_mini.data.source import FamilySource, Source
from r1_mini.pipeline.recipe import MODEL, Recipe
from r1_mini.train.grpo import GrpoStage

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What is not well, in a form for people and programs."""

    name: str
    """Of the check."""
    what: str
    """The numbers, and the step."""
    why: str
    """Why it matters."""
    causes: tuple[str, ...]
    """What is likely behind it, the likeliest first."""
    fix: tuple[str, ...] = ()
    """Settings to change, as `key=value`."""
    grave: bool = True
    """Whether the run will come to nothing, or says what is not so, unless something is changed."""
    stage: str = ""
    samples: str = ""
    """Where to look: a file, and a step in it."""

    @property
    def command(self) -> str:
        """The settings to change as a shell takes them."""
        return shlex.join(self.fix)

    def lines(self) -> list[str]:
        """The finding as it is printed: what, why, causes, what to change, where to look."""
        head = f"{'grave' if self.grave else 'note'}: {self.stage + ': ' if self.stage else ''}{self.name}: {self.what}"
        found = [head, f"  why it matters: {self.why}", f"  likely: {'; '.join(self.causes)}"]
        found += [f"  change: {self.command}"] if self.fix else []
        return found + ([f"  see {self.samples}"] if self.samples else [])


@dataclass(frozen=True)
class Course:
    """One stage of RL: `steps` are the lines of its metrics.jsonl, `rollouts` those of rollouts.jsonl."""

    recipe: Recipe
    name: str
    steps: Sequence[Row] = ()
    rollouts: Sequence[Row] = ()
    needed: int = 0
    """Tokens of the longest worked solution of its problems, with the stop token; 0 where that is not known."""
    folder: str = ""

    @property
    def stage(self) -> GrpoStage:
        stage = self.recipe.nodes[self.name]
        assert isinstance(stage, GrpoStage)
        return stage

    @property
    def window(self) -> int:
        """Steps that count as the start, and as the end: a tenth of what was done, at least three."""
        return max(3, len(self.steps) // 10)

    def start(self, name: str) -> float:
        """The mean of a metric over the first steps; NaN where it was not logged."""
        return mean(row.get(name) for row in self.steps[: self.window])

    def end(self, name: str) -> float:
        """The mean of a metric over the last steps; NaN where it was not logged."""
        return mean(row.get(name) for row in self.steps[-self.window :])

    def best(self, name: str) -> tuple[float, int]:
        """The highest mean of a metric over as many steps in a row, NaN where it was not logged, and the first one."""
        values, size = [row.get(name) for row in self.steps], self.window
        means = [(mean(values[first : first + size]), first) for first in range(max(1, len(values) - size + 1))]
        return max((each for each in means if not math.isnan(each[0])), default=(math.nan, 0))

    def error(self, name: str) -> float:
        """The standard error of such a mean, from the median change from one step to the next: a trend adds little."""
        values = [float(row[name]) for row in self.steps if row.get(name) is not None]
        changes = [abs(after - before) for before, after in pairwise(values)]
        return median(changes) / 0.954 / math.sqrt(self.window) if changes else math.nan

    def kinds(self) -> dict[str, tuple[float, float]]:
        """Family and depth, `sum 3` -> accuracy at the start and at the end, where both are known."""
        names = {key for row in self.steps for key in row if key.startswith("accuracy_")}
        shares = {name[9:].replace("_", " "): (self.start(name), self.end(name)) for name in sorted(names)}
        return {name: each for name, each in shares.items() if not any(map(math.isnan, each))}

    def went(self, *names: str) -> str:
        """Metrics at the start and at the end: `accuracy 64% to 12%, entropy 0.14 to 0.02 nats`."""
        form = {"entropy": "{:.2g} nats", "length": "{:.0f} tokens", "reward": "{:.2g}"}
        shares = ((name, form.get(name, "{:.0%}"), self.start(name), self.end(name)) for name in names)
        return ", ".join(f"{name} {how.split()[0].format(a)} to {how.format(b)}" for name, how, a, b in shares)

    @property
    def is_long(self) -> bool:
        """Whether its start and its end have no step in common."""
        return len(self.steps) >= 2 * self.window

    @property
    def usual_rate(self) -> float:
        """The learning rate that the stage would have if the recipe gave none."""
        kind = self.stage.DEFAULTS["learning_rate"]
        foreign = self.recipe.root_of(self.name) == MODEL
        rate = self.stage.RATES["adapter" if self.stage.peft else "model"] if foreign else kind
        return float(rate)

    @property
    def asked(self) -> int:
        """Completions of a step."""
        work = self.stage.work()
        return len(self.rollouts) if len(self.steps) < 2 and self.rollouts else work.micro_batch * work.accumulation

    @cached_property
    def key(self) -> str:
        """How an override calls this stage."""
        return key_of(self.recipe, self.name)

    @property
    def above(self) -> str:
        """The stage that it starts from, or MODEL."""
        return self.recipe.start_of(self.name) or MODEL

    def look(self, step: int | None = None) -> str:
        """Where to see it: the kept rollouts, at the kept step nearest to one."""
        if not self.rollouts or not self.folder:
            return ""
        steps = sorted({row["step"] for row in self.rollouts})
        near = steps[-1] if step is None else min(steps, key=lambda each: abs(each - step))
        return f"{self.folder}/rollouts.jsonl, step {near}"


@dataclass(frozen=True)
class Case:
    """A run, or a recipe: its stages of RL, and what its exam found (summary.json), if there is any."""

    recipe: Recipe
    courses: Sequence[Course] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)
    remarks: Sequence[Finding] = ()
    """What a plan warns of."""


def key_of(recipe: Recipe, name: str) -> str:
    """How an override calls a stage: by its name, or by its kind where there is one of that kind, or by its place."""
    stage = recipe.nodes[name]
    kinds = [each.kind for each in recipe.stages]
    return stage.name or (stage.kind if kinds.count(stage.kind) == 1 else f"stages.{list(recipe.nodes).index(name)}")


def mean(values: Iterable[float | None]) -> float:
    """The mean of what is a number; NaN if nothing is."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def pilot_step(rows: Sequence[Row]) -> Row:
    """What a step of training would log of these rollouts."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["problem"], []).append(row)
    alike = [len({row["reward"] for row in group}) == 1 for group in groups.values()]
    tokens = sum(row["tokens"] for row in rows)
    return {
        "step": 0,
        "reward": mean(row["reward"] for row in rows),
        "accuracy": mean(row["correct"] for row in rows),
        "format": mean(row["well_formed"] for row in rows),
        "length": tokens / len(rows),
        "truncated": mean(row["finish"] == "length" for row in rows),
        "entropy": -sum(row["logp"] for row in rows) / tokens if tokens else math.nan,
        "zero_variance": mean(alike),
        "solved": mean(all(row["correct"] for row in group) for group in groups.values()),
        "failed": mean(not any(row["correct"] for row in group) for group in groups.values()),
        **{f"voice_{voice}": mean(row["voice"] == voice for row in rows) for voice in ("direct", "worked", "checked")},
    }


LONG = {"sum": "terms", "expression": "depth", "word": "depth", "countdown": "numbers"}
"""Family -> the axis that says how many operations a problem has."""


def scaled(sources: Sequence[Source], by: float) -> str:
    """The same problems with more or fewer operations, as a recipe writes them; empty where nothing says how many."""
    entries = []
    for source in sources:
        axis = LONG.get(source.family) if isinstance(source, FamilySource) else None
        entry = source.model_dump(mode="json", exclude_defaults=True)
        values = getattr(getattr(source, "axes", None), axis or "", None)
        if axis is None or not values:
            return ""
        low, high = (min(40, max(1 if axis == "depth" else 2, round(value * by))) for value in values)
        entry[axis] = [low, high]
        entries.append(entry)
    return flow(entries)


def flow(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) and re.fullmatch(r"[a-z][\w./-]*", value) else json.dumps(value)
