"""What `sample` says of a question that its model was not trained on."""

import pytest

from r1_mini.problems import families
from r1_mini.problems.problem import Problem
from r1_mini.rollout.ask import outside, taught_by

TAUGHT = [families.solve(question) for question in ("12+7-3", "99-45", "1+2+3", "50+49")]  # results 6 to 99


@pytest.mark.parametrize(
    ("question", "said"),
    [
        *(("12+7", ""), ("3+7*6", "no *"), ("1+2+3+4", "operations up to 2"), ("100-3", "numbers up to 99")),
        *(("99+99", "results from 6 to 99"), ("3-7", "results from 6 to 99"), ("-5+13", "results from 6 to 99")),
    ],
)
def test_a_sum_beyond_what_was_taught_is_named_by_what_it_exceeds(question: str, said: str) -> None:
    assert outside(families.solve(question), TAUGHT) == said


def test_nothing_is_said_where_nothing_is_known() -> None:
    free = Problem(family="free", question="Why?", answer="", difficulty={}, key="Why?")
    assert outside(free, TAUGHT) == outside(families.solve("7*6"), []) == ""


def test_what_was_taught_is_sampled_from_the_recipe_of_the_run(tmp_path) -> None:
    recipe = tmp_path / "recipe.yaml"
    assert taught_by(recipe) == []
    for stages, depths in (
        ("{problems: []}, {problems: [{jsonl: gone}]}", set()),
        ("{kind: grpo}", set()),
        ("{problems: []}", {2}),
    ):
        recipe.write_text(f"problems: [{{family: sum, terms: 3}}]\nstages: [{stages}]\n")
        assert {problem.difficulty["depth"] for problem in taught_by(recipe, 20)} == depths
