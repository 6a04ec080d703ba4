"""Does the answer come from the chain? Chains are changed, handed back to the model, and it is seen what it does.

Two scores of each change (`stimuli.py`): whether the answer is right, and whether it is the one that the changed chain
implies. The stimulus is the true chain of every problem, the same for all networks, and each network's own sound chain
where that is another text. Chains that no checker reads are cut, filled and swapped only. All but the sampled rows is
greedy.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from eval.analysis.stats import FEW
from eval.inspect.case import AFTER, BEFORE, WORKED, Case, Network, Row, Written
from eval.inspect.figures import bits, gap, share, unbits
from eval.inspect.stimuli import CONTROL, CUTS, FILLER, FIRST, SWAP, WHOLE, changes, largest, swapped
from r1_mini.errors import UserError
from r1_mini.judges.answers import last_number
from r1_mini.problems.arithmetic import parse_number
from r1_mini.problems.languages import in_signs, written
from r1_mini.problems.problem import Problem

PROBLEMS, OF_CONTROLS = 1_200, 400
ANSWER_TOKENS = 12
"""Enough for a number and its closing tag."""
AT_ONCE = 100
"""Problems whose chains are looked at before it is known whether there are enough."""
OWN, FED = "own chain, as sampled", "own chain, fed back"


@dataclass(frozen=True)
class Asked:
    """A changed chain of the problem at a place, as the model is handed it."""

    place: int
    chain: str
    """`true` or `own`."""
    change: str
    given: str
    answers: bool
    """Whether the chain is closed, so that the model has to answer; else it goes on."""
    implied: str | None
    temperature: float = 0.0


def own(case: Case, network: Network, problems: Sequence[Problem]) -> list[Written]:
    """One chain of each problem that the model writes when it is made to write its steps: sample 0 of the exam's."""
    groups = network.answer(problems, WORKED, case.max_tokens, temperature=1.0, seed=case.seed)
    return [group[0] for group in groups]


def usable(case: Case, written: Written) -> bool:
    """Whether a chain can be intervened on: it is sound, or where no checker reads it, it has parts and an answer."""
    graded = written.graded
    if case.exact:
        listed = all("=" in line for line in steps_of(written))
        return graded.chain == "right" and graded.voice == "worked" and listed
    return graded.answer is not None and len(pieces(graded.thinking or "")) > 1


def require(case: Case) -> None:
    """UserError unless both networks write enough chains to intervene on."""
    for name in (BEFORE, AFTER):
        problems, found = case.some(PROBLEMS), 0
        for first in range(0, len(problems), AT_ONCE):  # often the first few have enough
            if found < FEW:
                some = problems[first : first + AT_ONCE]
                found += sum(usable(case, each) for each in own(case, case.networks[name], some))
        if found < FEW:
            kind = "sound chains" if case.exact else "chains of several parts with an answer"
            what = f"{found} {kind} in {len(problems)} problems, {FEW} are needed to intervene on"
            others = " ".join(f"--only {each}" for each in ("said", "tries", "weights", "tokens", "probes", "patching"))
            raise UserError(what, where=name, fix=f"leave out the chains: {others}")


def steps_of(written: Written) -> tuple[str, ...]:
    """The steps of a chain in signs."""
    return tuple(in_signs(line.strip()) for line in (written.graded.thinking or "").split("\n") if line.strip())


def pieces(thinking: str) -> list[str]:
    """The parts of a chain that no checker reads, which joined give it back: lines, or words where it has few lines."""
    lines = thinking.splitlines(keepends=True)
    return lines if len(lines) >= 4 else re.findall(r"\s*\S+\s*", thinking)


def measure(case: Case) -> Iterator[Row]:
    """A row for each network, change and problem, and one for each network that says which own chains can be used."""
    for name, network in case.networks.items():
        problems = case.some(PROBLEMS if name in (BEFORE, AFTER) else OF_CONTROLS)
        found = own(case, network, problems)
        sound = [usable(case, each) for each in found]
        differs = [ok and steps_of(chain) != each.steps for each, chain, ok in zip(problems, found, sound, strict=True)]
        keys = [each.key for each in problems]
        yield {"network": name, "sound": bits(sound), "other": bits(differs), "problems": keys}
        for each, chain in zip(problems, found, strict=True):
            yield _row(name, Asked(0, "sampled", OWN, "", True, None, 1.0), each, chain)
        asked = _fed_back(network, found)
        if case.exact:
            asked += _exact(case, network, problems, found, differs)
        else:
            asked += _foreign(network, found, sound)
        for answers, temperature in ((True, 0.0), (False, 0.0), (False, 1.0)):
            some = [each for each in asked if (each.answers, each.temperature) == (answers, temperature)]
            most = ANSWER_TOKENS if answers and case.exact else case.max_tokens
            given = [each.given for each in some]
            chosen = [problems[each.place] for each in some]
            groups = network.write(chosen, given, most, temperature=temperature, seed=case.seed)
            for question, problem, (after,) in zip(some, chosen, groups, strict=True):
                yield _row(name, question, problem, after)


def _fed_back(network: Network, found: Sequence[Written]) -> list[Asked]:
    """Every own chain that was closed and answered, sound or not."""
    return [
        Asked(place, "sampled", FED, _given(network, chain.graded.thinking, True), True, chain.graded.answer)
        for place, chain in enumerate(found)
        if chain.graded.thinking and chain.graded.answer is not None
    ]


def _exact(
    case: Case, network: Network, problems: Sequence[Problem], found: Sequence[Written], differs: Sequence[bool]
) -> list[Asked]:
    """The interventions on true chains, in the network's language, and on own sound ones that are other texts."""
    language, most, partners, asked = case.language(network), largest(problems), swapped(problems), []
    for place, problem in enumerate(problems):
        for kind in ("true", "own") if differs[place] else ("true",):
            lines = problem.steps if kind == "true" else steps_of(found[place])
            for change in changes(problem, lines, partners[place], most[problem.family], case.seed):
                given = _given(network, "\n".join(written(change.lines, language)), change.answers)
                asked.append(Asked(place, kind, change.name, given, change.answers, change.implied))
                if change.name in (CONTROL, FIRST):
                    asked.append(Asked(place, kind, change.name, given, False, change.implied, temperature=1.0))
    return asked


def _foreign(network: Network, found: Sequence[Written], sound: Sequence[bool]) -> list[Asked]:
    """What needs no checker. The implied answer is the one that the chain's own completion had."""
    asked, kept = [], [place for place, ok in enumerate(sound) if ok]
    for place, following in zip(kept, [*kept[1:], *kept[:1]], strict=True):
        (parts, answer), (others, theirs) = (
            (pieces(found[each].graded.thinking or ""), found[each].graded.answer) for each in (place, following)
        )
        changed = {name: parts[: min(len(parts) - 1, math.ceil(part * len(parts)))] for name, part in CUTS.items()}
        changed |= {WHOLE: parts, FILLER: [" ..." for _ in parts], **({SWAP: others} if answer != theirs else {})}
        for name, kept_parts in changed.items():
            given = _given(network, "".join(kept_parts), True)
            asked.append(Asked(place, "own", name, given, True, theirs if name == SWAP else answer))
    return asked


def _given(network: Network, chain: str | None, answers: bool) -> str:
    marks = network.marks
    return f"{network.begin}{chain}{marks.end}{marks.answer}" if answers else f"{network.begin}{chain}\n"


def _row(name: str, asked: Asked, problem: Problem, after: Written) -> dict[str, Any]:
    """What is saved of one completion. `follows`: it gives the implied answer; `waits`: it takes the last step back."""
    graded = after.graded
    row = {"network": name, "chain": asked.chain, "change": asked.change, "temperature": asked.temperature}
    row |= {"problem": problem.key, "text": after.text, "right": graded.correct}
    row["readable"] = graded.answer is not None and last_number(graded.answer) is not None
    if asked.implied is not None:
        row["follows"] = graded.answer is not None and _value(graded.answer) == _value(asked.implied)
    if not asked.answers:
        row["waits"] = after.text[len(asked.given) :].lstrip("\n").startswith("wait")
    return row


def _value(answer: str) -> Any:
    """The number that an answer is, else its text."""
    value = parse_number(answer)
    return answer.strip() if value is None else value


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """Shares of each network and change, and AFTER - BEFORE, on true chains and on own sound ones.

    Own chains are paired: those of problems in which BEFORE and AFTER both wrote a sound one.
    """
    notes = {row["network"]: row for row in rows if "sound" in row}
    frame = pd.DataFrame([row for row in rows if "change" in row])
    sound, other = ({name: _named(note, kind) for name, note in notes.items()} for kind in ("sound", "other"))
    both = sound[BEFORE] & sound[AFTER]
    sets = {kind: frame[frame.chain == kind] for kind in ("true", "sampled")}
    mine = []
    for name in notes:
        wanted = both if name in (BEFORE, AFTER) else sound[name]
        some = frame[(frame.network == name) & frame.problem.isin(wanted)]
        differs = some.problem.isin(other[name])
        mine.append(some[(some.chain == "own") | ((some.chain == "true") & ~differs)])
    sets["own"] = pd.concat(mine)
    cells, gaps = [], []
    for kind, chosen in sets.items():
        for (change, temperature), some in chosen.groupby(["change", "temperature"], sort=False):
            where = {"chain": kind, "change": change, "temperature": temperature}
            columns = {name: each.set_index("problem") for name, each in some.groupby("network", sort=False)}
            for name, each in columns.items():
                scores = {score: share(*known(each[score])) for score in _scores(each)}
                cells.append({"network": name, **where, "n": len(each), **scores})
            if BEFORE in columns and AFTER in columns:
                old, new = columns[BEFORE].align(columns[AFTER], join="inner", axis=0)
                pairs = {score: known(old[score], new[score]) for score in _scores(old)}
                found = {score: gap(*pair) for score, pair in pairs.items() if len(pair[0])}
                gaps.append({**where, "n": len(old), **found})
    counts = {name: {"problems": len(note["problems"]), "sound": len(sound[name])} for name, note in notes.items()}
    return {"networks": counts, "paired": len(both), "cells": cells, "differences": gaps}


def _scores(frame: pd.DataFrame) -> list[str]:
    """The scores that some of the rows have."""
    return [each for each in ("right", "follows", "readable", "waits") if each in frame and frame[each].notna().any()]


def known(*columns: pd.Series) -> list[Any]:
    """The values of scores at the problems where all of them are known."""
    whole = np.logical_and.reduce([column.notna() for column in columns])
    return [column[whole].astype(float).to_numpy() for column in columns]


def _named(note: Row, kind: str) -> set[str]:
    return {key for key, chosen in zip(note["problems"], unbits(note[kind]) > 0, strict=True) if chosen}
