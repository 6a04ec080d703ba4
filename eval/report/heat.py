"""Accuracy by difficulty as a heat map: an HTML table, so that each number can be read where its color cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eval.report.words import Summary, operations, with_interval


@dataclass(frozen=True, slots=True)
class Row:
    """Problems of one kind and how each column does on them; a column without such problems has None."""

    label: str
    n_problems: int
    cells: tuple[Mapping[str, Any] | None, ...]  # estimate, low, high


def by_difficulty(summary: Summary) -> Iterator[tuple[str, list[Row]]]:
    """(caption, rows): each family of the exam proper by depth, then the out-of-distribution axes."""
    scores = list(summary["scores"].values())
    tables = [{(c["family"], c["depth"]): c for c in score["cells"] if c["axis"] is None} for score in scores]
    kinds = list(dict.fromkeys(kind for table in tables for kind in table))
    for family in dict.fromkeys(family for family, _ in kinds):
        depths = sorted(depth for other, depth in kinds if other == family)
        labels = ["all"] if depths == [0] else [operations(depth) for depth in depths]
        rows = [
            _row(label, [table.get((family, depth)) for table in tables])
            for label, depth in zip(labels, depths, strict=True)
        ]
        yield family, rows
    axes = dict.fromkeys(axis for score in scores for axis in score["axes"])
    if axes:
        yield (
            "outside of the training text",
            [_row(axis, [score["axes"].get(axis) for score in scores]) for axis in axes],
        )


def _row(label: str, cells: list[Mapping[str, Any] | None]) -> Row:
    return Row(label, max(cell["n_problems"] for cell in cells if cell is not None), tuple(cells))


def said(cell: Mapping[str, Any] | None) -> str:
    """What stands in a cell."""
    return "-" if cell is None else with_interval({end: cell[end] for end in ("estimate", "low", "high")})


def strength(cell: Mapping[str, Any] | None) -> str:
    """How much of the full color a cell has, in percent: text stays readable on all of it."""
    return "0%" if cell is None else f"{round(60 * cell['estimate'])}%"
