"""`r1-mini`: arguments and exit codes; each command is one call.

0 done, 1 the work failed, 2 the user's input or disk is at fault (one line), 130 interrupted, 143 by SIGTERM.
"""

import gc
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from enum import StrEnum
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic_core import PydanticCustomError
from typer.core import TyperCommand

from r1_mini.config import packaged
from r1_mini.config.base import temperature
from r1_mini.errors import UserError, disk_error, one_line
from r1_mini.system import distributed as processes
from r1_mini.system.environment import return_freed_blocks
from r1_mini.system.files import require_ours, require_place, write_json_atomic
from r1_mini.system.logs import silent
from r1_mini.system.terminal import Terminal
from r1_mini.text import visible

app = typer.Typer(
    name="r1-mini",
    help="From random weights to a reasoner in minutes, with the exam beside it.",
    epilog="Example: r1-mini run r1_zero",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _argument(metavar: str, about: str) -> Any:
    return typer.Argument(metavar=metavar, help=about, show_default=False)


def _file(path: Path | None) -> Path | None:
    """The file that an option names; refused if anything but a regular file is there."""
    if path is not None:
        require_place(path)
    return path


def _number(value: float | None) -> float | None:
    """The number of an option; `nan` is below every bound and above it."""
    if value is not None and value != value:
        raise UserError("nan is not a number", fix="give one")
    return value


def _option(about: str, *names: str, default: str | bool = True, **limits: Any) -> Any:
    if isinstance(limits.get("min"), float):
        limits["callback"] = _number
    return typer.Option(*names, help=about, show_default=default, **limits)


RecipeName = Annotated[str, _argument("RECIPE", "A YAML file, or the name of a packaged recipe.")]
Overrides = Annotated[list[str] | None, _argument("[key=value]", "Settings that differ from the file.")]
Voice = Annotated[Literal["direct", "worked"] | None, _option("Force a style of answer of models trained here.")]
Out = Annotated[Path | None, _option("The folder to write.", "--out", "-o", callback=require_ours)]


def _temperature(value: float) -> float:
    try:
        return temperature(value)
    except PydanticCustomError as error:
        raise typer.BadParameter(error.message()) from None


Size = StrEnum("Size", {"0.3M": "0.3M", "5M": "5M", "30M": "30M", "135M": "135M"})
Lengths = StrEnum("Lengths", {"short": "short", "long": "long", "prompt": "prompt"})

HINTS = {
    ": No such option: -[^-]": ", and write -- before what begins with a dash",
    "(run|plan|eval): No such option": ", and write settings as key=value",
    ": Got unexpected": ", and put quotes around what has spaces",
}
"""What the command and the message of a wrong command line have -> what may be meant."""

_log: Path | None = None  # where the traceback of a failure goes: the run folder's log.txt, once there is one
_debug = False
_leave_imports = cache(gc.freeze)  # out of garbage collection; once in a process


def _version(asked: bool) -> None:
    if asked:
        typer.echo(version("r1-mini"))
        raise typer.Exit


@contextmanager
def _settled() -> Iterator[None]:
    """Within the block, a command works: its libraries are imported, and `silent`.

    Garbage is not looked for among them, nor while they are imported (`main`): a pass over the objects of torch and TRL
    takes 0.3 s, in all a quarter of the start and half of a short run.
    """
    _leave_imports()
    gc.enable()
    with silent():
        yield


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version)] = False,
) -> None:
    global _debug
    _debug = debug
    processes.require_launched()


class _Asking(TyperCommand):
    """A command whose argument may be a sum that begins with a minus sign, `-5+8`; every other dash is an option's."""

    def parse_args(self, context: Any, arguments: list[str]) -> list[str]:
        return super().parse_args(context, [f" {each}" if re.match(r"-[\s\d(]", each) else each for each in arguments])


@app.command(epilog="Example: r1-mini run r1_zero seed=1 grpo.trainer.max_steps=50 --out runs/short")
def run(recipe: RecipeName, overrides: Overrides = None, out: Out = None) -> None:
    """Run a recipe: its stages, then the exam. Finished stages are skipped, an interrupted one goes on.

    The run's folder is runs/<name of the recipe>.
    """
    console = Terminal(quiet=not processes.is_main())
    with console.status("checking the recipe"):  # importing TRL takes seconds
        from eval import commands
        from r1_mini.pipeline.start import named

        with _settled():
            settings = named(recipe, overrides or ())
    folder = out or Path("runs") / settings.name
    global _log
    _log = folder / "log.txt"
    commands.run(settings, folder, console)


@app.command(epilog="Example: r1-mini plan r1_zero grpo.trainer.max_completion_length=512")
def plan(
    recipe: RecipeName,
    overrides: Overrides = None,
    processes: Annotated[int, _option("Processes of accelerate launch.", min=1, max=65_536)] = 1,
    sharding: Annotated[Literal["none", "fsdp", "zero2", "zero3"], _option("How they divide the model.")] = "none",
    gpu: Annotated[
        float | None, _option("Plan for GPUs of so many GiB.", default="this machine", min=0.1, max=1e6)
    ] = None,
    ask: Annotated[bool, _option("Also ask its model a few prompts, as doctor does.", "--ask")] = False,
    json_file: Annotated[Path | None, _option("Write the plan to this file too.", "--json", callback=_file)] = None,
) -> None:
    """Say what a recipe would take before it does: memory, time, disk, prompts. Exit code 1 if it does not fit.

    With --ask also if the doctor finds something grave.
    """
    console = Terminal()
    with console.status("planning"):  # importing TRL takes seconds
        from eval import commands
        from r1_mini.doctor import doctor as doctors
        from r1_mini.pipeline.start import named
        from r1_mini.plan import plan as planning
        from r1_mini.plan.stages import Share
        from r1_mini.system import environment

        framework = environment.resident()
        with _settled():
            settings = named(recipe, overrides or ())
            plan = commands.planned(settings, console, Share(processes, sharding), gpu, framework)
    planning.show(plan, console)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(json_file, plan.as_json())
    grave = False
    if ask:
        console.print()
        with _settled():
            found = doctors.diagnose(doctors.of_recipe(settings, (), plan.fits and gpu is None, console))
        doctors.show(found, console)
        grave = any(finding.grave for finding in found)
    if grave or not plan.fits:
        raise typer.Exit(1)


@app.command(epilog="Example: r1-mini doctor runs/tiny-r1-zero")
def doctor(
    name: Annotated[str, _argument("RUN | RECIPE", "A run, also one that is running, or a recipe before it runs.")],
    overrides: Overrides = None,
    json_file: Annotated[Path | None, _option("Write the findings to this file too.", "--json", callback=_file)] = None,
) -> None:
    """Say what is not well, why, and which setting to change. Exit code 1 if something is grave."""
    from eval import commands

    with _settled():
        found = commands.doctor(name, overrides or (), Terminal())
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(json_file, [asdict(finding) for finding in found])
    if any(finding.grave for finding in found):
        raise typer.Exit(1)


@app.command(name="check-reward", epilog="Example: r1-mini check-reward ./mine.py:brevity")
def check_reward(
    reward: Annotated[str, _argument("REWARD", "A function of your own, ./mine.py:brevity, or a rule such as format.")],
    recipe: Annotated[str, _argument("[RECIPE]", "Whose problems are asked; r1_zero if not given.")] = "r1_zero",
    overrides: Overrides = None,
) -> None:
    """Try completions that solve nothing on a reward. Exit code 1 if one earns half of what solving earns."""
    console = Terminal()
    with console.status("attacking"):  # importing TRL takes seconds
        from r1_mini.pipeline.start import attacked, named

        with _settled():
            verdict = attacked(named(recipe, overrides or ()), reward)
    verdict.show(console)
    if verdict.hacks or not verdict.teaches:
        raise typer.Exit(1)


@app.command(epilog="Example: r1-mini recipes r1_zero > mine.yaml")
def recipes(name: Annotated[str | None, _argument("[NAME]", "Print this recipe.")] = None) -> None:
    """List the packaged recipes, or print one, to be copied and changed."""
    if name is not None:
        sys.stdout.write(packaged.find(name).read_text(encoding="utf-8"))
        return
    for key, file in packaged.recipes().items():
        typer.echo(f"{key:<28} {packaged.about(file)}")


@app.command(cls=_Asking, epilog='Example: r1-mini sample runs/tiny-r1-zero/02-grpo "12+7-3"')
def sample(
    checkpoint: Annotated[Path, _argument("CHECKPOINT", "A model's folder, or its id on the Hub.")],
    question: Annotated[str | None, _argument("[QUESTION]", "Without it, asks for questions.")] = None,
    temperature: Annotated[float, _option("0 is greedy.", callback=_temperature)] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1)] = 0,
    max_tokens: Annotated[int, _option("Longest completion, tokens.", min=1)] = 160,
    voice: Voice = None,
    prompt: Annotated[
        str, _option("auto, chat, base (R1-Zero's), or variables of the template: {system: null}.")
    ] = "auto",
) -> None:
    """Ask a checkpoint: prints its answer with each step marked right or wrong."""
    from r1_mini.model.checkpoint import find_checkpoint
    from r1_mini.model.templates import prompt_style
    from r1_mini.rollout.ask import ask
    from r1_mini.rollout.params import SamplingParams

    params = SamplingParams(1, max_tokens, temperature, seed=seed, voice=voice)
    with _settled():
        ask(find_checkpoint(checkpoint), question, params, prompt_style(prompt, "--prompt"))


@app.command(
    name="eval", epilog="Example: r1-mini eval runs/tiny-r1-zero/01-base runs/tiny-r1-zero/02-grpo limit=200 samples=64"
)
def evaluate(
    arguments: Annotated[list[str], _argument("CHECKPOINT [key=value]", "Models, then settings that differ.")],
    suite: Annotated[str, _option("A suite of eval/exam/suites, or the path of one.")] = "arithmetic",
    voice: Voice = None,
    out: Out = None,
    export_lm_eval: Annotated[
        Path | None, _option("Write tasks of lm-evaluation-harness instead.", callback=require_ours)
    ] = None,
) -> None:
    """Examine checkpoints on a suite and compare them to the first. An interrupted exam goes on.

    The samples go to runs/eval/<suite>. Settings are those of a recipe's `evaluate`, and `prompt`.
    """
    from eval import commands

    checkpoints, overrides = commands.separated(arguments)
    with _settled():
        if export_lm_eval is not None:
            commands.export(checkpoints, suite, export_lm_eval, Terminal(), overrides)
        else:
            console = Terminal(quiet=not processes.is_main())
            commands.evaluate(checkpoints, suite, out, voice, console, overrides)


@app.command(epilog="Example: r1-mini inspect runs/tiny-r1-zero --quick")
def inspect(
    arguments: Annotated[list[str], _argument("RUN | BEFORE AFTER [key=value]", "A run, or two checkpoints.")],
    suite: Annotated[str | None, _option("Whose problems are asked.", default="the run's, or arithmetic")] = None,
    only: Annotated[list[str] | None, _option("An experiment; repeatable.", default="all")] = None,
    quick: Annotated[bool, _option("Ask an eighth of the problems.", "--quick")] = False,
    control: Annotated[Path | None, _option("A checkpoint trained on from BEFORE with other text.")] = None,
    marks: Annotated[str | None, _option("What begins and ends a chain.", default="<think> </think>")] = None,
    layer: Annotated[list[int] | None, _option("A block to look into; repeatable.", default="all", min=0)] = None,
    out: Out = None,
) -> None:
    """Look at what training changed: what is only said, where in the weights, whether answers follow from chains.

    The page goes to RUN/inspect or runs/inspect. Experiments: chains, said, tries, weights, tokens, probes, patching.
    """
    from eval import commands
    from eval.inspect.run import Options

    options = Options(tuple(only or ()), control, marks, tuple(layer or ()), quick)
    with _settled():
        commands.inspect(arguments, suite, out, options, Terminal())


@app.command(epilog="Example: r1-mini compare runs/seed-0 runs/seed-1 runs/seed-2")
def compare(
    paths: Annotated[list[Path], _argument("RUN…", "Run folders, or folders that `eval` wrote.")],
    suite: Annotated[str | None, _option("Which of the runs' exams.", default="that of their recipe")] = None,
    out: Out = None,
) -> None:
    """Compare runs or exams from their saved samples: table, summary.json, comparison.csv, report.html.

    The report goes to runs/compare; that of a single run, into its folder.
    """
    from eval import commands

    with _settled():
        commands.compare(paths, suite, out, Terminal())


@app.command(epilog="Example: r1-mini sweep controls --workers 2")
def sweep(
    name: Annotated[str, _argument("SWEEP", "A YAML file, or the name of a packaged sweep.")],
    workers: Annotated[int, _option("Trials at once on this machine.", min=1, max=1024)] = 1,
    storage: Annotated[str | None, _option("Optuna's URL, where machines meet.", default="SQLite")] = None,
    out: Out = None,
) -> None:
    """Train every setting of a sweep with every seed. The same command elsewhere joins it, or goes on with it.

    The sweep's folder is runs/<its name>.
    """
    from eval.sweep.run import sweep as run_sweep

    file = packaged.find(name, "sweeps")
    with _settled():
        if not run_sweep(file, out, storage, workers, Terminal()):
            raise typer.Exit(1)


@app.command(epilog="Example: r1-mini push runs/tiny-r1-zero me/tiny-r1-zero --private")
def push(
    run: Annotated[Path, _argument("RUN", "A finished run.")],
    repo: Annotated[str, _argument("REPO", "A model repository of the Hub.")],
    private: Annotated[bool, _option("Create the repository as private.", "--private")] = False,
    dry_run: Annotated[bool, _option("Print the card and the files, upload nothing.", "--dry-run")] = False,
) -> None:
    """Put a run's last checkpoint on the Hub, with a model card written from the run's numbers."""
    from eval.export import card

    with _settled():
        card.push(run, repo, private, dry_run, Terminal())


@app.command(epilog="Example: r1-mini bench --size 0.3M --checkpoint runs/tiny-r1-zero/02-grpo")
def bench(
    size: Annotated[list[Size] | None, _option("Parameters; repeatable.", default="all but 135M")] = None,
    profile: Annotated[
        list[Lengths] | None,
        _option("Lengths: of completions, or prompts of 100 tokens; repeatable.", default="short and long"),
    ] = None,
    checkpoint: Annotated[list[Path] | None, _option("A model trained on r1_zero's problems; repeatable.")] = None,
    pairs: Annotated[int, _option("Steps of each side, in turn.", min=1)] = 5,
    zero_variance: Annotated[float, _option("Share of zero-variance groups.", min=0.0, max=1.0)] = 0.3,
    scaling: Annotated[bool, _option("Also time our step with other batches and sizes.", "--scaling")] = False,
    out: Annotated[Path, _option("The file of all timings.", "--out", "-o", callback=_file)] = Path("runs/bench.json"),
) -> None:
    """Time a GRPO step and rollouts, in turn with stock TRL's and model.generate's."""
    console = Terminal()
    with console.status("loading"):  # importing TRL takes seconds
        from eval.bench.run import bench as time_all

    with _settled():
        time_all(size or (), profile or (), checkpoint or (), pairs, out, zero_variance, scaling, console)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. What went wrong is said in one line on stderr."""
    global _log, _debug
    _log, _debug = None, False
    # OpenMP's threads spin while they wait for each other. If another program has one of two cores, that makes a step
    # of the tiny model 90 times slower (2.7 s, not 0.03 s). With a short spin, then sleep: 0.14 s there, and about 3 %
    # lost on an idle machine, where sleeping at once would lose half. Torch reads this once, when it is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    return_freed_blocks()
    gc.disable()  # until `_settled`
    ended_by = [signal.SIGINT]

    def interrupt(number: int, frame: object) -> None:
        ended_by.append(signal.Signals(number))
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):  # Slurm, Docker and Kubernetes send the first one
        if signal.getsignal(number) == signal.SIG_DFL:  # `nohup` ignores the second one
            signal.signal(number, interrupt)
    try:
        os.getcwd()
    except FileNotFoundError:
        return _fail(UserError("the current folder is gone", fix="cd to one that is there"), 2)
    try:
        code = app(args=arguments, prog_name="r1-mini", standalone_mode=False)
        if code == 130:
            print("interrupted; the same command resumes the run" if _log else "interrupted", file=sys.stderr)
            return 128 + ended_by[-1]
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _fail(error, error.exit_code)
    except typer.TyperException as error:  # a wrong option, a missing argument; empty after the help
        message, context = error.format_message().rstrip("."), getattr(error, "ctx", None)
        command = context.command_path if context else "r1-mini"
        hints = (hint for sign, hint in HINTS.items() if re.search(sign, f"{command}: {message}"))
        fix = f"see {command} --help{next(hints, '')}"
        return _fail(UserError(message, fix=fix), 2) if message else 2
    except typer.Abort:  # end of input at a prompt
        return 130
    except BrokenPipeError:  # the reader, `head` for example, has seen enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it at exit)
        return 0
    except ModuleNotFoundError as error:
        extra = {"optuna": "sweep", "peft": "peft"}.get(error.name or "")
        missing = UserError(f"{error.name} is not installed", fix=f"pip install 'r1-mini[{extra}]'")
        return _fail(missing, 2) if extra else _fail(error, 1)
    except Exception as error:
        cause = disk_error(error, _log.parent if _log else "")
        return _fail(cause, 2) if cause else _fail(error, 1)
    finally:
        gc.enable()


def _fail(error: Exception, code: int) -> int:
    """Say it in one line; the traceback of a failure goes to the run's log, or to the screen with --debug."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    failed = not isinstance(error, UserError)
    hint = "; --debug shows where" if failed and not _debug else ""
    if _debug:
        print(visible(traceback.format_exc()), file=sys.stderr, end="")
    elif failed and _log is not None and _log.parent.is_dir():
        with suppress(OSError), _log.open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
            hint = f"; the traceback is in {_log}"
    if processes.is_main() or failed:  # what the user got wrong, the main process says
        place = "" if processes.is_main() else f" in process {processes.rank()}"
        print(f"error{place}: {one_line(text)}{hint}", file=sys.stderr)
    return code
