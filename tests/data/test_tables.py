"""Tables: rows become problems, splits are by key, and bad rows are said in one line with their place."""

import json
import random
from collections import Counter
from itertools import islice

import pytest

from r1_mini.data.mix import draw, source_of
from r1_mini.data.table import EXTRACTS, Table
from r1_mini.errors import UserError
from r1_mini.problems.problem import split_of

GSM = {"extract": "gsm8k", "judge": "amount"}


@pytest.fixture
def jsonl(tmp_path):
    """Writes rows to a file; its path."""

    def write(rows, name="quiz.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return str(path)

    return write


def sums(n: int, first: int = 100):
    return [{"question": f"{i}+7-3", "answer": str(i + 4)} for i in range(first, first + n)]


def test_a_row_becomes_a_problem(jsonl) -> None:
    row = {
        "question": "Ann buys 3 pens at $4 each and a pad for $2. What does she pay?",
        "answer": "Pens: 3*4 = $<<3*4=12>>12.\nAll: 12+2 = $<<12+2=14>>14.\n#### 1,014",
    }
    problem = source_of({"jsonl": jsonl([row]), **GSM}).draw("train", random.Random(0))
    assert problem.family == "quiz"
    assert problem.question == row["question"]
    assert problem.answer == "1014"
    assert problem.key == "ann buys 3 pens at$4 each and a pad for$2 what does she pay"
    assert problem.difficulty == {"depth": 2}
    assert (problem.judge, problem.formula, problem.steps, problem.inside) == ("amount", None, (), frozenset())


@pytest.mark.parametrize(
    ("extract", "text", "gold"),
    [
        ("as_is", " Paris ", "Paris"),
        ("gsm8k", "2+2=4 #### no\n#### 1,234", "1234"),
        ("gsm8k", "no marks", None),
        ("boxed", r"$\boxed{1}$ and so $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        ("boxed", "no box", None),
        ("last_number", "3 and 4 make 1,007.", "1007"),
        ("last_number", "-2.5 or -3/4", "-3/4"),
        ("last_number", "none", None),
        ("letter", "2", "C"),
        ("letter", "9", None),
    ],
)
def test_the_right_answer_is_got_out_of_its_column(extract: str, text: str, gold: str | None) -> None:
    assert EXTRACTS[extract](text) == gold


def test_a_question_of_several_columns_has_its_options_on_lines(jsonl) -> None:
    rows = [
        {"stem": "Which is a metal?", "options": ["Oak", "Iron"], "key": 1},
        {"stem": "Which is a gas?", "options": {"label": ["P", "Q"], "text": ["Neon", "Gold"]}, "key": 0},
        {"stem": "How many?", "options": [3, 4], "key": 0},
    ]
    path = jsonl(rows)
    table = source_of(
        {"jsonl": path, "template": "{stem}\n{options}", "answer": "key", "extract": "letter", "judge": "choice"}
    )
    asked = {problem.question: problem.answer for split in ("train", "dev", "test") for problem in table.listed(split)}
    assert asked == {
        "Which is a metal?\n(A) Oak\n(B) Iron": "B",
        "Which is a gas?\n(P) Neon\n(Q) Gold": "A",
        "How many?\n[3, 4]": "A",
    }


def test_a_column_may_have_any_name_and_a_template_any_braces(jsonl) -> None:
    path = jsonl([{"the question": "1+1", "gold-answer": 2, "q": "2+2"}])
    named = source_of({"jsonl": path, "question": "the question", "answer": "gold-answer"})
    assert named.draw("train", random.Random(0)).question == "1+1"
    made = source_of({"jsonl": path, "template": r"{q}, in \boxed{}", "answer": "gold-answer"})
    (question,) = [problem.question for split in ("train", "dev", "test") for problem in made.listed(split)]
    assert question == r"2+2, in \boxed{}"


def test_a_table_is_split_by_key_so_that_respaced_duplicates_are_one(jsonl) -> None:
    rows = [*sums(200), {"question": "7 + 100 - 3", "answer": 104}]
    table = source_of({"jsonl": jsonl(rows)})
    parts = {split: table.listed(split) for split in ("train", "dev", "test")}
    assert sum(map(len, parts.values())) == 200
    for split, problems in parts.items():
        for problem in problems:
            own = split_of(problem.key)
            assert own == split or (own == "base" and split == "train")  # no base stage can use a table
    assert 140 <= len(parts["train"]) <= 180
    assert table.listed("base") == ()
    assert table.notes() == [f"{table.place}: 1 of 201 rows repeat a question and are left out"]


def test_the_stream_shows_every_problem_once_before_any_comes_again(jsonl) -> None:
    table = source_of({"jsonl": jsonl(sums(60))})
    size = len(table.listed("train"))
    twice = [problem.key for problem in islice(draw([table], "train", 0), 2 * size)]
    assert len(set(twice[:size])) == size
    assert set(Counter(twice).values()) == {2}
    assert twice[:size] != twice[size:]
    assert twice == [problem.key for problem in islice(draw([table], "train", 0), 2 * size)]


def test_tables_and_families_are_drawn_by_weight(jsonl) -> None:
    family = source_of({"family": "product", "weight": 3})
    drawn = list(islice(draw([source_of({"jsonl": jsonl(sums(50))}), family], "train", 0), 800))
    assert abs(sum(problem.family == "product" for problem in drawn) / 800 - 0.75) < 0.06


def test_an_exam_asks_distinct_problems_of_enough_depth_where_it_is_known(jsonl) -> None:
    rows = [{"question": f"story {i}", "answer": "<<1>>" * (i % 3) + f"#### {i}"} for i in range(300)]
    table = source_of({"jsonl": jsonl(rows), **GSM})
    problems = table.exam("test", 12, seed=0, min_depth=2)
    assert len({problem.key for problem in problems}) == 12
    assert {problem.difficulty["depth"] for problem in problems} == {0, 2}
    assert problems == table.exam("test", 12, seed=0, min_depth=2)
    assert problems != table.exam("test", 12, seed=1, min_depth=2)
    used = {problem.key for problem in problems}
    assert not used & {problem.key for problem in table.exam("test", 3, seed=0, used=used)}
    with pytest.raises(ValueError, match=r"quiz.jsonl has \d+ test problems to ask, not 300; ask for fewer"):
        table.exam("test", 300, seed=0)


def test_countdown_columns_make_the_right_answer_and_the_key_that_the_family_has(jsonl) -> None:
    family = source_of({"family": "countdown"}).draw("train", random.Random(0))
    numbers, _, target = family.key.partition("=")
    rows = [
        {"nums": [44, 9, 35], "target": 70},
        {"nums": [35, 44, 9], "target": 70},
        {"nums": [int(number) for number in reversed(numbers.split())], "target": int(target)},
    ]
    columns = {"numbers": "nums", "target": "target", "template": "Make {target} of {nums}."}
    table = source_of({"jsonl": jsonl(rows), "judge": "countdown", **columns})
    problems = [problem for split in ("train", "dev", "test") for problem in table.listed(split)]
    asked = {problem.key: (problem.question, problem.answer) for problem in problems}
    assert asked.keys() == {"9 35 44=70", family.key}
    assert asked["9 35 44=70"] == ("Make 70 of [44, 9, 35].", "44 9 35=70")


def test_changed_rows_are_another_table(jsonl) -> None:
    one = source_of({"jsonl": jsonl(sums(20), "one.jsonl")})
    same = source_of({"jsonl": jsonl(sums(20), "same.jsonl"), "weight": 2})
    changed = source_of({"jsonl": jsonl([*sums(19), {"question": "119+7-3", "answer": 124}], "changed.jsonl")})
    assert one.content_hash() == same.content_hash()
    assert one.content_hash() != changed.content_hash()


def test_answers_that_the_judge_cannot_read_are_left_out_if_they_are_few(jsonl) -> None:
    path = jsonl([*sums(150), {"question": "1+1+1+1", "answer": "four"}])
    table = source_of({"jsonl": path})
    assert sum(len(table.listed(split)) for split in ("train", "dev", "test")) == 150
    what = "1 of 151 rows are left out, whose answer judge 'number' cannot read"
    assert table.notes() == [f'{path}: {what}, the first at {path}:151: "four"']


def refusal(entry) -> str:
    with pytest.raises(UserError) as error:
        source_of(entry).content_hash()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_too_many_answers_that_cannot_be_read_refuse_the_table(jsonl) -> None:
    path = jsonl([*sums(50), {"question": "1+1+1+1", "answer": "four"}])
    assert refusal({"jsonl": path}) == (
        f"{path}:51: judge 'number' cannot read 1 of 51 right answers, the first: \"four\"; "
        "choose another `extract` or `judge`, or correct the rows"
    )


@pytest.mark.parametrize(
    ("rows", "entry", "message"),
    [
        (["{"], {}, "{path}:1: not JSON; write one object per line"),
        ([*sums(2), "[1]"], {}, '{path}:3: not an object: [1]; write {"question": …, "answer": …}'),
        ([], {}, "{path}: no rows in it; name another file, data set or split"),
        (
            [{"questions": "1", "answer": "1"}],
            {},
            "{path}:1: no column is called 'question'; did you mean 'questions'?",
        ),
        ([{"question": "1", "gold": "1"}], {}, "{path}:1: no column is called 'answer'; known: gold, question"),
        ([{"question": " ", "answer": "1"}], {}, "{path}:1: the question is empty; remove the row"),
        (
            [{"question": None, "answer": "1"}],
            {},
            "{path}:1: column 'question' holds null, not text; name another column",
        ),
        (
            sums(1),
            {"template": "{qestion}"},
            "{path}:1: no column is called 'qestion'; did you mean 'question'?",
        ),
    ],
)
def test_a_bad_row_is_said_with_its_line(jsonl, rows, entry, message: str) -> None:
    path = jsonl(rows)
    assert refusal({"jsonl": path, **entry}) == message.replace("{path}", path)


def test_a_bad_path_is_said(tmp_path) -> None:
    assert refusal({"jsonl": "none.jsonl"}) == "none.jsonl: no such file; give the path of a JSONL file"
    assert refusal({"jsonl": str(tmp_path)}) == f"{tmp_path}: a folder, not a file; write `dataset:` instead"
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    assert refusal({"jsonl": str(tmp_path / "latin.jsonl")}).endswith("not UTF-8 text; save the file as UTF-8")


def test_a_split_without_problems_is_said(jsonl) -> None:
    path = jsonl(sums(1))
    table = source_of({"jsonl": path})
    (full,) = [split for split in ("train", "dev", "test") if table.listed(split)]
    empty = "dev" if full == "train" else "train"
    with pytest.raises(UserError, match=f"quiz.jsonl: no {empty} problem in it; give more rows"):
        next(draw([table], empty, 0))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"jsonl": "x", "judge": "amuont"}, "unknown judge 'amuont'; nearest known: 'amount'"),
        ({"jsonl": "x", "judge": "reasoning_gym"}, "unknown judge 'reasoning_gym'; nearest known:"),
        ({"jsonl": "x", "extract": "box"}, "unknown extract 'box'; nearest known: 'boxed'"),
        ({"jsonl": "x", "qestion": "q"}, "unknown key 'qestion' of `jsonl`; nearest known: 'question'"),
        ({"jsonl": "x", "numbers": "nums"}, "numbers and target belong together"),
        ({"jsonl": "x", "numbers": "n", "target": "t"}, "set judge: countdown"),
        ({"jsonl": "x", "template": "Calculate!"}, "template 'Calculate!' names no column"),
        ({"jsonl": "x", "limit": 0}, "limit 0: Input should be greater than or equal to 1"),
        ({"jsnol": "x"}, "names no source; give one of family, jsonl, dataset, reasoning_gym"),
    ],
)
def test_a_wrong_entry_is_refused_before_any_file_is_read(entry, message: str) -> None:
    with pytest.raises(ValueError) as error:
        source_of(entry)
    assert message in str(error.value)


def test_an_entry_is_written_as_it_is_read(jsonl) -> None:
    table = source_of({"jsonl": "data/quiz.jsonl", "name": "my quiz", **GSM, "limit": 5})
    assert isinstance(table, Table)
    assert table.name == "my quiz"
    assert table.model_dump(mode="json")["name"] == "my quiz"
    assert source_of(table.model_dump(mode="json")) == table


def test_the_limit_reads_the_first_rows(jsonl) -> None:
    table = source_of({"jsonl": jsonl([*sums(5), "not read"]), "limit": 5})
    assert sum(len(table.listed(split)) for split in ("train", "dev", "test")) == 5
