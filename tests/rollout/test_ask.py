"""What `sample` makes of what people type, and says of a question that its model was not trained on."""

from dataclasses import replace

import pytest
import torch

from r1_mini.completion import grade
from r1_mini.data.mix import problems_of
from r1_mini.problems import families
from r1_mini.problems.problem import Problem
from r1_mini.rollout import ask
from r1_mini.rollout.ask import asked, outside
from r1_mini.rollout.generate import Sample
from r1_mini.rollout.params import SamplingParams

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
    assert outside(families.solve(question), []) == ""  # where nothing is known


def test_words_are_outside_of_what_was_taught_in_signs_alone():
    free, story = asked("Why?", {}), replace(TAUGHT[0], question="Eva had 12 cards, …")
    assert outside(free, TAUGHT) == "arithmetic alone"
    assert outside(free, [*TAUGHT, story]) == outside(free, []) == ""


@pytest.mark.parametrize(
    ("typed", "question", "answer"),
    [
        *((typed, "12+7", "19") for typed in ("12 + 7 =", "12+7=?", " 12 + 7 = ? ", "What is 12+7?", "12 plus 7")),
        *((typed, "-5+8", "3") for typed in ("-5+8", " −5 + 8", "–5+8=")),
        *((typed, "3*4", "12") for typed in ("3 × 4", "3·4 =", "3 times 4", "3 x 4")),
        *(("7−(3−12)", "7-(3-12)", "16"), ("12 ÷ 3", "12/3", "4"), ("1,234+5", "1234+5", "1239")),
        *((typed, typed, "") for typed in ("Why?", "7", "5/0", "1,23+4", "12+7=19", "10:5", "Eva has 12+7 cards")),
        ("19 36 = 55", "19 36 = 55", "19 36=55"),
        ("Eva has 5 CARDS", "Eva has 5 CARDS", "5"),
    ],
)
def test_a_question_is_read_as_people_write_it(typed, question, answer):
    row = Problem(
        family="mine", question="Eva has 5 cards.", answer="5", difficulty={"depth": 0}, key="eva has 5 cards"
    )
    problem = asked(typed, {row.key: row})
    assert (problem.question, problem.answer) == (question, answer)


def test_what_was_taught_is_sampled_from_the_recipe_of_the_run_and_rows_are_known_by_their_keys(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    assert problems_of(recipe) == ([], {})
    rows = [f'{{"question": "Eva has {n} cards.", "answer": "{n}"}}\n' for n in range(20)]
    (tmp_path / "mine.jsonl").write_text("".join(rows))
    recipe.write_text(f"problems: [{{jsonl: {tmp_path}/mine.jsonl}}]\nstages: []\n")
    taught, known = problems_of(recipe, 3)
    assert len(taught) == 3 and {each.key for each in taught} < known.keys()
    assert {key: row.answer for key, row in known.items()} == {f"eva has {n} cards": str(n) for n in range(20)}
    gone = "{problems: []}, {problems: [{jsonl: gone}]}"
    for stages, depths in (
        (gone, set()),
        ("{kind: grpo}", set()),
        ("{problems: [{collected: data}]}", {2}),
        ("{problems: []}", {2}),
    ):
        recipe.write_text(f"problems: [{{family: sum, terms: 3}}]\nstages: [{stages}]\n")
        assert {problem.difficulty["depth"] for problem in problems_of(recipe, 20)[0]} == depths


@pytest.mark.parametrize(
    ("question", "completion", "said"),
    [
        ("12 + 7 =?", "<think>12+7=19</think><answer>19</answer>", "✓ 12+7=19 answer 19: right (worked voice)"),
        ("1+1+1", "<think>1+1=2</think><answer>2</answer>", "✗ the steps end before one number is left answer 2: wrong, it is 3"),
        ("1+1", "<answer> </answer>", "no answer: wrong, it is 2 (no voice)"),
        ("Eva has 5 cards", "<think></think><answer>5</answer>", "answer 5: no reference answer (direct voice)"),
    ],
)  # fmt: skip
def test_an_answer_is_judged_where_it_can_be_however_the_question_is_written(
    tmp_path, monkeypatch, capsys, question, completion, said
):
    def answer(model, tokenizer, problems, params):
        return [[Sample("", completion, [0], "stop", 0.0, None, grade(problems[0], completion, "stop"))]]

    monkeypatch.setattr(ask, "load_checkpoint", lambda *arguments, **options: (torch.nn.Identity(), None))
    monkeypatch.setattr(ask, "generate", answer)
    ask.ask(tmp_path, question, SamplingParams(1, 9), "auto")
    assert said in " ".join(capsys.readouterr().out.split())
