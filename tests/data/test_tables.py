"""Tables: rows become problems, splits are by key, and bad rows are said in one line with their place."""

import json
import random
from collections import Counter
from itertools import islice

import datasets
import pytest
from datasets import Dataset, DatasetDict

from r1_mini.completion import grade
from r1_mini.data.mix import draw, source_of
from r1_mini.data.table import EXTRACTS
from r1_mini.errors import UserError
from r1_mini.problems.problem import split_of
from r1_mini.train.corpus import completion

GSM = {"extract": "gsm8k", "judge": "amount"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)  # 5 s after each shuffled pass of parquet


@pytest.fixture
def jsonl(tmp_path):
    """Writes rows to a file; its path."""

    def write(rows, name="quiz.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return str(path)

    return write


@pytest.fixture(params=["files", "parquet", "saved"])
def folder(request, tmp_path):
    """A data set with splits of its own; two of its 30 test questions are also in train."""
    path = tmp_path / "set"
    parts = {"train": Dataset.from_list(items(0, 120)), "test": Dataset.from_list(items(118, 30))}
    path.mkdir()
    if request.param == "saved":
        DatasetDict(parts).save_to_disk(path)
    for name, part in parts.items():
        if request.param == "parquet":
            part.to_parquet(path / f"{name}.parquet")
        elif request.param == "files":
            part.to_json(path / f"{name}.jsonl")
    return str(path)


def items(first: int, n: int):
    return [{"question": f"What is item {i}?", "answer": str(i)} for i in range(first, first + n)]


def sums(n: int):
    return [{"question": f"{i}+7-3", "answer": str(i + 4)} for i in range(100, 100 + n)]


def everything(table):
    return [problem for split in ("train", "dev", "test") for problem in table.listed(split)]


def test_a_row_becomes_a_problem(jsonl) -> None:
    row = {
        "question": "Ann buys 3 pens at $4 each and a pad for $2. What does she pay?",
        "answer": "Pens: 3*4 = $<<3*4=12>>12.\nAll: 12+2 = $<<12+2=14>>14.\n#### 1,014",
    }
    problem = next(source_of({"jsonl": jsonl([row]), **GSM}).stream("train", random.Random(0)))
    assert (problem.family, problem.question, problem.answer) == ("quiz", row["question"], "1014")
    assert problem.key == "ann buys 3 pens at$4 each and a pad for$2 what does she pay"
    assert (problem.difficulty, problem.judge) == ({"depth": 2}, "amount")
    assert (problem.formula, problem.steps, problem.inside) == (None, (), frozenset())


def test_the_right_answer_is_got_out_of_its_column() -> None:
    texts = {"as_is": " Paris ", "gsm8k": "2+2=4 #### no\n#### 1,234", "boxed": r"$\boxed{1}$ and so $\boxed{\frac12}$"}
    texts |= {"last_number": "3 and 4 make 1,007.", "letter": "2"}
    golds = {"as_is": "Paris", "gsm8k": "1234", "boxed": r"\frac12", "last_number": "1007", "letter": "C"}
    assert {extract: EXTRACTS[extract](text) for extract, text in texts.items()} == golds
    assert EXTRACTS["gsm8k"]("no marks") is EXTRACTS["letter"]("9") is None


@pytest.mark.parametrize(
    ("row", "entry", "solution"),
    [
        ({"question": "3+4", "answer": "7", "how": "3+4=7"}, {"solution": "how"}, "<think>3+4=7</think><answer>7</answer>"),
        (
            {"question": "3+4", "answer": "7", "how": "<think>\n3+4=7</think> <answer>7</answer>"},
            {"solution": "how"},
            "<think>\n3+4=7</think> <answer>7</answer>",
        ),
        (
            {"question": "How many?", "answer": "3+4=<<3+4=7>>7 eggs\nSo 7.\n#### 7"},
            {"solution": "answer", **GSM},
            "<think>3+4=7 eggs\nSo 7.</think><answer>7</answer>",
        ),
        (
            {"messages": [{"role": "user", "content": "3+4"}, {"role": "assistant", "content": "<think></think><answer>7</answer>"}]},
            {"question": "messages", "solution": "messages"},
            "<think></think><answer>7</answer>",
        ),
        (
            {"prompt": "3+4", "completion": [{"role": "assistant", "content": "<think>3+4=7</think><answer>7</answer>"}]},
            {"question": "prompt", "solution": "completion"},
            "<think>3+4=7</think><answer>7</answer>",
        ),
    ],
)  # fmt: skip
def test_a_worked_solution_is_a_completion_to_learn_from(jsonl, row, entry, solution) -> None:
    source = source_of({"jsonl": jsonl([row]), **entry})
    problem = source.problem(row)
    assert (problem.answer, problem.solution, source.worked) == ("7", solution, True)
    assert source.loaded[0]["base"] == source.loaded[0]["train"]
    assert completion(problem, "worked", "list", random.Random(0)) == solution
    graded = grade(problem, solution, "stop")
    assert (graded.correct, graded.well_formed, graded.steps) == (True, True, None)
    assert graded.chain == ("none" if graded.voice == "direct" else "unchecked")


def test_without_solutions_nothing_is_for_the_stages_that_learn_from_them(jsonl) -> None:
    source = source_of({"jsonl": jsonl(sums(40))})
    assert (source.worked, source.loaded[0]["base"]) == (False, [])
    with pytest.raises(ValueError, match="the solution is empty"):
        source_of({"jsonl": "x", "solution": "how"}).problem({"question": "3+4", "answer": "7", "how": " "})


def test_a_question_of_several_columns_has_its_options_on_lines(jsonl) -> None:
    rows = [
        {"stem": "Which is a metal?", "options": ["Oak", "Iron"], "key": 1},
        {"stem": "Which is a gas?", "options": {"label": ["A", "B"], "text": ["Neon", "Gold"]}, "key": 0},
        {"stem": "How many?", "options": [3, 4], "key": 0},
    ]
    columns = {"template": "{stem}\n{options}", "answer": "key", "extract": "letter"}
    table = source_of({"jsonl": jsonl(rows), "judge": "choice", **columns})
    assert {problem.question: problem.answer for problem in everything(table)} == {
        "Which is a metal?\n(A) Oak\n(B) Iron": "B",
        "Which is a gas?\n(A) Neon\n(B) Gold": "A",
        "How many?\n(A) 3\n(B) 4": "A",
    }


def test_a_right_answer_that_is_none_of_the_options_is_refused(jsonl) -> None:
    lettered = {"judge": "choice", "extract": "letter", "template": "{question}\n{options}"}
    labelled = {"label": ["P", "Q"], "text": ["x", "y"]}
    for options, key in ((["x", "y"], 2), (["x", "y"], 3), ([3, 4], 2), (labelled, 0)):
        table = source_of({"jsonl": jsonl([{"question": "Which?", "options": options, "answer": key}]), **lettered})
        with pytest.raises(UserError, match=r"the right answer [A-D] is none of the 2 options; places count from 0"):
            everything(table)


def test_a_chat_of_one_user_turn_is_its_question_and_every_other_chat_is_refused(jsonl) -> None:
    user, system = {"role": "user", "content": "2+2?"}, {"role": "system", "content": "Be short."}
    answered = [user, {"role": "assistant", "content": "4"}]
    for chat in ([user], answered):
        table = source_of({"jsonl": jsonl([{"prompt": chat, "answer": "4"}]), "question": "prompt"})
        assert [problem.question for problem in everything(table)] == ["2+2?"]
    for chat in ([system, user], [*answered, user], [{"from": "human", "value": "2+2?"}]):
        table = source_of({"jsonl": jsonl([{"prompt": chat, "answer": "4"}]), "question": "prompt"})
        with pytest.raises(UserError, match="column 'prompt' is no chat with one turn of the user"):
            everything(table)


@pytest.mark.parametrize("column", ["question", "answer"])
def test_a_cell_that_holds_nothing_is_left_out_and_counted(jsonl, column) -> None:
    rows = [{"question": f"{n}+1", "answer": n + 1} for n in range(300)]
    for cell in (None, "", " ", float("nan"), {}, *(["?"] if column == "answer" else [])):
        table = source_of({"jsonl": jsonl([*rows, {"question": "x+1", "answer": 1, column: cell}])})
        assert len(everything(table)) == 300
        assert table.notes()[0].startswith("left out because they cannot be used: 1 rows, the first is ")


def test_the_same_question_with_another_answer_is_said_apart(jsonl) -> None:
    rows = [("Is it 5?", 1), ("Is it 5", 2), ("is it 5", 1)]
    table = source_of({"jsonl": jsonl([{"question": q, "answer": a} for q, a in rows])})
    assert len(everything(table)) == 1
    notes = sorted(note.rpartition(", ")[2] for note in table.notes())
    assert notes == ["asks the same: 1 rows", "with another right answer: 1 rows"]


@pytest.mark.parametrize("place", ["jsonl", "dataset"])
def test_the_problems_of_the_exam_may_have_a_file_of_their_own(jsonl, folder, place) -> None:
    rows = [{"question": f"question {n}", "answer": n} for n in range(50)]
    held = jsonl([{"question": "one more", "answer": 9}], "held.jsonl")
    table = source_of({place: jsonl(rows) if place == "jsonl" else folder, "test": held})
    assert [problem.question for problem in table.exam("test", 1, 0)] == ["one more"]
    assert len(table.listed("test")) == 1
    assert len(table.listed("train")) + len(table.listed("dev")) == {"jsonl": 50, "dataset": 120}[place]


def test_a_column_may_have_any_name_and_a_template_any_braces(jsonl) -> None:
    path = jsonl([{"the question": "1+1", "gold-answer": 2, "q": "2+2"}])
    named = source_of({"jsonl": path, "question": "the question", "answer": "gold-answer"})
    assert next(named.stream("train", random.Random(0))).question == "1+1"
    made = source_of({"jsonl": path, "template": r"{q}, in \boxed{}", "answer": "gold-answer"})
    assert [problem.question for problem in everything(made)] == [r"2+2, in \boxed{}"]


@pytest.mark.parametrize("saved", [False, True])
def test_a_table_is_split_by_key_so_that_respaced_duplicates_are_one(jsonl, tmp_path, saved: bool) -> None:
    rows = [*sums(200), {"question": "7 + 100 - 3", "answer": "104"}]
    if saved:
        Dataset.from_list(rows).save_to_disk(tmp_path / "one")
    table = source_of({"dataset": str(tmp_path / "one")} if saved else {"jsonl": jsonl(rows)})
    assert len(everything(table)) == 200
    for split in ("train", "dev", "test"):
        own = {split_of(problem.key) for problem in table.listed(split)}
        assert own == ({"base", "train"} if split == "train" else {split})  # no base stage can use a table
    assert table.listed("base") == []
    assert table.notes() == [f"{table.place}: left out because the table, or its test split, asks the same: 1 rows"]


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
    with pytest.raises(UserError, match=r"quiz: \d+ test problems to ask, not 300; ask for fewer"):
        table.exam("test", 300, seed=0)


def test_countdown_columns_make_the_right_answer_and_the_key_that_the_family_has(jsonl) -> None:
    family = next(source_of({"family": "countdown"}).stream("train", random.Random(0)))
    numbers, _, target = family.key.partition("=")
    rows = [{"nums": nums, "target": 70} for nums in ([44, 9, 35], [35, 44, 9])]
    rows += [{"nums": [int(number) for number in reversed(numbers.split())], "target": int(target)}]
    columns = {"numbers": "nums", "target": "target", "template": "Make {target} of {nums}."}
    table = source_of({"jsonl": jsonl(rows), "judge": "countdown", **columns})
    asked = {problem.key: (problem.question, problem.answer) for problem in everything(table)}
    assert asked.keys() == {"9 35 44=70", family.key}
    assert asked["9 35 44=70"] == ("Make 70 of [44, 9, 35].", "44 9 35=70")


def test_changed_rows_are_another_table(jsonl) -> None:
    one = source_of({"jsonl": jsonl(sums(20), "one.jsonl")})
    same = source_of({"jsonl": jsonl(sums(20), "same.jsonl"), "weight": 2})
    changed = source_of({"jsonl": jsonl([*sums(19), {"question": "119+7-3", "answer": 124}], "changed.jsonl")})
    assert one.content_hash() == same.content_hash()
    assert one.content_hash() != changed.content_hash()


def test_rows_that_cannot_be_used_are_left_out_if_they_are_few(jsonl) -> None:
    table = source_of({"jsonl": jsonl([*sums(150), {"question": "1+1+1+1", "answer": "four"}])})
    assert len(everything(table)) == 150
    reason = f"{table.place}, row 151: judge 'number' cannot read the right answer \"four\", write it in digits"
    assert table.notes() == [f"left out because they cannot be used: 1 rows, the first is {reason}"]


def refusal(entry) -> str:
    with pytest.raises(UserError) as error:
        source_of(entry).content_hash()
    assert "\n" not in str(error.value)
    return str(error.value)


OPTIONS = {"judge": "choice", "template": "{question}"}
COUNTDOWN = {"numbers": "n", "target": "t", "judge": "countdown"}


@pytest.mark.parametrize(
    ("row", "entry", "reason"),
    [
        *(
            (
                {"question": "1+1", "answer": answer},
                {"judge": judge},
                f"judge '{judge}' cannot read the right answer \"{answer}\", write it in digits",
            )
            for judge in ("number", "amount")
            for answer in ("two", "sixty-two", "one hundred and one")
        ),
        ({"question": "1+1", "answer": "2?"}, {}, "judge 'number' cannot read the right answer \"2?\"; name"),
        ({"questions": "1", "answer": "1"}, {}, "no column is called 'question', did you mean 'questions'?"),
        ({"question": "1", "gold": "1"}, {}, "no column is called 'answer', known: gold, question"),
        ({"question": " ", "answer": "1"}, {}, "the question is empty"),
        ({"question": None, "answer": "1"}, {}, "column 'question' holds null, not text"),
        (
            {"question": "1", "answer": "1"},
            {"template": "{qestion}"},
            "no column is called 'qestion', did you mean 'que",
        ),
        *(({"question": a, "answer": 4}, {}, "column 'question' holds [") for a in ([["u", "2"]], ["2+2"], [None], [])),
        *(({"question": "2+2", "answer": a}, {"judge": "text"}, "column 'answer' holds [") for a in (["4"], [[4]])),
        *(({"question": a, "answer": "A"}, OPTIONS, "column 'question' holds [") for a in (["x", None], [["x"]])),
        ({"question": [], "answer": "A"}, OPTIONS, "the question is empty"),
        ({"question": [], "answer": "A"}, {**OPTIONS, "template": "?{question}"}, "the right answer A is none of the"),
        ({"question": {"label": ["A", "B"], "text": ["x"]}, "answer": "A"}, OPTIONS, "1 options have 2 labels"),
        ({"n": ["x"], "t": 3, "question": "?"}, COUNTDOWN, "'str' object cannot"),
        ({"n": [1, 2], "t": 3, "question": "?"}, {**COUNTDOWN, "judge": "number"}, "judge 'number' cannot read"),
        ({"n": [], "t": 3, "question": "?"}, COUNTDOWN, "judge 'countdown"),
        ({"n": [1, 2], "question": "?"}, {"numbers": "n"}, "no column is called 'answer'"),
    ],
)
def test_too_many_rows_that_cannot_be_used_refuse_the_table(jsonl, row, entry, reason: str) -> None:
    path = jsonl([row])
    line = refusal({"jsonl": path, **entry})
    assert line.startswith(f"quiz: 1 of 1 rows cannot be used, the first at {path}, row 1: {reason}")
    assert line.endswith("; name other columns, another `extract` or `judge`, or correct the rows")


def test_a_file_that_is_no_table_is_refused(jsonl, tmp_path) -> None:
    for row, number in (("{", 1), ("[1]", 3), ("null", 2), ("[" * 100_000, 1)):
        path = jsonl([*sums(number - 1), row])
        assert refusal({"jsonl": path}).startswith(f"{path}:{number}: cannot be read: ")
    assert refusal({"jsonl": "none.jsonl"}).startswith("none.jsonl: cannot be read: [Errno 2] No such file")
    assert refusal({"jsonl": str(tmp_path)}).endswith("; for a folder write `dataset:`")
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    assert "cannot be read: 'utf-8' codec" in refusal({"jsonl": str(tmp_path / "latin.jsonl")})


def test_a_split_without_problems_is_said_and_the_limit_reads_the_first_rows(jsonl) -> None:
    table = source_of({"jsonl": jsonl([*sums(1), "not read"]), "limit": 1})
    empty = "dev" if table.listed("train") else "train"
    with pytest.raises(UserError, match=f"quiz: no {empty} problem, or an exam asks them all; ask for"):
        next(draw([table], empty, 0))


def test_a_test_split_of_its_own_is_the_test_and_the_rest_teaches_without_what_is_in_both(folder) -> None:
    table = source_of({"dataset": folder})
    assert table.name == "set"
    assert [problem.answer for problem in table.listed("test")] == [str(i) for i in range(118, 148)]
    taught = [*table.listed("train"), *table.listed("dev")]
    assert sorted(int(problem.answer) for problem in taught) == list(range(118))
    assert {split_of(problem.key) for problem in table.listed("dev")} == {"dev"}
    assert {split_of(problem.key) for problem in table.listed("train")} == {"base", "train", "test"}
    assert table.notes() == [f"{folder}: left out because the table, or its test split, asks the same: 2 rows"]


def test_splits_say_what_teaches_and_what_is_asked(folder) -> None:
    turned, alone, hashed = (
        source_of({"dataset": folder, "splits": splits})
        for splits in ({"train": "test", "test": "train"}, {"train": None}, {"train": "test"})
    )
    assert (len(turned.listed("test")), len(alone.listed("test")), len(alone.listed("train"))) == (120, 30, 0)
    assert len(everything(hashed)) == 30
    assert {split_of(problem.key) for problem in hashed.listed("test")} <= {"test"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"splits": {"test": "tset"}}, "{folder}: no split is called 'tset'; did you mean 'test'?"),
        ({"splits": {"train": "validation"}}, "{folder}: no split is called 'validation'; known: test, train"),
        ({"answer": "no"}, "set: 2 of 2 rows cannot be used, the first at {folder}, split test, row 1: no column"),
        ({"stream": True, "extract": "boxed"}, "set: 11 of 11 rows cannot be used, the first at {folder}, split test"),
    ],
)
def test_what_a_set_does_not_have_is_said(folder, entry, message: str) -> None:
    assert refusal({"dataset": folder, **entry}).startswith(message.replace("{folder}", folder))


def test_a_streamed_set_has_the_splits_of_the_whole_one(folder) -> None:
    whole, streamed = source_of({"dataset": folder}), source_of({"dataset": folder, "stream": True})
    assert streamed.listed("train") is None
    for split in ("dev", "test"):
        keys = {problem.key for problem in whole.listed(split)}
        assert {problem.key for problem in streamed.exam(split, len(keys), seed=0)} == keys
    taught = {problem.key for problem in islice(draw([streamed], "train", 0), 200)}
    assert taught >= {problem.key for problem in whole.listed("train")}


@pytest.mark.parametrize("stream", [False, True])
def test_training_sees_every_problem_once_before_any_comes_again_in_an_order_of_the_seed(folder, stream: bool) -> None:
    table = source_of({"dataset": folder, "stream": stream})
    keys = [problem.key for problem in islice(draw([table], "train", 0), 250)]
    size = len(set(keys))
    twice = keys[: 2 * size]
    assert set(Counter(twice).values()) == {2} and len(set(twice[:size])) == size
    assert twice[:size] != twice[size:]
    assert keys == [problem.key for problem in islice(draw([table], "train", 0), 250)]
    assert keys != [problem.key for problem in islice(draw([table], "train", 1), 250)]


def test_a_set_that_cannot_be_had_is_one_line(monkeypatch, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("./data/none", str(tmp_path / "empty")):
        assert refusal({"dataset": place}).startswith(f"{place}: cannot be loaded (")

    def load(*args, **kwargs):
        raise datasets.exceptions.DatasetNotFoundError("'own/set' is gated.\nVisit the page.")

    monkeypatch.setattr(datasets, "load_dataset", load)
    line = refusal({"dataset": "own/set"})
    assert line.startswith("own/set: cannot be loaded ('own/set' is gated.); give a folder of files, or")
    assert "HF_TOKEN" in line and "HF_HOME" in line and "`config`" in line


def test_a_question_that_teaches_may_be_worked_in_several_ways_but_is_not_in_the_exam_too(jsonl) -> None:
    ways = [
        {"question": "3+4", "how": f"<think>{how}</think><answer>7</answer>"} for how in ("3+4=7", "4+3=7", "3+4=7")
    ]
    wrong = {"question": "3+4", "how": "<think>3+4=8</think><answer>8</answer>"}
    table = source_of({"jsonl": jsonl([*ways, wrong]), "solution": "how"})
    assert [problem.solution for problem in table.listed("base")] == [ways[0]["how"], ways[1]["how"]]
    assert [note.rpartition(", ")[2] for note in table.notes()] == [
        "asks the same: 1 rows",
        "with another right answer: 1 rows",
    ]
    asked = source_of({"jsonl": jsonl(ways[1:]), "test": jsonl(ways[:1]), "solution": "how"})
    assert not asked.listed("train")
