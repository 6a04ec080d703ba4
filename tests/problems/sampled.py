"""Problems of a family, whatever their split."""

import random
import re

from r1_mini.problems.families import FAMILIES
from r1_mini.problems.problem import Problem


def sampled(name: str, axes: dict, n: int = 300, seed: int = 0) -> list[Problem]:
    family, rng = FAMILIES[name], random.Random(seed)
    own = family.axes(**axes)
    return [family.problem(family.sketch(rng, own, rng.choice(family.depths(own)))) for _ in range(n)]


def numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall("[0-9]+", text)]
