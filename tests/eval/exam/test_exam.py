"""The exam of a run before any training: what it asks, and what it refuses."""

import pytest

from eval.exam.exam import Exam
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import Recipe
from r1_mini.problems.problem import split_of

BASE = {"kind": "base"}
GRPO = {"kind": "grpo", "trainer": {}}


def recipe(*stages, **evaluate):
    problems = [{"family": "sum", "terms": [2, 6], "largest": 99}]
    values = {"name": "x", "problems": problems, "stages": [BASE, *stages], "evaluate": evaluate}
    return Recipe.model_validate(values)


def test_the_default_exam_asks_test_problems_of_two_or_more_operations_16_times():
    exam = Exam(recipe())
    assert {split_of(each.problem.key) for each in exam.questions} == {"test"}
    assert min(each.depth for each in exam.questions) == 2
    assert (exam.suite.name, exam.suite.samples, exam.suite.temperature) == ("arithmetic", 16, 1.0)


def test_a_recipe_can_change_its_exam():
    exam = Exam(recipe(families=["sum"], limit=40, samples=2, split="dev"))
    assert {each.problem.family for each in exam.questions} == {"sum"}
    assert (len(exam.questions), exam.suite.samples, exam.suite.split) == (40, 2, "dev")


def test_the_same_exam_is_drawn_again():
    assert Exam(recipe(limit=20)).questions == Exam(recipe(limit=20)).questions
    assert Exam(recipe(limit=20)).questions != Exam(recipe(limit=20, seed=9)).questions


def test_own_asks_the_recipe_s_problems():
    assert {each.problem.family for each in Exam(recipe(suite="own", limit=20)).questions} == {"sum"}


def test_a_suite_on_test_is_drawn_from_dev_during_training():
    score = Exam(recipe({**GRPO, "dev": {"every": 5, "suite": "smoke"}})).on_dev
    closure = score(recipe({**GRPO, "dev": {"every": 5, "suite": "smoke"}}).stages[1].dev).__closure__
    asked = next(cell.cell_contents for cell in closure if isinstance(cell.cell_contents, list))
    assert {split_of(each.problem.key) for each in asked} == {"dev"}


def test_an_exam_that_the_trained_model_could_not_read_is_refused_before_training(tmp_path):
    path = tmp_path / "words.yaml"
    (tmp_path / "q.jsonl").write_text("".join(f'{{"question": "Où est {n}?", "answer": "1"}}\n' for n in range(60)))
    path.write_text(f"samples: 1\nmax_tokens: 9\nproblems: [{{jsonl: {tmp_path / 'q.jsonl'}, number: 2}}]\n")
    dev = {**GRPO, "dev": {"every": 5, "suite": str(path)}}
    for wrong in (recipe(suite=str(path)), recipe(dev, suite="smoke")):
        with pytest.raises(UserError, match="has 'ù', which the model's tokenizer cannot write"):
            Exam(wrong)


@pytest.mark.parametrize(
    "wrong,line",
    [
        (recipe(suite="arithmetik"), "evaluate.suite: no suite is called 'arithmetik'; did you mean 'arithmetic'?"),
        (recipe(families=["summ"]), "evaluate.suite: the suite has no family 'summ'; did you mean 'sum'?"),
        (recipe({**GRPO, "dev": {"every": 5, "suite": "quik"}}), "dev.suite: no suite is called 'quik'"),
    ],
    ids=["unknown suite", "unknown family", "unknown dev suite"],
)
def test_an_exam_that_cannot_be_held_is_refused_before_training(wrong, line):
    with pytest.raises(UserError) as refused:
        Exam(wrong)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
