"""What is compared, read from folders: a column is the samples of one candidate, of one training seed or several."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from eval.analysis.stats import Floats
from eval.exam.lineup import MANY, Lineup
from eval.exam.samples import Samples, load_samples, pooled, require_same_exam
from r1_mini.config.yaml_file import read_mapping
from r1_mini.errors import UserError
from r1_mini.pipeline.store import is_intact, read_note
from r1_mini.system.files import reading


@dataclass(frozen=True, slots=True)
class Column:
    """One candidate: its label and, seed by seed, its samples and its greedy answers."""

    label: str
    seeds: tuple[int | None, ...]  # None: a checkpoint whose training seed is not known
    samples: tuple[Samples, ...]
    greedy: tuple[Samples, ...]  # as many, or none
    sat: tuple[tuple[str, str | None], ...] = ()  # hash of each checkpoint, and the voice that it was forced to
    many: tuple[Samples, ...] = ()  # of some problems many samples, if every seed has them

    @property
    def pooled(self) -> Samples:
        """The completions of all seeds as if they were those of one checkpoint."""
        return pooled(self.samples)

    def at(self, axis: str | None) -> "Column":
        """The column on one axis; None is the exam proper."""
        samples, greedy = (tuple(each.at(axis) for each in side) for side in (self.samples, self.greedy))
        return replace(self, samples=samples, greedy=greedy)

    @property
    def greedily(self) -> "Column":
        """The column of its greedy answers."""
        return replace(self, samples=self.greedy, greedy=(), many=())

    def scores(self, metric: Callable[[Samples], Floats]) -> Floats:
        """A metric of every seed and problem, (S, P)."""
        return np.stack([metric(samples) for samples in self.samples])


class Columns(dict[str, Column]):
    """Columns by their keys, all of one exam, and the lineup that says which pairs are compared."""

    def __init__(
        self,
        columns: Mapping[str, Column],
        lineup: Lineup | None = None,
        runs: Mapping[str, Sequence[Path]] | None = None,
    ) -> None:
        """Without a lineup, each column is compared with the first; `runs` has the folders that columns stand for.

        UserError if the exams or the seeds differ; a column that is cooled has a temperature of its own.
        """
        super().__init__(columns)
        self.lineup, self.runs = lineup or Lineup.of(columns), runs or {}
        first, exams = next(iter(self.values())), {}
        own = {"temperature": first.samples[0].settings["temperature"]}
        for key, column in self.items():
            for seed, samples in zip(column.seeds, column.samples, strict=True):
                asked = replace(samples, settings={**samples.settings, **own}) if key == self.cooled else samples
                exams[f"{column.label} (seed {seed})" if len(column.seeds) > 1 else column.label] = asked
        require_same_exam(exams)
        kinds = {(each.n, each.questions) for column in self.values() for each in column.many}
        if len(kinds) > 1 or not all(column.many for column in self.values()):
            self.update({key: replace(column, many=()) for key, column in self.items()})
        for other in self.values():
            alike = other.seeds == first.seeds or len(other.seeds) == len(first.seeds) == 1
            if not alike or len(set(other.seeds)) < len(other.seeds):
                what = f"they differ in `seed`, or one comes twice: {list(first.seeds)} and {list(other.seeds)}"
                raise UserError(what, where=f"{first.label} and {other.label}", fix="give each seed once in both")

    @property
    def final(self) -> Column:
        """The column that stands for a run."""
        return self[self.lineup.final]

    @property
    def cooled(self) -> str | None:
        """The key of the column at the temperature that is best on dev, if there is one."""
        return next((key for key, sitting in self.lineup.columns.items() if sitting.cooled), None)


def columns_of(paths: Sequence[Path], suite: str | None = None) -> Columns:
    """What several paths compare; each is a run, the folder of an exam, or a folder of exams.

    Runs of one recipe: its columns, over the seeds. Otherwise one column for each candidate; runs that differ in the
    seed alone are one. Raises UserError if a path is none of these, or if the exams are not the same.
    """
    if len(paths) == 1 and not is_run(paths[0]) and not (paths[0] / "samples.jsonl").is_file():
        return _columns_of_exams(paths)
    settings: dict[str, list[Path]] = {}
    for path in dict.fromkeys(inner for given in paths for inner in _expanded(given)):
        setting = Lineup.read(_exam_folder(path, suite)).setting if is_run(path) else str(path)
        settings.setdefault(setting, []).append(path)
    groups = list(settings.values())
    if len(groups) == 1 and is_run(groups[0][0]):
        return columns_of_runs(groups[0], suite)
    columns: dict[str, Column] = {}
    runs: dict[str, Sequence[Path]] = {}
    for alike in groups:
        name = unused(alike[0].name, columns)
        if is_run(alike[0]):
            runs[name] = alike
        found = columns_of_runs(alike, suite).final if is_run(alike[0]) else _column(name, alike, [None])
        columns[name] = replace(found, label=name)
    return Columns(columns, runs=runs)


def columns_of_runs(runs: Sequence[Path], suite: str | None = None) -> Columns:
    """The columns of runs of one recipe, which differ in their seed alone."""
    columns = _columns_of_exams([_exam_folder(run, suite) for run in runs])
    columns.runs = {columns.lineup.final: runs}
    return columns


def _columns_of_exams(exams: Sequence[Path]) -> Columns:
    lineups = [Lineup.read(exam) for exam in exams]
    columns = {}
    for key, sitting in lineups[0].columns.items():
        folders = [exam / sitting.folder for exam in exams]
        column = _column(sitting.label, folders, [lineup.seed for lineup in lineups])
        column = replace(column, many=_many(folders))
        chosen = {samples.settings["temperature"] for samples in column.samples}
        if sitting.cooled and len(chosen) == 1:
            column = replace(column, label=sitting.label.replace("best T", f"T={chosen.pop():g}"))
        columns[key] = column
    return Columns(columns, lineups[0])


def is_run(path: Path) -> bool:
    """Whether the folder is that of a run."""
    return (path / "recipe.yaml").is_file()


def unused(name: str, taken: Container[str]) -> str:
    """The name, with as many primes as make it a new one."""
    while name in taken:
        name += "'"
    return name


def _column(label: str, folders: Sequence[Path], seeds: Sequence[int | None]) -> Column:
    """The column of finished exams, one folder per seed."""
    for folder in folders:
        if not is_intact(folder, read_note(folder).get("key", "")):
            what = "no finished exam, or changed since it was written"
            raise UserError(what, where=str(folder), fix="run the same r1-mini eval or run again")
    samples, greedy = (
        tuple(load_samples(path) for folder in folders if (path := folder / f"{part}.jsonl").exists())
        for part in ("samples", "greedy")
    )
    identities = [read_note(folder).get("identity") for folder in folders]
    sat = tuple((each["checkpoint"], each["voice"]) for each in identities if each)
    return Column(label, tuple(seeds), samples, greedy if len(greedy) == len(samples) else (), sat)


def _many(folders: Sequence[Path]) -> tuple[Samples, ...]:
    """The many samples of the same checkpoints, one folder per seed; none if one is missing, or of another exam."""
    found = []
    for folder in folders:
        beside = folder.parent.with_name(f"{folder.parent.name}-{MANY}") / folder.name
        ours, theirs = read_note(folder).get("identity") or {}, read_note(beside).get("identity") or {}
        same = all(ours.get(name) == theirs.get(name) for name in ("checkpoint", "voice", "reference"))
        if not same or not is_intact(beside, read_note(beside).get("key", "")):
            return ()
        found.append(load_samples(beside / "samples.jsonl"))
    return tuple(found)


def _exam_folder(run: Path, suite: str | None) -> Path:
    with reading(run / "recipe.yaml"):
        return run / "eval" / (suite or Path(str(read_mapping(run / "recipe.yaml")["evaluate"]["suite"])).stem)


def _expanded(path: Path) -> list[Path]:
    """The run or the exam itself, or the exams of the folder in the order in which they were named, but for a cooled
    one: it is no exam like the others."""
    if is_run(path) or (path / "samples.jsonl").is_file():
        return [path]
    return [path / sitting.folder for sitting in Lineup.read(path).columns.values() if not sitting.cooled]
