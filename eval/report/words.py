"""A comparison in words: the figures, tables and sentences that the terminal, the page and the model card share."""

import re
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eval.analysis.compare import Comparison, Difference, Score
from eval.analysis.stats import Interval
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

FEW_SEEDS = 3
"""Fewer training seeds than this leave intervals too wide to be of use: docs/COVERAGE.md."""
GLOSSARY = {
    "pass@1": "The share of all sampled answers that are right: how often one answer is right.",
    "pass@k": "The share of problems for which at least one of k answers is right.",
    "maj@k": "The share of problems for which the most frequent of k answers is right (self-consistency).",
    "greedy": "One answer for each problem, with the likeliest token at every place (temperature 0).",
    "temperature": "How freely tokens are sampled: 1 is the model as trained, below 1 it keeps to likely tokens.",
    "forced": "Made to begin its answer with steps. What a model reaches then, it could do before, and did not.",
    "voice": "A style of answer: direct (at once), worked (in steps), checked (takes a step back), none (malformed).",
    "chain": "The steps that a model writes before its answer.",
    "sound": "Of a chain: no wrong step is left standing, and the last one arrives at a number.",
    "RL": "Reinforcement learning: the model's own answers are graded, and what led to right ones is made likelier.",
    "KL": "How far training has moved the model from where RL started, in nats per answer.",
    "nats per token": "How undecided the model is: its entropy per token.",
    "shown": "The 95% interval of a paired difference excludes 0, and p is below 5% after Holm's correction for the "
    "number of comparisons. Otherwise two checkpoints are not told apart.",
}
"""The words that a reader may not know, for the page."""


def meaning(label: str) -> tuple[int, str] | None:
    """Place and text of the first word of the glossary that a label has; `pass@8` is a pass@k."""
    label = re.sub(r"@(?!1\b)\d+", "@k", label)
    found = enumerate(GLOSSARY.items())
    return next(((place, text) for place, (word, text) in found if re.search(rf"\b{word}\b", label)), None)


def in_hundred(share: float) -> str:
    """`41.3`."""
    return f"{100 * share:z.1f}"


def hundredth(share: float) -> str:
    """`41` of 100; bounded where rounding would say none or all, and it is not."""
    if 0 < share < 0.005 or 0.995 <= share < 1:
        return "under 0.1" if share < 0.0005 else "over 99.9" if share >= 0.9995 else in_hundred(share)
    return f"{100 * share:.0f}"


def percent(share: float) -> str:
    """`41.3%`."""
    return f"{in_hundred(share)}%"


def with_interval(score: Interval) -> str:
    """`41.3 [39.0, 43.6]`, in percent; narrow enough for three of them in a terminal of 80 columns."""
    estimate, low, high = (in_hundred(end).replace("100.0", "100") for end in score.ends)
    return f"{estimate} [{low}, {high}]"


def signed(share: float) -> str:
    """`+12.3`, in points; with a minus sign, not a hyphen."""
    return plus(100 * share)


def plus(value: float) -> str:
    """`+12.3` or `−12.3`."""
    return f"{value:+z.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """`p = 0.023`."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def points(difference: Interval) -> str:
    """`+12.3 points (95% interval +10.0 to +14.6)`."""
    estimate, low, high = map(signed, difference.ends)
    if (difference.low, difference.high) == (-1, 1):
        return f"{estimate} points (too few problems for an interval)"
    return f"{estimate} points (95% interval {low} to {high})"


def doubt(one: Difference) -> str:
    """What to add where the interval excludes 0 and the test does not agree."""
    return f", but {p_value(one.p_adjusted)}" if one.verdict == "not shown" and not one.low <= 0 <= one.high else ""


def the(label: str) -> str:
    """`the base`, `the model after RL`; the name of a run as it is."""
    return {"base": "the base"}.get(label, f"the model {label}" if label.startswith("after ") else label)


def operations(depth: int) -> str:
    """`3 operations`; 0 stands for problems that are not counted in operations."""
    return f"{depth} operation{'s' if depth != 1 else ''}" if depth else "all"


def verdict(one: Difference) -> str:
    """`better`, `worse` or `not told apart`."""
    return {"shown": "better", "worse": "worse"}.get(one.verdict, "not told apart")


_WORDS = (in_hundred, hundredth, percent, with_interval, signed, p_value, points, doubt, verdict, the)
_ONE, _NATS = "{:z.1f}".format, "{:z.3f}".format  # z: -0.0 is 0.0
_TEMPLATES = Environment(
    loader=PackageLoader("eval", "."),
    autoescape=lambda name: name is not None and ".html" in name,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters |= {each.__name__: each for each in _WORDS}
_TEMPLATES.tests["moved"] = lambda part: signed(part.estimate) != "+0.0"


def render(template: str, **values: Any) -> str:
    """A template, `report/exam.txt.jinja` for example, with these values. Only those of HTML are escaped."""
    return _TEMPLATES.get_template(template).render(values)


def is_outside(summary: Comparison) -> bool:
    """Whether the exam is mostly of problems that lie outside of training."""
    axes = next(iter(summary.scores.values())).axes.values()
    return sum(axis.n_problems for axis in axes) > summary.n_problems


def differing(summary: Comparison) -> list[list[str]]:
    """A row for each key in which the recipes of the runs differ: the key, and its value in each run."""
    return [[key, *(values.get(name, "-") for name in summary.names)] for key, values in summary.recipes.items()]


def sweep_sentences(summary: Sweep) -> list[str]:
    """What a sweep shows, the verdict first."""
    text = render("report/sweep.txt.jinja", summary=summary, difference=lambda each: _difference(summary, each))
    return list(filter(None, text.splitlines()))


def exam(summary: Comparison) -> str:
    """The question set, in one line."""
    n = summary.n_samples
    samples = f"{n} sample{'s' if n > 1 else ''} each at temperature {summary.decoding['temperature']:g}"
    return f"{summary.n_problems:,} {summary.split} problems ({', '.join(summary.families)}), {samples}"


def _difference(summary: Sweep, setting: Mapping[str, Any]) -> str:
    """How far a setting is from the default: `-1.9 [-3.0, -0.8]`, in points if the objective is a share."""
    against, sign = setting.get("against_default"), signed if summary["is_share"] else plus
    return _ends(sign, against["difference"]) if against else "-"


def _ends(write: Callable[[float], str], value: Mapping[str, float]) -> str:
    return f"{write(value['estimate'])} [{write(value['low'])}, {write(value['high'])}]"


def sweep_exam(summary: Sweep) -> str:
    """Settings and question set of a sweep, in one line."""
    problems = f"{summary['n_problems']:,} {summary['split']} problems, {summary['n_samples']} samples each"
    return f"{len(summary['settings'])} settings, {problems}, training seeds {', '.join(map(str, summary['seeds']))}"


def table(summary: Comparison) -> list[list[tuple[str, list[str]]]]:
    """Sections of rows (label, one cell per column) in `UNITS`: accuracy, completions, voices, chains, axes, runs.

    The axes come first in an exam that is mostly outside of training.
    """
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
    outside = [(axis, [with_interval(score.axes[axis]) for score in scores]) for axis in scores[0].axes]
    at_once = scores[0].at_once
    outside += [(f"{axis}, at once", [in_hundred(score.at_once[axis]) for score in scores]) for axis in at_once]
    sections.insert(0 if is_outside(summary) else len(sections), outside)
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
