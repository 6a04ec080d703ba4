"""Publish a comparison: summary.json, comparison.csv, report.html, and the table on the screen."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.analysis.columns import Columns
from eval.analysis.compare import as_csv, summarize
from eval.report import page, words
from r1_mini.config.yaml_file import read_mapping
from r1_mini.pipeline.store import stage_metrics
from r1_mini.system.files import write_json_atomic, write_text_atomic


def publish(columns: Columns, folder: Path, console: Console, run: Path | None = None) -> None:
    """Write and print the comparison; `run` is the run whose columns it compares, if it is one run's."""
    summary = summarize(columns)
    curves, manifest = {}, {}
    if run is not None:
        curves, manifest = stage_metrics(run), json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        recipe = read_mapping(run / "recipe.yaml")
        checkpoints = {
            stage: {name: digest for name, digest in entry["sha256"].items() if name.endswith(".safetensors")}
            for stage, entry in manifest.get("stages", {}).items()
        }
        origin = {"title": recipe["name"], "recipe": recipe["name"], "seed": recipe["seed"], "checkpoints": checkpoints}
        summary = replace(summary, seconds=manifest.get("seconds"), **origin)
    show(
        f"{summary.suite}: {words.exam(summary)}",
        [words.UNITS, *summary.names.values()],
        [[(label, *cells) for label, cells in section] for section in words.table(summary)],
        words.sentences(summary),
        console,
    )
    samples = {name: column.samples[0] for name, column in columns.items()}
    html = page.render_exam(summary, samples, curves, manifest)
    write(folder, summary.as_json(), as_csv(summary), html, console)


def write(folder: Path, summary: Mapping[str, Any], csv: str, html: str, console: Console) -> None:
    """Write the three files of a comparison, and print where the page is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / "summary.json", summary)
    write_text_atomic(folder / "comparison.csv", csv)
    write_text_atomic(folder / "report.html", html)
    console.print(f"the page: {folder / 'report.html'}", soft_wrap=True)


def show(
    title: str,
    heads: Sequence[str],
    sections: Iterable[Iterable[Sequence[str]]],
    sentences: Iterable[str],
    console: Console,
) -> None:
    """Print a table, its first column left and the others right, and what it says in words."""
    console.print(title, highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    for place, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if place else "left")
    for section in sections:
        for row in section:
            table.add_row(*map(Text, row))
        table.add_section()
    console.print(table)
    for sentence in sentences:
        console.print(sentence, highlight=False, markup=False)
