"""Fills the template: summary, samples, curves and manifest in, one HTML text out."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from eval.exam.samples import Samples
from eval.report import charts, heat, notes, svg, transcripts, words
from eval.report.curves import training


def render(
    summary: Mapping[str, Any],
    samples: Mapping[str, Samples],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    manifest: Mapping[str, Any],
) -> str:
    """The page of one exam. `samples` has the columns of the summary, `curves` the rows of each stage's metrics.jsonl.

    All text but our own drawings is escaped, and the page forbids requests and every script but its own.
    """
    environment = Environment(
        loader=PackageLoader("eval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": words.percent, "visible": transcripts.visible}
    samples = {column: samples[column] for column in summary["scores"]}
    shown = transcripts.all_shown(samples)
    script, style = (files("eval.report").joinpath(name).read_text("utf-8") for name in ("browser.js", "page.css"))
    html = environment.get_template("page.html.jinja").render(
        summary=summary,
        columns=svg.variables(summary["scores"]),
        words=words,
        heat=heat,
        limits=list(notes.limits(summary)),
        how=list(notes.measured(summary, manifest)),
        pass_at_k=charts.pass_at_k(summary, "pass_at_k", "pass@k: at least one of k samples is right"),
        maj_at_k=charts.pass_at_k(summary, "maj_at_k", "maj@k: the most frequent answer of k samples is right"),
        gain=charts.gain_parts(summary),
        chains=charts.chain_truth(summary),
        first_wrong=charts.first_wrong_step(summary),
        training=list(training(curves)),
        problems=[(place, shown[place]) for place in transcripts.fixed(next(iter(samples.values())))],
        transcripts=Markup(transcripts.embedded(summary, samples, shown)),
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return html.encode("utf-8", errors="backslashreplace").decode("utf-8")  # a path, say, may hold a lone surrogate
