"""A comparison published: summary.json, comparison.csv, report.html, and its table on the screen.

A page is one HTML text, which works offline and sends no request: its policy forbids requests and every script but its
own, and all text but our own drawings is escaped.
"""

import base64
import hashlib
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from markupsafe import Markup
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.analysis.columns import Columns
from eval.analysis.compare import Comparison, summarize
from eval.exam.samples import Samples
from eval.report import exam_plots, plots, rollouts, story, sweep_plots, transcripts, words
from r1_mini.config.yaml_file import read_mapping
from r1_mini.data.mix import problems_of
from r1_mini.doctor.case import Finding
from r1_mini.doctor.doctor import diagnose, of_run
from r1_mini.errors import UserError
from r1_mini.pipeline.store import read_manifest, stage_metrics
from r1_mini.problems.problem import Problem
from r1_mini.system.files import read_jsonl, reading, write_json_atomic, write_text_atomic
from r1_mini.text import visible


def publish(columns: Columns, folder: Path, console: Console, run: Path | None = None) -> None:
    """Write and print the comparison; `run` is the run whose columns it compares, if it is one run's."""
    summary, training = summarize(columns), Training.of(columns, run)
    manifest: Mapping[str, Any] = {}
    if run is not None:
        manifest, recipe = read_manifest(run), read_mapping(run / "recipe.yaml")
        checkpoints = {
            stage: {name: digest for name, digest in entry["sha256"].items() if name.endswith(".safetensors")}
            for stage, entry in manifest["stages"].items()
        }
        origin = {"title": recipe["name"], "recipe": recipe["name"], "seed": recipe["seed"], "checkpoints": checkpoints}
        summary = replace(summary, seconds=manifest.get("seconds"), **origin)
        with suppress(UserError):  # the run was copied here without a file of its recipe
            case = replace(of_run(run), summary=summary.as_json())
            training = replace(training, findings=diagnose(case))
    show(
        f"{summary.suite}: {words.exam(summary)}",
        [words.UNITS, *summary.names.values()],
        [[(label, *cells) for label, cells in section] for section in words.table(summary)],
        story.sentences(summary),
        console,
    )
    if differing := words.differing(summary):
        show("What differs between the recipes", ["key", *summary.names.values()], [differing], [], console)
    html = render_exam(summary, {name: column.pooled for name, column in columns.items()}, training, manifest)
    write(folder, summary.as_json(), as_csv(summary), html, console)


@dataclass(frozen=True)
class Training:
    """What a page knows of the training behind its columns."""

    curves: Mapping[str, plots.Rows] = field(default_factory=dict)
    """Stage -> its metrics, of a single run."""
    marks: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Stage -> the step at which its data changes, and what begins there."""
    taught: Sequence[Problem] = ()
    """Some of the problems that its stages train on."""
    seeds: Mapping[str, Sequence[plots.Rows]] = field(default_factory=dict)
    """Column -> the metrics of the stages that reward rollouts, seed by seed."""
    kept: Mapping[str, rollouts.Problems] = field(default_factory=dict)
    """Stage -> the completions that it kept while it trained, of a single run."""
    findings: Sequence[Finding] = ()
    """What a doctor finds in a single run."""

    @staticmethod
    def of(columns: Columns, run: Path | None) -> "Training":
        """That of a single run, or of the runs that the columns stand for."""
        if run is None:
            found = {
                key: [plots.of_rollouts(stage_metrics(each)) for each in runs] for key, runs in columns.runs.items()
            }
            return Training(seeds=found)
        curves, marks = stage_metrics(run), {}
        for stage in read_mapping(run / "recipe.yaml")["stages"]:
            share, name = stage.get("early_share"), stage.get("name") or stage["kind"]
            if share and stage["early_voices"] != stage["voices"] and curves.get(name):
                marks[name] = (share * curves[name][-1]["step"], "the mix of voices changes")
        kept: dict[str, rollouts.Problems] = {}
        for path in (run / name / "rollouts.jsonl" for name in read_manifest(run)["stages"]):
            if path.exists():  # a stage that does not reward rollouts has none
                with reading(path):
                    kept[path.parent.name] = rollouts.read(read_jsonl(path))
        return Training(curves, marks, problems_of(run / "recipe.yaml", 1000)[0], kept=kept)


def show(
    title: str,
    heads: Sequence[str],
    sections: Iterable[Iterable[Sequence[str]]],
    sentences: Iterable[str],
    console: Console,
) -> None:
    """Print a table, its first column left and the others right, and what it says in words."""
    console.print(visible(title))
    heads = list(map(visible, heads))
    cells = [[list(map(visible, row)) for row in section] for section in sections]
    every, unlimited = range(len(heads)), console.options.update(width=10_000)

    def fit(tables: Iterable[Table]) -> bool:
        return all(console.measure(table, options=unlimited).maximum <= console.width for table in tables)

    tables = [_table(heads, cells, every)]
    if not fit(tables):  # then intervals stand below their estimates, and as many columns as fit in one table
        heads = [heads[0], *(fill(head, 17) for head in heads[1:])]
        cells = [
            [[fill(row[0], 30), *(cell.replace(" [", "\n[") for cell in row[1:])] for row in each] for each in cells
        ]
        for most in reversed(every[1:]):
            tables = [_table(heads, cells, [0, *every[first : first + most]]) for first in every[1::most]]
            if fit(tables):
                break
    for table in tables:
        console.print(table)
    for sentence in sentences:
        console.print(visible(sentence))


def _table(heads: Sequence[str], sections: Sequence[Sequence[Sequence[str]]], columns: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(Text(heads[column]), justify="right" if column else "left")
    for section in sections:
        for row in section:
            table.add_row(*(Text(row[column]) for column in columns))
        table.add_section()
    return table


def write(folder: Path, summary: Mapping[str, Any], csv: str, html: str, console: Console) -> None:
    """Write the three files of a comparison, and print where the page is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder / "summary.json", summary)
    write_text_atomic(folder / "comparison.csv", csv)
    write_text_atomic(folder / "report.html", html)
    console.print(f"the page: {folder / 'report.html'}", soft_wrap=True)


def as_csv(comparison: Comparison) -> str:
    """One row per column and figure: `candidate,figure,estimate,low,high`."""
    lines: list[tuple[Any, ...]] = []
    for name, score in comparison.scores.items():
        label = comparison.names[name]
        plain = ("lenient", "mean_tokens", "tokens_right", "tokens_wrong", "entropy", "kl", "well_formed", "truncated")
        lines += [(label, f"pass@{point.k}", *point.ends) for point in score.pass_at_k]
        lines += [(label, f"maj@{point.k}", *point.ends) for point in score.maj_at_k]
        lines += [(label, f"pass@{point.k}, first problems", *point.ends) for point in score.many]
        lines += [(label, "greedy", *score.greedy.ends)] if score.greedy else []
        lines += [(label, figure, getattr(score, figure), None, None) for figure in plain]
        lines += [(label, f"voice {voice}", share, None, None) for voice, share in score.voices.items()]
        lines += [(label, f"chain {chain}", share, None, None) for chain, share in score.chains.items()]
        lines += [(label, f"in {language}", share, None, None) for language, share in score.languages.items()]
        lines += [(label, f"{axis}, at once", share, None, None) for axis, share in score.at_once.items()]
        for cell in score.cells:
            depth = f"depth {cell.depth}" if cell.depth else None
            lines.append((label, " ".join(filter(None, (cell.family, depth, cell.axis))), *cell.ends))
    for found in comparison.comparisons:
        pair = f"{comparison.names[found.after]} - {comparison.names[found.before]}"
        lines.append((pair, "difference in pass@1", *found.ends))
    if greedy := comparison.greedy:
        pair = f"{comparison.names[greedy.after]} - {comparison.names[greedy.before]}"
        lines.append((pair, "difference, both greedy", *greedy.ends))
    table = pd.DataFrame(lines, columns=["candidate", "figure", "estimate", "low", "high"])
    return str(table.to_csv(index=False, lineterminator="\n"))


def render_exam(
    summary: Comparison, samples: Mapping[str, Samples], training: Training, manifest: Mapping[str, Any]
) -> str:
    """The page of one exam; `samples` has the columns of the summary."""
    script = files("eval.report").joinpath("browser.js").read_text("utf-8")
    if training.kept:  # inside the function of browser.js, whose steps it draws
        end, more = "})();\n", files("eval.report").joinpath("rollouts.js").read_text("utf-8")
        script = script.removesuffix(end) + more + end
    rewarded = [stage for stage, rows in training.curves.items() if plots.of_rollouts({stage: rows})]
    at: dict[str, list[int]] = {}
    if len(rewarded) == len(training.kept) == 1:  # stages that go on with one another share a curve
        at[rewarded[0]] = rollouts.steps(*training.kept.values())
    curves = list(plots.training(training.curves, training.marks, at))
    losses = [each for each in curves if training.marks and each[0].startswith("Loss")]
    moving = [each for each in curves if at and each[0].startswith(plots.REWARD)]
    return _html(
        "exam",
        summary=summary,
        charts=exam_plots,
        story=story,
        samples=samples,
        training=training,
        losses=losses,
        curves=[each for each in curves if each not in losses and each not in moving],
        moving=moving,
        manifest=manifest,
        picked=transcripts.picked(summary, samples) if summary.comparisons else None,
        transcripts=Markup(transcripts.embedded(summary, samples)),
        kept=Markup(rollouts.embedded(training.kept)) if training.kept else None,
        visible=visible,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def render_sweep(summary: words.Sweep, curves: Mapping[str, Sequence[plots.Rows]]) -> str:
    """The page of a sweep. `curves` has for each setting the metrics of every seed."""
    best = summary["settings"][0]
    summary, names = words.shortened(summary)
    return _html(
        "sweep",
        charts=sweep_plots,
        summary=summary,
        names={short: name for name, short in names.items() if short != name},
        learning=list(plots.learning({short: curves[name] for name, short in names.items()})),  # in their colors
        command=shlex.join(["r1-mini", "run", best["recipe"], *best["overrides"]]),
        script="",
    )


def _html(page: str, **values: Any) -> str:
    style = Markup(files("eval.report").joinpath("page.css").read_text("utf-8"))
    html = words.render(f"report/{page}.html.jinja", plots=plots, words=words, style=style, **values)
    return visible(html)
