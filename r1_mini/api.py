"""The commands as functions, for notebooks: each is the call that the command line makes, and returns what it wrote.

They print nothing; what a run would print is in its log.txt. Results are records over folders, so a finished run, or
one of the command line, is opened by its path: `Run(Path("runs/tiny-r1-zero"))`. UserError for what a user got wrong.
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
from r1_mini.config import packaged
from r1_mini.config.base import explain
from r1_mini.data.mix import problems_of
from r1_mini.errors import UserError, nearest
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint
from r1_mini.pipeline.recipe import Evaluate, Recipe, load
from r1_mini.pipeline.start import lettered
from r1_mini.pipeline.store import read_manifest, stage_metrics
from r1_mini.rollout.ask import asked
from r1_mini.rollout.engine import SamplingParams
from r1_mini.rollout.generate import generate
from r1_mini.system.files import read_jsonl, reading, require_ours
from r1_mini.system.logs import silent
from r1_mini.system.terminal import Terminal

__all__ = ["Exam", "Inspection", "Run", "UserError", "compare", "evaluate", "inspect", "load_recipe", "run", "sample"]


@dataclass(frozen=True)
class Exam:
    """A comparison that `run`, `evaluate` or `compare` wrote into a folder."""

    path: Path

    @property
    def report(self) -> Path:
        """The page, one HTML file."""
        return self.path / "report.html"

    @property
    def summary(self) -> Comparison:
        """Every number; shares, not percent."""
        return Comparison.read(self.path / "summary.json")

    @property
    def table(self) -> pd.DataFrame:
        """The table that the command prints, in percent [95% interval]: figures by candidates."""
        summary = self.summary
        rows = {label: cells for section in words.table(summary) for label, cells in section}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(summary.names.values()))

    @property
    def verdict(self) -> list[str]:
        """The sentences below the table."""
        return story.sentences(self.summary)

    def samples(self, column: str) -> pd.DataFrame:
        """Every completion of a column, a key of `summary.names`, and how it was graded."""
        folder = self._exam()
        columns = Lineup.read(folder).columns
        if column not in columns:
            raise UserError(f"no column is called '{column}'", where=str(folder), fix=nearest(column, columns))
        path = folder / columns[column].folder / "samples.jsonl"
        with reading(path):
            return pd.DataFrame(read_jsonl(path))

    def _exam(self) -> Path:
        """The folder with the samples."""
        return self.path


class Run(Exam):
    """A run: its stages, their metrics, and its exam."""

    @property
    def stages(self) -> dict[str, Path]:
        """Stage -> its folder: a checkpoint, or a data set that was collected."""
        return {name: self.path / name for name in read_manifest(self.path)["stages"]}

    def metrics(self, stage: str) -> pd.DataFrame:
        """What a stage logged, a row for each step; `grpo` if it alone is of that kind, else its name."""
        found = stage_metrics(self.path)
        if stage not in found:
            raise UserError(f"no stage '{stage}' has metrics", where=str(self.path), fix=nearest(stage, found))
        return pd.DataFrame(found[stage]).set_index("step")

    def _exam(self) -> Path:
        return self.path / "eval" / self.summary.suite


@dataclass(frozen=True)
class Inspection:
    """What `inspect` wrote into a folder."""

    path: Path

    @property
    def report(self) -> Path:
        """The page, one HTML file."""
        return self.path / "inspect.html"

    @property
    def findings(self) -> dict[str, Any]:
        """Experiment -> its numbers; the problems, networks and seed are beside them."""
        with reading(self.path / "inspect.json"):
            return dict(json.loads((self.path / "inspect.json").read_text(encoding="utf-8")))

    @property
    def verdict(self) -> list[str]:
        """What the numbers say, the most important first."""
        return sentences(self.findings)


def load_recipe(name: str | Path, *overrides: str) -> Recipe:
    """The recipe in a YAML file, or the packaged one of that name, with overrides: `"grpo.trainer.max_steps=5"`."""
    with silent():
        return lettered(load(packaged.find(str(name), "tiny", "gpu"), overrides))


def run(recipe: Recipe, out: str | Path | None = None) -> Run:
    """Train and examine a recipe in `out`, by default runs/<its name>; what is finished there is not done again."""
    folder = _folder(out) or Path("runs") / recipe.name
    commands.run(recipe, folder, Terminal(quiet=True))
    return Run(folder)


def sample(
    checkpoint: str | Path,
    question: str,
    n: int = 1,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    voice: str | None = None,
    max_tokens: int = 160,
) -> pd.DataFrame:
    """`n` answers to a question, graded: columns as in samples.jsonl, and `steps`, each with its verdict.

    `correct` is None where nobody here knows the right answer.
    """
    given = {"samples": n, "temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    try:
        Evaluate.model_validate(given)
    except ValidationError as error:
        raise explain(error, "sample") from None
    params = SamplingParams(n, max_tokens, temperature, seed=seed, voice=_known(voice))
    folder = find_checkpoint(Path(checkpoint))
    with silent():
        model, tokenizer = load_checkpoint(folder)
        problem = asked(question, problems_of(folder.resolve().parent / "recipe.yaml")[1])
        ((*samples,),) = generate(model, tokenizer, [problem], params)
    rows = (
        {
            "completion": each.text,
            "parsed": each.graded.answer,
            "correct": each.graded.correct if problem.answer else None,
            "voice": each.graded.voice,
            "steps": [(step.text, step.verdict) for step in each.graded.steps or ()],
            "n_tokens": len(each.tokens),
            "finish": each.finish,
        }
        for each in samples
    )
    return pd.DataFrame(rows)


def evaluate(
    *checkpoints: str | Path,
    suite: str = "arithmetic",
    out: str | Path | None = None,
    voice: str | None = None,
    **settings: Any,
) -> Exam:
    """Examine checkpoints and compare them with the first, in `out`, by default runs/eval/<suite>.

    `settings` are those of a recipe's `evaluate`, and `prompt`: `limit=200, samples=16, split="dev"`.
    """
    with silent():
        paths, voice = [*map(Path, checkpoints)], _known(voice)
        return Exam(commands.evaluate(paths, suite, _folder(out), voice, Terminal(quiet=True), _overrides(settings)))


def compare(*paths: str | Path, suite: str | None = None, out: str | Path | None = None) -> Exam:
    """Compare runs or exams from their saved samples; into `out`, by default runs/compare or a single run's folder."""
    with silent():
        return Exam(commands.compare([*map(Path, paths)], suite, _folder(out), Terminal(quiet=True)))


def inspect(
    *paths: str | Path,
    suite: str | None = None,
    out: str | Path | None = None,
    only: Sequence[str] = (),
    control: str | Path | None = None,
    marks: str | None = None,
    layers: Sequence[int] = (),
    quick: bool = False,
    **settings: Any,
) -> Inspection:
    """Look at what training changed: of a run, or between the checkpoints before and after; into `out`, by default
    <run>/inspect or runs/inspect."""
    options = Options(tuple(only), None if control is None else Path(control), marks, tuple(layers), quick)
    with silent():
        given = [*map(str, paths), *_overrides(settings)]
        return Inspection(commands.inspect(given, suite, _folder(out), options, Terminal(quiet=True)))


def _known(voice: str | None) -> str | None:
    """The voice, if it is one that can be forced."""
    if voice not in FORCED:
        raise UserError(f"no voice is called '{voice}'", where="voice", fix=nearest(voice or "", filter(None, FORCED)))
    return voice


def _folder(out: str | Path | None) -> Path | None:
    return require_ours(None if out is None else Path(out))


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    """The settings as `key=value`; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
