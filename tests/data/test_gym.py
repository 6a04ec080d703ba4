"""Tasks of reasoning-gym under our split, judged by their own verifier, which must not run what a model wrote."""

import json
import random
from itertools import islice

import pytest

from r1_mini.data.mix import draw, source_of
from r1_mini.errors import UserError
from r1_mini.judges.judges import JUDGES
from r1_mini.problems.problem import split_of

pytest.importorskip("reasoning_gym")

judge = JUDGES["reasoning_gym"]


def own_answer(problem) -> str:
    return str(json.loads(problem.answer)["entry"]["answer"])


@pytest.fixture(scope="module")
def chain():
    return source_of({"reasoning_gym": "chain_sum", "config": {"min_terms": 2, "max_terms": 4}})


def test_the_splits_share_no_question_whatever_the_seeds(chain) -> None:
    drawn = {
        split: {problem.key for seed in (1, 2) for problem in islice(draw([chain], split, seed), 150)}
        for split in ("train", "dev", "test")
    }
    assert all(split_of(key) in ("base", "train") for key in drawn["train"])  # no base stage can use it
    assert {split_of(key) for key in drawn["dev"]} == {"dev"}
    assert {split_of(key) for key in drawn["test"]} == {"test"}
    assert len(drawn["train"]) > 250


def test_a_seed_draws_the_same_problems_and_its_neighbor_others(chain) -> None:
    first = list(islice(draw([chain], "train", 1), 100))
    assert first == list(islice(draw([chain], "train", 1), 100))
    shared = {problem.key for problem in first} & {problem.key for problem in islice(draw([chain], "train", 2), 100)}
    assert len(shared) < 10  # not 99, as with the package's own neighboring seeds


def test_an_exam_has_distinct_problems_that_are_not_used(chain) -> None:
    problems = chain.exam("test", 30, seed=0, min_depth=2)
    assert len({problem.key for problem in problems}) == 30
    assert all(problem.difficulty["depth"] == 0 for problem in problems)  # not known, so always admitted
    used = {problem.key for problem in problems}
    assert not used & {problem.key for problem in chain.exam("test", 30, seed=0, used=used)}


def test_its_own_answer_is_right_and_another_is_wrong(chain) -> None:
    problem = chain.draw("train", random.Random(0))
    assert judge(f" {own_answer(problem)}\n", problem.answer)
    assert not judge(f"{own_answer(problem)}1", problem.answer)
    assert not judge("", problem.answer)


def test_an_answer_cannot_read_the_right_one_through_eval() -> None:
    problem = source_of({"reasoning_gym": "spiral_matrix"}).draw("train", random.Random(0))
    assert judge(own_answer(problem), problem.answer)
    assert not judge("entry['answer'].split()", problem.answer)


def test_an_answer_starts_no_program_writes_no_file_and_does_not_end_the_judge(tmp_path) -> None:
    problem = source_of({"reasoning_gym": "polynomial_multiplication"}).draw("train", random.Random(0))
    mark = tmp_path / "mark"
    for said in (
        f"open('{mark}', 'w').write('x')",
        f"getattr(open, '_'*2 + 'self' + '_'*2).os.system('touch {mark}')",
        f"__import__('os').system('touch {mark}')",
        "exit()",
        "(" * 5000,
    ):
        assert judge(said, problem.answer) is False
    assert not mark.exists()
    assert judge(own_answer(problem), problem.answer)


@pytest.mark.slow
def test_an_answer_without_end_is_wrong() -> None:
    problem = source_of({"reasoning_gym": "polynomial_multiplication"}).draw("train", random.Random(0))
    assert judge("x**9**9**9**9", problem.answer) is False
    assert judge(own_answer(problem), problem.answer)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"reasoning_gym": "chain_sun"}, "reasoning_gym: no task is called 'chain_sun'; did you mean 'chain_sum'?"),
        (
            {"reasoning_gym": "chain_sum", "config": {"min_term": 2}},
            "reasoning_gym: chain_sum.config: no setting is called 'min_term'; did you mean 'min_terms'?",
        ),
        (
            {"reasoning_gym": "chain_sum", "config": {"min_terms": 9}},
            "reasoning_gym: chain_sum.config: its settings are refused: max_terms must be >= min_terms; change them",
        ),
        (
            {"reasoning_gym": "game_of_life_halting"},
            "reasoning_gym: game_of_life_halting: its verifier holds nonsense right; choose another task",
        ),
    ],
)
def test_a_task_that_cannot_be_used_is_refused_before_training(entry, message: str) -> None:
    with pytest.raises(UserError) as refusal:
        source_of(entry).content_hash()
    assert str(refusal.value) == message


def test_the_seed_is_ours() -> None:
    with pytest.raises(ValueError, match=r"config.seed is not for you to set.*; remove it"):
        source_of({"reasoning_gym": "chain_sum", "config": {"seed": 1}})


def test_an_entry_is_written_as_it_is_read(chain) -> None:
    assert source_of(chain.model_dump(mode="json")) == chain
    assert chain.name == "chain_sum"
    assert source_of({"reasoning_gym": "chain_sum", "name": "sums"}).name == "sums"
    assert len(chain.content_hash()) > 0
