"""docs/YOURS.md is a program: its script writes problems, its recipe learns from them, and what it refuses is refused."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eval.analysis.stats import planned_detectable
from r1_mini import cli
from r1_mini.completion import grade, write
from r1_mini.data.own import Asked
from r1_mini.pipeline.recipe import load
from r1_mini.pipeline.start import lettered, start_of
from r1_mini.pipeline.store import read_note
from r1_mini.plan.stages import Planner, Share
from r1_mini.system import environment
from r1_mini.system.files import read_jsonl
from tests.commands import r1_mini

TEXT = (Path(__file__).parent.parent / "docs/YOURS.md").read_text(encoding="utf-8")
SCRIPT, RECIPE, COMMANDS = (
    re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.M | re.S)[0] for kind in ("python", "yaml", "bash")
)
TINY = [
    *("base.model.hidden_size=48", "base.model.layers=1", "base.trainer.max_steps=3"),
    *("base.trainer.per_device_train_batch_size=8", "grpo.trainer.max_steps=1"),
    *("grpo.trainer.per_device_train_batch_size=8", "grpo.trainer.num_generations=4"),
    *("grpo.trainer.max_completion_length=16", "evaluate.limit=12", "evaluate.samples=2", "evaluate.max_tokens=16"),
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder in which a reader has copied the page's script and recipe, and has run the script."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "make_problems.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    command = COMMANDS.splitlines()[0].split()
    subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def here(written, tmp_path_factory):
    """The same with a tenth of the rows to train on."""
    folder = shutil.copytree(written, tmp_path_factory.mktemp("yours"), dirs_exist_ok=True)
    for name in ("worked", "mine"):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[: len(lines) // 10]), encoding="utf-8")
    return folder


def commands():
    """The arguments of each `r1-mini` of the page."""
    return [shlex.split(line, comments=True)[1:] for line in COMMANDS.splitlines() if line.startswith("r1-mini")]


def test_the_script_writes_right_steps_and_files_that_share_almost_nothing(written):
    files = {name: read_jsonl(written / f"{name}.jsonl") for name in ("worked", "mine", "held")}
    assert {name: len(rows) for name, rows in files.items()} == {"worked": 20_000, "mine": 6_000, "held": 400}
    for row in files["worked"][:500]:
        for step in row["steps"].split("\n"):
            left, sign, right, result = re.fullmatch(r"(\d+)([+-])(\d+)=(\d+)", step).groups()
            assert int(left) + int(f"{sign}{right}") == int(result)
        assert result == str(row["answer"])
    worked, mine, held = ({row["question"] for row in rows} for rows in files.values())
    assert len(held & (worked | mine)) < 4


@pytest.mark.slow
def test_the_commands_of_the_page_lead_from_the_problems_to_a_report_and_an_answer(here):
    plan, run, sample = commands()
    said = r1_mini(*plan, cwd=here).stdout
    assert "400 exam problems from held.jsonl show differences from about 4.6 points" in said
    assert "<think></think>" not in said and re.search(r"<think>\d+[+-]\d+=\d+\\n", said)  # its worked text
    done = r1_mini(*run, *TINY, cwd=here)
    assert "own: 12 test problems (mine), 2 samples each" in done.stdout
    out = here / "runs" / "mine"
    assert (out / "report.html").is_file()
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["families"], summary["n_problems"]) == (["mine"], 12)
    assert [summary["names"][key] for key in ("base", "forced_worked", "rl")] == ["base", "base, forced", "after RL"]
    rows = read_jsonl(out / "eval" / "own" / "02-grpo" / "samples.jsonl")
    assert {row["question"] for row in rows} <= {row["question"] for row in read_jsonl(here / "held.jsonl")}
    assert {row["chain"] for row in rows} <= {"none", "unchecked"}
    assert "no reference answer" in r1_mini(*sample, cwd=here).stdout


def test_the_base_reads_mostly_steps_first_and_mostly_bare_answers_last(here, monkeypatch):
    monkeypatch.chdir(here)
    base = load("mine.yaml").stages[0]
    texts = [text for _, text in base.texts(base.problems, 2000, 0)]
    direct = [text.startswith("<think></think>") for text in texts]
    assert 0.07 < sum(direct[:1700]) / 1700 < 0.13
    assert 0.6 < sum(direct[1700:]) / 300 < 0.8


def test_the_table_of_rows_is_that_of_the_statistics():
    table = re.findall(r"^\| ([\d,]+) \| ([\d,]+) \| (.*?) \| (.*?) \| (.*?) \|$", TEXT, re.M)
    assert len(table) == 6
    for problems, rows, *points in table:
        n = int(problems.replace(",", ""))
        assert int(rows.replace(",", "")) == 10 * n
        planned = [planned_detectable(n, samples) for samples in (1, 8, 16)]
        assert points == [f"{100 * each:.1f}" if each < 1 else "nothing" for each in planned]


def sixty(folder, name="sixty.jsonl", **changes):
    """A file of 60 stories with their steps; `changes` replace cells of each."""
    stories = (
        {"question": f"Eva has {n + 3} nuts, buys {n % 7}. How many?", "answer": n, "steps": "so"} for n in range(60)
    )
    (folder / name).write_text("".join(f"{json.dumps(story | changes)}\n" for story in stories), encoding="utf-8")


SIXTY = "base.problems=[{jsonl: sixty.jsonl, solution: steps}]"
WORDS = "base.problems=[{jsonl: words.jsonl, solution: steps}]"
RANGE = "problems=[{family: sum, terms: [3, 4], digits: 1, largest: 20}]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "wrong", "right"),
    [
        ("name the column that has them, as `solution: steps`", ["base.problems=[{jsonl: sixty.jsonl}]"], [SIXTY]),
        ("no column is called 'step', did you mean 'steps'?", [SIXTY.replace("steps", "step")], [SIXTY]),
        ('cannot read the right answer "fifteen", write it in digits', [WORDS], [WORDS.replace("}", ", judge: text}")]),
        ("evaluate.limit=144 would fit", [SIXTY, RANGE], [SIXTY, RANGE, "evaluate.limit=144"]),
    ],
)
def test_what_the_page_says_is_refused_is_refused_and_its_fix_works(here, monkeypatch, capsys, said, wrong, right):
    monkeypatch.chdir(here)
    sixty(here)
    sixty(here, "words.jsonl", answer="fifteen")
    assert said in TEXT
    assert cli.main(["plan", "mine.yaml", *wrong]) == 2
    assert said in capsys.readouterr().err
    assert cli.main(["plan", "mine.yaml", *right, "--gpu", "80"]) == 0  # which is not timed


@pytest.mark.slow
def test_few_rows_are_said_before_anything_runs_with_what_helps(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    sixty(here)
    said = re.search(r"``(6 exam problems from 60 rows .*? or give more rows)``", TEXT)[1]
    assert cli.main(["plan", "mine.yaml", SIXTY, "problems=[{jsonl: sixty.jsonl}]", "--gpu", "80"]) == 0
    assert f"warning exam own: {said}\n" in capsys.readouterr().out
    with_file = "problems=[{jsonl: sixty.jsonl, test: held.jsonl}]"
    assert cli.main(["plan", "mine.yaml", SIXTY, with_file, "--gpu", "80"]) == 0
    assert "note exam own: 400 exam problems from held.jsonl show" in capsys.readouterr().out


@pytest.fixture(scope="module")
def clocks(tmp_path_factory):
    """A folder in which a reader has copied the page's reward, task and recipe."""
    folder = tmp_path_factory.mktemp("clocks")
    _, reward, task = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    (recipe,) = (each for each in re.findall(r"^```yaml\n(.*?)^```", TEXT, re.M | re.S) if "name: clock" in each)
    assert len(task.splitlines()) < 50
    for name, text in {"mine.py": reward, "clock.py": task, "clock.yaml": recipe}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_the_reward_of_the_page_pays_no_attack_and_without_its_if_it_pays_nothing_the_most(clocks, monkeypatch, capsys):
    monkeypatch.chdir(clocks)
    (command,) = re.findall(r"^r1-mini (check-reward.*?) *#", TEXT, re.M)
    assert cli.main(command.split()) == 0
    assert "none of 18 attacks earns half" in capsys.readouterr().out
    naive = (clocks / "mine.py").read_text().replace(' if grade(problem, completion, "stop").correct else 0.0', "")
    (clocks / "naive.py").write_text(naive)
    assert cli.main(["check-reward", "./naive.py:brevity", "clock.yaml"]) == 1
    rows = re.findall(r"^(\w.*?) +([\d.]+) +[-\d]+ %", capsys.readouterr().out, re.M)
    assert max(rows, key=lambda row: float(row[1])) == ("nothing", "1.000")
    assert cli.main(["check-reward", "accuracy", "clock.yaml", "grpo.judge=weak"]) == 1
    assert cli.main(["check-reward", "accuracy", "clock.yaml"]) == 0


def test_the_task_of_the_page_is_about_time(clocks, monkeypatch):
    monkeypatch.chdir(clocks)
    (source,) = load("clock.yaml").problems
    solved = source.own.problem(Asked("07:50+35m+2h", 2))
    assert (solved.solution, solved.answer) == (write(["07:50+35m=08:25", "08:25+2h=10:25"], "10:25"), "10:25")
    assert solved.key == source.own.problem(Asked("07:50+2h+35m", 2)).key
    for answer, right in {"10:25": True, "9:85": False, "10.25": False, "": False, "10:25:00": False}.items():
        assert grade(solved, write((), answer), "stop").correct is right
    assert grade(source.own.problem(Asked("22:30+8h", 1)), write((), "6:30"), "stop").correct  # 06:30


@pytest.mark.slow
def test_the_task_and_the_reward_of_the_page_are_trained_examined_and_asked_and_a_changed_reward_trains_again(clocks):
    said = r1_mini("plan", "clock.yaml", cwd=clocks).stdout
    assert re.search(r"<think>\d\d:\d\d\+\d+[hm]=\d\d:\d\d\\n", said)
    small = [each for each in TINY if "samples" not in each] + ["evaluate.samples=1", "evaluate.columns=[base,grpo]"]
    done = r1_mini("run", "clock.yaml", *small, cwd=clocks)
    assert "own: 12 test problems (clock), 1 sample each" in done.stdout
    rows = read_jsonl(clocks / "runs" / "clock" / "eval" / "own" / "02-grpo" / "samples.jsonl")
    assert {row["judge"] for row in rows} == {"./clock.py:Clock"} and {row["difficulty"]["depth"] for row in rows} == {
        2,
        3,
    }
    asked = r1_mini("sample", "runs/clock/02-grpo", "07:50+2h+35m", cwd=clocks).stdout
    assert "wrong, it is 10:25" in asked or "right" in asked
    mine = clocks / "mine.py"
    mine.write_text(mine.read_text() + "# changed\n")
    again = r1_mini("run", "clock.yaml", *small, cwd=clocks).stdout
    assert "01-base    done before, skipped" in again and "02-grpo    done before, skipped" not in again
    assert "./mine.py:brevity" in read_note(clocks / "runs" / "clock" / "02-grpo")["identity"]["own"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("50 / (50 + len(completion))", "float('nan')", "./mine.py:brevity: returned NaN for the completion"),
        ("50 / (50 + len(completion))", "str(50)", './mine.py:brevity: returned "50" for the completion'),
        ("50 / (50 + len(completion))", "1 / 0", "./mine.py:brevity: raised ZeroDivisionError in line 5, for the completion"),
        ("== numbers(right)", "== numbers(right)[::-1]", "./clock.py:Clock: its judge holds its own solution wrong"),
        ("from r1_mini.problems.families.task", "from r1_mini.problems.families.tusk", "./clock.py:Clock: raised ModuleNotFoundError"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "run"])
def test_what_is_wrong_with_a_reward_or_a_task_is_said_before_anything_is_trained(
    clocks, tmp_path, monkeypatch, capsys, command, old, new, said
):
    for name in ("mine.py", "clock.py", "clock.yaml"):
        (tmp_path / name).write_text((clocks / name).read_text().replace(old, new))
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, "clock.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_characters_that_a_task_writes_are_tokens_of_the_base(clocks, tmp_path, monkeypatch):
    (tmp_path / "clock.py").write_text(
        (clocks / "clock.py").read_text().replace('{"h": 60,', '{"ħ": 60,').replace("}h", "}ħ")
    )
    (tmp_path / "clock.yaml").write_text((clocks / "clock.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert lettered(load("clock.yaml")).stages[0].model.characters == "ħ"


def test_letters_of_questions_answers_and_steps_are_tokens_of_the_base_and_change_no_other_recipe(here, monkeypatch):
    monkeypatch.chdir(here)
    sixty(here)
    stories = [{"question": f"Zoë: ${n}", "answer": f"{n} €", "steps": f"{n} × 1\ną"} for n in range(60)]
    (here / "letters.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in stories), encoding="utf-8")
    plain = load("mine.yaml", small := [SIXTY, "problems=[{jsonl: sixty.jsonl}]"])
    assert lettered(plain).model_dump() == plain.model_dump()
    table = "grpo.problems=[{jsonl: letters.jsonl, solution: steps, judge: amount}]"
    for given, all_of_them in (("", "×ëą€"), ("€ß", "€ß×ëą")):
        recipe = lettered(load("mine.yaml", [*small, table, f"base.model.characters={given!r}"]))
        assert recipe.stages[0].model.characters == all_of_them
        tokenizer = start_of(recipe).tokenizer
        assert tokenizer.unk_token_id not in tokenizer("Zoë: $3 1 × 5 €\ną")["input_ids"]


def test_a_stage_without_solutions_is_timed_as_if_it_wrote_what_was_learned_before(here, monkeypatch):
    monkeypatch.chdir(here)
    recipe = lettered(load("mine.yaml"))
    planner, written = Planner(recipe, environment.device(), Share(), 0), []
    for name, stage in recipe.nodes.items():
        planner.stage(name, stage, None)
        written.append(planner.written)
    assert written[0] == written[1] < 64  # and not the longest completion
