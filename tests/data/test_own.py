"""A task in a user's file is a family: split, learned, judged and asked like ours, and tried before it trains."""

import random
from itertools import islice

import pytest

from r1_mini.completion import grade, write
from r1_mini.data.mix import draw, problems_of, source_of, sources_of, tasks
from r1_mini.errors import UserError
from r1_mini.judges.judges import judge_of, value_of
from r1_mini.problems.arithmetic import canonical_key
from r1_mini.problems.problem import may_teach, split_of
from r1_mini.rollout.ask import asked
from r1_mini.train.corpus import completion, corpus

HEAD = """
from r1_mini.problems.families.base import Range, Strict
from r1_mini.problems.families.task import Task
class Axes(Strict):
    most: int = 900
"""
PAIR = """
class Pair(Task):
    "Which is larger? 12 or 305."
    axes = Axes
    def sample(self, rng, axes, depth):
        return f"{rng.randint(0, axes.most)} or {rng.randint(0, axes.most)}"
    def solve(self, question):
        numbers = list(map(int, question.split(" or ")))
        return ["look at both", "more wins"], max(numbers)
    def key(self, question):
        return " or ".join(sorted(question.split(" or ")))
    def judge(self, answer, right):
        return int(answer) == int(right)
"""
TOTAL = """
class Total(Task):
    "The total of 12, 7 and 5."
    axes = Axes
    judge = "number"
    def depths(self, axes):
        return range(1, 4)
    def sample(self, rng, axes, depth):
        return "total " + " ".join(str(rng.randint(0, axes.most)) for _ in range(depth + 1))
    def solve(self, question):
        total, *rest = map(int, question.split()[1:])
        steps = []
        for each in rest:
            steps.append(f"{total} plus {each} is {total + each}")
            total += each
        return steps, total
    def formula(self, question):
        return "+".join(question.split()[1:])
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(HEAD + PAIR + TOTAL)
    return tmp_path


def pair(**axes):
    return source_of({"family": "./mine.py:Pair", **axes})


def test_a_task_is_split_by_its_key_and_has_its_name_settings_and_judge():
    source = pair(most=50, weight=2.0)
    assert (source.name, source.weight, source.worked, source.axes.most) == ("pair", 2.0, True, 50)
    assert source.model_dump(mode="json") == {"family": "./mine.py:Pair", "most": 50, "weight": 2.0}
    assert source_of(source.model_dump()).axes == source.axes
    for split in ("base", "train", "dev", "test"):
        for problem in islice(draw([source], split, 0), 20):
            left, right = map(int, problem.question.split(" or "))
            assert split_of(problem.key) == split and problem.answer == str(max(left, right)) and max(left, right) <= 50
            assert (problem.family, problem.judge, problem.formula) == ("pair", "./mine.py:Pair", None)
    asked_in_exam = source.exam("test", 50, 0, min_depth=2)  # of depth 0: not known
    assert len({problem.key for problem in asked_in_exam}) == 50
    assert [each.name for each, _ in tasks([source, source_of({"family": "sum"})])] == ["pair"]


def test_its_steps_are_learned_as_they_stand_and_in_every_voice():
    problem = next(draw([pair()], "base", 0))
    worked = f"<think>look at both\nmore wins</think><answer>{problem.answer}</answer>"
    for voice, text in (("worked", worked), ("checked", worked), ("direct", write((), problem.answer))):
        assert completion(problem, voice, "list", random.Random(0)) == text
        graded = grade(problem, text, "stop")
        assert graded.correct and graded.well_formed
    assert grade(problem, worked, "stop").chain == "unchecked"


def test_a_task_with_a_formula_has_each_step_checked_and_no_held_out_sum_is_solved_on_the_way():
    source = source_of({"family": "./mine.py:Total", "most": 30})
    for problem in islice(draw([source], "base", 0), 40):
        graded = grade(problem, completion(problem, "worked", "list", random.Random(0)), "stop")
        assert graded.correct and graded.chain == "right" and may_teach(problem, "base")
        assert problem.inside >= ({canonical_key_of(problem)} if problem.difficulty["depth"] > 1 else set())
    assert {problem.difficulty["depth"] for problem in source.exam("test", 30, 0, min_depth=2)} == {2, 3}
    texts = corpus([source], {"checked": 1.0}, "restate", 0, str, {"signs": 0.5, "words": 0.5})
    assert all("wait" in text for _, text in islice(texts, 20))


def canonical_key_of(problem):
    from r1_mini.problems.arithmetic import parse

    return canonical_key(parse(problem.formula))


def test_its_judge_is_total_and_votes_are_by_plain_text():
    judge = judge_of("./mine.py:Pair")
    assert judge(" 0305", "305") and not judge("304", "305") and not judge("many", "305") and not judge("", "305")
    assert value_of("./mine.py:Pair", " The  Cat. ") == value_of("text", "the cat")


def test_a_question_that_is_typed_is_solved_by_the_task_of_the_run(here):
    (here / "recipe.yaml").write_text("problems: [{family: './mine.py:Pair'}]\nstages: []\n")
    own = [task for task, _ in tasks(sources_of(here / "recipe.yaml"))]
    assert {each.family for each in problems_of(here / "recipe.yaml", 3)[0]} == {"pair"}
    assert [asked(text, {}, own).answer for text in ("7 or 12", "12+7", "who?")] == ["12", "19", ""]
    (here / "mine.py").unlink()
    assert sources_of(here / "recipe.yaml") == []


def test_its_hash_is_that_of_its_file_and_a_change_is_seen(here):
    before = pair().content_hash()
    assert before and before == pair().content_hash()
    (here / "mine.py").write_text(HEAD + PAIR + TOTAL + "# changed")
    assert pair().content_hash() != before
    assert source_of({"family": "sum"}).content_hash() == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("int(answer) == int(right)", "int(answer) == int(right) + 1", "its judge holds its own solution wrong, \"<think>look at both"),
        ("int(answer) == int(right)", "answer[99] == right", "raised IndexError in line {line}, asked \""),
        ("int(answer) == int(right)", "True", "its judge holds nonsense right, \"no answer\", asked \""),
        ("look at both", "<answer>", "its judge holds its own solution wrong"),
        ("max(numbers)", "max(numbers), 1", "`solve` gave [[\"look at both\", \"more wins\"], 609, 1], asked \"609 or 212\"; return the steps and the answer"),
        ("max(numbers)", "max(numbers) // (numbers[0] % 7)", "raised ZeroDivisionError in line"),
        ("range(1, 4)", "range(0)", "`depths` is empty with Axes(most=900); allow at least one"),
        ("+ each}", "+ each + 1}", "its steps do not solve its formula"),
        ('"+".join(question.split()[1:])', '"what?"', "raised ValueError"),
        ('" or ".join(sorted(question.split(" or ")))', "str(__import__('random').random())", "its key is another the second time, \"0."),
        ('" or ".join(sorted(question.split(" or ")))', "7", "`key` gave 7; return a text that is not empty"),
        ('return f"{rng.randint(0, axes.most)} or', 'return None and f"{axes} or', "`sample` gave null; return a text"),
        ('return f"{rng.randint(0, axes.most)} or', 'return axes.mst and f"', "raised AttributeError in line"),
        ('judge = "number"', 'judge = "nmber"', "no judge is called 'nmber'; did you mean 'number'?"),
        ("def solve(", "def solves(", "raised TypeError, when it was made (Can't instantiate abstract class"),
        ("(Task)", "", "is no task; write `class Clock(Task)`"),
        ("(Strict)", "", "is no task; write `class Clock(Task)`, its `axes` a class that inherits from Strict"),
        ("rng.randint(0, axes.most)} or", "__import__('random').randint(0, 900)} or", "its question is another the second time"),
        ("axes = Axes", "axes = {'most': 9}", "is no task; write `class Clock(Task)`, its `axes` a class"),
        ("class Pair", "class Pear", "the file has no 'Pair'; did you mean 'Pear'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_task_is_one_line_before_anything_is_trained(here, old, new, said):
    name = "Total" if old in TOTAL and old not in PAIR else "Pair"
    text = HEAD + PAIR + TOTAL
    (here / "mine.py").write_text(text.replace(old, new))
    line = next((at for at, each in enumerate(text.replace(old, new).splitlines(), 1) if new in each), 0)
    with pytest.raises(UserError) as error:
        source_of({"family": f"./mine.py:{name}"}).content_hash()
    assert str(error.value).startswith(f"./mine.py:{name}: ") and said.format(line=line) in str(error.value)
