"""docs/YOURS.md is a program: its script writes problems, its recipe learns from them, and what it refuses is refused."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from eval.analysis.stats import planned_detectable
from r1_mini import cli
from r1_mini.pipeline.recipe import load
from r1_mini.pipeline.start import lettered, start_of
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
def here(tmp_path_factory):
    """A folder in which a reader has copied the page's script and recipe, and has run the script."""
    folder = tmp_path_factory.mktemp("yours")
    (folder / "make_problems.py").write_text(SCRIPT, encoding="utf-8")
    (folder / "mine.yaml").write_text(RECIPE, encoding="utf-8")
    command = COMMANDS.splitlines()[0].split()
    subprocess.run([sys.executable, *command[1:]], cwd=folder, check=True)
    return folder


def commands():
    """The arguments of each `r1-mini` of the page."""
    return [shlex.split(line, comments=True)[1:] for line in COMMANDS.splitlines() if line.startswith("r1-mini")]


def test_the_script_writes_right_steps_and_files_that_share_almost_nothing(here):
    files = {name: read_jsonl(here / f"{name}.jsonl") for name in ("worked", "mine", "held")}
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
    assert cli.main(["plan", "mine.yaml", *right]) == 0


@pytest.mark.slow
def test_few_rows_are_said_before_anything_runs_with_what_helps(here, monkeypatch, capsys):
    monkeypatch.chdir(here)
    sixty(here)
    said = re.search(r"``(6 exam problems from 60 rows .*? or give more rows)``", TEXT)[1]
    assert cli.main(["plan", "mine.yaml", SIXTY, "problems=[{jsonl: sixty.jsonl}]"]) == 0
    assert f"warning exam own: {said}\n" in capsys.readouterr().out
    assert cli.main(["plan", "mine.yaml", SIXTY, "problems=[{jsonl: sixty.jsonl, test: held.jsonl}]"]) == 0
    assert "note exam own: 400 exam problems from held.jsonl show" in capsys.readouterr().out


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
