"""No test problem of two or more operations occurs in any text that a recipe of ours trains on.

Of the tiny recipes every text is enumerated and read; of the large one with all families, what its problems say that they
solve, of the first 100,000.
"""

from itertools import islice
from pathlib import Path

import pytest

from eval.exam.exam import Exam
from r1_mini.completion import read
from r1_mini.data.mix import draw
from r1_mini.pipeline.recipe import load
from r1_mini.problems.arithmetic import canonical_key, operations, parse, passed_through
from r1_mini.problems.problem import split_of

TINY = sorted((Path(__file__).parents[1] / "recipes" / "tiny").glob("*.yaml"))


def drawn_by(recipe):
    """All that the texts of a recipe depend on; recipes that differ in the loss alone read the same."""
    base_stage, *others = recipe.stages
    asked = [(stage.problems, groups(stage)) for stage in others]
    return recipe.problems, base_stage, asked, recipe.seed, recipe.evaluate


def groups(stage):
    """How many problems a stage of reinforcement draws."""
    return stage.work().prompts


IN_ORDER = sorted(TINY, key=lambda path: path.stem == "r1_zero")
RECIPES = list({repr(drawn_by(load(path))): path for path in IN_ORDER}.values())  # the last of those that are alike


def problems_in(question: str, thinking: str) -> set[str]:
    """Keys of every problem of two or more operations that the texts state or solve: the question, each part of it and
    each remainder that its solution passes through, and each expression that a line of the chain writes out, right or
    wrong."""
    tree = parse(question)
    lines = [side for line in thinking.split("\n") for side in line.split("=") if side not in ("", "wait")]
    stated = [tree, *passed_through(tree), *map(parse, lines)]
    return {canonical_key(part) for part in stated if operations(part) >= 2}


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_test_problem_occurs_in_any_text_that_a_recipe_trains_on(path):
    recipe = load(path)
    taught: set[str] = set()
    for stage in recipe.stages:
        specs = recipe.problems_of(stage)
        if stage.kind == "base":
            for prompt, completion in stage.texts(specs, stage.work().texts, recipe.seed):
                question = prompt.removeprefix("User: ").removesuffix("\nAssistant:")
                taught |= problems_in(question, read(completion, "stop").thinking or "")
        else:
            for problem in islice(draw(specs, "train", recipe.seed), groups(stage)):
                taught |= problems_in(problem.question, "\n".join(problem.restated))
    assert len(taught) > 100
    assert not [key for key in taught if split_of(key) in ("dev", "test")]
    asked = {each.problem.key for each in Exam(recipe).questions}
    assert len(asked) >= 60
    assert not asked & taught


@pytest.mark.slow
def test_no_test_problem_of_any_family_is_solved_by_what_the_large_recipe_trains_on():
    recipe = load(TINY[0].parents[1] / "gpu" / "scratch_100m.yaml")
    specs = recipe.problems
    taught, families = set(), set()
    for split, seed, number in (
        ("base", f"{recipe.seed} early", 100_000),
        ("base", f"{recipe.seed} late", 20_000),
        ("train", recipe.seed, 9_600),
    ):
        for problem in islice(draw(specs, split, seed), number):
            families.add(problem.family)
            taught |= {problem.key, *problem.inside} if problem.difficulty["depth"] >= 2 else problem.inside
    assert families == {"sum", "product", "expression", "countdown", "word"}
    assert not [key for key in taught if split_of(key) in ("dev", "test")]
    asked = {each.problem.key for each in Exam(recipe).questions}
    assert len(asked) == 1200
    assert not asked & taught
