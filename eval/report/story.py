"""What an exam shows in words: its columns as rungs, a sentence for each, and the details.

A rung is measured against what it was trained from; if that, made to write its steps or at its best temperature, is
shown to be better without training, against the best of these. So only what is left there is credited to training.
"""

from dataclasses import dataclass

from eval.analysis.compare import Comparison, Difference, Score
from eval.report.words import FEW_SEEDS, doubt, hundredth, in_hundred, is_outside, points, render, signed, the, verdict

MOST_TOLD = 5
"""Of more trained checkpoints than this, the headline has the two that are compared first."""


@dataclass(frozen=True)
class Rung:
    """A column, and what it has more than the one that it is measured against."""

    key: str
    label: str
    score: Score
    tested: Difference | None = None
    """Against what it is measured; None if it is not compared with that."""
    reason: str = ""

    @property
    def gain(self) -> float:
        return self.tested.estimate if self.tested else 0.0


def ladder(summary: Comparison) -> list[Rung]:
    """Every column in the order of the exam."""
    tested = {(one.before, one.after): one for one in summary.comparisons}
    rungs = []
    for key, label in summary.names.items():
        one = next((tested[start, key] for start in _starts(summary, key) if (start, key) in tested), None)
        if key == summary.cooled:
            label = f"and at its best temperature ({label.rpartition(', ')[2]})"
        elif forced := summary.forced.get(key):
            label = f"{summary.names[forced]}, made to write its steps"
        rungs.append(Rung(key, label, summary.scores[key], one, _reason(summary, one) if one else ""))
    return rungs


def _starts(summary: Comparison, key: str) -> list[str]:
    """What a column may be measured against, best first."""
    if key == summary.cooled:
        return [each for each in summary.forced if each != key]
    if key in summary.forced:
        return [summary.forced[key] or ""]
    rivals = [one.before for one in summary.comparisons if one.after == key and one.before not in summary.forced]
    starts = [each for each in (summary.starts.get(key), *rivals) if each in rivals][:1]
    reached = {one.after for one in summary.comparisons if one.verdict == "shown"}
    better = [each for each in summary.forced if summary.forced[each] in starts and each in reached]
    if summary.cooled in better and len(better) == 1:  # better than forced, which is no better than free
        better = []
    return [*reversed(better), *starts]


def _reason(summary: Comparison, one: Difference) -> str:
    """Why a column is better or worse than what it is measured against, as far as that was measured."""
    old, new = summary.scores[one.before].chains, summary.scores[one.after].chains
    if one.same_checkpoint:
        return f"the same weights as {the(summary.names[one.before])}"
    if one.verdict == "shown" and one.after == summary.cooled:
        return "surer of its likely steps (no training)"
    if one.verdict == "shown" and one.after in summary.forced:
        return "it could already do this, and did not"
    if one.verdict == "shown" and one.before in summary.forced:
        slips, at_once = old["wrong_by_wrong"] - new["wrong_by_wrong"], new["right_without"] + new["wrong_without"]
        is_slips = slips >= one.estimate / 2 and at_once < 0.5  # where there is no chain, none slips
        return "fewer slips (training)" if is_slips else "only after training"
    return _against(summary, one)


def _against(summary: Comparison, one: Difference) -> str:
    """`better than the base`, for example."""
    return f"{verdict(one)} {'from' if one.verdict == 'not shown' else 'than'} {the(summary.names[one.before])}"


def sentences(summary: Comparison) -> list[str]:
    """All that the exam shows; it begins with the plain sentences."""
    return [*plain(summary), *details(summary)]


def details(summary: Comparison) -> list[str]:
    """What the exam shows besides the plain sentences, most important first."""
    told = [rung.tested for rung in ladder(summary)]
    text = render("report/exam.txt.jinja", summary=summary, told=told, few_seeds=FEW_SEEDS)
    return list(filter(None, text.splitlines()))


def plain(summary: Comparison) -> list[str]:
    """A headline for everyone, and a sentence for each rung that was tested."""
    rungs = ladder(summary)
    free = [rung for rung in rungs if rung.key not in summary.forced] or rungs
    first = summary.comparisons[0] if summary.comparisons else None
    if first and len(free) > MOST_TOLD:
        free = [rung for rung in rungs if rung.key in (first.before, first.after)]
    told = [_asked(summary, rungs, free)]
    if outside := _outside(free):
        told.insert(0 if is_outside(summary) else 1, outside)
    left = _left(summary, rungs)
    if first and not left and all(rung.tested is not first for rung in rungs):
        told.append(_compared(summary, first))
    for rung in rungs:
        if rung.tested and rung.tested not in left:
            told.append(_compared(summary, rung.tested))
    if left:
        told += _told_left(summary, *left)
    return told


def _asked(summary: Comparison, rungs: list[Rung], free: list[Rung]) -> str:
    """How many of 100 each checkpoint gets right, asked once, and made to write its steps."""
    first, *others = free
    shares = [f"{the(first.label)} gets {hundredth(first.score.pass_at_1)} of 100 right"]
    shares += [f"{rung.label} {hundredth(rung.score.pass_at_1)}" for rung in others]
    text = f"Asked once, {', '.join(shares)}."
    for rung in rungs:
        if rung.key in summary.forced and rung.key != summary.cooled:
            name = the(summary.names.get(summary.forced[rung.key] or "", rung.label))
            text += f" Made to write out its steps, {name} alone gets {hundredth(rung.score.pass_at_1)}."
    return text


def _outside(free: list[Rung]) -> str:
    """On which axis outside of training the last checkpoint is worst and best, and the first one there."""
    first, last = free[0], free[-1]
    ranked = sorted(last.score.axes, key=lambda axis: last.score.axes[axis].estimate)
    ends = list(dict.fromkeys([*ranked[:1], *ranked[-1:]]))
    if not ends:
        return ""

    def shares(rung: Rung, named: str = "") -> str:
        found = [hundredth(rung.score.axes[axis].estimate) for axis in ends]
        return " to ".join(
            f"{share}{named} ({axis})" if named else share for share, axis in zip(found, ends, strict=True)
        )

    text = f"Outside of training, {the(last.label)} gets {shares(last, ' of 100')}"
    return f"{text}." if first is last else f"{text}, {the(first.label)} {shares(first)}."


def _left(summary: Comparison, rungs: list[Rung]) -> list[Difference]:
    """The steps from the start of a shown gain to its end, if they add up to it: without training, then by it."""
    if not summary.comparisons or summary.comparisons[0].verdict != "shown":
        return []
    start, key = summary.comparisons[0].before, summary.comparisons[0].after
    measured = {rung.key: rung.tested for rung in rungs}
    steps: list[Difference] = []
    while key != start and (one := measured[key]):
        steps, key = [one, *steps], one.before
    is_way = len(steps) > 1 and key == start and all(one.after in summary.forced for one in steps[:-1])
    return steps if is_way and steps[-1].verdict != "worse" else []


def _told_left(summary: Comparison, *steps: Difference) -> list[str]:
    """The steps in words: the whole difference, what of it needs no training, and what is left."""
    first, name = summary.comparisons[0], the(summary.names[summary.comparisons[0].before])
    gains = [f"{in_hundred(steps[0].estimate)} without further training when it is made to write its steps"]
    gains += [f"{in_hundred(one.estimate)} more at its best temperature" for one in steps[1:-1]]
    return [
        f"Of {points(first)}, {name} gets {' and '.join(gains)}.",
        f"What is left to training is {points(steps[-1])}: {steps[-1].verdict}{doubt(steps[-1])}.",
    ]


def _compared(summary: Comparison, one: Difference) -> str:
    """A difference in a sentence."""
    old, new = summary.names[one.before], summary.names[one.after]
    if one.same_checkpoint:
        return f"Same weights: {old} and {new} are one checkpoint."
    if one.after == summary.cooled:
        what = {"shown": "helps it too", "worse": "costs it points"}.get(one.verdict, "adds nothing that is told apart")
        return f"Its best temperature {what}: {points(one)}{doubt(one)}."
    if one.after in summary.forced:
        gets = {"shown": "gets more, without further training", "worse": "gets less"}
        what = gets.get(one.verdict, "is not told apart from itself")
        return f"Made to write its steps, {the(old)} {what}: {points(one)}{doubt(one)}."
    subject = the(new) if the(new) == new else f"T{the(new)[1:]}"  # the name of a run as it is
    text = f"{subject} is {_against(summary, one)}: {points(one)}{doubt(one)}"
    if one.before == summary.cooled and one.verdict == "worse" and (greedy := summary.greedy):
        text += f"; with greedy decoding of both {verdict(greedy)}, {signed(greedy.estimate)}"
    return f"{text}."
