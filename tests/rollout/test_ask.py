"""What `sample` says of a question that its model was not trained on."""

import pytest

from r1_mini.completion import grade
from r1_mini.problems import families
from r1_mini.problems.problem import Problem
from r1_mini.rollout import ask
from r1_mini.rollout.ask import outside, taught_by
from r1_mini.rollout.engine import SamplingParams
from r1_mini.rollout.generate import Sample

TAUGHT = [families.solve(question) for question in ("12+7-3", "99-45", "1+2+3", "50+49")]  # results 6 to 99


@pytest.mark.parametrize(
    ("question", "said"),
    [
        *(("12+7", ""), ("3+7*6", "no *"), ("1+2+3+4", "operations up to 2"), ("100-3", "numbers up to 99")),
        *(("99+99", "results from 6 to 99"), ("3-7", "results from 6 to 99"), ("-5+13", "numbers from 1 on")),
    ],
)
def test_a_sum_beyond_what_was_taught_is_named_by_what_it_exceeds(question, said):
    assert outside(families.solve(question), TAUGHT) == said
    free = Problem(family="free", question="Why?", answer="", difficulty={}, key="Why?")
    assert outside(free, TAUGHT) == outside(families.solve(question), []) == ""  # where nothing is known


def test_what_was_taught_is_sampled_from_the_recipe_of_the_run(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    assert taught_by(recipe) == []
    gone = "{problems: []}, {problems: [{jsonl: gone}]}"
    for stages, depths in (
        (gone, set()),
        ("{kind: grpo}", set()),
        ("{problems: [{collected: data}]}", {2}),
        ("{problems: []}", {2}),
    ):
        recipe.write_text(f"problems: [{{family: sum, terms: 3}}]\nstages: [{stages}]\n")
        assert {problem.difficulty["depth"] for problem in taught_by(recipe, 20)} == depths


@pytest.mark.parametrize(
    ("question", "completion", "said"),
    [
        ("12 + 7 =?", "<think>12+7=19</think><answer>19</answer>", "✓ 12+7=19 answer 19: right (worked voice)"),
        ("1+1+1", "<think>1+1=2</think><answer>2</answer>", "✗ the steps end before one number is left answer 2: wrong, it is 3"),
        ("1+1", "<answer> </answer>", "no answer: wrong, it is 2 (none voice)"),
        ("Eva has 5 cards", "<think></think><answer>5</answer>", "answer 5: no reference answer (direct voice)"),
    ],
)  # fmt: skip
def test_an_answer_is_judged_where_it_can_be_however_the_question_is_written(
    tmp_path, monkeypatch, capsys, question, completion, said
):
    def answer(model, tokenizer, problems, params):
        return [[Sample("", completion, [0], "stop", 0.0, None, grade(problems[0], completion, "stop"))]]

    monkeypatch.setattr(ask, "load_checkpoint", lambda *arguments, **options: (None, None))
    monkeypatch.setattr(ask, "generate", answer)
    ask.ask(tmp_path, question, SamplingParams(1, 9), "auto")
    assert said in " ".join(capsys.readouterr().out.split())
