"""Is anything new? What is solved at all within many tries, counted on sound chains, as a guess would be right by luck.

pass@k of Chen et al. 2021 (2107.03374); that RL may only make rare solutions likely is of Yue et al. 2025 (2504.13837).
"""

from collections.abc import Iterator, Sequence
from math import comb
from typing import Any

from eval.inspect.case import AFTER, BEFORE, FREE, WORKED, Case, Row
from eval.inspect.figures import share
from eval.inspect.stimuli import largest

PROBLEMS, SAMPLES = 100, 256
KS = (1, 4, 16, 64, 256)
ASKED = ((BEFORE, FREE), (BEFORE, WORKED), (AFTER, FREE))


def measure(case: Case) -> Iterator[Row]:
    """A row for each network and voice: how many of each problem's samples are right, and are so by a sound chain."""
    problems = case.some(PROBLEMS)
    values = max(largest(problems).values()) + 1 if case.exact else None
    for name, voice in ASKED:
        options = {"n": SAMPLES, "temperature": 1.0, "seed": case.seed}
        groups = case.networks[name].answer(problems, voice, case.max_tokens, **options)
        right = [[each.graded for each in group if each.graded.correct] for group in groups]
        row = {"network": name, "voice": voice, "n": SAMPLES, "values": values, "right": list(map(len, right))}
        sound = [sum(graded.chain == "right" for graded in group) for group in right]
        yield row | ({"sound": sound} if case.exact else {})


def table(rows: Sequence[Row]) -> dict[str, Any]:
    """pass@k and the number of problems that are never solved; `guess` is the pass@k of guessing among all values."""
    curves = []
    for row in rows:
        for kind in ("right", "sound"):
            if kind in row:
                n, counts = row["n"], row[kind]
                points = [{"k": k, **share([1 - comb(n - c, k) / comb(n, k) for c in counts], n)} for k in KS if k <= n]
                where = {"network": row["network"], "voice": row["voice"], "counted": kind}
                curves.append({**where, "curve": points, "never": counts.count(0)})
    values = rows[0]["values"]
    guess = [{"k": k, "estimate": 1 - (1 - 1 / values) ** k} for k in KS] if values else []
    return {"n": len(rows[0]["right"]), "samples": rows[0]["n"], "curves": curves, "guess": guess}
