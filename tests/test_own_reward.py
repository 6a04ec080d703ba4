"""A reward in a user's file: both signatures, and what it returns is checked."""

from types import SimpleNamespace

import pytest

from r1_mini.completion import grade
from r1_mini.errors import UserError
from r1_mini.problems import families
from r1_mini.rewards import as_trl_reward
from r1_mini.system import plugin
from r1_mini.train.grpo import GrpoStage

PROBLEMS = [families.solve("12+7"), families.solve("12+6")]
TEXTS = ["<think></think><answer>19</answer>", "<answer>"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paid(body, here, step=0, from_step=0):
    """What TRL gets for `TEXTS`, the first of 12+7 and the second of 12+6, from the function f of a file."""
    (here / "mine.py").write_text(body)
    graded = [grade(problem, text, "stop") for problem, text in zip(PROBLEMS, TEXTS, strict=True)]
    state = SimpleNamespace(global_step=step)
    plugin.load("./mine.py:f")  # as what is checked before a run does; after that the file is not read again
    reward = as_trl_reward("./mine.py:f", from_step)
    assert reward.__name__ == "./mine.py:f"
    columns = {"problem": [0, 1], "graded": graded, "trainer_state": state, "log_metric": print}
    return reward(["a", "b"], list(TEXTS), [[1], [2, 3]], **columns)


def test_a_function_of_a_completion_and_its_problem_is_asked_for_each(here):
    assert paid("def f(text, problem):\n    return len(text) + int(problem.answer)", here) == [34 + 19, 8 + 18]
    assert paid("def f(text, problem):\n    return None if len(text) > 9 else True", here) == [None, 1.0]
    late = paid("def f(text, problem):\n    return 1", here, step=2, from_step=3)
    assert late == [None, None]


@pytest.mark.parametrize(
    ("signature", "value", "rewards"),
    [
        ("completions, **kwargs", "[len(each) for each in completions]", [34.0, 8.0]),
        ("prompts, completions, completion_ids", "[len(p + str(i)) for p, i in zip(prompts, completion_ids)]", [4.0, 7.0]),
        ("completions, question, answer", "[len(q) + int(a) for q, a in zip(question, answer)]", [23.0, 22.0]),
        ("completions, *, problem, trainer_state", "[trainer_state.global_step + int(p.answer) for p in problem]", [26.0, 25.0]),
        ("completions, **kwargs", "(float(key in kwargs) for key in ('answer', 'graded'))", [1.0, 0.0]),
        ("completions, more=7", "__import__('torch').tensor([0.5, more])", [0.5, 7.0]),
        ("completions, **kwargs", "[completions.clear(), None]", [None, None]),
    ],
)  # fmt: skip
def test_a_function_with_the_signature_of_trl_gets_what_it_accepts(here, signature, value, rewards):
    assert paid(f"def f({signature}):\n    return {value}", here, step=7) == rewards


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def f(text, problem): return float('nan')", 'returned NaN for the completion "<think></think><answer>19</answer>" of "12+7"; return a finite number, or None'),
        ("def f(text, problem): return float('-inf')", "returned -Infinity for"),
        ("def f(text, problem): return 1e39", "returned 1e+39 for"),
        ("def f(text, problem): return 10**400", "of \"12+7\"; return a finite number"),
        ("def f(text, problem): return '0.5'", 'returned "0.5" for'),
        ("def f(text, problem): return [1.0]", "returned [1.0] for"),
        ("def f(text, problem):\n    return 1 / (len(text) - 8)", 'raised ZeroDivisionError in line 2, for the completion "<answer>" of "12+6" (division by zero)'),
        ("def f(text): return 1", "cannot be called: too many positional arguments; let it take (completion, problem)"),
        ("def f(completions, solution): return 1", "cannot be called: missing a required argument: 'solution'"),
        ("def f(completions): return [0.0]", "returned 1 rewards for 2 completions"),
        ("def f(completions): return None", "returned null for 2 completions"),
        ("def f(completions): return 'ab'", 'returned "ab" for 2 completions'),
        ("def f(completions): return [1, 'a']", 'returned "a" for the completion "<answer>" of "12+6"'),
        ("def f(completions):\n  return [len(t.split('>')[2]) for t in completions]", 'raised IndexError in line 2, for the completion "<answer>" of "12+6"'),
        ("f = 3", "is no function"),
    ],
)  # fmt: skip
def test_what_is_no_reward_is_one_line_with_the_completion_and_the_question(here, body, said):
    with pytest.raises(UserError) as error:
        paid(body, here)
    assert str(error.value).startswith("./mine.py:f: ") and said in str(error.value)


def test_a_stage_weighs_a_reward_of_ones_own_beside_ours():
    stage = GrpoStage.model_validate({"kind": "grpo", "rewards": {"accuracy": 1.0, "./mine.py:f": 0.1}})
    assert dict(stage.rewards) == {"accuracy": 1.0, "./mine.py:f": 0.1}
    with pytest.raises(ValueError, match="'mine:f' is not known"):
        GrpoStage.model_validate({"kind": "grpo", "rewards": {"mine:f": 0.1}})
