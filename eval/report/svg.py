"""matplotlib figures as inline SVG whose colors are CSS variables of the page, so one drawing serves light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from eval.report.words import SPECIAL

# matplotlib knows no CSS, so it draws with stand-in colors that are replaced in its output.
INK, MUTED, GRID = "#010101", "#010102", "#010103"
LETTERS = tuple("abcdefgh")
VARIABLES = (*SPECIAL, *LETTERS, "right", "luck", "wrong", "none")
COLORS = {name: f"#0102{number:02x}" for number, name in enumerate(VARIABLES)}
CSS = {INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--grid)"} | {
    color: f"var(--{name})" for name, color in COLORS.items()
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "hatch.linewidth": 0.7,
}


def variables(columns: Iterable[str]) -> dict[str, str]:
    """The CSS variable of each column: its own for the special ones, a letter for others, in turn."""
    others = (column for column in columns if column not in SPECIAL)
    lettered = {column: LETTERS[place % len(LETTERS)] for place, column in enumerate(others)}
    return {column: lettered.get(column, column) for column in columns}


def axes_of(figure: Figure, x_label: str, share: bool = False) -> Axes:
    """Empty axes without a ground of their own; `share` runs from 0 % to 100 %."""
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(x_label)
    if share:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return axes


def drawn(figure: Figure, axes: Axes, name: str, title: str, columns: int = 4) -> Markup:
    """The figure as an `<svg>` that scales with the page; ids carry `name`, because a page has several charts."""
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, fontsize=9, handlelength=1.2, columnspacing=1.2
        )
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = out.getvalue()
    text = text[text.index("<svg") :]
    opening = f'<svg viewBox="\\1" role="img" aria-label="{title}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    assert not set(title) & set('<>&"\\')
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', opening, text, count=1, flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"'?DejaVu Sans'?[^;\"]*", "system-ui, sans-serif", text)
    return Markup(re.sub("|".join(CSS), lambda match: CSS[match.group()], text))
