"""What a user gets wrong: exit code 2, one line, no traceback, and nothing is left behind."""

import os
import shlex
import socket

import pytest

from r1_mini import cli
from tests.conftest import TINY

LONG, HUGE = "a" * 300, "9" * 400
RECIPE = ["run", "recipe.yaml"]
FILES = {
    "sweep.yaml": "name: s\nrecipe: recipe.yaml\nsettings: {a: {seed: 1}}\n",
    "suite.yaml": "problems: [{family: sum, digits: 1, number: 20}]\nsamples: 2\nmax_tokens: 32\n",
    "axis.yaml": "problems: [{family: sum, digits: 1, number: 20, axis: x}]\nsamples: 2\nmax_tokens: 32\n",
    "bare.yaml": "name: bare\nproblems: [{family: sum, digits: 1}]\n",
    "empty.yaml": "",
    "broken.yaml": "name: [",
    "good.jsonl": "".join(f'{{"question": "{n}+1", "answer": "{n + 1}"}}\n' for n in range(100)),
    "words.jsonl": "".join(f'{{"q": "{n}+1", "a": "many"}}\n' for n in range(100)),
    "half.jsonl": '{"question": "1+1", "answer": "2"}\n{"question": "2+1"',
    "empty.jsonl": "",
    "surrogate.jsonl": '{"question": "1+\\ud800", "answer": "2"}\n',
    "full/note": "mine",
    "damaged/columns.json": "{}",
}

WRONG = [
    *(["run", name] for name in ("no.yaml", "", ".", "/dev/null", LONG, "\x1b[31m", "fifo", "broken.yaml", "latin.yaml")),
    *([*RECIPE, text] for text in (
        "=1", "seed=\x1b[31m", "seed=[", f"seed={HUGE}", "stages.9.seed=1", "stages.\u0660.seed=1", "name=../x",
        "grpo.problems=[{jsonl: fifo}]", "grpo.problems=[{jsonl: /dev/zero}]", 'grpo.problems=[{jsonl: "a\\0b"}]',
        "grpo.problems=[{jsonl: surrogate.jsonl}]", "grpo.problems=[{jsonl: .}]", "grpo.problems=[{jsonl: loop}]",
        "grpo.trainer.learning_rate=.nan", "grpo.trainer.accelerator_config=x",
    )),
    *([*RECIPE, "--out", out] for out in ("/dev/null", "fifo", "recipe.yaml", "socket", LONG, "recipe.yaml/x", "/dev/null/x")),
    *(["plan", "recipe.yaml", "--json", out] for out in ("/dev/null", "fifo", "socket", "link", LONG)),
    *(["plan", "recipe.yaml", "--gpu", size] for size in ("nan", "-1")),
    ["recipes", LONG],
    *(["sample", *rest] for rest in (["full"], ["/dev/null"], ["loop", "1"], ["piped", "1"])),
    *(["sample", "model", "1+1", "--temperature", value] for value in ("nan", "inf")),
    *(["eval", *rest] for rest in (
        ["no"], ["limit=3"], ["full"], ["model", "--out", "/dev/null"], ["model", "--out", LONG],
        *(["model", option, out] for option in ("--out", "--export-lm-eval") for out in ("socket", "link", "loop", "recipe.yaml")),
        *(["model", "--export-lm-eval", out] for out in ("/dev/null", "fifo")),
    )),
    *(["inspect", *rest] for rest in (
        ["full"], ["no", "model"], ["model", "model", "--only", "x"], ["model", "model", "--marks", "<a>"],
        ["model", "model", "--out", "fifo"], ["model", "model", "temperature=1"], ["model", "model", "--control", "no"],
    )),
    ["compare", "full"], ["compare", "damaged"], ["compare", "full", "--out", "/dev/null"],
    ["sweep", "sweep.yaml", "--out", "fifo"], ["sweep", "sweep.yaml", "--storage", "postgresql://me:pw@h/db"],
    ["push", "full", "me/x"],
    ["bench", "--out", "/dev/null"], ["bench", "--zero-variance", "nan"],
]  # fmt: skip


def each(form, *cases):
    """Cases of one form: {} is what is wrong, and what follows its fix."""
    return [(form.format(wrong), fix, form.format(right)) for wrong, fix, right in cases]


FIXES = [  # what is wrong, the fix that its line says, and the command that follows it
    ("rum recipe.yaml", "Did you mean 'run'?", "run recipe.yaml"),
    ("run", "see r1-mini run --help", "run --help"),
    ("run kl", "r1-mini sweep ", "sweep kl"),
    ("run suite.yaml", "r1-mini eval CHECKPOINT --suite suite.yaml", "eval model --suite suite.yaml"),
    ("run sweep.yaml", "r1-mini sweep sweep.yaml", "sweep sweep.yaml"),
    ("run nothing", "`r1-mini recipes` lists all", "recipes"),
    *each("run {}",
        ("recipe.yml", "did you mean 'recipe.yaml'?", "recipe.yaml"),
        ("run", "known: run/recipe.yaml", "run/recipe.yaml"),
        ("smok", "did you mean 'smoke'?", "smoke"),
        ("empty.yaml", "name a YAML file", "recipe.yaml"),
        ("bare.yaml", "stages: missing; add it", "bare.yaml 'stages=[{kind: base}]'"),
    ),
    *each("plan recipe.yaml {}",
        ("--json full", "choose another name", "--json new.json"),
        ("--gpu inf", "less than or equal to 1000000", "--gpu 1000000"),
        ("--gpu 24GB", "a valid number", "--gpu 24"),
        ("--gpus 24", "Possible options: --gpu", "--gpu 24"),
        ("--processes 0", "greater than or equal to 1", "--processes 1"),
        ("--sharding ddp", "not one of 'none', 'fsdp'", "--sharding fsdp"),
        ("sed=1", "did you mean 'seed'?", "seed=1"),
        ("--seed 1", "write settings as key=value", "seed=1"),
    ),
    ("plan sweep.yaml", "r1-mini sweep sweep.yaml", "sweep sweep.yaml"),
    *each("recipes {}",
        ("sweeps/klx", "did you mean 'sweeps/kl'?", "sweeps/kl"),
        ("R1_ZERO.yaml", "did you mean 'r1_zero'?", "r1_zero"),
        ("r1_zero kl", "see r1-mini recipes --help", "--help"),
        ("no", "`r1-mini recipes` lists all", ""),
    ),
    ("sample model -x+8", "write -- before what begins with a dash", "sample model -- -x+8"),
    *each("sample {}",
        ("run 1+1", "such as run/02-grpo", "run/02-grpo 1+1"),
        ("run/recipe.yaml 1+1", "such as run/02-grpo", "run/02-grpo 1+1"),
        ("run/01-bse 1+1", "such as run/01-base", "run/01-base 1+1"),
        ("run/02-grpo/config.json 1+1", "such as run/02-grpo", "run/02-grpo 1+1"),
        ("run/eval/smoke/02-grpo 1+1", "such as run/02-grpo", "run/02-grpo 1+1"),
        ("model 1 + 1", "put quotes around what has spaces", "model '1 + 1'"),
        ("model 1+1 --voice checked", "not one of 'direct', 'worked'", "model 1+1 --voice worked"),
        ("model 1+1 --temperature 1e-320", "0 (greedy) or from 0.01 to 10", "model 1+1 --temperature 0.01"),
        ("model 1+1 --temp 0", "--temperature", "model 1+1 --temperature 0"),
        ("model 1+1 --max-tokens 0", "greater than or equal to 1", "model 1+1 --max-tokens 1"),
        ("model 1+1 --prompt chta", "write auto, chat, base", "model 1+1 --prompt base"),
        ("model 1+1 --prompt '{x: 1}'", "leave it out", "model 1+1"),
    ),
    ("eval", "see r1-mini eval --help", "eval --help"),
    ("eval model model --export-lm-eval new", "name one checkpoint", "eval model --export-lm-eval new"),
    ("eval run", "such as run/02-grpo", "eval run/02-grpo"),
    ("eval run/eval/smoke", "such as run/01-base", "eval run/01-base"),
    ("eval model --suite recipe.yaml", "r1-mini run recipe.yaml", "run recipe.yaml"),
    *each("eval model --suite smoke {}",
        ("lmit=4", "did you mean 'limit'?", "limit=4"),
        ("suite=quick", "did you mean '--suite'?", "--suite quick"),
        ("limit=1", "greater than or equal to 2", "limit=2"),
        ("limit=50%", "a valid integer", "limit=50"),
        ("greedy=yes", "true or false", "greedy=true"),
        ("families=sum", "a list, as [a, b]", "families=[sum]"),
        ("families=[summ]", "did you mean 'sum'?", "families=[sum]"),
        ("temperature=0", "add samples=1", "temperature=0 samples=1"),
        ("top_p=90", "less than or equal to 1", "top_p=0.9"),
        ("max_tokens=2000", "1015 would fit", "max_tokens=1015"),
        ("prompt={x: 1}", "put all of it in quotes", "'prompt=auto'"),
        ("'prompt={x: 1}'", "leave it out", ""),
        ("samples=1000000", "less than or equal to 10000", "samples=10000"),
        ("split=train", "known: dev, test", "split=dev"),
        ("--suite no", "known: arithmetic, arithmetic-ood, own, quick, r1, smoke", "--suite quick"),
        ("--suite quick.yaml", "did you mean 'quick'?", "--suite quick"),
        ("--suite own", "limit=98 would fit", "--suite own limit=98"),
        ("--suite axis.yaml", "give an entry without `axis`", "--suite suite.yaml"),
        ("--out full", "choose another one", "--out new"),
        *((f"--out {out}", "choose another folder with --out", "--out new") for out in ("run", "run/eval/smoke")),
        ("--export-lm-eval full", "choose another one", "--export-lm-eval new"),
    ),
    *each("compare {}",
        ("no", "such as run", "run"),
        ("recipe.yaml", "such as run", "run"),
        ("run/02-grpo", "such as run", "run"),
        ("run --suite quick", "such as run", "run"),
        ("run --out full", "choose another one", "run --out new"),
        ("run --out recipe.yaml", "choose another name", "run --out new"),
        ("run/eval/smoke --out run", "choose another folder with --out", "run/eval/smoke --out new"),
    ),
    ("sweep recipe.yaml", "r1-mini run recipe.yaml", "run recipe.yaml"),
    *each("sweep {}",
        ("contrls", "did you mean 'controls'?", "controls"),
        ("nothing", "`r1-mini recipes` lists all", "controls"),
        ("sweep.yaml seed=1", "see r1-mini sweep --help", "--help"),
        ("sweep.yaml --workers 0", "greater than or equal to 1", "sweep.yaml --workers 1"),
        ("sweep.yaml --storage sweep.db", "leave --storage out", "sweep.yaml"),
        ("sweep.yaml --out full", "choose another one", "sweep.yaml --out new"),
        ("sweep.yaml --out run", "choose another folder with --out", "sweep.yaml --out new"),
    ),
    *each("push {}",
        ("run", "Missing argument 'REPO'", "run me/x"),
        ("no me/x", "such as run", "run me/x"),
        ("run/02-grpo me/x", "such as run", "run me/x"),
        ("recipe.yaml me/x", "such as run", "run me/x"),
        ("run me/x --public", "see r1-mini push --help", "--help"),
        ("run --dry-run", "Missing argument 'REPO'", "run me/x"),
    ),
    *each("bench {}",
        ("--size 1T", "not one of '0.3M', '5M', '30M'", "--size 5M"),
        ("--profile Short", "not one of 'short', 'long'", "--profile short"),
        ("--pairs 0", "greater than or equal to 1", "--pairs 1"),
        ("--zero-variance 30", "less than or equal to 1", "--zero-variance 0.3"),
        ("--checkpoint run", "such as run/02-grpo", "--checkpoint run/02-grpo"),
        ("--out full", "choose another name", "--out new.json"),
    ),
    *each("run recipe.yaml {}",
        ("--out full", "choose another one", "--out new"),
        ("sed=1", "did you mean 'seed'?", "seed=1"),
        ("seed 1", "write key=value without spaces", "seed=1"),
        ("seed=", "should be a valid integer", "seed=1"),
        ("seed=-1", "greater than or equal to 0", "seed=0"),
        ("seed=4294967296", "less than 4294967296", "seed=4294967295"),
        ("model=nowhere", "remove `model`", ""),
        ("prompt=chta", "did you mean 'chat'?", "prompt=chat"),
        ("stages=[]", "at least 1 item", "'stages=[{kind: base}]'"),
        ("base.from=grpo", "leave out its `from`", ""),
        ("base.model.heads=5", "hidden_size should be a multiple of 10", "base.model.heads=5 base.model.hidden_size=100"),
        ("base.voices.direct=50", "less than or equal to 1", "'base.voices={direct: 0.5, worked: 0.5, checked: 0}'"),
        ("grpo.from=nope", "known: 01-base", "grpo.from=01-base"),
        ("grpo.name=eval", "give each its own", "grpo.name=rl"),
        ("grpo.kind=ppo", "known: base, collect, distill, grpo, rejection, sft", "grpo.kind=grpo"),
        ("grpo.reward=x", "did you mean 'rewards'?", "'grpo.rewards={accuracy: 1}'"),
        ("'grpo.rewards=[accuracy]'", "keys and values, as {a: 1}", "'grpo.rewards={accuracy: 1}'"),
        ("grpo.rewards.acc=1", "known: accuracy", "grpo.rewards.accuracy=1"),
        ("'grpo.dev={evry: 1}'", "did you mean 'every'?", "'grpo.dev={every: 1}'"),
    ),
    *each("run recipe.yaml grpo.trainer.{}",
        ("max_step=5", "did you mean 'max_steps'?", "max_steps=5"),
        ("max_steps=6250001", "at most 6250000", "max_steps=6250000"),
        ("max_completion_length=2000", "1015 would fit", "max_completion_length=1015"),
        ("num_generations=5", "must be divisible", "num_generations=8"),
        ("temperature=0", "greater than or equal to 0.01", "temperature=0.01"),
        ("min_p=5", "less than or equal to 1", "min_p=0.05"),
        ("repetition_penalty=0", "greater than 0", "repetition_penalty=1.1"),
        ("loss_type=dr-grpo", "did you mean 'dr_grpo'?", "loss_type=dr_grpo"),
        ("report_to=nope", "did you mean 'none'?", "report_to=none"),
        ("hub_token=x1", "leave it out", "max_steps=2"),
        ("fp16=true", "set bf16", "bf16=true"),
        ("output_dir=x", "give --out", "max_steps=2 --out new"),
        ("num_train_epochs=3", "set max_steps", "max_steps=3"),
        ("save_strategy=no", "set save_steps", "save_steps=100"),
    ),
    *each("run recipe.yaml 'grpo.peft={{r: {}}}'",
        ("0", "greater than 0", "4"),
        ("4, lora_dropout: 5", "less than or equal to 1", "4, lora_dropout: 0.05"),
        ("4, target_module: all-linear", "did you mean 'target_modules'?", "4, target_modules: all-linear"),
        ("4, target_modules: [query]", "or all-linear", "4, target_modules: all-linear"),
    ),
    *each("run recipe.yaml evaluate.{}",
        ("suite=qick", "did you mean 'quick'?", "suite=quick"),
        ("suite=recipe.yaml", "is a recipe, not a suite", "suite=suite.yaml"),
        ("columns=base", "a list, as [a, b]", "columns=[base]"),
        ("columns=[bse]", "did you mean '01-base'?", "columns=[01-base]"),
        ("max_tokens=2000", "1015 would fit", "max_tokens=1015"),
        ("temperature=1e-320", "0 (greedy) or from 0.01 to 10", "temperature=0.01"),
    ),
    *each("run recipe.yaml 'problems={}'",
        ("[{family: summ}]", "did you mean 'sum'?", "[{family: sum}]"),
        ("{family: sum}", "a list, as [a, b]", "[{family: sum}]"),
        ("[sum]", "give one of family", "[{family: sum}]"),
        ("[{family: sum, terms: [4, 2]}]", "swap them", "[{family: sum, terms: [2, 4]}]"),
        ("[{family: sum, terms: 2, digits: 1, largest: 1}]", "widen terms", "[{family: sum, terms: 2, digits: 2}]"),
        ("[]", "add for example `- {family: sum}`", "[{family: sum}]"),
        ("[{jsonl: good.jsonl}]", "give the base stage `problems` of a family", "[{family: sum}]"),
    ),
    *each("run recipe.yaml 'grpo.problems=[{{jsonl: {}}}]'",
        ("gone.jsonl", "give a file in UTF-8", "good.jsonl"),
        ("half.jsonl", "give a file in UTF-8", "good.jsonl"),
        ("empty.jsonl", "on each line", "good.jsonl"),
        ("good.jsonl, answer: answr", "did you mean 'answer'?", "good.jsonl, answer: answer"),
        ("words.jsonl", "known: a, q; name other columns", "words.jsonl, question: q, answer: a, judge: text"),
        ("good.jsonl, judge: math", "known: amount, choice", "good.jsonl, judge: amount"),
        ("good.jsonl, weight: 0", "greater than 0", "good.jsonl, weight: 1"),
    ),
]  # fmt: skip
WORK = (
    "eval.commands.pipeline.run",
    "eval.commands.plan",
    "r1_mini.rollout.ask.generate",
    "eval.commands.examine",
    "eval.commands.lm_eval.export",
    "eval.commands.publish",
    "eval.sweep.run.FileLock",
    "huggingface_hub.HfApi.create_repo",
    "eval.bench.run.matrix_rate",
)


def everything(folder):
    return {path.relative_to(folder): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def here(tmp_path, recipe_file, smoke, monkeypatch):
    """A folder with a recipe, a finished run, the files above, and with what no command may touch."""
    monkeypatch.chdir(tmp_path)
    recipe_file(f"{TINY}evaluate: {{suite: smoke}}\n")
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    (tmp_path / "run").symlink_to(smoke[0])
    (tmp_path / "model").symlink_to(smoke[0] / "02-grpo")
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
    ended = right.startswith("recipes") or right.endswith("--help")
    assert code == 0 if ended else error.startswith("error: ReachedError"), error
