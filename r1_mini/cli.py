"""`r1-mini`: arguments and exit codes only.

0 done, 1 the work failed, 2 the user's input or disk is at fault (one line), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from r1_mini.errors import UserError, disk_error
from r1_mini.system import distributed as processes

app = typer.Typer(
    name="r1-mini",
    help="From random weights to a reasoner in minutes, with the exam beside it.",
    epilog="Example: r1-mini run recipes/tiny/r1_zero.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeFile = Annotated[Path, typer.Argument(help="A recipe, YAML.", metavar="RECIPE", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that differ from the file.", metavar="[key=value]", show_default=False),
]

_log: Path | None = None  # where the traceback of a failure goes: the run folder's log.txt, once there is one
_debug = False


@app.callback()
def _options(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False) -> None:
    global _debug
    _debug = debug


@app.command(epilog="Example: r1-mini run recipes/tiny/r1_zero.yaml seed=1 grpo.trainer.max_steps=50 --out runs/short")
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The run folder.", show_default="runs/<name>")] = None,
) -> None:
    """Run a recipe: its stages, then the exam. What is done is skipped, what was cut off resumes."""
    from rich.console import Console

    from r1_mini.pipeline.recipe import load

    console = Console(quiet=not processes.is_main())
    with console.status("checking the recipe"):  # importing TRL takes seconds
        settings = load(recipe, overrides or ())
    folder = out or Path("runs") / settings.name
    global _log
    _log = folder / "log.txt"

    from eval.exam.exam import Exam
    from r1_mini.pipeline import run as pipeline

    pipeline.run(settings, folder, console, examine=Exam(settings))


@app.command(epilog="Example: r1-mini plan recipes/tiny/r1_zero.yaml grpo.trainer.max_completion_length=512")
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    processes: Annotated[int, typer.Option(min=1, max=65_536, help="Processes of accelerate launch.")] = 1,
    sharding: Annotated[
        Literal["none", "fsdp", "zero2", "zero3"], typer.Option(help="How they divide weights and optimizer.")
    ] = "none",
    gpu: Annotated[
        float | None, typer.Option(min=0.1, help="Plan for GPUs of so many GiB.", show_default="this machine")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the plan to this file too.", show_default=False)
    ] = None,
) -> None:
    """Say what a recipe would do before it does: memory, tokens, disk, prompts. Exit code 1 if it does not fit."""
    from rich.console import Console

    from r1_mini.pipeline.recipe import load

    if json_file is not None and not json_file.parent.is_dir():
        raise UserError(f"no folder {json_file.parent}", where="--json", fix="make it, or name another")
    if json_file is not None and json_file.is_dir():
        raise UserError(f"{json_file} is a folder", where="--json", fix="name a file in it")
    console = Console()
    with console.status("planning"):  # importing TRL takes seconds
        settings = load(recipe, overrides or ())

        from eval.exam.exam import Exam
        from r1_mini.pipeline import run as pipeline
        from r1_mini.system import environment as machine
        from r1_mini.train import (
            rejection,  # noqa: F401  (all that a run imports)
        )

        framework = machine.resident()

        from r1_mini.plan import plan as planning
        from r1_mini.plan.memory import Share
        from r1_mini.plan.table import show
        from r1_mini.system.logs import silent

        with silent():
            exam = Exam(settings)
            pipeline.require_possible(settings)
            share = Share(processes, sharding)
            device = machine.device() if gpu is None else machine.gpu_of(gpu)
            made = planning.plan(settings, exam.planned(), exam.planned_on_dev(), device, share, framework)
    show(made, console)
    if json_file is not None:
        from r1_mini.system.files import write_json_atomic

        write_json_atomic(json_file, planning.as_json(made))
    if not made.fits:
        raise typer.Exit(1)


@app.command(epilog='Example: r1-mini sample runs/tiny-r1-zero/02-grpo "12+7-3"')
def sample(
    checkpoint: Annotated[
        Path, typer.Argument(help="A folder that a stage has written.", metavar="CHECKPOINT", show_default=False)
    ],
    question: Annotated[
        str | None,
        typer.Argument(
            help="What to ask; without it, asks for one again and again.", metavar="[QUESTION]", show_default=False
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest completion, tokens.")] = 160,
    voice: Annotated[
        str | None, typer.Option(help="Force this voice: direct or worked.", show_default="the model's choice")
    ] = None,
    prompt: Annotated[str, typer.Option(help="auto, chat (the model's template) or base (R1's).")] = "auto",
) -> None:
    """Ask a checkpoint; prints its chain, each step marked right or wrong, and the verdict."""
    from r1_mini.pipeline.store import find_checkpoint

    _known_voice(voice)
    _known_prompt(prompt)
    folder = find_checkpoint(checkpoint)

    from r1_mini.rollout.ask import ask

    ask(folder, question, temperature=temperature, seed=seed, max_tokens=max_tokens, voice=voice, prompt=prompt)


@app.command(
    name="eval",
    epilog="Example: r1-mini eval runs/tiny-r1-zero/01-base runs/tiny-r1-zero/02-grpo --suite arithmetic --family sum",
)
def evaluate(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Folders of causal language models.", metavar="CHECKPOINT…", show_default=False)
    ],
    suite: Annotated[str, typer.Option(help="A suite of eval/exam/suites, or the path of one.")] = "arithmetic",
    family: Annotated[
        list[str] | None, typer.Option(help="Ask this family only; may be repeated.", show_default="all of the suite")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=2, help="Ask so many problems.", show_default="all")] = None,
    split: Annotated[str | None, typer.Option(help="dev or test.", show_default="the suite's")] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Completions per problem.", show_default="the suite's")
    ] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0 is greedy.", show_default="the suite's")] = None,
    top_p: Annotated[float | None, typer.Option(min=1e-6, max=1.0, show_default="the suite's")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest completion, tokens.", show_default="the suite's")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Most completions in work at once.", show_default="the suite's: 1024")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16, of all checkpoints.", show_default="the suite's: float32")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, show_default="the suite's")] = None,
    voice: Annotated[
        str | None, typer.Option(help="Force this voice: direct or worked.", show_default="the model's choice")
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="auto, chat (the model's template) or base (R1's).", show_default="the suite's: auto"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where the samples go.", show_default="runs/eval/<suite>")
    ] = None,
    export_lm_eval: Annotated[
        Path | None,
        typer.Option(help="Examine nothing; write the suite as tasks of lm-evaluation-harness.", show_default=False),
    ] = None,
) -> None:
    """Examine checkpoints on a suite and compare them to the first. What was cut off goes on where it was."""
    from rich.console import Console

    from r1_mini.system.logs import silent

    _known_voice(voice)
    _known_prompt(prompt)
    if dtype not in (None, "float32", "bfloat16"):
        raise UserError(f"models are not examined in '{dtype}'", where="--dtype", fix="choose float32 or bfloat16")
    if split not in (None, "dev", "test"):
        raise UserError(f"no split is called '{split}'", where="--split", fix="choose dev or test")

    from eval.exam.exam import evaluate as examine_all
    from eval.exam.exam import export

    settings = {
        "families": family or None,
        "limit": limit,
        "split": split,
        "samples": samples,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "rows": rows,
        "dtype": dtype,
        "seed": seed,
        "prompt": prompt,
    }
    with silent():
        if export_lm_eval is not None:
            export(checkpoints, suite, export_lm_eval, Console(), **settings)
        else:
            examine_all(checkpoints, suite, out, voice, Console(), **settings)


@app.command(epilog="Example: r1-mini compare runs/seed-0 runs/seed-1 runs/seed-2")
def compare(
    paths: Annotated[
        list[Path],
        typer.Argument(help="Run folders, or folders that `eval` wrote.", metavar="RUN…", show_default=False),
    ],
    suite: Annotated[
        str | None, typer.Option(help="Which of the runs' exams.", show_default="that of their recipe")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Where the report goes.", show_default="runs/compare, or the single run"),
    ] = None,
) -> None:
    """Compare runs or exams from their saved samples: table, summary.json, comparison.csv, report.html."""
    from rich.console import Console

    from eval.report.publish import compare as compare_all

    compare_all(paths, suite, out, Console())


@app.command(epilog="Example: r1-mini sweep recipes/sweeps/controls.yaml --workers 2")
def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep, YAML.", metavar="SWEEP", show_default=False)],
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Trials at once on this machine.")] = 1,
    storage: Annotated[
        str | None,
        typer.Option(help="Optuna's storage URL, where machines meet.", show_default="SQLite in the folder"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The sweep's folder.", show_default="runs/<name>")
    ] = None,
) -> None:
    """Train every setting of a sweep with every seed. The same command elsewhere joins it, or goes on with it."""
    from rich.console import Console

    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("optuna is not installed", where="sweep", fix="pip install 'r1-mini[sweep]'") from None
    from eval.sweep.run import sweep as run_sweep
    from r1_mini.system.logs import silent

    with silent():
        if not run_sweep(file, out, storage, workers, Console()):
            raise typer.Exit(1)


@app.command(epilog="Example: r1-mini push runs/tiny-r1-zero me/tiny-r1-zero --private")
def push(
    run: Annotated[Path, typer.Argument(help="A finished run.", metavar="RUN", show_default=False)],
    repo: Annotated[str, typer.Argument(help="A model repository of the Hub.", metavar="REPO", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="If it has to be made, for your eyes only.")] = False,
) -> None:
    """Put a run's last checkpoint on the Hub, with a model card written from the run's own numbers."""
    from rich.console import Console

    from eval.export.card import push as put

    put(run, repo, private, Console())


@app.command(epilog="Example: r1-mini bench --size 0.3M --checkpoint runs/tiny-r1-zero/02-grpo")
def bench(
    size: Annotated[
        list[str] | None,
        typer.Option(help="Parameters: 0.3M, 5M or 30M; may be repeated.", show_default="all"),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(help="Lengths of completions: short or long; may be repeated.", show_default="all"),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(help="A trained model on the default recipe's problems; may be repeated.", show_default=False),
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Steps of each side, in turn.")] = 5,
    without_signal: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the groups with a constant reward.")
    ] = 0.3,
    scaling: Annotated[
        bool, typer.Option("--scaling", help="Also time our step with other batches, lengths and sizes.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where every timing goes, JSON.")] = Path("runs/bench.json"),
    prompts: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    samples: Annotated[int | None, typer.Option(min=2, hidden=True)] = None,
) -> None:
    """Time a GRPO step and rollouts in turn with stock TRL's and model.generate."""
    from rich.console import Console

    console = Console()
    with console.status("loading"):  # importing TRL takes seconds
        from eval.bench.run import bench as time_all
        from r1_mini.system.logs import silent

    with silent():
        time_all(
            size or (), profile or (), checkpoint or (), pairs, out, without_signal, scaling, console, prompts, samples
        )


def _known_prompt(prompt: str | None) -> None:
    if prompt not in (None, "auto", "chat", "base"):
        raise UserError(f"no prompt is called '{prompt}'", where="--prompt", fix="choose auto, chat or base")


def _known_voice(voice: str | None) -> None:
    if voice not in (None, "direct", "worked"):
        raise UserError(f"no voice is called '{voice}'", where="--voice", fix="choose direct or worked")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code. Whatever went wrong has been said in one line on stderr."""
    global _log, _debug
    _log, _debug = None, False
    # OpenMP's threads spin while they wait for each other. Where another program has one of the two cores, that made a
    # step of the tiny model 90 times slower (2.7 s against 0.03 s). A short spin, then sleep: 0.14 s there, and about
    # 3 % lost on an idle machine, where sleeping at once would lose half. Read once, when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    try:
        code = app(args=arguments, prog_name="r1-mini", standalone_mode=False)
        if code == 130:
            _say("interrupted; the same command resumes the run" if _log else "interrupted")
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _fail(error, 2)
    except typer.TyperException as error:  # a wrong option, a missing argument; empty after the help
        message = error.format_message().rstrip(".")
        return _fail(UserError(message, fix="see r1-mini --help"), 2) if message else 2
    except typer.Abort:  # end of input at a prompt
        return 130
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it at exit)
        return 0
    except Exception as error:
        cause = disk_error(error)
        return _fail(cause, 2) if cause else _fail(error, 1)


def _fail(error: Exception, code: int) -> int:
    """Say it in one line; the traceback of a failure of ours goes to the log, or to the screen with --debug."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    hint = ""
    trace = traceback.format_exc()
    if _debug:
        sys.stderr.write(trace)
    elif code == 1:
        hint = "; --debug shows where"
        if _log is not None and _log.parent.is_dir():
            with suppress(OSError), _log.open("a", encoding="utf-8") as log:
                log.write(trace)
                hint = f"; the traceback is in {_log}"
    if processes.is_main():
        _say(f"error: {' '.join(text.split())}{hint}")
    elif code == 1:  # what the user got wrong, the main process says
        _say(f"error in process {processes.rank()}: {' '.join(text.split())}{hint}")
    return code


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
