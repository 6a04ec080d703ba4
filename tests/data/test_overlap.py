"""What an exam asks is not trained on: the same question, or a long run of its words."""

import json
import random
import re
from itertools import islice

import pytest

from r1_mini.data.mix import draw, source_of
from r1_mini.data.overlap import RUN, runs_of, separated
from r1_mini.errors import UserError
from r1_mini.problems import families
from r1_mini.problems.problem import split_of

LONG = "Nadia walks {a} miles along the old canal on every single morning before she opens her shop"  # 17 words


@pytest.fixture
def table(tmp_path):
    def make(questions, name="taught"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"question": q, "answer": "1"}) + "\n" for q in questions))
        return source_of({"jsonl": str(path)})

    return make


def everything(source):
    return [problem for split in ("train", "dev", "test") for problem in source.listed(split)]


def short(n: int):
    return [f"short question number {i}" for i in range(n)]


def test_runs_are_thirteen_words_and_a_shorter_question_has_none() -> None:
    assert RUN == 13
    assert list(runs_of("a b c d e f g h i j k l")) == []
    assert list(runs_of("A, b c d e f g h i j k l m. n")) == ["a b c d e f g h i j k l m", "b c d e f g h i j k l m n"]


def test_the_same_question_is_left_out_however_it_is_written_and_the_run_says_so(table) -> None:
    taught = table(short(40))
    same = taught.listed("train")[0].question
    asked = everything(table([f"  {same.upper()}?!", "another"], "asked"))
    (kept,), (line,) = separated([taught], asked)
    size = len(taught.listed("train"))
    assert len(kept.listed("train")) == size - 1
    what = "1 of {} training problems are asked in an exam, or share 13 words in a row, and are left out, such as"
    assert line == f'taught: {what.format(size)} "{same}"'
    drawn = {problem.question for problem in islice(draw([kept], "train", 0), 3 * size)}
    assert len(drawn) == size - 1
    assert same not in drawn
    assert kept.content_hash() != taught.content_hash()


def test_a_question_with_a_word_changed_is_left_out_too(table) -> None:
    questions = [LONG.format(a=a) for a in range(3)]
    taught = table([*questions, *short(30)])
    asked = everything(table([LONG.format(a=77)], "asked"))
    (kept,), lines = separated([taught], asked)
    close = [problem for problem in taught.listed("train") if problem.question in questions]
    assert close
    assert lines[0].startswith(f"taught: {len(close)} of ")
    assert not {problem.question for problem in kept.listed("train")} & set(questions)


def test_what_shares_nothing_but_a_manner_of_speaking_comes_back_as_it_is(table) -> None:
    manner = table([LONG.format(a=a) for a in range(40)])  # the same words in more than ten questions
    assert separated([manner], everything(table([LONG.format(a=77)], "asked"))) == ((manner,), [])
    taught, family = table(short(20)), source_of({"family": "sum"})
    assert separated([taught, family], family.exam("test", 20, seed=0)) == ((taught, family), [])
    assert separated([taught], everything(table(["something else"], "asked"))) == ((taught,), [])


def test_a_family_does_not_teach_what_a_table_asks_nor_solve_it_on_the_way(table) -> None:
    family = source_of({"family": "sum", "terms": [3, 4], "largest": 9})
    plain = list(islice(draw([family], "base", 0), 300))
    wanted = {problem.key: problem.question for problem in plain if problem.difficulty["depth"] == 2}
    asked = everything(table(wanted.values(), "asked"))
    assert {problem.key for problem in asked} == set(wanted)
    (kept,), lines = separated([family], asked)
    assert lines == []
    assert kept.model_dump() == family.model_dump() and kept.content_hash() != "" == family.content_hash()
    for problem in islice(draw([kept], "base", 0), 300):
        assert split_of(problem.key) == "base"
        assert not {problem.key, *problem.inside} & set(wanted)


def test_an_exam_that_asks_everything_is_said(table) -> None:
    taught = table(short(20))
    (kept,), _ = separated([taught], everything(taught))
    with pytest.raises(UserError, match="taught: no train problem, or an exam asks them all; ask for fewer problems"):
        next(draw([kept], "train", 0))


def test_no_sum_of_the_exam_is_taught_in_another_dress(table) -> None:
    asked = source_of({"family": "sum"}).exam("test", 100, seed=0)
    for dress in ("{}=", "What is {}?", "$ {} $", "Tom counts {} apples. How many?"):
        (kept,), _ = separated([table([dress.format(problem.question) for problem in asked])], asked)
        assert not kept.listed("train")


def test_a_sum_that_solves_a_countdown_of_the_exam_is_not_taught() -> None:
    sums = source_of({"family": "sum", "terms": 3, "digits": 1, "largest": 20})
    solved = next(sums.stream("train", random.Random(0)))
    asked = families.solve(f"{' '.join(re.findall('[0-9]+', solved.question))}={solved.answer}")
    (kept,), _ = separated([sums], [asked])
    taught = {problem.key for problem in islice(draw([kept], "train", 0), 3000)}
    assert solved.key in {problem.key for problem in islice(draw([sums], "train", 0), 3000)}
    assert solved.key not in taught
