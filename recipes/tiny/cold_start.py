"""Writes cold_start.jsonl, beside this file: readable chains in signs, of problems that no exam asks.

python recipes/tiny/cold_start.py
"""

import json
from itertools import islice
from pathlib import Path

from r1_mini.completion import write
from r1_mini.data.mix import draw
from r1_mini.data.source import FamilySource

ROWS = 400
SUMS = FamilySource.model_validate({"family": "sum", "terms": [2, 6], "digits": 2, "largest": 99})

if __name__ == "__main__":
    distinct = {problem.key: problem for problem in islice(draw([SUMS], "base", "cold start"), 2 * ROWS)}
    rows = [
        {"question": problem.question, "completion": write(problem.steps, problem.answer)}
        for problem in islice(distinct.values(), ROWS)
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    Path(__file__).with_suffix(".jsonl").write_text(text, encoding="utf-8")
