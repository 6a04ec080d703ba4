"""The summary in words: the same sentences and table for the terminal and the page."""

from collections.abc import Iterable, Mapping
from typing import Any

Summary = Mapping[str, Any]
NAMES = {"base": "base", "forced_worked": "base, forced", "rl": "after RL"}
UNITS = "percent\n[95% interval]"  # of every cell of the table but the mean tokens


def percent(share: float) -> str:
    """`41.3%`."""
    return f"{100 * share:.1f}%"


def with_interval(score: Mapping[str, float]) -> str:
    """`41.3 [39.0, 43.6]`, in percent; narrow enough for three of them in a terminal of 80 columns."""
    return f"{100 * score['estimate']:.1f} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"


def points(difference: Mapping[str, float]) -> str:
    """`+12.3 points (95% interval +10.0 to +14.6)`."""
    estimate, low, high = (100 * difference[end] for end in ("estimate", "low", "high"))
    return f"{estimate:+.1f} points (95% interval {low:+.1f} to {high:+.1f})"


def exam(summary: Summary) -> str:
    """What was asked, in one line."""
    problems, each = summary["n_problems"], summary["n_samples"] // summary["n_problems"]
    return (
        f"{problems:,} {summary['split']} problems of {summary['min_depth']} or more operations, "
        f"{each} sample{'s' if each > 1 else ''} each at temperature {summary['decoding']['temperature']:g}"
    )


def headline(summary: Summary) -> str:
    """The verdict on RL against base."""
    base, rl, gain = (
        percent(summary["base"]["pass_at_1"]),
        percent(summary["rl"]["pass_at_1"]),
        summary["paired_difference"],
    )
    if summary["verdict"] == "shown":
        return f"Shown: RL raised pass@1 from {base} to {rl}: {points(gain)}."
    if gain["high"] < 0:
        return f"Not shown: RL lowered pass@1 from {base} to {rl}: {points(gain)}."
    return (
        f"Not shown: pass@1 went from {base} to {rl}: {points(gain)}; this exam cannot tell the difference from luck."
    )


def voice(summary: Summary) -> str:
    """How much of the gain the base already has when it is made to write its steps."""
    forced, more = summary["forced_worked"], summary["rl_minus_forced_worked"]
    start = f"Made to write its steps, the base alone reaches {percent(forced['pass_at_1'])}"
    if summary["verdict"] == "shown":
        share = (forced["pass_at_1"] - summary["base"]["pass_at_1"]) / summary["paired_difference"]["estimate"]
        start += f", {_part(share)} of the gain"
    if more["verdict"] == "shown":
        return f"{start}; RL is ahead of that by {points(more)}. Shown: RL does more than choose the voice."
    return f"{start}; RL against that: {points(more)}. Not shown: RL may only have chosen the voice."


def _part(share: float) -> str:
    if share <= 0:
        return "none"
    return "all" if share >= 1 else f"{100 * share:.0f}%"


def length(summary: Summary) -> str:
    """How the completions grew."""
    base, rl = summary["base"]["mean_tokens"], summary["rl"]["mean_tokens"]
    return f"The mean completion went from {base:.1f} to {rl:.1f} tokens ({rl / base:.1f} times)."


def limits(summary: Summary) -> list[str]:
    """What the exam does not show, a few sentences each."""
    families, deepest = " and ".join(summary["families"]), max(map(int, summary["rl"]["by_depth"]))
    return [
        f"Scale: it shows the mechanism on {families} problems with an exact checker, nothing about large models or "
        "other subjects.",
        f"Pure reasoning gain: part of it is the choice of voice. {voice(summary)}",
        f"Other seeds: it is one training run (seed {summary['seed']}). The intervals cover the draw of problems and "
        "samples; another seed gives another checkpoint.",
        f"Other problems: more than {deepest} operations, or another shape than the exam's.",
        "Sound reasoning: pass@1 looks at the answer alone, so a right answer after a wrong step counts, here as in "
        "the reward.",
        "New ability: pass@1 cannot tell it from an old one that is now used every time; that takes many samples per "
        "problem (pass@k).",
    ]


def table(summary: Summary) -> list[list[tuple[str, list[str]]]]:
    """Sections of rows (label, one cell per checkpoint), in `UNITS`: the whole exam, the voices, the depths."""
    scores = [summary[name] for name in NAMES]

    def shares(label: str, values: Iterable[float]) -> tuple[str, list[str]]:
        return label, [f"{100 * value:.1f}" for value in values]

    whole = [
        ("pass@1", [with_interval({"estimate": s["pass_at_1"], **s["pass_at_1_interval"]}) for s in scores]),
        ("mean tokens", [f"{s['mean_tokens']:.1f}" for s in scores]),
        shares("well-formed", (s["well_formed"] for s in scores)),
        shares("cut off", (s["truncated"] for s in scores)),
    ]
    voices = [shares(f"voice {name}", (s["voices"][name] for s in scores)) for name in scores[0]["voices"]]
    depths = [
        (f"{depth} operations", [with_interval(s["by_depth"][depth]) for s in scores])
        for depth in scores[0]["by_depth"]
    ]
    if scores[0]["one_step"]:
        depths.append(("1, not in pass@1", [with_interval(s["one_step"]) for s in scores]))
    return [whole, voices, depths]
