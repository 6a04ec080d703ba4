"""Base against RL on one exam: from saved samples to a summary, a table and a page."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eval import metrics, stats
from eval.metrics import Sample
from eval.report import page, words
from r1_mini.errors import UserError
from r1_mini.files import write_json_atomic, write_text_atomic
from r1_mini.settings_file import read_mapping

MIN_DEPTH = 2  # a one-step problem is also a line inside worked solutions, so its score is reported apart
CHECKPOINTS = {"base": "base", "forced_worked": "base-forced", "rl": "rl"}  # name in the summary: folder of the exam
SAME_EXAM = ("question", "answer", "split", "seed", "temperature", "top_p", "max_tokens")
NEEDED = (
    *SAME_EXAM,
    "key",
    "family",
    "difficulty",
    "completion",
    "n_tokens",
    "finish",
    "correct",
    "well_formed",
    "voice",
    "sample_index",
)


def prove(run_dir: Path, suite: str, seconds: Mapping[str, float]) -> dict[str, Any]:
    """Compare the samples of base, base forced to work, and RL; write `summary.json` and `report.html` beside them.

    `seconds` holds `base`, `grpo`, `exam` and `total`.
    UserError, naming the file or the field, if samples are missing, damaged or not of the same exam.
    """
    exam = run_dir / "eval" / suite
    samples = {name: read_samples(exam / folder / "samples.jsonl") for name, folder in CHECKPOINTS.items()}
    require_same_exam(samples)
    recipe = read_mapping(run_dir / "recipe.yaml")
    manifest = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
    summary = {
        "suite": suite,
        "recipe": recipe["name"],
        "seed": recipe["seed"],
        **summarize(samples),
        "seconds": dict(seconds),
    }
    summary["checkpoints"] = {stage: _weights(entry["sha256"]) for stage, entry in manifest["stages"].items()}
    curves = {folder.name.split("-", 1)[1]: _rows(folder / "metrics.jsonl") for folder in _stages(run_dir)}
    write_json_atomic(run_dir / "summary.json", summary)
    write_text_atomic(run_dir / "report.html", page.render(summary, samples, curves, manifest))
    return summary


def summarize(samples: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Figures from the samples of `base`, `forced_worked` and `rl`: all but `one_step` on problems of depth >= 2."""
    deep = {name: metrics.at_depth(rows, MIN_DEPTH) for name, rows in samples.items()}
    if not deep["base"]:
        raise UserError(f"the exam has no problem of {MIN_DEPTH} or more operations", fix="add some to the suite")
    rows = deep["base"]
    n_problems = len({row["key"] for row in rows})
    gain, more_than_voice = _difference(deep["base"], deep["rl"]), _difference(deep["forced_worked"], deep["rl"])
    return {
        "families": sorted({row["family"] for row in rows}),
        "split": rows[0]["split"],
        "min_depth": MIN_DEPTH,
        "n_problems": n_problems,
        "n_samples": len(rows),
        "decoding": {field: rows[0][field] for field in ("temperature", "top_p", "max_tokens", "seed")},
        **{name: _score(samples[name]) for name in CHECKPOINTS},
        "paired_difference": gain,
        "verdict": gain["verdict"],
        "rl_minus_forced_worked": more_than_voice,
        "forced_worked_minus_base": _difference(deep["base"], deep["forced_worked"]),
    }


def read_samples(path: Path) -> list[Sample]:
    """The rows of a samples file; UserError with the line number if one is damaged or lacks a field."""
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="examine this checkpoint first")
    again = "delete the file and examine again"
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                raise UserError("not a whole line of JSON", where=f"{path}:{number}", fix=again) from None
            missing = NEEDED if not isinstance(row, dict) else [field for field in NEEDED if field not in row]
            if missing:
                raise UserError(f"field `{missing[0]}` is missing", where=f"{path}:{number}", fix=again)
            rows.append(row)
    if not rows:
        raise UserError("no samples", where=str(path), fix=again)
    return rows


def require_same_exam(samples: Mapping[str, Sequence[Sample]]) -> None:
    """UserError, naming the field, unless every checkpoint got the same problems, equally often, decoded alike."""
    indexed = {name: _indexed(name, rows) for name, rows in samples.items()}
    (first, reference), *others = indexed.items()
    for name, rows in others:
        both = f"{first} and {name}"
        if rows.keys() != reference.keys():
            key, number = min(rows.keys() ^ reference.keys())
            raise UserError(
                f"`key` {key}, sample {number}, is in one of them only", where=both, fix="examine both again"
            )
        for identity, row in reference.items():
            for field in SAME_EXAM:
                if row[field] != rows[identity][field]:
                    what = f"they differ in `{field}`: {row[field]!r} and {rows[identity][field]!r}"
                    raise UserError(what, where=both, fix="examine both with the same settings")


def _indexed(name: str, rows: Sequence[Sample]) -> dict[tuple[str, int], Sample]:
    """Rows by key and sample index; UserError if the exam of this one checkpoint is not whole or not of one setting."""
    again = "delete these samples and examine again"
    indexed = {(row["key"], row["sample_index"]): row for row in rows}
    if len(indexed) < len(rows):
        raise UserError("the same `key` and `sample_index` occur twice", where=name, fix=again)
    per_problem = Counter(row["key"] for row in rows)
    fewest = min(per_problem, key=lambda key: per_problem[key])
    if len(rows) != per_problem[fewest] * len(per_problem):
        raise UserError(f"`key` {fewest} has fewer samples than others", where=name, fix=again)
    for field in ("split", "temperature", "top_p", "max_tokens"):
        if len(values := {row[field] for row in rows}) > 1:
            raise UserError(f"`{field}` is not the same in all samples: {sorted(values)}", where=name, fix=again)
    return indexed


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """The table of the exam and its verdict in words, for the terminal."""
    console.print(f"{summary['suite']}: {words.exam(summary)}", highlight=False)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(escape(words.UNITS))
    for name in CHECKPOINTS:
        table.add_column(words.NAMES[name], justify="right")
    for section in words.table(summary):
        for label, cells in section:
            table.add_row(label, *map(escape, cells))
        table.add_section()
    console.print(table)
    for sentence in (words.headline(summary), words.voice(summary), words.length(summary)):
        console.print(sentence, highlight=False)


def _score(samples: Sequence[Sample]) -> dict[str, Any]:
    """Figures of one checkpoint."""
    deep, one_step = metrics.at_depth(samples, MIN_DEPTH), metrics.at_depth(samples, 0, MIN_DEPTH - 1)
    whole = _accuracy(deep)
    return {
        "pass_at_1": whole["estimate"],
        "pass_at_1_interval": {"low": whole["low"], "high": whole["high"]},
        "mean_tokens": metrics.mean_tokens(deep),
        "well_formed": metrics.well_formed_share(deep),
        "truncated": metrics.truncated_share(deep),
        "voices": metrics.voice_shares(deep),
        "by_depth": {str(depth): _accuracy(cell) for depth, cell in metrics.by_depth(deep).items()},
        "one_step": _accuracy(one_step) if one_step else None,
    }


def _accuracy(samples: Sequence[Sample]) -> dict[str, float]:
    means = list(metrics.accuracy_per_problem(samples).values())
    return {
        **asdict(stats.clustered_proportion(means, len(samples))),
        "n_problems": len(means),
        "n_samples": len(samples),
    }


def _difference(before: Sequence[Sample], after: Sequence[Sample]) -> dict[str, Any]:
    """Paired difference in pass@1 (after - before) with its interval, p-value and verdict."""
    left, right = metrics.accuracy_per_problem(before), metrics.accuracy_per_problem(after)
    means = ([left[key] for key in left], [right[key] for key in left])
    gain, p_value = stats.paired_difference(*means), stats.sign_flip_p(*means)
    return {**asdict(gain), "p_value": p_value, "verdict": stats.verdict(gain, p_value)}


def _stages(run_dir: Path) -> Iterator[Path]:
    """Stage folders `01-base`, `02-grpo`, … that logged metrics, in order."""
    return (path.parent for path in sorted(run_dir.glob("[0-9][0-9]-*/metrics.jsonl")))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _weights(hashes: Mapping[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in hashes.items() if name.endswith(".safetensors")}
