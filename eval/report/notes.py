"""What stands below the figures: how they were measured, and what they do not show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from eval.report import words


def measured(summary: words.Summary, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, value) of everything that someone needs to repeat the measurement."""
    decoding = summary["decoding"]
    runs = max(len(score["seeds"]) for score in summary["scores"].values())
    settings = f"temperature {decoding['temperature']:g}, top-p {decoding['top_p']:g}"
    yield "Exam", f"suite {summary['suite']}: {words.exam(summary)}"
    yield "Decoding", f"{settings}, {decoding['max_tokens']} tokens at most; the same for every column"
    yield "Seeds", "; ".join((*_training_seeds(summary), f"sampling {decoding['seed']}"))
    yield (
        "Intervals",
        f"95%, over problems{' and training runs' if runs > 1 else ''}; samples of a problem count as one",
    )
    for one in summary["comparisons"]:
        before, after = (summary["names"][one[side]] for side in ("before", "after"))
        holm = f", {_p(one['p_adjusted'])} after Holm" if len(summary["comparisons"]) > 1 else ""
        verdict = f"p = {_p(one['p_value'])}{holm}; {one['verdict']}"
        yield f"{after} against {before}", f"{words.points(one)}, {verdict}"
    if summary["seconds"]:
        yield "Seconds", ", ".join(f"{name} {value:,.0f}" for name, value in summary["seconds"].items())
    for section in ("command", "machine", "versions", "commit"):
        if manifest.get(section):
            yield section.capitalize(), _flat(manifest[section])
    for stage, weights in summary["checkpoints"].items():
        yield f"SHA-256, {stage}", _flat(weights)


def _training_seeds(summary: words.Summary) -> Iterator[str]:
    """Which training runs stand behind the figures."""
    if summary["seed"] is not None:
        yield f"training {summary['seed']}"
        return
    for column, score in summary["scores"].items():
        yield f"{summary['names'][column]}: training {', '.join(str(seed['seed']) for seed in score['seeds'])}"


def _p(value: float) -> str:
    return "below 0.0001" if value < 1e-4 else f"{value:.2g}"


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in value.items() if inner is not None)
    return str(value)


def limits(summary: words.Summary) -> Iterator[str]:
    """What the exam does not show, a few sentences each."""
    scores = summary["scores"].values()
    families = " and ".join(summary["families"])
    yield (
        f"Scale: it shows the mechanism on {families} problems with an exact checker, nothing about large models or "
        "other subjects."
    )
    if voice := words.forced(summary):
        yield f"Pure reasoning gain: part of it is the choice of voice. {voice}"
    yield _other_runs(summary)
    inside = [cell["depth"] for score in scores for cell in score["cells"] if cell["axis"] is None]
    further = "".join(f", {axis}" for axis in next(iter(scores))["axes"])
    tested = f" Outside of that it asks for these alone: {further[2:]}." if further else ""
    deeper = f"more than {words.operations(max(inside))}, or " if max(inside) else ""
    yield f"Other problems: {deeper}another shape than the exam's.{tested}"
    unsound = "; ".join(
        f"{summary['names'][column]} {words.percent(score['chains']['right_by_wrong'])}"
        for column, score in summary["scores"].items()
    )
    yield (
        "Sound reasoning: pass@1 looks at the answer alone. A right answer by an unsound chain counts, here as in the "
        f"reward (share of all completions: {unsound}), and a sound chain need not be what the model relied on."
    )
    yield (
        "New ability: a problem that a checkpoint solves in none of its samples may be one that it solves rarely. "
        f"pass@k shows this up to k = {summary['n_samples']} and no further."
    )


def _other_runs(summary: words.Summary) -> str:
    """How far the figures speak for training runs that were not made."""
    counts = {len(score["seeds"]) for score in summary["scores"].values()}
    if max(counts) == 1:
        seed = "" if summary["seed"] is None else f" (seed {summary['seed']})"
        whose = "it is one training run" if summary["recipe"] else "each column is one training run"
        return (
            f"Other seeds: {whose}{seed}. The intervals cover the draw of problems and samples; another seed gives "
            "another checkpoint."
        )
    several = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else f"{max(counts)}"
    return (
        f"Other seeds: each column is {several} training runs. The intervals count them as drawn at random, and so few "
        "tell little of the worst run that can happen."
    )
