"""Columns of samples to a comparison: every number of an exam, computed from the samples alone.

The report, the model card and sweeps read these dataclasses. They become JSON only in summary.json, under the same
names.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from eval.analysis import metrics, stats
from eval.analysis.columns import Column, Columns
from eval.analysis.gain import Part, Sharpened, gain_parts, sharpened_or_new
from eval.analysis.stats import Floats, Interval
from eval.exam.lineup import Pair
from eval.exam.samples import Samples
from r1_mini.config.yaml_file import read_mapping
from r1_mini.pipeline.store import all_differences
from r1_mini.system.files import reading
from r1_mini.text import short


@dataclass(frozen=True)
class CurvePoint(Interval):
    """pass@k or maj@k at one k."""

    k: int


@dataclass(frozen=True)
class Accuracy(Interval):
    """pass@1 on some of the problems."""

    n_problems: int


@dataclass(frozen=True)
class Cell(Accuracy):
    """pass@1 on the problems of one family, axis and depth."""

    family: str
    axis: str | None
    depth: int


@dataclass(frozen=True)
class SeedScore:
    seed: int | None
    pass_at_1: float


@dataclass(frozen=True)
class Score:
    """Every figure of one column, on the problems without an axis; `cells` and `axes` cover all problems."""

    seeds: list[SeedScore]
    pass_at_1: float
    pass_at_1_interval: Interval
    lenient: float
    """pass@1 if the last number of a completion counted, in whatever form."""
    pass_at_k: list[CurvePoint]
    maj_at_k: list[CurvePoint]
    greedy: Accuracy | None
    mean_tokens: float
    tokens_right: float | None
    tokens_wrong: float | None
    entropy: float
    """Nats per token."""
    kl: float | None
    """To the checkpoint that training started from, nats per completion; None if it was not measured."""
    well_formed: float
    truncated: float
    voices: dict[str, float]
    chains: dict[str, float]
    cells: list[Cell]
    axes: dict[str, Accuracy]
    many: list[CurvePoint] = field(default_factory=list)
    """pass@k to a large k, of the first problems alone."""
    languages: Mapping[str, float] = field(default_factory=dict)
    """Of the chains that have one."""
    at_once: Mapping[str, float] = field(default_factory=dict)
    """Axis of problems of one operation -> share that is answered without steps."""


@dataclass(frozen=True)
class Difference(Interval):
    """after - before in the score, paired by problem and seed."""

    before: str
    after: str
    p_value: float
    p_adjusted: float
    """Adjusted for all differences of the comparison (Holm), that of the greedy answers among them."""
    detectable: float
    """The smallest true difference that an exam like this shows four times in five."""
    verdict: stats.Verdict
    same_checkpoint: bool = False
    """Whether both are one checkpoint, forced and sampled alike: training changed nothing."""


@dataclass(frozen=True)
class Gain:
    """The parts of a difference in pass@1."""

    before: str
    after: str
    parts: list[Part]
    form: float
    """How much of it is form: the difference less that of the lenient score."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The summary of an exam: the scores of each column, and the differences between pairs of columns."""

    title: str = ""
    recipe: str | None = None
    """The recipe, seed, seconds and checkpoints of the run, if the columns are those of a single run."""
    seed: int | None = None
    seconds: Mapping[str, float] | None = None
    checkpoints: Mapping[str, Any] = field(default_factory=dict)
    suite: str
    families: list[str]
    split: str
    n_problems: int
    n_samples: int
    n_answers: int = 0
    """How many different right answers the problems have: what a blind guess chooses from."""
    n_many: int = 0
    """Problems that are answered many times."""
    decoding: dict[str, Any]
    names: dict[str, str]
    """The label of each column."""
    starts: Mapping[str, str | None] = field(default_factory=dict)
    """Column of a checkpoint -> that of the one which it was trained from."""
    forced: Mapping[str, str | None] = field(default_factory=dict)
    """Column that is made to write its steps -> that of the same checkpoint which is free, if there is one."""
    scores: dict[str, Score]
    comparisons: list[Difference]
    """The headline first."""
    greedy: Difference | None = None
    """Of the greedy answers, between what was cooled and what RL made of it: with equal decoding."""
    cooled: str | None = None
    """The column that is sampled at the temperature that is best on dev."""
    gain: Gain | None = None
    """What the first difference is made of."""
    sharpened: Sharpened | None = None
    recipes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Key -> column -> value, of what differs between the recipes of the runs that are compared."""

    def as_json(self) -> dict[str, Any]:
        """What summary.json holds: all of this, and its headline once more, by column."""
        short: dict[str, Any] = {
            name: {key: asdict(score)[key] for key in ("pass_at_1", "pass_at_1_interval", "mean_tokens")}
            for name, score in self.scores.items()
        }
        for first in self.comparisons[:1]:
            difference = {key: getattr(first, key) for key in ("estimate", "low", "high", "p_value")}
            short |= {"paired_difference": difference, "verdict": first.verdict}
        return {**asdict(self), **short}

    @staticmethod
    def read(path: Path) -> "Comparison":
        """Read a summary.json."""
        with reading(path):
            return TypeAdapter(Comparison).validate_json(path.read_bytes())


def summarize(columns: Columns) -> Comparison:
    """Compare the columns on the problems without an axis; scores by axis are beside it."""
    proper = {name: column.at(None) for name, column in columns.items()}
    first = next(iter(proper.values())).samples[0]
    pairs, sittings = columns.lineup.pairs, columns.lineup.columns
    free = {each.stage: key for key, each in sittings.items() if each.voice is None}
    names = {name: short(column.label) for name, column in columns.items()}
    sat = {name: (column.sat, name == columns.cooled) for name, column in columns.items()}
    cooled, scores = columns.cooled, {name: column.scores(metrics.pass_at_1) for name, column in proper.items()}
    greedy = [pair for pair in pairs if pair[0] == cooled and all(proper[name].greedy for name in pair)]
    scores |= {f"{name}, greedy": proper[name].greedily.scores(metrics.pass_at_1) for pair in greedy for name in pair}
    tested = differences(scores, [*pairs, *((f"{before}, greedy", f"{after}, greedy") for before, after in greedy)])
    found = [
        replace(each, same_checkpoint=bool(sat[each.before][0]) and sat[each.before] == sat[each.after])
        for each in tested[: len(pairs)]
    ]
    gain = sharpened = None
    if found and not found[0].same_checkpoint:
        old, new = (proper[name] for name in pairs[0])
        strict, lenient = (
            float(new.scores(metric).mean() - old.scores(metric).mean())
            for metric in (metrics.pass_at_1, metrics.lenient)
        )
        parts = gain_parts(old.pooled, new.pooled, proper[cooled].pooled if cooled else None)
        gain = Gain(*pairs[0], parts, form=strict - lenient)
        sides = (old.many, new.many) if old.many and new.many else (old.samples, new.samples)
        sharpened = sharpened_or_new(*sides, pairs[0])
    return Comparison(
        title=", ".join(names.values()),
        suite=first.settings["suite"],
        families=sorted({short(question.family) for question in first.questions}),
        split=first.settings["split"],
        n_problems=len(first.questions),
        n_samples=first.n,
        n_answers=len({question.answer for question in first.questions}),
        n_many=len(many[0].questions) if (many := next(iter(proper.values())).many) else 0,
        decoding={key: first.settings[key] for key in ("temperature", "top_p", "max_tokens", "seed")},
        names=names,
        starts={key: each.start for key, each in sittings.items() if each.voice is None},
        forced={key: free.get(each.stage) for key, each in sittings.items() if each.voice == "worked"},
        scores={name: score(column) for name, column in columns.items()},
        comparisons=found,
        greedy=replace(tested[-1], before=greedy[0][0], after=greedy[0][1]) if greedy else None,
        cooled=cooled,
        gain=gain,
        sharpened=sharpened,
        recipes=_recipes_differ({name: read_mapping(runs[0] / "recipe.yaml") for name, runs in columns.runs.items()}),
    )


def _recipes_differ(recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Key -> column -> value, where recipes differ, apart from names, training seeds and what changes no completion."""
    found: dict[str, dict[str, str]] = {}
    for name, recipe in recipes.items():
        first = next(iter(recipes.values()))
        for key, was, now in all_differences(first, recipe):
            if not re.fullmatch(r"name|evaluate\.(rows|many|inspect)|(stages\.\d+\.)?seed", key):
                found.setdefault(key, dict.fromkeys(recipes, was))[name] = now
    return found


def differences(scores: Mapping[str, Floats], pairs: Sequence[Pair], is_share: bool = True) -> list[Difference]:
    """Paired differences of `scores`, column -> (S, P) with the same seeds and problems; p-values adjusted together.

    A difference of shares lies within -1 and 1, that of other scores anywhere.
    """
    found = []
    for before, after in pairs:
        old_SP, new_SP = scores[before], scores[after]
        alone, few = len(old_SP) == 1, old_SP.shape[1] < stats.FEWEST
        if is_share and (alone or few or not np.ptp(new_SP - old_SP)):
            difference = stats.paired_difference(old_SP.mean(axis=0), new_SP.mean(axis=0))
        else:
            bounds = (-1.0, 1.0) if is_share else (-np.inf, np.inf)
            difference = stats.hierarchical(new_SP - old_SP, within=bounds)
        p_value = stats.permutation_p(old_SP[0], new_SP[0]) if alone else stats.seeds_p(new_SP - old_SP)
        found.append((difference, before, after, p_value, stats.detectable(old_SP, new_SP)))
    adjusted = stats.holm([p_value for *_, p_value, _ in found])
    return [
        Difference(*difference.ends, before, after, p_value, p, detectable, stats.verdict(difference, p))
        for (difference, before, after, p_value, detectable), p in zip(found, adjusted, strict=True)
    ]


def interval(means_SP: Floats, n_samples: int, is_share: bool = True) -> Interval:
    """Interval of a score from its means by seed and problem, (S, P); `n_samples` completions are behind each mean.

    One seed: Wilson's with problems as clusters. Several: the hierarchical bootstrap over seeds and problems.
    """
    n_seeds, n_problems = means_SP.shape
    if not is_share:
        return stats.hierarchical(means_SP)
    if n_seeds == 1 or not means_SP.std():  # all right or all wrong: nothing varies, and yet nothing is certain
        return stats.clustered_proportion(means_SP[0], n_samples * n_problems)
    if n_problems == 1:
        return stats.wilson(float(means_SP.sum()), n_seeds)
    return stats.hierarchical(means_SP, within=(0.0, 1.0))


def score(column: Column) -> Score:
    """Every figure of a column."""
    proper = column.at(None)
    pooled = proper.pooled
    whole = _accuracy(proper.samples)

    def curve(metric: Callable[..., Floats], column: Column) -> list[CurvePoint]:
        n = column.samples[0].n
        scores = {k: column.scores(partial(metric, k=k)) for k in metrics.powers(n)}
        return [CurvePoint(*interval(means_SP, n).ends, k) for k, means_SP in scores.items()]

    return Score(
        seeds=[
            SeedScore(seed, float(metrics.pass_at_1(samples).mean()))
            for seed, samples in zip(proper.seeds, proper.samples, strict=True)
        ],
        pass_at_1=whole.estimate,
        pass_at_1_interval=Interval(*whole.ends),
        lenient=float(metrics.lenient(pooled).mean()),
        pass_at_k=curve(metrics.pass_at_k, proper),
        maj_at_k=curve(metrics.maj_at_k, proper),
        greedy=_accuracy(proper.greedy) if proper.greedy else None,
        mean_tokens=float(metrics.tokens(pooled).mean()),
        tokens_right=metrics.mean_tokens_where(pooled, correct=True),
        tokens_wrong=metrics.mean_tokens_where(pooled, correct=False),
        entropy=metrics.entropy(pooled),
        kl=metrics.kl(pooled),
        well_formed=float(metrics.well_formed(pooled).mean()),
        truncated=float(metrics.truncated(pooled).mean()),
        voices=metrics.voice_shares(pooled),
        chains=metrics.chain_truth(pooled),
        many=curve(metrics.pass_at_k, replace(column, samples=column.many)) if column.many else [],
        languages=metrics.language_shares(pooled),
        cells=_cells(column),
        axes={axis: _accuracy(column.at(axis).samples) for axis in column.samples[0].axes},
        at_once={
            axis: metrics.voice_shares(column.at(axis).pooled)["direct"]
            for axis in column.samples[0].axes
            if all(question.depth == 1 for question in column.at(axis).samples[0].questions)
        },
    )


def _cells(column: Column) -> list[Cell]:
    """Accuracy of each family, axis and depth; the problems without an axis first."""
    kinds = [(question.axis, question.family, question.depth) for question in column.samples[0].questions]
    cells = []
    for kind in sorted(set(kinds), key=lambda kind: (kind[0] is not None, kind[0] or "", *kind[1:])):
        keep = [other == kind for other in kinds]
        found = _accuracy([samples.where(keep) for samples in column.samples])
        axis, family, depth = kind
        cells.append(Cell(*found.ends, found.n_problems, short(family), axis, depth))
    return cells


def _accuracy(samples: Sequence[Samples]) -> Accuracy:
    """pass@1 with its interval, from the samples of each seed."""
    means_SP = np.stack([metrics.pass_at_1(each) for each in samples])
    return Accuracy(*interval(means_SP, samples[0].n).ends, means_SP.shape[1])
