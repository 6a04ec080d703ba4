"""The charts of a sweep's page."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from eval.report.plots import BLUE, GRAY, GREEN, PALETTE, STYLE, Line, bars, lines, plain, svg
from eval.report.words import Sweep


@STYLE
def points(summary: Sweep) -> Markup:
    """A row for each setting of a sweep: the score of every seed, and the mean with its interval."""
    settings = summary["settings"]
    objective = summary["objective"].replace("_at_", "@")
    axes = bars(objective, [setting["name"] for setting in settings], width=5.6, legend=0.3)
    for place, setting in enumerate(settings):
        score, color = setting["score"], PALETTE[1:][place] if place < len(PALETTE) - 1 else GRAY  # those of the curves
        seeds = [each["score"] for each in setting["seeds"]]
        axes.plot([score["low"], score["high"]], [place, place], color=color, linewidth=5, alpha=0.3)
        axes.plot(score["estimate"], place, color=color, marker="|", markersize=14, markeredgewidth=2)
        axes.plot(seeds, [place] * len(seeds), color=color, marker="o", markersize=4, linewidth=0)
    for start, style in zip(summary["starts"], ("--", ":", "-."), strict=False):
        line = start["score"]["estimate"]
        axes.axvline(line, color=GRAY, linewidth=1.2, linestyle=style, label=plain(start["name"]))
    if not summary["is_share"]:
        axes.xaxis.set_major_formatter("{x:g}")
    return svg(axes, "Score of each setting, seed by seed")


def depths(summary: Sweep) -> Markup:
    """pass@1 of each setting against the number of operations, dashed for what it started from.

    Settings that started from one base share one gray line.
    """
    settings = summary["settings"][: len(PALETTE) - 1]
    starts = [each["cells_before"] for each in settings]
    series: list[Line] = []
    for place, (color, setting) in enumerate(zip(PALETTE[1:], settings, strict=False)):
        series.append(Line(setting["name"], color, _by_depth(setting["cells"])))
        if starts[place] and starts[place] not in starts[:place]:
            color = GRAY if starts.count(starts[place]) > 1 else color
            series.append(Line("", color, _by_depth(starts[place]), style="--", marker=""))
    return lines("Accuracy by number of operations", "operations", series, share=True)


def _by_depth(cells: Sequence[Mapping[str, Any]]) -> pd.Series:
    """Scores of the first family by depth."""
    family = [each for each in cells if each["family"] == cells[0]["family"]]
    return pd.Series({str(each["depth"] or "?"): each["estimate"] for each in family})


def slices(summary: Sweep, key: str) -> Markup:
    """The score of every training against its value of one key of the space, whatever the other keys are."""
    series, kind = [], summary["space"][key]
    for setting in summary["settings"]:
        if key in setting["changes"]:
            value, scores = setting["changes"][key], [each["score"] for each in setting["seeds"]]
            color = GREEN if setting["name"] == summary["default"] else BLUE
            x = [plain(str(value)) if kind["choices"] else value] * len(scores)
            series.append(Line("", color, pd.Series(scores, x), style="none"))
    label, share = key.rsplit(".", 1)[-1], summary["is_share"]
    return lines(f"Score by {key}", label, series, share=share, log=kind["log"], zoom=True)
