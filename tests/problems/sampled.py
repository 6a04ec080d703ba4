"""Problems of a family, whatever their split."""

import random
import re

from r1_mini.problems.families import FAMILIES
from r1_mini.problems.problem import Problem

AXES = {
    "sum": [
        *[{}, {"largest": 99}, {"terms": [7, 9], "digits": 3, "largest": 299}, {"terms": 3, "operators": "+"}],
        {"terms": 40, "digits": 9},  # the longest questions
    ],
    "product": [{}, {"digits": [3, 4]}, {"digits": 1}],
    "expression": [
        *[{}, {"operators": "+-", "depth": [2, 7]}, {"operators": "+-*", "nesting": 0}],
        *[{"operators": "/", "depth": [1, 3]}, {"digits": 1, "largest": 50}],
        *[{"digits": 3, "largest": 999, "nesting": 1}, {"depth": 40, "digits": 6, "largest": 10**6, "nesting": 64}],
        *[{"operators": "-", "nesting": 3, "depth": 2}, {"operators": "-/", "largest": 20, "nesting": 0, "depth": 3}],
    ],
    "countdown": [
        *[{}, {"numbers": [3, 5], "smallest": 100, "largest": 999}, {"operators": "+-", "numbers": [2, 6]}],
        *[{"numbers": 3, "largest_number": 9, "largest": 20}, {"wording": "sentence"}],
        {"operators": "*/", "numbers": [2, 3], "largest": 999, "largest_number": 20},
    ],
    "word": [
        *[{}, {"depth": 1, "digits": 1, "largest": 20}, {"depth": [5, 8]}],
        *[{"digits": 3, "largest": 999, "distractors": [0, 2]}, {"distractors": 2, "wording": 3}],
    ],
}


def sampled(name: str, axes: dict, n: int = 300, seed: int = 0) -> list[Problem]:
    family, rng = FAMILIES[name], random.Random(seed)
    own = family.axes(**axes)
    return [family.problem(family.sketch(rng, own, rng.choice(family.depths(own))), own) for _ in range(n)]


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", text)]
