"""A comparison in words: the sentences and tables that the terminal, the page and the model card share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eval.exam.samples import VOICES

Summary = Mapping[str, Any]
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


def with_interval(score: Mapping[str, float]) -> str:
    """`41.3 [39.0, 43.6]`, in percent; narrow enough for three of them in a terminal of 80 columns."""
    estimate, low, high = (in_hundred(score[end]).replace("100.0", "100") for end in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


def signed(share: float) -> str:
    """`+12.3`, in points."""
    return f"{100 * share:+.1f}".replace("-0.0", "+0.0")


def points(difference: Mapping[str, float]) -> str:
    """`+12.3 points (95% interval +10.0 to +14.6)`."""
    estimate, low, high = (signed(difference[end]) for end in ("estimate", "low", "high"))
    return f"{estimate} points (95% interval {low} to {high})"


def operations(depth: int) -> str:
    """`3 operations`; 0 stands for problems that have no number of operations."""
    return f"{depth} operation{'s' if depth != 1 else ''}" if depth else "operations not known"


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
    ("pass@{k}", "pass_at_k", in_hundred),
    ("maj@{k}", "maj_at_k", in_hundred),
    ("tokens", "mean_tokens", _ONE),
    ("right, sound", "right_and_sound", in_hundred),
    *((voice, f"voices.{voice}", in_hundred) for voice in VOICES),
    ("nats/token", "entropy", _NATS),
    ("KL", "kl", _ONE),
)


def cell(score: Any, figure: Figure) -> str:
    """A figure of a score as text, `-` where it was not measured."""
    value = score
    for step in figure[1].split("."):
        value = value[int(step) if step.lstrip("-").isdigit() else step]
    return "-" if value is None else figure[2](value)


def table(summary: Summary) -> list[list[tuple[str, list[str]]]]:
    """Sections of rows (label, one cell per column) in `UNITS`: accuracy, completions, voices, chains, runs."""
    scores = list(summary["scores"].values())
    most = scores[0]["pass_at_k"][-1]["k"]
    absent = {key for key in OPTIONAL if all(score[key] is None for score in scores)}
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
    runs = max(len(score["seeds"]) for score in scores)
    if runs > 1:
        rows.append([(f"run {run + 1}", [_run(score["seeds"], run) for score in scores]) for run in range(runs)])
    return rows


def _run(seeds: Sequence[Any], run: int) -> str:
    """pass@1 of one training run, with its seed."""
    return f"{in_hundred(seeds[run]['pass_at_1'])} (seed {seeds[run]['seed']})" if run < len(seeds) else "-"


def chains_of(summary: Summary) -> list[str]:
    """Those of `CHAINS` that occur, or could have: most exams check either all chains or none."""
    scores = list(summary["scores"].values())
    occurs = {kind: any(score["chains"].get(kind) for score in scores) for kind in CHAINS}
    checked = any(found for kind, found in occurs.items() if "_by_" in kind)
    return [
        kind
        for kind, found in occurs.items()
        if found or kind.endswith("without") or (checked and not kind.endswith("unchecked"))
    ]


def by_difficulty(summary: Summary) -> Iterator[tuple[str, list[tuple[str, int, list[Any]]]]]:
    """(caption, rows) of each family by depth, then of the out-of-distribution axes.

    A row is (label, number of problems, one accuracy per column); a column without such problems has None.
    """
    scores = list(summary["scores"].values())
    cells = [{(c["family"], c["depth"]): c for c in score["cells"] if c["axis"] is None} for score in scores]
    kinds = list(dict.fromkeys(kind for column in cells for kind in column))
    for family in dict.fromkeys(family for family, _ in kinds):
        depths = sorted(depth for other, depth in kinds if other == family)
        labels = {depth: "all" if depths == [0] else operations(depth) for depth in depths}
        yield (
            family,
            [_accuracies(labels[depth], [column.get((family, depth)) for column in cells]) for depth in depths],
        )
    if axes := list(dict.fromkeys(axis for score in scores for axis in score["axes"])):
        yield "outside of training", [_accuracies(axis, [score["axes"].get(axis) for score in scores]) for axis in axes]


def _accuracies(label: str, cells: list[Any]) -> tuple[str, int, list[Any]]:
    return label, max(cell["n_problems"] for cell in cells if cell is not None), cells


def exam(summary: Summary) -> str:
    """The question set, in one line."""
    each = summary["n_samples"]
    return (
        f"{summary['n_problems']:,} {summary['split']} problems ({', '.join(summary['families'])}), "
        f"{each} sample{'s' if each > 1 else ''} each at temperature {summary['decoding']['temperature']:g}"
    )


def sentences(summary: Summary) -> list[str]:
    """All that the exam shows, most important first; a sentence that does not apply to these columns is left out."""
    names, scores = summary["names"], summary["scores"]
    if not summary["comparisons"]:
        figures = "; ".join(f"{names[column]} {percent(score['pass_at_1'])}" for column, score in scores.items())
        return [f"pass@1: {figures}.", *seeds(summary)]
    first, several = summary["comparisons"][0], len(summary["comparisons"])
    before, after = (scores[first[side]]["mean_tokens"] for side in ("before", "after"))
    parts = ", ".join(f"{part['name']} {signed(part['estimate'])}" for part in summary["gain"]["parts"])
    smallest = in_hundred(first["detectable"])
    return [
        headline(summary),
        f"The smallest detectable difference, one that this exam shows four times in five, is {smallest} points.",
        *([f"Verdicts are on p-values corrected for {several} comparisons (Holm)."] if several > 1 else []),
        *forced(summary),
        *seeds(summary),
        f"The mean completion went from {before:.1f} to {after:.1f} tokens ({after / max(before, 0.1):.1f} times).",
        f"The difference is the sum of these parts, in points: {parts}.",
        *sharpened(summary),
    ]


def headline(summary: Summary) -> str:
    """The verdict on the first comparison."""
    first = summary["comparisons"][0]
    before, after = (
        f"{percent(summary['scores'][column]['pass_at_1'])} ({summary['names'][column]})"
        for column in (first["before"], first["after"])
    )
    if first["verdict"] == "shown":
        return f"Shown: pass@1 rose from {before} to {after}: {points(first)}."
    if first["high"] < 0:
        return f"Not shown: pass@1 fell from {before} to {after}: {points(first)}."
    luck = "this exam cannot tell the difference from luck"
    return f"Not shown: pass@1 went from {before} to {after}: {points(first)}; {luck}."


def forced(summary: Summary) -> Iterator[str]:
    """How much of the first difference its first column already has when it is forced to write its steps."""
    first, *others = summary["comparisons"]
    for more in others:
        if more["after"] != first["after"] or not is_forced(more["before"], first["before"]):
            continue
        before, written = (summary["scores"][one["before"]]["pass_at_1"] for one in (first, more))
        part = ""
        if first["verdict"] == "shown":
            share = (written - before) / first["estimate"]
            part = f", {'none' if share <= 0 else 'all' if share >= 1 else f'{100 * share:.0f}%'} of the gain"
        verb, verdict = "changes by", "Not shown: the gain may be only a choice of voice."
        if more["verdict"] == "shown":
            verb, verdict = "rises by", "Shown: the gain is more than a choice of voice."
        elif more["high"] < 0:
            verb = "falls by"
        old, new = (summary["names"][first[side]] for side in ("before", "after"))
        start = f"Forced to write its steps, {old} alone reaches {percent(written)}{part}"
        yield f"{start}; from there to {new} it {verb} {points(more)}. {verdict}"


def is_forced(column: str, free: str) -> bool:
    """Whether a column is another one that was forced to write its steps."""
    return column == f"{free}+worked" or (free, column) == ("base", "forced_worked")


def seeds(summary: Summary) -> Iterator[str]:
    """How far training runs differ, where there are several."""
    runs = {column: [seed["pass_at_1"] for seed in score["seeds"]] for column, score in summary["scores"].items()}
    ranges = [
        f"{summary['names'][column]} {percent(min(each))} to {percent(max(each))}"
        for column, each in runs.items()
        if len(each) > 1
    ]
    if ranges:
        yield f"From the worst to the best of {max(map(len, runs.values()))} training runs: {'; '.join(ranges)}."


def sharpened(summary: Summary) -> Iterator[str]:
    """Whether training only made likely what the first column could do already; said beside `shown` alone."""
    found = summary["sharpened"]
    if not found["leads"] or summary["comparisons"][0]["verdict"] != "shown":
        return
    before, after, n = summary["names"][found["before"]], summary["names"][found["after"]], found["n"]
    start = f"Sharpened: with {found['crossing']} samples per problem, {before} solves as many problems as {after}."
    if found["crossing"] is None:
        limit = f"as far as {summary['n_samples']} samples tell"
        start = f"Not only sharpened, {limit}: {before} stays below {after} at every k."
    for column, score in summary["scores"].items():
        if is_forced(column, found["before"]):
            last = score["pass_at_k"][-1]
            start += f" Forced to write its steps, it reaches {percent(last['estimate'])} at pass@{last['k']}."
    yield (
        f"{start} Of {summary['n_problems']:,} problems, {after} solves {found['n_solved_anew']:,} that {before} "
        f"solved in none of {n} samples, and {found['n_lost']:,} the other way round. None of {n} still allows a rate "
        f"of up to {percent(found['bound'])} (95% bound), so these may be rare rather than new."
    )


def shortened(summary: Summary) -> tuple[Summary, dict[str, str]]:
    """A sweep's summary in which settings are called by their rank if a name is too long for a sentence; name -> rank.

    If no name is too long, this returns the summary as it is, and every name for itself.
    """
    names = [setting["name"] for setting in summary["settings"]]
    if max(map(len, names)) <= LONGEST_NAME:
        return summary, {name: name for name in names}
    ranks = {name: f"#{rank}" for rank, name in enumerate(names, start=1)}
    settings = [{**setting, "name": ranks[setting["name"]]} for setting in summary["settings"]]
    return {**summary, "settings": settings, "default": ranks[summary["default"]]}, ranks


def sweep_exam(summary: Summary) -> str:
    """Settings and question set of a sweep, in one line."""
    problems = f"{summary['n_problems']:,} {summary['split']} problems, {summary['n_samples']} samples each"
    return f"{len(summary['settings'])} settings, {problems}, training seeds {', '.join(map(str, summary['seeds']))}"


def sweep_sentences(summary: Summary) -> list[str]:
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


def sweep_headings(summary: Summary) -> list[str]:
    """The headings of `sweep_rows`."""
    score, k = summary["objective"].replace("_at_", "@"), summary["n_samples"]
    figures = [label.format(k=k) for label, _, _ in SWEEP]
    return ["setting", score, "seeds", "interquartile mean", "difference", "improves", "verdict", *figures]


def sweep_rows(summary: Summary) -> list[list[str]]:
    """A row for each setting, the best first, then for what training started from."""
    share = summary["is_share"]
    one, sign = (in_hundred, signed) if share else (_ONE, "{:+.1f}".format)

    def ends(interval: Mapping[str, float], write: Callable[[float], str] = one) -> str:
        return f"{write(interval['estimate'])} [{write(interval['low'])}, {write(interval['high'])}]"

    rows = []
    for setting in summary["settings"]:
        against = setting["against_default"]
        rows.append(
            [
                setting["name"],
                ends(setting["score"]),
                "  ".join(one(each["score"]) for each in setting["seeds"]),
                ends(setting["interquartile_mean"]),
                ends(against["difference"], sign) if against else "",
                f"{against['improvement']['estimate']:.2f}" if against else "",
                against["word"] if against else "the default",
                *(cell(setting, figure) for figure in SWEEP),
            ]
        )
    starts = summary["starts"]
    return rows + [[each["name"], ends(each["score"]), *[""] * 5, *(cell(each, f) for f in SWEEP)] for each in starts]


def importances(summary: Summary) -> str:
    """Which keys matter; empty where that is not known."""
    shares = ", ".join(f"{key} {100 * share:.0f}%" for key, share in summary["importances"].items())
    return f"What tells the best quarter of the trainings from the rest (PED-ANOVA): {shares}." if shares else ""
