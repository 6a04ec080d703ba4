"""A comparison in words: the sentences and tables that the terminal, the page and the model card share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

from eval.analysis.compare import Comparison, Difference
from eval.analysis.stats import Interval
from eval.exam.columns import BASE, FORCED
from eval.exam.samples import VOICES

Sweep = Mapping[str, Any]
"""The summary of a sweep."""
Figure = tuple[str, str, Callable[[Any], str]]
"""A figure of a table: its label, where it stands in a score, and how it is written."""
UNITS = "percent\n[95% interval]"  # of every cell of the table but the tokens and nats
LONGEST_NAME = 40


def percent(share: float) -> str:
    """`41.3%`."""
    return f"{100 * share:.1f}%"


def in_hundred(share: float) -> str:
    """`41.3`."""
    return f"{100 * share:.1f}"


def with_interval(score: Interval) -> str:
    """`41.3 [39.0, 43.6]`, in percent; narrow enough for three of them in a terminal of 80 columns."""
    estimate, low, high = (in_hundred(end).replace("100.0", "100") for end in score.ends)
    return f"{estimate} [{low}, {high}]"


def signed(share: float) -> str:
    """`+12.3`, in points."""
    return f"{100 * share:+.1f}".replace("-0.0", "+0.0")


def points(difference: Interval) -> str:
    """`+12.3 points (95% interval +10.0 to +14.6)`."""
    estimate, low, high = map(signed, difference.ends)
    return f"{estimate} points (95% interval {low} to {high})"


def operations(depth: int) -> str:
    """`3 operations`; 0 stands for problems that are not counted in operations."""
    return f"{depth} operation{'s' if depth != 1 else ''}" if depth else "all"


_ONE, _NATS = "{:.1f}".format, "{:.3f}".format
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
"""Answer, then chain. A chain is sound if no wrong step is left standing and it arrives at a number."""
ACCURACY: tuple[Figure, ...] = (
    ("pass@1", "pass_at_k.0", with_interval),
    ("greedy", "greedy", with_interval),
    ("maj@{k}", "maj_at_k.-1", with_interval),
    ("pass@{k}", "pass_at_k.-1", with_interval),
)
COMPLETIONS: tuple[Figure, ...] = (
    ("tokens", "mean_tokens", _ONE),
    ("tokens, right", "tokens_right", _ONE),
    ("tokens, wrong", "tokens_wrong", _ONE),
    ("nats per token", "entropy", _NATS),
    ("KL to base, nats", "kl", _ONE),
    ("well-formed", "well_formed", in_hundred),
    ("truncated", "truncated", in_hundred),
)
OPTIONAL = ("greedy", "kl")  # left out where no column has them
SWEEP: tuple[Figure, ...] = (
    ("pass@{k}", "pass_at_k.-1.estimate", in_hundred),
    ("maj@{k}", "maj_at_k.-1.estimate", in_hundred),
    ("tokens", "mean_tokens", _ONE),
    ("right, sound", "chains.right_by_right", in_hundred),
    *((voice, f"voices.{voice}", in_hundred) for voice in VOICES),
    ("nats/token", "entropy", _NATS),
    ("KL", "kl", _ONE),
)


def cell(score: Any, figure: Figure) -> str:
    """A figure of a score as text, `-` where there is none."""
    value = score
    for step in figure[1].split("."):
        if isinstance(value, Sequence):
            value = value[int(step)]
        else:
            value = value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
    return "-" if value is None else figure[2](value)


def table(summary: Comparison) -> list[list[tuple[str, list[str]]]]:
    """Sections of rows (label, one cell per column) in `UNITS`: accuracy, completions, voices, chains, runs."""
    scores = list(summary.scores.values())
    most = scores[0].pass_at_k[-1].k
    absent = {key for key in OPTIONAL if all(getattr(score, key) is None for score in scores)}
    sections = (
        ACCURACY if most > 1 else ACCURACY[:2],
        COMPLETIONS,
        [(f"voice {voice}", f"voices.{voice}", in_hundred) for voice in VOICES],
        [(CHAINS[kind], f"chains.{kind}", in_hundred) for kind in chains_of(summary)],
    )
    rows = [
        [(each[0].format(k=most), [cell(score, each) for score in scores]) for each in section if each[1] not in absent]
        for section in sections
    ]
    runs = max(len(score.seeds) for score in scores)
    if runs > 1:
        texts = [[f"{in_hundred(seed.pass_at_1)} (seed {seed.seed})" for seed in score.seeds] for score in scores]
        by_run = zip_longest(*texts, fillvalue="-")
        rows.append([(f"run {number}", list(cells)) for number, cells in enumerate(by_run, start=1)])
    return rows


def chains_of(summary: Comparison) -> list[str]:
    """Those of `CHAINS` that occur, or could have: most exams check either all chains or none."""
    scores = list(summary.scores.values())
    occurs = {kind: any(score.chains.get(kind) for score in scores) for kind in CHAINS}
    checked = any(found for kind, found in occurs.items() if "_by_" in kind)
    return [
        kind
        for kind, found in occurs.items()
        if found or kind.endswith("without") or (checked and not kind.endswith("unchecked"))
    ]


def by_difficulty(summary: Comparison) -> dict[str, dict[str, list[Any]]]:
    """Caption -> label -> one accuracy per column: each family by depth, then the out-of-distribution axes.

    A column without such problems has None.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for place, score in enumerate(summary.scores.values()):
        cells = [(each.family, operations(each.depth), each) for each in score.cells if each.axis is None]
        axes = [("outside of training", axis, each) for axis, each in score.axes.items()]
        for caption, label, each in [*cells, *axes]:
            row = found.setdefault(caption, {}).setdefault(label, [None] * len(summary.scores))
            row[place] = each
    return found


def exam(summary: Comparison) -> str:
    """The question set, in one line."""
    each = summary.n_samples
    return (
        f"{summary.n_problems:,} {summary.split} problems ({', '.join(summary.families)}), "
        f"{each} sample{'s' if each > 1 else ''} each at temperature {summary.decoding['temperature']:g}"
    )


def sentences(summary: Comparison) -> Iterator[str]:
    """All that the exam shows, most important first; a sentence that does not apply to these columns is left out."""
    names, scores = summary.names, summary.scores
    if not summary.comparisons:
        figures = "; ".join(f"{names[key]} {percent(score.pass_at_1)}" for key, score in scores.items())
        yield f"pass@1: {figures}."
        yield from _of_seeds(summary)
        return
    first, *others = summary.comparisons
    before, after = names[first.before], names[first.after]
    old, new = scores[first.before], scores[first.after]
    gain, found = summary.gain, summary.sharpened
    assert gain is not None and found is not None  # they belong to the first difference
    written_out = (f"{first.before}+worked", *([FORCED] if first.before == BASE else []))
    forced = next((key for key in scores if key in written_out), "")
    more = next((one for one in others if (one.before, one.after) == (forced, first.after)), None)

    ends = f"from {percent(old.pass_at_1)} ({before}) to {percent(new.pass_at_1)} ({after}): {points(first)}"
    yield {
        "rose": f"Shown: pass@1 rose {ends}.",
        "fell": f"Not shown: pass@1 fell {ends}.",
        "changed": f"Not shown: pass@1 went {ends}; this exam cannot tell the difference from luck.",
    }[_movement(first)]
    smallest = in_hundred(first.detectable)
    yield f"The smallest detectable difference, one that this exam shows four times in five, is {smallest} points."
    if others:
        yield f"Verdicts are on p-values corrected for {1 + len(others)} comparisons (Holm)."
    if more is not None:
        written, part = scores[forced].pass_at_1, ""
        if first.verdict == "shown":
            share = (written - old.pass_at_1) / first.estimate
            part = f", {'none' if share <= 0 else 'all' if share >= 1 else f'{100 * share:.0f}%'} of the gain"
        verdict = "Shown: the gain is more than" if more.verdict == "shown" else "Not shown: the gain may be only"
        yield (
            f"Forced to write its steps, {before} alone reaches {percent(written)}{part}; from there to {after} it "
            f"{_movement(more)} by {points(more)}. {verdict} a choice of voice."
        )
    yield from _of_seeds(summary)
    times = f" ({new.mean_tokens / old.mean_tokens:.1f} times)" if old.mean_tokens else ""
    yield f"The mean completion went from {old.mean_tokens:.1f} to {new.mean_tokens:.1f} tokens{times}."
    parts = ", ".join(f"{part.name} {signed(part.estimate)}" for part in gain.parts)
    yield f"The difference is the sum of these parts, in points: {parts}."
    if found.leads and first.verdict == "shown":
        n, crossing, tell = found.n, found.crossing, f"as far as {summary.n_samples} samples tell"
        start = f"Sharpened: with {crossing} samples per problem, {before} solves as many problems as {after}."
        if crossing is None:
            start = f"Not only sharpened, {tell}: {before} stays below {after} at every k."
        if forced:
            last = scores[forced].pass_at_k[-1]
            start += f" Forced to write its steps, it reaches {percent(last.estimate)} at pass@{last.k}."
        yield (
            f"{start} Of {summary.n_problems:,} problems, {after} solves {found.n_solved_anew:,} that {before} "
            f"solved in none of {n} samples, and {found.n_lost:,} the other way round. None of {n} still allows a rate "
            f"of up to {percent(found.bound)} (95% bound), so these may be rare rather than new."
        )


def _movement(difference: Difference) -> str:
    """Only a gain that is shown `rose`; `fell` has its interval below zero."""
    return "rose" if difference.verdict == "shown" else "fell" if difference.high < 0 else "changed"


def _of_seeds(summary: Comparison) -> Iterator[str]:
    """How far training runs differ, where there are several."""
    runs = {key: [seed.pass_at_1 for seed in score.seeds] for key, score in summary.scores.items()}
    several = {summary.names[key]: each for key, each in runs.items() if len(each) > 1}
    if several:
        ranges = "; ".join(f"{name} {percent(min(each))} to {percent(max(each))}" for name, each in several.items())
        yield f"From the worst to the best of {max(map(len, several.values()))} training runs: {ranges}."


def shortened(summary: Sweep) -> tuple[Sweep, dict[str, str]]:
    """A sweep's summary in which settings are called by their rank if a name is too long for a sentence; name -> rank.

    If no name is too long, this returns the summary as it is, and every name for itself.
    """
    names = [setting["name"] for setting in summary["settings"]]
    if max(map(len, names)) <= LONGEST_NAME:
        return summary, {name: name for name in names}
    ranks = {name: f"#{rank}" for rank, name in enumerate(names, start=1)}
    settings = [{**setting, "name": ranks[setting["name"]]} for setting in summary["settings"]]
    return {**summary, "settings": settings, "default": ranks[summary["default"]]}, ranks


def sweep_exam(summary: Sweep) -> str:
    """Settings and question set of a sweep, in one line."""
    problems = f"{summary['n_problems']:,} {summary['split']} problems, {summary['n_samples']} samples each"
    return f"{len(summary['settings'])} settings, {problems}, training seeds {', '.join(map(str, summary['seeds']))}"


def sweep_sentences(summary: Sweep) -> list[str]:
    """What a sweep shows: first the verdict, which settings are better or worse than the default, or neither."""
    against = {each["name"]: each["against_default"]["word"] for each in summary["settings"] if each["against_default"]}
    phrases = {"better": "Better than", "worse": "Worse than", "tied": "Not told apart from"}
    verdicts = [
        f"{phrase} '{summary['default']}': {', '.join(name for name, found in against.items() if found == word)}"
        for word, phrase in phrases.items()
        if word in against.values()
    ]
    written = [
        f"{'. '.join(verdicts) or 'Nothing to compare'}.",
        f"Verdicts are on paired differences, with p-values corrected for {len(against)} comparisons (Holm).",
    ]
    if len(summary["seeds"]) < 2:
        written.append("There is one training seed, so the verdicts hold for these trainings only.")
    if pruned := summary["pruned"]:
        trainings = f"{pruned} training{'s' if pruned != 1 else ''}"
        written.append(f"Stopped early, because worse on dev than the median so far: {trainings}.")
    if summary["unfinished"]:
        written.append(f"Left out, because without a finished trial: {', '.join(summary['unfinished'])}.")
    return written + [
        f"Failed: {each['setting']}, seed {each['seed']} ({each['reason']})." for each in summary["failures"]
    ]


def sweep_table(summary: Sweep) -> list[list[str]]:
    """Headings, then a row for each setting, the best first, and for what training started from."""
    one, sign = (in_hundred, signed) if summary["is_share"] else (_ONE, "{:+.1f}".format)

    def interval(write: Callable[[float], str], value: Mapping[str, float]) -> str:
        return f"{write(value['estimate'])} [{write(value['low'])}, {write(value['high'])}]"

    figures: list[Figure] = [
        ("setting", "name", lambda name: f"{name} (default)" if name == summary["default"] else name),
        (summary["objective"].replace("_at_", "@"), "score", partial(interval, one)),
        ("seeds", "seeds", lambda seeds: "  ".join(one(each["score"]) for each in seeds)),
        ("interquartile mean", "interquartile_mean", partial(interval, one)),
        ("difference", "against_default.difference", partial(interval, sign)),
        ("improves", "against_default.improvement.estimate", "{:.2f}".format),
        ("verdict", "against_default.word", str),
        *SWEEP,
    ]
    rows = [[cell(each, figure) for figure in figures] for each in [*summary["settings"], *summary["starts"]]]
    return [[label.format(k=summary["n_samples"]) for label, _, _ in figures], *rows]
