"""What is compared, read from folders: a column is one candidate's samples, from one training seed or several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.exam.run import is_finished, read_note
from eval.exam.samples import Samples, at_axis, load_samples, pooled, require_same_exam
from r1_mini.config.yaml_file import read_mapping
from r1_mini.errors import UserError
from r1_mini.pipeline.store import fingerprint

Floats = NDArray[np.float64]
BASE, FORCED, RL = "base", "forced_worked", "rl"
LABELS = {BASE: "base", FORCED: "base, forced", RL: "after RL"}
AFTER_SFT = {BASE: "after SFT", FORCED: "after SFT, forced"}
"""Where RL started from a stage of SFT."""


@dataclass(frozen=True, slots=True)
class Column:
    """One candidate: a label and, seed by seed, its samples and its greedy answers."""

    label: str
    seeds: tuple[int | None, ...]  # None: a checkpoint of which no training seed is known
    samples: tuple[Samples, ...]
    greedy: tuple[Samples, ...]  # as many, or none

    @property
    def pooled(self) -> Samples:
        """The completions of all seeds as if they were one checkpoint's."""
        return pooled(self.samples)

    def at(self, axis: str | None) -> Column:
        """The column on one axis; None is the exam proper."""
        samples, greedy = (tuple(at_axis(each, axis) for each in side) for side in (self.samples, self.greedy))
        return replace(self, samples=samples, greedy=greedy)

    def scores(self, metric: Callable[[Samples], Floats]) -> Floats:
        """A metric of every seed and problem, (S, P)."""
        return np.stack([np.asarray(metric(samples), dtype=float) for samples in self.samples])


def column(label: str, folders: Sequence[Path], seeds: Sequence[int | None]) -> Column:
    """The column of finished exams, one folder per seed; UserError if one is not finished or was changed."""
    for folder in folders:
        if not is_finished(folder):
            raise UserError("no finished exam", where=str(folder), fix="run the same r1-mini eval or run again")
    greedy = [folder / "greedy.jsonl" for folder in folders]
    return Column(
        label,
        tuple(seeds),
        tuple(load_samples(folder / "samples.jsonl") for folder in folders),
        tuple(map(load_samples, greedy)) if all(path.exists() for path in greedy) else (),
    )


def columns_of_runs(runs: Sequence[Path], suite: str | None = None) -> dict[str, Column]:
    """base, forced_worked and rl of runs of one recipe, which differ in their seed alone."""
    exams = [_exam_folder(run, suite) for run in runs]
    seeds = [_seed(read_mapping(run / "recipe.yaml")) for run in runs]
    if len(set(seeds)) < len(seeds):
        raise UserError(
            f"seed {max(seeds, key=seeds.count)} comes twice", where=", ".join(map(str, runs)), fix="drop one"
        )
    labels = LABELS | (AFTER_SFT if _sat(exams[0])[BASE].name.endswith("-sft") else {})
    return {
        name: column(label, [_sat(exam)[name] for exam in exams], seeds)
        for name, label in labels.items()
        if all(name in _sat(exam) for exam in exams)
    }


def columns_of(paths: Sequence[Path], suite: str | None = None) -> dict[str, Column]:
    """What several paths compare; each is a run, an exam's folder, or a folder of exams.

    Runs of one recipe: base, forced base and RL, over their seeds. Otherwise one column for each candidate, runs that
    differ in the seed alone being one. UserError if a path is nothing of this, or exams are not the same.
    """
    expanded = [inner for path in paths for inner in _expanded(path)]
    runs = [path for path in expanded if is_run(path)]
    settings: dict[str, list[Path]] = {}
    for run in runs:
        settings.setdefault(fingerprint(_without_seeds(read_mapping(run / "recipe.yaml"))), []).append(run)
    if len(runs) == len(expanded) and len(settings) == 1:
        return checked(columns_of_runs(runs, suite))
    columns: dict[str, Column] = {}
    for path in expanded:
        if not is_run(path):
            name = _unused(path.name, columns)
            columns[name] = column(name, [path], [None])
            continue
        alike = next(group for group in settings.values() if path in group)
        if path == alike[0]:
            together = columns_of_runs(alike, suite)
            name = _unused(path.name, columns)
            columns[name] = replace(together[RL if RL in together else BASE], label=name)
    return checked(columns)


def checked(columns: dict[str, Column]) -> dict[str, Column]:
    """The columns; UserError if they cannot be compared, naming what differs."""
    require_same_exam(
        {f"{column.label} (seed {seed})" if len(column.seeds) > 1 else column.label: samples
         for column in columns.values() for seed, samples in zip(column.seeds, column.samples, strict=True)}
    )  # fmt: skip
    (first, *others) = columns.values()
    for other in others:
        if other.seeds != first.seeds and len(other.seeds) + len(first.seeds) > 2:
            what = f"they differ in `seed`: {list(first.seeds)} and {list(other.seeds)}"
            raise UserError(what, where=f"{first.label} and {other.label}", fix="train both with the same seeds")
    return columns


def _seed(recipe: Mapping[str, Any]) -> Any:
    """The seed of a run: that of its last stage."""
    own = recipe["stages"][-1].get("seed")
    return recipe["seed"] if own is None else own


def _without_seeds(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a setting of a recipe: all but its name and seeds."""
    stages = [{**stage, "seed": None} for stage in recipe["stages"]]
    return {**recipe, "stages": stages, "name": None, "seed": None}


def is_run(path: Path) -> bool:
    return (path / "recipe.yaml").is_file()


def _exam_folder(run: Path, suite: str | None) -> Path:
    name = suite or Path(str(read_mapping(run / "recipe.yaml")["evaluate"]["suite"])).stem
    folder = run / "eval" / name
    if not folder.is_dir():
        there = ", ".join(sorted(path.name for path in (run / "eval").glob("*"))) or "none"
        raise UserError(f"no exam of suite {name} here (there: {there})", where=str(run), fix="run the recipe again")
    return folder


def _sat(exam: Path) -> dict[str, Path]:
    """Which folder of a run's exam is which column: what RL started from, the same forced, the last."""
    notes = {note.parent: read_note(note.parent) for note in sorted(exam.glob("*/exam.json"))}
    free = [folder for folder, note in notes.items() if note["voice"] is None]
    forced = [folder for folder, note in notes.items() if note["voice"] == "worked"]
    if not free:
        raise UserError("no exam", where=str(exam), fix="run the recipe again")
    found = {BASE: free[0]}
    if forced:
        found[FORCED] = forced[0]
    if len(free) > 1:
        found[RL] = free[-1]
    return found


def _expanded(path: Path) -> Iterable[Path]:
    if is_run(path) or (path / "exam.json").is_file():
        return [path]
    inside = sorted(note.parent for note in path.glob("*/exam.json"))
    if not inside:
        fix = "give a run folder, or the folder that r1-mini eval wrote"
        raise UserError("no run and no exam" if path.exists() else "no such folder", where=str(path), fix=fix)
    order = _order(path)
    return sorted(inside, key=lambda folder: order.index(folder.name) if folder.name in order else len(order))


def _order(path: Path) -> list[str]:
    """The order in which r1-mini eval was given the candidates."""
    try:
        columns: dict[str, Any] = json.loads((path / "summary.json").read_text(encoding="utf-8"))["names"]
        return list(columns)
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _unused(name: str, taken: dict[str, Column]) -> str:
    while name in taken:
        name += "'"
    return name
