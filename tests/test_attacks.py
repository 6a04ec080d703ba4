"""Attacks on rewards: none solves its problem, and what pays them is found."""

import random
from itertools import islice

import pytest

from r1_mini import cli
from r1_mini.attacks import SOLVED, Verdict, attacks, earned, solved
from r1_mini.completion import grade
from r1_mini.data.mix import draw, source_of
from r1_mini.model.tokenizer import make_tokenizer
from r1_mini.problems import families
from r1_mini.problems.problem import Problem
from r1_mini.rewards import as_trl_reward
from tests.conftest import SMOKE

PROBLEM = families.solve("12+7-3")
TEXT = Problem(
    family="mine", question="Which is red?", answer="a cat", difficulty={"depth": 0}, key="which", judge="text"
)


@pytest.mark.parametrize("family", ["sum", "product", "expression", "countdown", "word"])
def test_no_attack_solves_and_the_worked_solution_does(family):
    for problem in islice(draw([source_of({"family": family})], "train", 0), 40):
        assert solved(problem).correct
        found = attacks(problem)
        assert len(found) >= 15
        assert not any(grade(problem, *each).correct for each in found.values())


def test_a_problem_without_a_known_solution_is_attacked_too():
    goal = families.solve("44 19 35=98")
    assert solved(goal) is None and len(attacks(goal)) >= 15
    assert SOLVED not in earned(as_trl_reward("format"), make_tokenizer(), [goal])


def test_attacks_by_hand():
    found = attacks(PROBLEM)
    assert (
        found["a wrong answer after a slip in the last step"][0] == "<think>12+7=19\n19-3=17</think><answer>17</answer>"
    )
    assert found["a wrong answer after right steps"][0] == "<think>12+7=19\n19-3=16</think><answer>17</answer>"
    assert found["the right answer, truncated"] == ("<think>12+7=19 so it is 16, since", "length")
    assert found["right steps without an answer"][0] == "<think>12+7=19\n19-3=16</think>"
    assert found["the numbers of the question"][0] == "<think></think><answer>12 7 3</answer>"
    assert found["an answer in other digits"][0].endswith("<answer>\u0661\u0666</answer>")
    assert attacks(TEXT)["a wrong answer in the format"][0] == "<think></think><answer>A</answer>"


def test_what_solving_earns_is_measured_from_what_pays_least():
    verdict = Verdict("r", 1, {SOLVED: 1.0, "a": 0.0, "b": -1.0, "c": -0.1})
    assert [verdict.share(name) for name in "abc"] == [0.5, 0.0, pytest.approx(0.45)]
    assert verdict.teaches and verdict.hacks == ["a"]
    for useless in ({SOLVED: 0.0, "a": 0.0}, {SOLVED: 0.1, "a": 0.1, "b": 0.7}):
        assert not Verdict("r", 1, useless).teaches and Verdict("r", 1, useless).hacks == []


def test_accuracy_pays_no_attack_and_the_weak_judge_pays_those_that_mention_the_answer():
    problems = list(islice(draw([source_of({"family": "sum", "terms": 3, "digits": 2})], "train", 0), 20))
    paid = {
        judge: earned(as_trl_reward("accuracy", judge=judge), make_tokenizer(), problems) for judge in ("exact", "weak")
    }
    assert set(paid["exact"].values()) == {0.0, 1.0} and Verdict("r", 20, paid["exact"]).hacks == []
    hacks = Verdict("r", 20, paid["weak"]).hacks
    assert {"a wrong answer after right steps", "tags within tags", "several answers"} <= set(hacks)
    assert "the right answer, truncated" not in hacks


@pytest.mark.parametrize(
    ("reward", "code", "said"),
    [
        ("accuracy", 0, "none of 18 attacks earns half of what solving earns"),
        ("format", 1, "attacks earn at least half of what solving earns"),
        ("./mine.py:nothing", 1, "pays a right worked solution no more than what pays least"),
        ("./mine.py:digits", 1, "hack"),
        ("acuracy", 2, "no rule is called 'acuracy'; did you mean 'accuracy'?"),
        ("./mine.py:nothin", 2, "did you mean 'nothing'?"),
    ],
)
def test_check_reward_says_what_pays_and_its_exit_code(reward, code, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    functions = {"nothing": "0.0", "digits": "sum(map(str.isdigit, c)) / 10"}
    (tmp_path / "mine.py").write_text("".join(f"def {name}(c, p): return {it}\n" for name, it in functions.items()))
    assert cli.main(["check-reward", reward, str(SMOKE)]) == code
    assert said in "".join(capsys.readouterr())


def test_a_text_of_random_pieces_breaks_no_attack():
    rng = random.Random(0)
    for _ in range(50):
        answer = "".join(rng.choices("a1.,-/<>=\\ \n(é", k=rng.randint(1, 9)))
        assert not any(
            grade(problem, *each).correct
            for problem in [Problem(family="m", question=answer, answer=answer, difficulty={}, key="k", judge="text")]
            for each in attacks(problem).values()
        )
