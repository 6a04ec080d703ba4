"""What a user gets wrong: exit code 2, one line, no traceback, and nothing is left behind."""

import os
import shlex
import socket

import pytest

from r1_mini import cli

LONG, HUGE = "a" * 300, "9" * 400
RECIPE = ["run", "recipe.yaml"]
SAMPLE = ["sample", "model"]

WRONG = [
    *(["run", name] for name in ("no.yaml", "", ".", "/dev/null", LONG, "\x1b[31m", "fifo", "broken.yaml", "sweep.yaml", "latin.yaml")),
    *([*RECIPE, text] for text in (
        "seed", "=1", "seed=", "seed=-1", "seed=1.5", "seed=\x1b[31m", "sed=1", "seed=[", f"seed={HUGE}", "stages=[]", "stages.9.seed=1",
        "stages.\u0660.seed=1", "name=../x", "grpo.trainer.hub_token=x1", "model=nowhere", "problems=[]", "grpo.problems=[{jsonl: fifo}]",
        "grpo.problems=[{jsonl: /dev/zero}]", 'grpo.problems=[{jsonl: "a\\0b"}]', "grpo.problems=[{jsonl: surrogate.jsonl}]",
        "grpo.problems=[{jsonl: .}]", "grpo.problems=[{jsonl: loop}]", "grpo.problems=[{jsonl: missing.jsonl}]",
        "grpo.problems=[{dataset: empty}]", "grpo.problems=[{dataset: half}]", "grpo.trainer.accelerator_config=no.json",
        "grpo.trainer.max_steps=0", "grpo.trainer.learning_rate=.nan", "evaluate.suite=nowhere", "evaluate.temperature=1e-320",
        "evaluate.max_tokens=0",
    )),
    *([*RECIPE, "--out", out] for out in ("/dev/null", "fifo", "recipe.yaml", "socket", LONG, "recipe.yaml/x", "/dev/null/x", "full", "/proc/x")),
    *(["plan", "recipe.yaml", "--json", out] for out in ("/dev/null", "full", "fifo", "socket", "link", LONG, "/proc/x")),
    *(["plan", "recipe.yaml", *option] for option in (["--gpu", "inf"], ["--gpu", "nan"], ["--gpu", "-1"], ["--processes", "0"])),
    *(["recipes", name] for name in ("no", LONG)),
    *(["sample", *rest] for rest in (["no"], ["full"], ["/dev/null"], ["loop", "1"], ["piped", "1"])),
    *([*SAMPLE, "1+1", *option] for option in (["--temperature", "nan"], ["--temperature", "inf"], ["--max-tokens", "0"], ["--prompt", "x"])),
    *(["eval", *rest] for rest in (
        ["no"], ["limit=3"], ["full"], ["model", "limit=0"], ["model", "lmit=1"], ["model", "--suite", "no"], ["model", "--out", "/dev/null"],
        *(["model", option, out] for option in ("--out", "--export-lm-eval") for out in ("socket", "link", "loop", "recipe.yaml")),
        ["model", "--export-lm-eval", "full"], ["model", "--export-lm-eval", "/dev/null"], ["model", "--export-lm-eval", "fifo"], ["model", "--out", LONG],
        ["model"], ["model", "--out", "/proc/x"], ["model", "--export-lm-eval", "/proc/x"],
    )),
    *(["compare", *rest] for rest in (["no"], ["full"], ["recipe.yaml"], ["damaged"], ["full", "--out", "/dev/null"], ["full", "--out", "/proc/x"])),
    *(["sweep", *rest] for rest in (
        ["no"], ["recipe.yaml"], ["sweep.yaml", "--out", "fifo"], ["sweep.yaml", "--workers", "0"],
        ["sweep.yaml", "--storage", "postgresql://me:pw@h/db"], ["sweep.yaml", "--storage", ""], ["sweep.yaml", "--out", "/proc/x"],
    )),
    *(["push", *rest] for rest in (["no", "me/x"], ["full", "me/x"], ["full"])),
    *(["bench", *rest] for rest in (
        ["--checkpoint", "no"], ["--checkpoint", "model"], ["--out", "/proc/x"], ["--out", "/dev/null"], ["--out", "full"], ["--zero-variance", "nan"], ["--size", "1T"], ["--pairs", "0"],
    )),
]  # fmt: skip

FIXES = [  # what is wrong, the fix that its line says, and the command that follows it
    ("run sweep.yaml", "r1-mini sweep sweep.yaml", "sweep sweep.yaml"),
    ("sweep recipe.yaml", "r1-mini run recipe.yaml", "run recipe.yaml"),
    ("sweep contrls", "did you mean 'controls'?", "sweep controls"),
    ("sweep sweep.yaml --workers 0", "greater than or equal to 1", "sweep sweep.yaml --workers 1"),
    ("recipes sweeps/klx", "did you mean 'sweeps/kl'?", "recipes sweeps/kl"),
    ("sample full -5+8", "write -- before what begins with a dash", "sample model -- -5+8"),
    ("sample model 1+1 --voice checked", "not one of 'direct', 'worked'", "sample model 1+1 --voice worked"),
    ("sample model 1+1 --temperature 1e-320", "0 (greedy) or from 0.01 to 10", "sample model 1+1 --temperature 0.01"),
    ("eval model lmit=4", "did you mean 'limit'?", "eval model limit=4"),
    ("eval model --limit 3", "write settings as key=value", "eval model limit=3"),
    ("eval model limit=1", "greater than or equal to 2", "eval model limit=2"),
    ("eval model --suite no", "known: arithmetic, arithmetic-ood, own, quick, smoke", "eval model --suite quick"),
    ("eval model samples=1000000", "less than or equal to 10000", "eval model samples=10000"),
    ("eval model model --export-lm-eval new", "name one checkpoint", "eval model --export-lm-eval new"),
    ("compare full --out /dev/null", "choose another name", "compare full --out new"),
    *((f"{command} --out full", "choose another one", f"{command} --out new") for command in (
        "run recipe.yaml", "eval model", "compare full", "sweep sweep.yaml",
    )),
    *((f"{command} --out {out}", "choose another folder with --out", f"{command} --out new") for command, out in (
        ("eval model", "ran"), ("eval model", "ran/eval/quick"), ("compare model", "ran"), ("compare model", "ran/eval/quick"),
        ("sweep sweep.yaml", "ran"),
    )),
    ("push full", "Missing argument 'REPO'", "push full me/x"),
    ("bench --size 1T", "not one of '0.3M', '5M', '30M'", "bench --size 5M"),
    ("bench --zero-variance 1.5", "less than or equal to 1", "bench --zero-variance 1"),
    ("bench --out full", "choose another name", "bench --out new.json"),
    ("plan recipe.yaml --json full", "choose another name", "plan recipe.yaml --json new.json"),
    ("plan recipe.yaml --gpu inf", "less than or equal to 1000000", "plan recipe.yaml --gpu 1000000"),
    ("plan recipe.yaml --seed 1", "write settings as key=value", "plan recipe.yaml seed=1"),
    ("plan recipe.yaml sed=1", "did you mean 'seed'?", "plan recipe.yaml seed=1"),
    *((f"run recipe.yaml {wrong}", fix, f"run recipe.yaml {right}") for wrong, fix, right in (
        ("sed=1", "did you mean 'seed'?", "seed=1"),
        ("seed", "write for example grpo.trainer.max_steps=5", "grpo.trainer.max_steps=5"),
        ("seed=-1", "greater than or equal to 0", "seed=0"),
        ("seed=4294967296", "less than 4294967296", "seed=4294967295"),
        ("grpo.trainer.max_steps=6250001", "at most 6250000", "grpo.trainer.max_steps=6250000"),  # 16 texts each: 10**8
        ("'grpo.problems=[{jsonl: empty/train.jsonl}]'", '{"question": …, "answer": …} on each line', "'grpo.problems=[{jsonl: rows.jsonl}]'"),
        ("grpo.trainer.max_completion_length=2000", "1015 would fit", "grpo.trainer.max_completion_length=1015"),
        ("evaluate.max_tokens=2000", "997 would fit", "evaluate.max_tokens=997"),
        ("evaluate.temperature=1e-320", "0 (greedy) or from 0.01 to 10", "evaluate.temperature=0.01"),
        ("grpo.trainer.report_to=nope", "did you mean 'none'?", "grpo.trainer.report_to=none"),
        ("grpo.trainer.hub_token=x1", "leave it out", ""),
        ("grpo.trainer.output_dir=x", "give --out", "--out new"),
        ("grpo.reward=x", "did you mean 'rewards'?", "'grpo.rewards={accuracy: 1}'"),
        ("'problems=[{family: summ}]'", "did you mean 'sum'?", "'problems=[{family: sum}]'"),
        ("'problems=[{family: sum, terms: [4, 2]}]'", "swap them", "'problems=[{family: sum, terms: [2, 4]}]'"),
        ("problems=[]", "add for example `- {family: sum}`", "'problems=[{family: sum}]'"),
        ("grpo.from=nope", "known: 01-base", "grpo.from=01-base"),
        ("model=nowhere", "remove `model`", ""),
    )),
]  # fmt: skip
WORK = (
    "eval.commands.pipeline.run",
    "r1_mini.plan.plan.plan",
    "r1_mini.rollout.ask.load_checkpoint",
    "eval.commands.examine",
    "eval.commands.load_shape",
    "eval.commands.load_checkpoint",
    "eval.commands.columns_of",
    "eval.sweep.run.Study",
    "eval.export.card.push",
    "eval.bench.run.bench",
)


def everything(folder):
    return {path.relative_to(folder): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def here(tmp_path, recipe_file, monkeypatch):
    """A folder with a right recipe and sweep, and with what no command may touch."""
    monkeypatch.chdir(tmp_path)
    recipe_file()
    (tmp_path / "sweep.yaml").write_text("name: s\nrecipe: recipe.yaml\nsettings: {a: {seed: 1}}\nseeds: {key: seed}\n")
    (tmp_path / "broken.yaml").write_text("name: [")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    (tmp_path / "surrogate.jsonl").write_text('{"question": "1+\\ud800", "answer": "2"}\n')
    for name, text in (("empty", ""), ("half", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_text(text)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"question": "{n}+1", "answer": "{n + 1}"}}\n' for n in range(40)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "ran" / "eval" / "quick").mkdir(parents=True)
    for name in ("recipe.yaml", "manifest.json", "eval/quick/columns.json"):
        (tmp_path / "ran" / name).write_text("{}")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "columns.json").write_text("{}")
    (tmp_path / "link").symlink_to("recipe.yaml")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "piped").mkdir()
    (tmp_path / "piped" / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "piped" / "model.safetensors")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind("socket")
        yield tmp_path


@pytest.mark.parametrize("arguments", WRONG, ids=lambda arguments: " ".join(arguments)[:60].replace("\x1b", "ESC"))
def test_a_wrong_input_is_one_line_and_leaves_nothing_behind(arguments, here, capsys):
    refused(arguments, here, capsys)


def refused(arguments, here, capsys):
    """The one line that a wrong input gets."""
    before = everything(here)
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "Traceback" not in error and "\x1b" not in error
    assert everything(here) == before
    return error


class ReachedError(Exception):
    """The checks have passed, and the work begins."""


@pytest.mark.parametrize(("wrong", "fix", "right"), FIXES, ids=[wrong for wrong, _, _ in FIXES])
def test_the_fix_of_a_line_works_when_followed(wrong, fix, right, here, monkeypatch, capsys):
    def work(*arguments, **options):
        raise ReachedError

    for name in WORK:
        monkeypatch.setattr(name, work)
    assert fix in refused(shlex.split(wrong), here, capsys)
    code = cli.main(shlex.split(right))
    error = capsys.readouterr().err
    assert code == 0 if right.startswith("recipes") else error.startswith("error: ReachedError"), error
