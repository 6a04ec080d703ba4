"""Each supported form of data, about 100 rows of it with answers that are right and wrong: the judge has to agree.

The rows are ours, in the form of the data set named; `right` and `wrong` hold answers as a model would write them.
"""

import json
from pathlib import Path

import pytest

from r1_mini.data.table import Table
from r1_mini.judges.judges import JUDGES

FOLDER = Path(__file__).parent / "formats"
FORMATS = {
    "gsm8k": {"extract": "gsm8k", "judge": "amount"},
    "number": {"judge": "number"},
    "choice": {"judge": "choice", "template": "{question}\n{choices}"},
    "countdown": {"numbers": "nums", "target": "target", "judge": "countdown", "template": "Make {target} of {nums}."},
    "math_boxed": {"question": "problem", "answer": "solution", "extract": "boxed", "judge": "latex"},
    "latex": {"judge": "latex"},
}


def cases(name: str):
    """(answer, right answer, label) of every answer in a file, read as a recipe would."""
    table = Table.model_validate({"jsonl": str(FOLDER / f"{name}.jsonl"), **FORMATS[name]})
    for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        gold = table.problem(values).answer
        for label in ("right", "wrong"):
            for answer in values[label]:
                yield answer, gold, label == "right"


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("math_boxed", "latex")]


@pytest.mark.parametrize("name", ["gsm8k", "number", "choice", "countdown", *SLOW])
def test_the_judge_agrees_with_the_label_on_99_answers_of_100(name: str) -> None:
    judge = FORMATS[name]["judge"]
    answers = list(cases(name))
    misses = [case for case in answers if JUDGES[judge](*case[:2]) is not case[2]]
    assert len(answers) >= 900
    assert len(misses) <= 0.01 * len(answers), misses
    assert all(right for _, _, right in misses), "wrong answers held right"
