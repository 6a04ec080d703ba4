"""No test problem of two or more operations occurs in any text that a tiny recipe of ours trains on.

Of the default recipe every text is read, of the others the first 1,000 of each stage.
"""

from itertools import islice
from pathlib import Path

import pytest

from eval.exam.exam import Exam
from r1_mini.completion import grade
from r1_mini.data.mix import draw
from r1_mini.pipeline.recipe import load
from r1_mini.problems.arithmetic import canonical_key, operations, parse, passed_through
from r1_mini.problems.families import solve
from r1_mini.problems.languages import in_signs
from r1_mini.problems.problem import split_of

TINY = sorted((Path(__file__).parents[1] / "recipes" / "tiny").glob("*.yaml"), key=lambda path: path.stem == "r1_zero")


def drawn_by(recipe):
    """All that the texts of a recipe depend on; recipes that differ in the loss alone read the same."""
    base_stage, *others = recipe.stages
    asked = [(stage.problems, stage.work().prompts) for stage in others]
    return recipe.problems, base_stage, asked, recipe.seed, recipe.evaluate


RECIPES = list({repr(drawn_by(load(path))): path for path in TINY}.values())  # the last of those that are alike


def problems_in(question: str, thinking: str) -> set[str]:
    """Keys of the problems of two or more operations that the texts state, right or wrong, or pass through."""
    tree = parse(question)
    lines = [side for line in in_signs(thinking).split("\n") for side in line.split("=") if side not in ("", "wait")]
    stated = [tree, *passed_through(tree), *map(parse, lines)]
    return {canonical_key(part) for part in stated if operations(part) >= 2}


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_test_problem_occurs_in_any_text_that_a_recipe_trains_on(path):
    recipe, most = load(path), None if path.stem == "r1_zero" else 1_000
    taught: set[str] = set()
    for stage in recipe.stages:
        specs = recipe.foreseen(recipe.problems_of(stage))
        if stage.kind == "base":
            for prompt, completion in islice(stage.texts(specs, stage.work().texts, recipe.seed), most):
                question = prompt.removeprefix("User: ").removesuffix("\nAssistant:")
                taught |= problems_in(question, grade(solve(question), completion, "stop").thinking or "")
        else:
            for problem in islice(draw(specs, stage.split, recipe.seed), most or stage.work().prompts):
                thinking = grade(problem, problem.solution or "", "stop").thinking or ""
                taught |= problems_in(problem.question, thinking or "\n".join(problem.restated))
    assert len(taught) > 100
    assert not [key for key in taught if split_of(key) in ("dev", "test")]
    asked = {each.problem.key for each in Exam(recipe).questions}
    assert len(asked) >= 60
    assert not asked & taught
