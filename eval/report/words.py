"""A comparison in words: the figures, tables and sentences that the terminal, the page and the model card share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eval.analysis.compare import Comparison, Difference, Score
from eval.analysis.stats import Interval, Verdict
from eval.exam.lineup import FORCED
from eval.exam.samples import LANGUAGES, VOICES

Sweep = Mapping[str, Any]
"""The summary of a sweep."""
UNITS = "percent\n[95% interval]"  # of every cell of the table but the tokens and nats
LONGEST_NAME = 40
LENIENT = "last number"
OPTIONAL = ("greedy", LENIENT, "KL to start, nats")  # left out where no column has them
_CHAIN = {"by_right": "sound", "by_wrong": "unsound", "without": "no chain", "unchecked": "unchecked"}
CHAINS = {f"{answer}_{kind}": f"{answer}, {label}" for answer in ("right", "wrong") for kind, label in _CHAIN.items()}
"""Answer, then chain. A chain is sound if no wrong step is left standing and it arrives at a number."""


def in_hundred(share: float) -> str:
    """`41.3`."""
    return f"{100 * share:z.1f}"


def percent(share: float) -> str:
    """`41.3%`."""
    return f"{in_hundred(share)}%"


def with_interval(score: Interval) -> str:
    """`41.3 [39.0, 43.6]`, in percent; narrow enough for three of them in a terminal of 80 columns."""
    estimate, low, high = (in_hundred(end).replace("100.0", "100") for end in score.ends)
    return f"{estimate} [{low}, {high}]"


def signed(share: float) -> str:
    """`+12.3`, in points."""
    return f"{100 * share:+z.1f}"


def points(difference: Interval) -> str:
    """`+12.3 points (95% interval +10.0 to +14.6)`."""
    estimate, low, high = map(signed, difference.ends)
    if (difference.low, difference.high) == (-1, 1):
        return f"{estimate} points (too few problems for an interval)"
    return f"{estimate} points (95% interval {low} to {high})"


def operations(depth: int) -> str:
    """`3 operations`; 0 stands for problems that are not counted in operations."""
    return f"{depth} operation{'s' if depth != 1 else ''}" if depth else "all"


def verdict(one: Difference) -> str:
    """`better`, `worse` or `not told apart`."""
    return {"shown": "better", "worse": "worse"}.get(one.verdict, "not told apart")


_ONE, _NATS = "{:z.1f}".format, "{:z.3f}".format  # z: -0.0 is 0.0
_TEMPLATES = Environment(
    loader=PackageLoader("eval", "."),
    autoescape=lambda name: name is not None and ".html" in name,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {each.__name__: each for each in (in_hundred, percent, with_interval, signed, points, verdict)}
_TEMPLATES.tests["moved"] = lambda part: signed(part.estimate) != "+0.0"


def render(template: str, **values: Any) -> str:
    """A template, `report/exam.txt.jinja` for example, with these values. Only those of HTML are escaped."""
    return _TEMPLATES.get_template(template).render(values)


@dataclass(frozen=True)
class Rung:
    """A column on the way from before to after, and what it has more than the one before it, also in words."""

    key: str
    label: str
    score: Score
    gain: float
    verdict: Verdict
    reason: str


def ladder(summary: Comparison) -> list[Rung]:
    """What training started from, made to write its steps, at its best temperature, and after training.

    Empty if the last column is not compared with a forced one. A step that was not tested counts as shown if the
    intervals of its two columns do not overlap.
    """
    verdicts = {(one.before, one.after): one.verdict for one in summary.comparisons}
    before, after = next(iter(verdicts), ("", ""))
    forced = next((key for key in (f"{before}+worked", FORCED) if (key, after) in verdicts), None)
    if forced is None or summary.comparisons[0].same_checkpoint:
        return []
    names, scores = summary.names, summary.scores
    rungs = [Rung(before, names[before], scores[before], 0.0, "shown", "")]
    steps = {forced: ("the same, made to write its steps", "it could already do this, and did not")}
    if summary.cooled and (summary.cooled, after) in verdicts:
        _, _, best = names[summary.cooled].rpartition(", ")
        steps[summary.cooled] = (f"and at its best temperature ({best})", "surer of its likely steps (no training)")
    for key, (label, reason) in (steps | {after: (names[after], "")}).items():
        last, score = rungs[-1], scores[key]
        gain, old, new = score.pass_at_1 - last.score.pass_at_1, last.score.pass_at_1_interval, score.pass_at_1_interval
        apart: Verdict = "shown" if new.low > old.high else "worse" if new.high < old.low else "not shown"
        word = verdicts.get((last.key, key), apart)
        if key == after:  # a slip: the answer and the chain are wrong
            fewer = last.score.chains["wrong_by_wrong"] - score.chains["wrong_by_wrong"]
            reason = "fewer slips (training)" if fewer >= gain / 2 else "only after training"
        reason = {"shown": reason, "worse": "worse"}.get(word, "not told apart")
        rungs.append(Rung(key, label, score, gain, word, reason))
    return rungs


def plain(summary: Comparison) -> list[str]:
    """The headline for everyone, and the verdict in a sentence for each step of the ladder; nothing without one."""
    return render("report/plain.txt.jinja", rungs=ladder(summary), summary=summary).splitlines()


def sentences(summary: Comparison) -> list[str]:
    """All that the exam shows, most important first; it begins with the plain sentences."""
    return [*plain(summary), *render("report/exam.txt.jinja", summary=summary).splitlines()]


def sweep_sentences(summary: Sweep) -> list[str]:
    """What a sweep shows, the verdict first."""
    return render(
        "report/sweep.txt.jinja", summary=summary, difference=lambda each: _difference(summary, each)
    ).splitlines()


def exam(summary: Comparison) -> str:
    """The question set, in one line."""
    n = summary.n_samples
    samples = f"{n} sample{'s' if n > 1 else ''} each at temperature {summary.decoding['temperature']:g}"
    return f"{summary.n_problems:,} {summary.split} problems ({', '.join(summary.families)}), {samples}"


def _difference(summary: Sweep, setting: Mapping[str, Any]) -> str:
    """How far a setting is from the default: `-1.9 [-3.0, -0.8]`, in points if the objective is a share."""
    against, sign = setting.get("against_default"), signed if summary["is_share"] else "{:+z.1f}".format
    return _ends(sign, against["difference"]) if against else "-"


def _ends(write: Callable[[float], str], value: Mapping[str, float]) -> str:
    return f"{write(value['estimate'])} [{write(value['low'])}, {write(value['high'])}]"


def sweep_exam(summary: Sweep) -> str:
    """Settings and question set of a sweep, in one line."""
    problems = f"{summary['n_problems']:,} {summary['split']} problems, {summary['n_samples']} samples each"
    return f"{len(summary['settings'])} settings, {problems}, training seeds {', '.join(map(str, summary['seeds']))}"


def table(summary: Comparison) -> list[list[tuple[str, list[str]]]]:
    """Sections of rows (label, one cell per column) in `UNITS`: accuracy, completions, voices, chains, runs."""
    scores = list(summary.scores.values())
    by_column = [_figures(score, chains_of(summary)) for score in scores]
    if all(in_hundred(score.lenient) == in_hundred(score.pass_at_1) for score in scores):
        by_column = [[{**accuracy, LENIENT: "-"}, *others] for accuracy, *others in by_column]
    sections = [
        [(label, [sections[place][label] for sections in by_column]) for label in section]
        for place, section in enumerate(by_column[0])
    ]
    if speaks(summary):
        shares = [[_or_dash(in_hundred, score.languages.get(name)) for score in scores] for name in LANGUAGES]
        sections.append(
            [
                (f"chains {'' if name == 'mixed' else 'in '}{name}", cells)
                for name, cells in zip(LANGUAGES, shares, strict=True)
            ]
        )
    sections.append([(axis, [with_interval(score.axes[axis]) for score in scores]) for axis in scores[0].axes])
    at_once = scores[0].at_once
    sections[-1] += [(f"{axis}, at once", [in_hundred(score.at_once[axis]) for score in scores]) for axis in at_once]
    sections = [[row for row in section if row[0] not in OPTIONAL or set(row[1]) != {"-"}] for section in sections]
    if max(len(score.seeds) for score in scores) > 1:
        texts = [[f"{in_hundred(seed.pass_at_1)} (seed {seed.seed})" for seed in score.seeds] for score in scores]
        by_run = zip_longest(*texts, fillvalue="-")
        sections.append([(f"run {number}", list(cells)) for number, cells in enumerate(by_run, start=1)])
    return sections


def speaks(summary: Comparison) -> bool:
    """Whether a column writes another language than signs."""
    return any(score.languages.get(name) for score in summary.scores.values() for name in LANGUAGES[1:])


def _figures(score: Score, chains: list[str]) -> list[dict[str, str]]:
    """The sections of a column: label -> figure."""
    most = score.pass_at_k[-1]
    accuracy = {"pass@1": with_interval(score.pass_at_k[0]), "greedy": _or_dash(with_interval, score.greedy)}
    accuracy[LENIENT] = in_hundred(score.lenient)
    if most.k > 1:
        accuracy |= {f"maj@{most.k}": with_interval(score.maj_at_k[-1]), f"pass@{most.k}": with_interval(most)}
    completions = {
        "tokens": _ONE(score.mean_tokens),
        "tokens, right": _or_dash(_ONE, score.tokens_right),
        "tokens, wrong": _or_dash(_ONE, score.tokens_wrong),
        "nats per token": _NATS(score.entropy),
        "KL to start, nats": _or_dash(_ONE, score.kl),
        "well-formed": in_hundred(score.well_formed),
        "truncated": in_hundred(score.truncated),
    }
    voices = {f"voice {voice}": in_hundred(score.voices[voice]) for voice in VOICES}
    return [
        accuracy,
        completions,
        voices,
        {CHAINS[kind]: _or_dash(in_hundred, score.chains.get(kind)) for kind in chains},
    ]


def _or_dash(write: Callable[[Any], str], value: Any) -> str:
    return "-" if value is None else write(value)


def chains_of(summary: Comparison) -> list[str]:
    """Those of `CHAINS` that occur, or could have: most exams check either all chains or none."""
    occur = {kind for score in summary.scores.values() for kind, share in score.chains.items() if share}
    could = ("_by_", "_without") if any("_by_" in kind for kind in occur) else ("_without",)
    return [kind for kind in CHAINS if kind in occur or any(part in kind for part in could)]


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


def shortened(summary: Sweep) -> tuple[Sweep, dict[str, str]]:
    """A sweep's summary in which settings are called by their rank if a name is too long for a sentence; name -> rank.

    If no name is too long, every name stays and stands for itself.
    """
    names = [setting["name"] for setting in summary["settings"]]
    fits = max(map(len, names)) <= LONGEST_NAME
    short = {name: name if fits else f"#{rank}" for rank, name in enumerate(names, start=1)}
    settings = [{**setting, "name": short[setting["name"]]} for setting in summary["settings"]]
    return {**summary, "settings": settings, "default": short[summary["default"]]}, short


def sweep_table(summary: Sweep) -> list[dict[str, str]]:
    """Heading -> cell of each setting, the best first, and then of what training started from."""
    one = in_hundred if summary["is_share"] else _ONE
    k, objective = summary["n_samples"], summary["objective"].replace("_at_", "@")

    rows = []
    for each in [*summary["settings"], *summary["starts"]]:
        is_default, against = each["name"] == summary["default"], each.get("against_default")
        verdict = {
            "setting": f"{each['name']} (default)" if is_default else each["name"],
            objective: _ends(one, each["score"]),
            "seeds": "  ".join(one(seed["score"]) for seed in each.get("seeds", ())) or "-",
            "difference": _difference(summary, each),
            "verdict": against["word"] if against else "-",
        }
        figures = {
            f"pass@{k}": in_hundred(each["pass_at_k"][-1]["estimate"]),
            f"maj@{k}": in_hundred(each["maj_at_k"][-1]["estimate"]),
            "tokens": _ONE(each["mean_tokens"]),
            "right, sound": in_hundred(each["chains"]["right_by_right"]),
            **{voice: in_hundred(each["voices"][voice]) for voice in VOICES},
            "nats/token": _NATS(each["entropy"]),
            "KL": _or_dash(_ONE, each["kl"]),
        }
        rows.append(verdict | figures | verdict)  # of one sample, pass@k is pass@1, which has an interval
    return rows
