"""The pages of an exam and of a sweep: one HTML text each, which works offline and sends no request.

All text but our own drawings is escaped, and the page's policy forbids requests and every script but its own.
"""

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.analysis.compare import Comparison
from eval.exam.samples import Samples
from eval.report import plots, transcripts, words

LEARNING = {
    "accuracy": "Accuracy of the rollouts",
    "length": "Completion length in tokens",
    "entropy": "Entropy, nats per token",
    "kl": "KL to the reference",
}


def render_exam(
    summary: Comparison,
    samples: Mapping[str, Samples],
    curves: Mapping[str, plots.Rows],
    manifest: Mapping[str, Any],
) -> str:
    """The page of one exam. `samples` has the columns of the summary, `curves` the metrics of each stage."""
    return _html(
        "exam.html.jinja",
        summary=summary,
        plots=plots,
        training=list(plots.training(curves)),
        manifest=manifest,
        transcripts=Markup(transcripts.embedded(summary, samples)),
        script=files("eval.report").joinpath("browser.js").read_text("utf-8"),
    )


def render_sweep(summary: words.Sweep, curves: Mapping[str, Sequence[plots.Rows]]) -> str:
    """The page of a sweep. `curves` has for each setting the metrics of every seed."""
    best = summary["settings"][0]
    summary, names = words.shortened(summary)
    curves = {short: curves[name] for name, short in names.items()}  # one order, one color
    learning = {title: plots.sweep_learning(curves, field, title) for field, title in LEARNING.items()}
    return _html(
        "sweep.html.jinja",
        summary=summary,
        plots=plots,
        names={short: name for name, short in names.items() if short != name},
        learning={title: chart for title, chart in learning.items() if chart},
        command=shlex.join(["r1-mini", "run", best["recipe"], *best["overrides"]]),
    )


def _html(template: str, script: str = "", **values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("eval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": words.percent, "visible": transcripts.visible, "ends": words.with_interval}
    html = environment.get_template(template).render(
        words=words,
        style=Markup(files("eval.report").joinpath("page.css").read_text("utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **values,
    )
    return html.encode("utf-8", errors="backslashreplace").decode("utf-8")  # a path may hold a lone surrogate
