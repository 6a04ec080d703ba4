"""Products of two numbers, worked by partial products. `37*24`: `37*20=740`, `37*4=148`, `740+148=888`"""

import random
from typing import Annotated

from pydantic import Field

from r1_mini.problems.arithmetic import Tree, partial_products
from r1_mini.problems.families.base import Arithmetic, ArithmeticAxes, Pair


class ProductAxes(ArithmeticAxes):
    """How many digits the two factors have."""

    digits: Pair[Annotated[int, Field(ge=1, le=18)]] = (2, 2)
    """Exactly so many in the first factor and in the second; one number stands for both."""


class Product(Arithmetic[ProductAxes]):
    name = "product"
    axes = ProductAxes
    restates = False

    def depths(self, axes: ProductAxes) -> range:
        """One step for each nonzero digit of the second factor, and one for each sum of two: 1, 3, 5, ..."""
        return range(1, 2 * axes.digits[1], 2)

    def attempt(self, rng: random.Random, axes: ProductAxes, depth: int) -> Tree:
        first, second = axes.digits
        left = rng.randrange(10 ** (first - 1) if first > 1 else 0, 10**first)
        if second == 1:
            return ("*", left, rng.randrange(10))
        nonzero = {0, *rng.sample(range(1, second), (depth - 1) // 2)}
        right = "".join(str(rng.randrange(1, 10)) if place in nonzero else "0" for place in range(second))
        return ("*", left, int(right))

    def worked(self, formula: Tree) -> Tree:
        return partial_products(formula) or formula

    def has(self, tree: Tree) -> bool:
        return partial_products(tree) is not None
