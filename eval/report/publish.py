"""A comparison made public: summary.json, comparison.csv, report.html, and the table on the screen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval.analysis.columns import Column, columns_of, is_run
from eval.analysis.compare import Comparison, as_csv, summarize
from eval.report import page, words
from r1_mini.config.yaml_file import read_mapping
from r1_mini.errors import UserError
from r1_mini.pipeline.store import stage_metrics
from r1_mini.system.files import write_json_atomic, write_text_atomic


def compare(paths: Sequence[Path], suite: str | None, out: Path | None, console: Console) -> None:
    """Compare runs, or exams, from their samples alone; into `out`, or of a single run into its own folder."""
    if any((path / "sweep.yaml").is_file() for path in paths):
        from eval.sweep.summary import compare_sweep  # needs optuna

        if len(paths) > 1:
            raise UserError("a sweep is compared within itself", where=str(paths[0]), fix="name it alone")
        return compare_sweep(paths[0], out, console)
    one_run = paths[0] if len(paths) == 1 and is_run(paths[0]) else None
    columns = columns_of(paths, suite)
    if len(columns) == 1:
        raise UserError("nothing to compare it with", where=str(paths[0]), fix="name two or more")
    folder = out or one_run or Path("runs") / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    name = next(iter(columns.values())).samples[0].settings["suite"]
    publish(columns, name, folder, console, one_run)


def publish(columns: Mapping[str, Column], suite: str, folder: Path, console: Console, run: Path | None = None) -> None:
    """Write and print the comparison; `run` is the run whose base and RL it compares, if it is one run's."""
    summary = summarize(columns, suite)
    if run is not None:
        summary = replace(summary, **_origin(run))
    curves = {} if run is None else stage_metrics(run)
    manifest = {} if run is None else _manifest(run)
    samples = {name: column.samples[0] for name, column in columns.items()}
    write_json_atomic(folder / "summary.json", summary.as_json())
    write_text_atomic(folder / "comparison.csv", as_csv(summary))
    write_text_atomic(folder / "report.html", page.render_exam(summary, samples, curves, manifest))
    show(summary, console)
    console.print(f"the page: {folder / 'report.html'}", soft_wrap=True)


def show(summary: Comparison, console: Console) -> None:
    """The table of the exam and its verdicts in words, for the terminal."""
    console.print(f"{summary['suite']}: {words.exam(summary)}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(escape(words.UNITS))
    for label in summary["names"].values():
        table.add_column(escape(label), justify="right")
    for section in words.table(summary):
        for label, cells in section:
            table.add_row(escape(label), *map(escape, cells))
        table.add_section()
    console.print(table)
    for sentence in words.sentences(summary):
        console.print(sentence, highlight=False, markup=False)


def _origin(run: Path) -> dict[str, Any]:
    """Where the samples of a run come from."""
    recipe, manifest = read_mapping(run / "recipe.yaml"), _manifest(run)
    return {
        "title": recipe["name"],
        "recipe": recipe["name"],
        "seed": recipe["seed"],
        "seconds": manifest.get("seconds"),
        "checkpoints": {
            stage: {name: digest for name, digest in entry["sha256"].items() if name.endswith(".safetensors")}
            for stage, entry in manifest.get("stages", {}).items()
        },
    }


def _manifest(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "manifest.json").read_text(encoding="utf-8")))
