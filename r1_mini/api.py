"""The commands as functions, for notebooks: each makes the call of the command line and returns a record of its folder.

They print nothing; what a run has to say is in its log.txt. What is finished, also by the command line, is opened by
its folder, `Run(Path("runs/tiny-r1-zero"))`. UserError for what a user got wrong.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from eval import commands
from eval.analysis.compare import Comparison
from eval.exam.lineup import Lineup
from eval.inspect.run import Options
from eval.inspect.words import sentences
from eval.report import story, words
from r1_mini.completion import FORCED
from r1_mini.config.base import explain
from r1_mini.data.mix import problems_of, sources_of, tasks
from r1_mini.doctor.case import Finding
from r1_mini.errors import UserError, nearest
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint
from r1_mini.pipeline.recipe import Evaluate, Recipe
from r1_mini.pipeline.start import named
from r1_mini.pipeline.store import read_manifest, stage_metrics
from r1_mini.rollout.ask import asked
from r1_mini.rollout.generate import generate
from r1_mini.rollout.params import SamplingParams
from r1_mini.system.files import read_jsonl, reading, require_ours
from r1_mini.system.logs import silent
from r1_mini.system.terminal import Terminal

__all__ = [
    "Exam",
    "Finding",
    "Inspection",
    "Run",
    "UserError",
    "compare",
    "diagnose",
    "evaluate",
    "inspect",
    "load_recipe",
    "run",
    "sample",
]
Place = str | Path
LONGEST = 160
"""Longest completion of `sample`, tokens."""


@dataclass(frozen=True)
class Exam:
    """What `evaluate` or `compare` wrote: `summary` has every number, as shares; `report` is the page."""

    path: Path

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def summary(self) -> Comparison:
        return Comparison.read(self.path / "summary.json")

    @property
    def table(self) -> pd.DataFrame:
        """The table that the command prints, in percent [95% interval]: figures by candidates."""
        rows = dict(row for section in words.table(self.summary) for row in section)
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(self.summary.names.values()))

    @property
    def verdict(self) -> list[str]:
        """The sentences below the table."""
        return story.sentences(self.summary)

    def samples(self, column: str) -> pd.DataFrame:
        """Every completion of a column, a key of `summary.names`, and how it was graded: samples.jsonl."""
        folder = self.path / "eval" / self.summary.suite if isinstance(self, Run) else self.path
        path = folder / _one(column, Lineup.read(folder).columns, "column").folder / "samples.jsonl"
        with reading(path):
            return pd.DataFrame(read_jsonl(path))


class Run(Exam):
    """A run: its stages, their metrics, and its exam."""

    @property
    def stages(self) -> dict[str, Path]:
        """Stage -> its folder: a checkpoint, or a data set that was collected."""
        return {name: self.path / name for name in read_manifest(self.path)["stages"]}

    def metrics(self, stage: str) -> pd.DataFrame:
        """What a stage logged at each step; a stage goes by its kind, `grpo`, if it alone is of that kind."""
        return pd.DataFrame(_one(stage, stage_metrics(self.path), "stage")).set_index("step")


@dataclass(frozen=True)
class Inspection:
    """What `inspect` wrote: `findings` has the numbers of each experiment; `report` is the page."""

    path: Path

    @property
    def report(self) -> Path:
        return self.path / "inspect.html"

    @property
    def findings(self) -> dict[str, Any]:
        with reading(self.path / "inspect.json"):
            return dict(json.loads((self.path / "inspect.json").read_text(encoding="utf-8")))

    @property
    def verdict(self) -> list[str]:
        """What the numbers say, the most important first."""
        return sentences(self.findings)


def load_recipe(name: Place, *overrides: str) -> Recipe:
    """The recipe in a YAML file, or the packaged one of that name, with overrides: `"grpo.trainer.max_steps=5"`."""
    with silent():
        return named(str(name), overrides)


def run(recipe: Recipe, out: Place | None = None) -> Run:
    """Train and examine a recipe in `out`, by default runs/<its name>; what is finished there is not done again."""
    folder = _folder(out) or Path("runs") / recipe.name
    commands.run(recipe, folder, Terminal(quiet=True))
    return Run(folder)


def sample(
    checkpoint: Place, question: str, n: int = 1, temperature: float = 1.0, seed: int = 0, voice: str | None = None
) -> pd.DataFrame:
    """`n` answers to a question, graded, with columns as in samples.jsonl; a `voice` can be forced: worked or direct.

    `correct` is None if nobody here knows the right answer.
    """
    _one(voice, FORCED, "voice")
    try:
        Evaluate.model_validate({"samples": n, "temperature": temperature, "seed": seed})
    except ValidationError as error:
        raise explain(error, "sample") from None
    folder = find_checkpoint(Path(checkpoint))
    with silent():
        recipe = folder.resolve().parent / "recipe.yaml"
        own = [task for task, _ in tasks(sources_of(recipe))]
        problem = asked(question, problems_of(recipe)[1], own)
        params = SamplingParams(n, LONGEST, temperature, seed=seed, voice=voice)
        (samples,) = generate(*load_checkpoint(folder), [problem], params)

    rows = (
        {
            **{"completion": each.text, "parsed": each.graded.answer, "voice": each.graded.voice},
            "correct": each.graded.correct if problem.answer else None,
            "steps": [(step.text, step.verdict) for step in each.graded.steps or ()],
            **{"n_tokens": len(each.tokens), "finish": each.finish},
        }
        for each in samples
    )
    return pd.DataFrame(rows)


def evaluate(
    *checkpoints: Place, suite: str = "arithmetic", out: Place | None = None, voice: str | None = None, **settings: Any
) -> Exam:
    """Examine checkpoints and compare them with the first; in `out`, by default runs/eval/<suite>.

    `settings` are those of a recipe's `evaluate`, and `prompt`: `limit=200, samples=16, split="dev"`.
    """
    _one(voice, FORCED, "voice")
    paths, overrides = [*map(Path, checkpoints)], _overrides(settings)
    with silent():
        return Exam(commands.evaluate(paths, suite, _folder(out), voice, Terminal(quiet=True), overrides))


def compare(*paths: Place, suite: str | None = None, out: Place | None = None) -> Exam:
    """Compare runs or exams from their saved samples; in `out`, by default runs/compare or a single run's folder."""
    with silent():
        return Exam(commands.compare([*map(Path, paths)], suite, _folder(out), Terminal(quiet=True)))


def inspect(
    *paths: Place, suite: str | None = None, only: Sequence[str] = (), quick: bool = False, out: Place | None = None
) -> Inspection:
    """Look at what training changed in a run, or from one checkpoint to another; in `out`, by default <run>/inspect.

    `only`: names of experiments. `quick` asks an eighth of the problems.
    """
    options = Options(only=tuple(only), quick=quick)
    with silent():
        return Inspection(commands.inspect([*map(str, paths)], suite, _folder(out), options, Terminal(quiet=True)))


def diagnose(run_or_recipe: Place, *overrides: str) -> list[Finding]:
    """What is not well in a run, or in a recipe with these overrides before it runs; what is grave first."""
    with silent():
        return commands.doctor(run_or_recipe, overrides, Terminal(quiet=True))


def _one(name: Any, known: Mapping[Any, Any], kind: str) -> Any:
    """What has this name; UserError if nothing has."""
    if name not in known:
        raise UserError(f"no {kind} is called '{name}'", fix=nearest(str(name), filter(None, known)))
    return known[name]


def _folder(out: Place | None) -> Path | None:
    return require_ours(None if out is None else Path(out))


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """The settings as `key=value`; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
