"""Tasks of reasoning-gym under our split, judged by their own verifier, which must not run what a model wrote."""

import json
import random
from itertools import islice

import pytest

from r1_mini.data.mix import draw, source_of
from r1_mini.errors import UserError
from r1_mini.judges.judges import JUDGES
from r1_mini.judges.sandbox import Sandbox, gym_entry
from r1_mini.problems.problem import split_of

pytest.importorskip("reasoning_gym")

judge = JUDGES["reasoning_gym"]


def own_answer(problem) -> str:
    return gym_entry(problem.answer)["answer"]


def one_of(task: str):
    return next(source_of({"reasoning_gym": task}).stream("train", random.Random(0)))


@pytest.fixture(scope="module")
def chain():
    return source_of({"reasoning_gym": "chain_sum", "config": {"min_terms": 2, "max_terms": 4}})


def test_the_splits_share_no_question_and_a_seed_not_most_of_its_neighbors(chain) -> None:
    asked = {seed: {p.key for p in islice(draw([chain], "train", seed), 100)} for seed in (1, 2)}
    assert asked[1] == {p.key for p in islice(draw([chain], "train", 1), 100)}
    assert len(asked[1] & asked[2]) < 10  # not 99, as with the package's own neighboring seeds
    assert {split_of(key) for key in asked[1]} == {"base", "train"}  # no base stage can use it
    for split in ("dev", "test"):
        assert {split_of(p.key) for p in islice(draw([chain], split, 1), 30)} == {split}


def test_an_exam_has_distinct_problems_that_are_not_used(chain) -> None:
    problems = chain.exam("test", 30, seed=0, min_depth=2)
    assert len({problem.key for problem in problems}) == 30
    assert all(problem.difficulty["depth"] == 0 for problem in problems)  # not known, so always admitted
    used = {problem.key for problem in problems}
    assert not used & {problem.key for problem in chain.exam("test", 30, seed=0, used=used)}
    assert len(chain.content_hash()) == 64


def test_its_own_answer_is_right_another_is_wrong_and_none_reads_the_right_one_through_eval() -> None:
    problem, matrix = one_of("chain_sum"), one_of("spiral_matrix")
    assert judge(f" {own_answer(problem)}\n", problem.answer) and judge(own_answer(matrix), matrix.answer)
    for said in (f"{own_answer(problem)}1", ""):
        assert not judge(said, problem.answer)
    assert not judge("entry['answer'].split()", matrix.answer)


def test_an_answer_starts_no_program_writes_no_file_and_does_not_end_the_judge(tmp_path) -> None:
    problem = one_of("polynomial_multiplication")
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


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"reasoning_gym": "chain_sun"}, "chain_sun: refused: ValueError: Dataset 'chain_sun' not registered; correct"),
        ({"config": {"min_term": 2}}, "chain_sum: refused: TypeError: .*unexpected keyword argument 'min_term'"),
        ({"config": {"min_terms": 9}}, "chain_sum: refused: AssertionError: max_terms must be >= min_terms"),
        ({"config": {"seed": 1}}, "chain_sum: refused: TypeError: .*multiple values for keyword argument 'seed'"),
        ({"reasoning_gym": "game_of_life_halting"}, "game_of_life_halting: its verifier holds nonsense right; choose"),
    ],
)
def test_a_task_that_cannot_be_used_is_refused_before_training(entry, message: str) -> None:
    with pytest.raises(UserError, match=f"^reasoning_gym: {message}"):
        source_of({"reasoning_gym": "chain_sum", **entry}).content_hash()


def test_a_problem_is_the_same_in_every_process_although_some_tasks_depend_on_the_order_of_sets() -> None:
    """`PYTHONHASHSEED` differs from process to process, but for the one that makes the problems."""
    task = json.dumps({"task": "polynomial_multiplication", "config": {}, "seed": 5})
    fresh = Sandbox("reasoning_gym")
    assert fresh.call("entry", task)["result"] == gym_entry(task)
    fresh.stop()
