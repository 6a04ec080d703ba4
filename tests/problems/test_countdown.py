"""Countdown: every question has a solution, the key forgets the order, and no text solves what is held out."""

import random
import re
from collections import Counter
from fractions import Fraction
from itertools import islice, permutations, product

import pytest
from pydantic import ValidationError

from r1_mini.completion import is_correct, read
from r1_mini.data.mix import draw
from r1_mini.data.source import FamilySource
from r1_mini.judges.judges import same_countdown
from r1_mini.problems.arithmetic import (
    canonical_key,
    evaluate,
    numbers,
    operations,
    parse,
    parse_number,
    passed_through,
)
from r1_mini.problems.families import FAMILIES, solve
from r1_mini.problems.families.countdown import Hunt
from r1_mini.problems.problem import Problem, may_teach, split_of
from r1_mini.train.corpus import corpus

FAMILY = FAMILIES["countdown"]
AXES = [
    {},
    {"numbers": 3, "largest_number": 9, "largest": 20},
    {"numbers": [3, 5], "smallest": 100, "largest": 999},
    {"operators": "+-", "numbers": [2, 6]},
    {"operators": "*/", "numbers": [2, 3], "largest": 999, "largest_number": 20},
    {"wording": "sentence"},
]


def draws(axes: dict, n: int = 300) -> list[Problem]:
    rng = random.Random(0)
    return [FAMILY.draw(rng, FAMILY.axes(**axes)) for _ in range(n)]


def asked(question: str) -> tuple[list[int], int]:
    """The numbers and the target of a question in the short wording."""
    left, right = question.split("=")
    return [int(number) for number in left.split(" ")], int(right)


def reachable(given: tuple[int, ...]) -> set[Fraction]:
    """Every value of an expression of all these numbers, by trying all of them: postfix, an operand at a time."""
    if len(given) == 1:
        return {Fraction(given[0])}
    values = set()
    for size in range(1, len(given)):
        for order in set(permutations(given)):
            for a, b in product(reachable(order[:size]), reachable(order[size:])):
                values |= {a + b, a - b, a * b} | ({a / b} if b else set())
    return values


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_a_drawn_question_has_the_solution_that_stands_as_its_answer(axes: dict) -> None:
    for problem in draws(axes):
        given, target = problem.key.split("=")
        assert sorted(numbers(parse(problem.answer))) == [int(number) for number in given.split(" ")]
        assert evaluate(parse(problem.answer)) == int(target)
        assert same_countdown(problem.answer, problem.key)
        assert problem.judge == "countdown" and problem.formula is None and problem.restated == ()


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_drawn_problems_stay_within_their_axes(axes: dict) -> None:
    settings = FAMILY.axes(**axes)
    problems = draws(axes)
    for problem in problems:
        given, target = asked(problem.key)
        assert settings.numbers[0] <= len(given) <= settings.numbers[1]
        assert all(1 <= number <= settings.largest_number for number in given)
        assert settings.smallest <= target <= settings.largest
        assert all(1 <= int(step.split("=")[1]) <= settings.largest for step in problem.steps)
        assert set(re.findall("[-+*/]", problem.answer)) <= set(settings.operators)
        depth = len(given) - 1
        assert problem.difficulty == {"depth": depth, "digits": len(str(max(given)))}
        assert operations(parse(problem.answer)) == len(problem.steps) == depth
    assert {problem.difficulty["depth"] for problem in problems} == set(FAMILY.cells(settings))


def test_steps_are_the_reductions_of_the_solution_down_to_the_target() -> None:
    for problem in draws({"numbers": [2, 5]}):
        for step in problem.steps:
            left, right = step.split("=")
            assert operations(parse(left)) == 1
            assert evaluate(parse(left)) == parse_number(right)
        assert problem.steps[-1].split("=")[1] == problem.key.split("=")[1]


def test_a_problem_written_by_hand() -> None:
    problem = FAMILY.problem(Hunt((19, 36, 55, 7), parse("55+36-(7+19)")))
    assert problem.question == "19 36 55 7=65"
    assert problem.answer == "55+36-(7+19)"
    assert problem.steps == ("55+36=91", "7+19=26", "91-26=65")
    assert problem.key == "7 19 36 55=65"
    assert problem.difficulty == {"depth": 3, "digits": 2}
    assert problem.inside == {
        *("36+55-19-7", "91-19-7"),  # the solution, and what stands after its first step
        "7 19 91=65",  # that remainder, as a countdown
    }


def test_a_part_that_is_solved_on_the_way_is_inside_as_an_expression_and_as_a_countdown() -> None:
    problem = FAMILY.problem(Hunt((2, 3, 4, 5), parse("(2+3+4)*5")))
    assert problem.inside == {"(2+3+4)*5", "2+3+4", "2 3 4=9", "(4+5)*5", "4 5 5=45"}
    assert FAMILY.problem(Hunt((2, 3), parse("2+3"))).inside == frozenset()


def test_the_sentence_says_the_numbers_the_target_and_the_rules_in_english() -> None:
    problem = FAMILY.problem(Hunt((19, 36, 55, 7), parse("55+36-(7+19)"), "sentence"))
    assert problem.question == (
        "Write an expression that equals 65. Use each of the numbers 19, 36, 55 and 7 exactly once, and no other number. "
        "You may use + - * / and parentheses. The answer is the expression alone, without what it equals, such as (1+2)*3"
    )
    assert FAMILY.problem(Hunt((19, 7), parse("19-7"), "sentence")).question.count("numbers 19 and 7 exactly") == 1


def test_the_order_of_the_question_does_not_tell_the_solution() -> None:
    first, ascending, n = Counter(), 0, 3000
    for problem in draws({"numbers": 3, "largest_number": 99}, n):
        given, _ = asked(problem.question)
        used = list(numbers(parse(problem.answer)))
        if len(set(given)) == 3:
            first[given.index(used[0])] += 1
            ascending += given == sorted(given)
    assert all(abs(count / first.total() - 1 / 3) < 0.03 for count in first.values())  # 3.5 standard errors
    assert abs(ascending / first.total() - 1 / 6) < 0.025


def test_every_operation_occurs() -> None:
    operators = Counter(c for problem in draws({"largest": 999}, 1000) for c in problem.answer if c in "+-*/")
    assert all(operators[operator] > 60 for operator in "+-*/")  # two given numbers seldom divide


def test_the_key_is_that_of_the_numbers_and_the_target_whatever_their_order_the_solution_and_the_wording() -> None:
    solutions = ["55+36-(7+19)", "36-7+55-19", "55-(19-36)-7"]
    hunts = [
        Hunt(order, parse(solution), wording)
        for order in ((19, 36, 55, 7), (7, 19, 36, 55))
        for solution in solutions
        for wording in ("short", "sentence")
    ]
    assert {FAMILY.problem(hunt).key for hunt in hunts} == {"7 19 36 55=65"}
    others = [Hunt((7, 19, 36), parse("36-19-7")), Hunt((7, 19, 36, 55), parse("55+36-(19-7)"))]
    assert not {FAMILY.problem(hunt).key for hunt in others} & {"7 19 36 55=65"}


@pytest.mark.parametrize("target", range(1, 25))
def test_a_question_is_solved_from_text_exactly_if_trying_everything_finds_a_solution(target: int) -> None:
    for given in [(1, 5, 5, 5), (3, 3, 8, 8), (1, 1, 2, 7), (2, 3, 9), (4, 6), (0, 2, 5)]:
        question = f"{' '.join(map(str, given))}={target}"
        if target in reachable(given):
            problem = solve(question)
            assert (problem.family, problem.question) == ("countdown", question)
            assert same_countdown(problem.answer, question)
        else:
            with pytest.raises(ValueError, match="no expression of"):
                solve(question)


def test_a_question_may_need_a_fraction_on_the_way() -> None:
    problem = solve("3 8 3 8=24")
    assert problem.answer == "8/(3-8/3)"
    assert problem.steps == ("3-8/3=1/3", "8/(1/3)=24")
    assert problem.difficulty["depth"] == 3


def test_a_drawn_question_read_as_text_is_the_same_problem_up_to_the_solution() -> None:
    for problem in draws({"numbers": [2, 4]}, 100):
        read_again = FAMILY.solve(problem.question)
        assert read_again.key == problem.key and read_again.difficulty == problem.difficulty
        assert is_correct(
            read(f"<think></think><answer>{read_again.answer}</answer>", "stop"), problem.answer, "countdown"
        )


@pytest.mark.parametrize(
    ("question", "clause"),
    [
        ("7=7", "written as its numbers and the target"),
        ("1 2=", "written as its numbers and the target"),
        ("=3", "written as its numbers and the target"),
        ("1+2=3", "written as its numbers and the target"),
        ("1 2=3=3", "written as its numbers and the target"),
        ("1 2 x=3", "written as its numbers and the target"),
        ("1 \u0662=3", "written as its numbers and the target"),
        ("1 2 3 4 5 6=21", "a countdown of 6 numbers: a solution is searched for 5 at most"),
        ("1 1 1 1 1=99", "no expression of 1 1 1 1 1 is 99"),
    ],
)
def test_what_is_no_countdown_is_a_value_error_with_the_reason(question: str, clause: str) -> None:
    with pytest.raises(ValueError, match=clause):
        solve(question)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"numbers": [4, 2]}, "numbers [4, 2]: the first is larger than the second"),
        ({"numbers": 1}, "numbers 1: must lie between 2 and 8"),
        ({"numbers": 9}, "numbers 9: must lie between 2 and 8"),
        ({"largest_number": 0}, "largest_number 0: must lie between 1 and 999999"),
        ({"smallest": 100}, "smallest 100: is larger than largest, 99"),
        ({"largest": 0}, "largest 0: must lie between 1 and 999999"),
        ({"operators": "+%"}, "operators '+%': give some of + - * /, each once"),
        ({"operators": "++"}, "operators '++': give some of + - * /, each once"),
        ({"wording": "long"}, "'short' or 'sentence'"),
        ({"digits": 2}, "digits"),
    ],
)
def test_impossible_axes_are_refused_with_the_reason(axes: dict, message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        FAMILY.axes(**axes)
    assert message in str(refusal.value)


def test_axes_that_no_countdown_can_meet_are_reported() -> None:
    axes = FAMILY.axes(operators="/", numbers=4, largest_number=2)
    assert {
        number
        for problem in draws({"operators": "/", "numbers": 2, "largest_number": 2})
        for number in asked(problem.key)[0]
    } == {1, 2}
    with pytest.raises(ValueError, match=r"no countdown of 3 numbers was found .*allow more"):
        FAMILY.sketch(random.Random(0), FAMILY.axes(operators="*", largest_number=2, smallest=9, numbers=3), 2)
    assert FAMILY.draw(random.Random(0), axes).difficulty["depth"] == 3


def sources(**axes) -> list[FamilySource]:
    return [FamilySource.model_validate({"family": "countdown", **axes})]


def test_the_splits_share_no_problem_although_the_wordings_differ() -> None:
    easy = {"numbers": [2, 3], "largest_number": 12, "largest": 30}
    keys = {
        split: {
            problem.key
            for wording in ("short", "sentence")
            for problem in islice(draw(sources(**easy, wording=wording), split, 0), 1000)
        }
        for split in ("base", "train", "dev", "test")
    }
    for split, own in keys.items():
        assert {split_of(key) for key in own} == {split}
        assert not any(own & other for name, other in keys.items() if name != split)


def solved_in(question: str, completion: str) -> set[str]:
    """Keys of two or more operations of all that a training text solves, read from the text alone."""
    transcript = read(completion, "stop")
    given, target = asked(question)
    tree = parse(transcript.answer or "")
    parts = [part for part in passed_through(tree)]
    keys = {f"{' '.join(map(str, sorted(numbers(part))))}={evaluate(part)}" for part in parts}
    keys |= {canonical_key(part) for part in [tree, *parts] if operations(part) >= 2}
    return keys | {f"{' '.join(map(str, sorted(given)))}={target}"}


def test_no_training_text_solves_a_held_out_problem_of_any_family() -> None:
    tested = {
        problem.key
        for family in ("countdown", "sum", "expression")
        for problem in FamilySource(family=family).exam("test", 150, seed=0, min_depth=2)
    }
    voices = {"direct": 0.3, "worked": 0.4, "checked": 0.3}
    taught: set[str] = set()
    for prompt, completion in islice(corpus(sources(), voices, "list", 0), 2000):
        taught |= solved_in(prompt.removeprefix("User: ").removesuffix("\nAssistant:"), completion)
    for problem in islice(draw(sources(), "train", 0), 1000):
        assert may_teach(problem, "train")
        taught |= {problem.key, *problem.inside}
    assert len(taught) > 3000
    assert not {split_of(key) for key in taught} & {"dev", "test"}
    assert not tested & taught


def test_every_answer_of_the_corpus_is_right_and_follows_from_its_steps() -> None:
    for prompt, completion in islice(corpus(sources(), {"worked": 1.0}, "restate", 0), 300):
        question = prompt.removeprefix("User: ").removesuffix("\nAssistant:")
        transcript = read(completion, "stop")
        assert is_correct(transcript, question, "countdown")
        assert transcript.thinking is not None
        assert transcript.thinking.split("\n")[-1].endswith(question[question.index("=") :])
