"""Fills the template: summary, transcripts, curves and manifest in, one HTML text out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eval.metrics import Sample, at_depth
from eval.report import charts, transcripts, words


def render(
    summary: Mapping[str, Any],
    samples: Mapping[str, Sequence[Sample]],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    manifest: Mapping[str, Any],
) -> str:
    """The page of one exam. All text but our own charts is escaped, and the page forbids scripts and requests."""
    environment = Environment(
        loader=PackageLoader("eval.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clip": transcripts.clip, "percent": words.percent}
    html = environment.get_template("page.html.jinja").render(
        summary=summary,
        words=words,
        by_depth=charts.accuracy_by_depth(summary),
        training=list(charts.training(curves)),
        pairs=transcripts.fixed_pairs(*(at_depth(samples[name], summary["min_depth"]) for name in ("base", "rl"))),
        how=list(measured(summary, manifest)),
    )
    return html.encode("utf-8", errors="backslashreplace").decode("utf-8")  # model text may hold a lone surrogate


def measured(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, value) of everything that someone needs to repeat the measurement."""
    decoding, seconds = summary["decoding"], summary["seconds"]
    settings = (
        f"temperature {decoding['temperature']:g}, top-p {decoding['top_p']:g}, {decoding['max_tokens']} tokens at most"
    )
    tests = {"base": summary["paired_difference"], "forced base": summary["rl_minus_forced_worked"]}
    yield (
        "Exam",
        f"suite {summary['suite']}: {words.exam(summary)}; {summary['n_samples']:,} completions per checkpoint",
    )
    yield "Decoding", f"{settings}; the same for all three"
    yield "Seeds", f"training {summary['seed']}, sampling {decoding['seed']}"
    yield "Intervals", "95%: Wilson's with problems as clusters; of differences, a paired bootstrap over problems"
    yield "Sign-flip test", ", ".join(f"RL against {name} p = {test['p_value']:.2g}" for name, test in tests.items())
    yield "Seconds", ", ".join(f"{name} {value:,.0f}" for name, value in seconds.items())
    yield "Command", manifest.get("command", "r1-mini run recipe.yaml (the recipe.yaml of this run folder)")
    for section in ("machine", "versions", "commit"):
        if manifest.get(section):
            yield section.capitalize(), _flat(manifest[section])
    for stage, weights in summary["checkpoints"].items():
        yield f"SHA-256, {stage}", _flat(weights)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in value.items() if inner is not None)
    return str(value)
