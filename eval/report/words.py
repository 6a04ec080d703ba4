"""The summary in words: the same sentences and table for the terminal and the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eval.exam.samples import VOICES

Summary = Mapping[str, Any]
Section = list[tuple[str, list[str]]]
SPECIAL = ("base", "forced_worked", "rl")
"""Column ids with sentences and colors of their own: base, base made to write its steps, and base after RL."""
UNITS = "percent\n[95% interval]"  # of every cell of the table but the tokens
CHAINS = {
    "right_by_right": "right, sound",
    "right_by_wrong": "right, unsound",
    "right_without": "right, no chain",
    "wrong_by_right": "wrong, sound",
    "wrong_by_wrong": "wrong, unsound",
    "wrong_without": "wrong, no chain",
    "right_unchecked": "right, unchecked",
    "wrong_unchecked": "wrong, unchecked",
}
"""Answer, then chain: a sound one has no wrong step left standing and arrives at a number; some have no checker."""


def percent(share: float) -> str:
    """`41.3%`."""
    return f"{100 * share:.1f}%"


def operations(depth: int) -> str:
    """`3 operations`; 0 is of problems that do not tell."""
    return f"{depth} operation{'s' if depth != 1 else ''}" if depth else "operations not known"


def with_interval(score: Mapping[str, float]) -> str:
    """`41.3 [39.0, 43.6]`, in percent; narrow enough for three of them in a terminal of 80 columns."""
    estimate, low, high = (f"{100 * score[end]:.1f}".replace("100.0", "100") for end in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


def signed(share: float) -> str:
    """`+12.3`, in points."""
    return f"{100 * share:+.1f}".replace("-0.0", "+0.0")


def points(difference: Mapping[str, float]) -> str:
    """`+12.3 points (95% interval +10.0 to +14.6)`."""
    estimate, low, high = (signed(difference[end]) for end in ("estimate", "low", "high"))
    return f"{estimate} points (95% interval {low} to {high})"


def exam(summary: Summary) -> str:
    """What was asked, in one line."""
    problems, each = summary["n_problems"], summary["n_samples"]
    return (
        f"{problems:,} {summary['split']} problems ({', '.join(summary['families'])}), "
        f"{each} sample{'s' if each > 1 else ''} each at temperature {summary['decoding']['temperature']:g}"
    )


def sentences(summary: Summary) -> list[str]:
    """All that the exam shows, most important first; what does not apply to these columns is left out."""
    said = (headline, detectable, corrected, forced, seeds, length, gain, sharpened)
    return [sentence for say in said if (sentence := say(summary))]


def headline(summary: Summary) -> str:
    """The verdict on the first comparison, or the scores alone if there is nothing to compare."""
    if not summary["comparisons"]:
        scores = (
            f"{summary['names'][column]} {percent(score['pass_at_1'])}" for column, score in summary["scores"].items()
        )
        return f"pass@1: {'; '.join(scores)}."
    first = summary["comparisons"][0]
    before, after = (summary["names"][first[side]] for side in ("before", "after"))
    start, end = (percent(summary["scores"][first[side]]["pass_at_1"]) for side in ("before", "after"))
    trained = (first["before"], first["after"]) == ("base", "rl")
    if first["verdict"] == "shown":
        what = f"RL raised pass@1 from {start} to {end}" if trained else f"{after} ({end}) beats {before} ({start})"
        return f"Shown: {what}: {points(first)}."
    if first["high"] < 0:
        what = f"RL lowered pass@1 from {start} to {end}" if trained else f"{after} ({end}) is below {before} ({start})"
        return f"Not shown: {what}: {points(first)}."
    what = f"pass@1 went from {start} to {end}" if trained else f"{after} has {end}, {before} {start}"
    return f"Not shown: {what}: {points(first)}; this exam cannot tell the difference from luck."


def detectable(summary: Summary) -> str:
    """How fine the exam is."""
    if not summary["comparisons"]:
        return ""
    smallest = 100 * summary["comparisons"][0]["detectable"]
    return f"The smallest detectable difference, one that this exam shows four times in five, is {smallest:.1f} points."


def corrected(summary: Summary) -> str:
    """That several comparisons were corrected for being several."""
    several = len(summary["comparisons"])
    return f"Verdicts are on p-values corrected for {several} comparisons (Holm)." if several > 1 else ""


def forced(summary: Summary) -> str:
    """How much of the gain the base already has when it is made to write its steps; needs the three special columns."""
    pairs = {(one["before"], one["after"]): one for one in summary["comparisons"]}
    headlined, more = pairs.get(("base", "rl")), pairs.get(("forced_worked", "rl"))
    if headlined is None or more is None:
        return ""
    base, written = (summary["scores"][column]["pass_at_1"] for column in ("base", "forced_worked"))
    started = "base" if summary["names"]["base"] == "base" else f"model {summary['names']['base']}"
    start = f"Made to write its steps, the {started} alone reaches {percent(written)}"
    if headlined["verdict"] == "shown":
        start += f", {_part((written - base) / headlined['estimate'])} of the gain"
    if more["verdict"] == "shown":
        return f"{start}; RL is ahead of that by {points(more)}. Shown: RL does more than choose the voice."
    against = "is below that by" if more["high"] < 0 else "against that:"
    return f"{start}; RL {against} {points(more)}. Not shown: RL may only have chosen the voice."


def _part(share: float) -> str:
    if share <= 0:
        return "none"
    return "all" if share >= 1 else f"{100 * share:.0f}%"


def seeds(summary: Summary) -> str:
    """How far training runs differ, where there are several."""
    spreads = []
    for column, score in summary["scores"].items():
        scores = [seed["pass_at_1"] for seed in score["seeds"]]
        if len(scores) > 1:
            spreads.append(f"{summary['names'][column]} {percent(min(scores))} to {percent(max(scores))}")
    most = max(len(score["seeds"]) for score in summary["scores"].values())
    return f"From the worst to the best of {most} training runs: {'; '.join(spreads)}." if spreads else ""


def length(summary: Summary) -> str:
    """How the completions of the first comparison grew."""
    if not summary["comparisons"]:
        return ""
    first = summary["comparisons"][0]
    before, after = (summary["scores"][first[side]]["mean_tokens"] for side in ("before", "after"))
    times = f" ({after / before:.1f} times)" if before else ""
    return f"The mean completion went from {before:.1f} to {after:.1f} tokens{times}."


def gain(summary: Summary) -> str:
    """What the difference is made of."""
    if summary["gain"] is None:
        return ""
    parts = ", ".join(f"{part['name']} {signed(part['estimate'])}" for part in summary["gain"]["parts"])
    return f"The difference is the sum of these parts, in points: {parts}."


def sharpened(summary: Summary) -> str:
    """Whether RL only made likely what the base could do already."""
    found = summary["sharpened"]
    if found is None:
        return ""
    pair = (found["before"], found["after"])
    shown = any((one["before"], one["after"]) == pair and one["verdict"] == "shown" for one in summary["comparisons"])
    if not found["leads"] or not shown:
        return ""
    before, after, n = summary["names"][found["before"]], summary["names"][found["after"]], found["n"]
    if found["crossing"] is not None:
        start = f"Sharpened: with {found['crossing']} samples per problem, {before} solves as many problems as {after}."
    else:
        tell = f"as far as {summary['n_samples']} samples tell"
        start = f"Not only sharpened, {tell}: {before} stays below {after} at every k."
    written = summary["scores"].get("forced_worked")
    if written and found["before"] == "base":
        last = written["pass_at_k"][-1]
        start += f" Made to write its steps, it reaches {percent(last['estimate'])} at pass@{last['k']}."
    anew, lost = found["n_solved_anew"], found["n_lost"]
    count = (
        f"Of {summary['n_problems']:,} problems, {after} solves {anew:,} that {before} solved in none of {n} samples"
    )
    return (
        f"{start} {count}, and {lost:,} the other way round. None of {n} still allows a rate of up to "
        f"{percent(found['bound'])} (95% bound), so these may be rare rather than new."
    )


def table(summary: Summary) -> list[Section]:
    """Sections of rows (label, one cell per column) in `UNITS`: accuracy, completions, voices, chains, runs."""
    scores = list(summary["scores"].values())

    def row(label: str, cell: Callable[[Any], str]) -> tuple[str, list[str]]:
        return label, [cell(score) for score in scores]

    def one_decimal(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    def share(field: str, key: str) -> Callable[[Any], str]:
        return lambda score: one_decimal(100 * score[field][key])

    def at_most_k(name: str) -> Callable[[Any], str]:
        return lambda score: with_interval(score[name][-1])

    most = scores[0]["pass_at_k"][-1]["k"]
    accuracy = [row("pass@1", lambda s: with_interval({"estimate": s["pass_at_1"], **s["pass_at_1_interval"]}))]
    if any(score["greedy"] for score in scores):
        accuracy.append(row("greedy", lambda s: with_interval(s["greedy"]) if s["greedy"] else "-"))
    if most > 1:
        accuracy += [row(f"maj@{most}", at_most_k("maj_at_k")), row(f"pass@{most}", at_most_k("pass_at_k"))]
    completions = [
        row("tokens", lambda s: one_decimal(s["mean_tokens"])),
        row("tokens, right", lambda s: one_decimal(s["tokens_right"])),
        row("tokens, wrong", lambda s: one_decimal(s["tokens_wrong"])),
        row("nats per token", lambda s: f"{s['entropy']:.3f}"),
        *(
            [row("KL to base, nats", lambda s: one_decimal(s["kl"]))]
            if any(score["kl"] is not None for score in scores)
            else []
        ),
        row("well-formed", lambda s: one_decimal(100 * s["well_formed"])),
        row("cut off", lambda s: one_decimal(100 * s["truncated"])),
    ]
    voices = [row(f"voice {name}", share("voices", name)) for name in VOICES]
    chains = [row(label, share("chains", key)) for key, label in chains_of(summary).items()]
    sections = [accuracy, completions, voices, chains]
    runs = max(len(score["seeds"]) for score in scores)
    if runs > 1:
        sections.append([(f"run {place + 1}", [_run(score, place) for score in scores]) for place in range(runs)])
    return sections


def chains_of(summary: Summary) -> dict[str, str]:
    """Those of `CHAINS` that occur, or could have: chains are either checked or not, in most exams."""
    scores = list(summary["scores"].values())
    kinds = {key: any(score["chains"].get(key) for score in scores) for key in CHAINS}
    checked = any(there for key, there in kinds.items() if "_by_" in key)
    return {
        key: label
        for key, label in CHAINS.items()
        if kinds[key] or (checked and not key.endswith("unchecked")) or key.endswith("without")
    }


def _run(score: Any, place: int) -> str:
    """pass@1 of one training run, with its seed."""
    if place >= len(score["seeds"]):
        return "-"
    seed = score["seeds"][place]
    return f"{100 * seed['pass_at_1']:.1f} (seed {seed['seed']})"
