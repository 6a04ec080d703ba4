"""What the terminal and the page say of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.exam.samples import VOICES
from eval.report.words import signed, with_interval

Summary = Mapping[str, Any]
LONGEST_NAME = 40


def shortened(summary: Summary) -> tuple[Summary, dict[str, str]]:
    """The summary with settings called by their rank where names are too long to stand in a sentence, and name -> rank.

    Those that are in no table keep their names. Where no name is long: the summary as it is, every name for itself.
    """
    names = [setting["name"] for setting in summary["settings"]]
    if max(map(len, names)) <= LONGEST_NAME:
        return summary, {name: name for name in names}
    ranks = {name: f"#{rank}" for rank, name in enumerate(names, start=1)}
    settings = [{**setting, "name": ranks[setting["name"]]} for setting in summary["settings"]]
    return {**summary, "settings": settings, "default": ranks[summary["default"]]}, ranks


def exam(summary: Summary) -> str:
    """Who was asked what."""
    seeds = ", ".join(map(str, summary["seeds"]))
    asked = f"{summary['n_problems']:,} {summary['split']} problems, {summary['n_samples']} samples each"
    return f"{len(summary['settings'])} settings, {asked}, training seeds {seeds}"


def verdict(summary: Summary) -> str:
    """In a sentence: which settings are better, worse, or not told apart from the default."""
    words: dict[str, list[str]] = {"better": [], "worse": [], "tied": []}
    for setting in summary["settings"]:
        if setting["against_default"]:
            words[setting["against_default"]["word"]].append(setting["name"])
    parts = [
        f"{phrase} '{summary['default']}': {', '.join(words[word])}"
        for word, phrase in (("better", "Better than"), ("worse", "Worse than"), ("tied", "Not told apart from"))
        if words[word]
    ]
    return ". ".join(parts) or "Nothing to compare"


def sentences(summary: Summary) -> Sequence[str]:
    """What the table means."""
    compared = sum(bool(setting["against_default"]) for setting in summary["settings"])
    said = [
        f"{verdict(summary)}.",
        f"Verdicts are on paired differences, with p-values corrected for {compared} comparisons (Holm).",
    ]
    if len(summary["seeds"]) < 2:
        said.append("One training seed: the verdicts speak of these trainings only.")
    if summary["pruned"]:
        said.append(f"Ended early, worse on dev than the median so far: {_trainings(summary['pruned'])}.")
    if summary["unfinished"]:
        said.append(f"Without a finished trial, and left out: {', '.join(summary['unfinished'])}.")
    said += [f"Failed: {each['setting']}, seed {each['seed']} ({each['reason']})." for each in summary["failures"]]
    return said


def _trainings(number: int) -> str:
    return f"{number} training{'s' if number != 1 else ''}"


def importances(summary: Summary) -> str:
    """Which keys matter; empty where that is not known."""
    shares = ", ".join(f"{key} {100 * share:.0f}%" for key, share in summary["importances"].items())
    return f"What tells the best quarter of the trainings from the rest (PED-ANOVA): {shares}." if shares else ""


def headings(summary: Summary) -> list[str]:
    """Those of `rows`."""
    score, k = summary["objective"].replace("_at_", "@"), summary["n_samples"]
    between = ["seeds", "interquartile mean", "difference", "improves", "verdict"]
    return ["setting", score, *between, f"pass@{k}", f"maj@{k}", "tokens", "right, sound", *VOICES, "nats/token", "KL"]


def rows(summary: Summary) -> list[list[str]]:
    """A row for each setting, the best first, then what training started from."""
    is_share = summary["is_share"]

    def ends(interval: Mapping[str, float]) -> str:
        if is_share:
            return with_interval(interval)
        return f"{interval['estimate']:.1f} [{interval['low']:.1f}, {interval['high']:.1f}]"

    def gain(interval: Mapping[str, float]) -> str:
        show = signed if is_share else "{:+.1f}".format
        return f"{show(interval['estimate'])} [{show(interval['low'])}, {show(interval['high'])}]"

    table = []
    for setting in summary["settings"]:
        against = setting["against_default"]
        seeds = [each["score"] for each in setting["seeds"]]
        table.append(
            [
                setting["name"],
                ends(setting["score"]),
                "  ".join(_share(score) if is_share else f"{score:.1f}" for score in seeds),
                ends(setting["interquartile_mean"]),
                gain(against["difference"]) if against else "",
                f"{against['improvement']['estimate']:.2f}" if against else "",
                against["word"] if against else "the default",
                *_figures(setting),
            ]
        )
    return table + [[start["name"], ends(start["score"]), *[""] * 5, *_figures(start)] for start in summary["starts"]]


def _figures(setting: Mapping[str, Any]) -> list[str]:
    shares = [setting["pass_at_k"], setting["maj_at_k"]]
    voices = [setting["right_and_sound"], *(setting["voices"][voice] for voice in VOICES)]
    kl = "" if setting["kl"] is None else f"{setting['kl']:.1f}"
    nats = [f"{setting['entropy']:.3f}", kl]
    return [*map(_share, shares), f"{setting['mean_tokens']:.1f}", *map(_share, voices), *nats]


def _share(value: float) -> str:
    return f"{100 * value:.1f}"
