"""What the commands `run`, `eval` and `compare` do with exams: examine, compare, publish."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from eval.analysis.columns import Columns, columns_of, is_run, unused
from eval.exam.exam import Exam
from eval.exam.lineup import Lineup
from eval.exam.run import examine
from eval.exam.suite import ExamProblem, Suite, load_suite
from eval.export import lm_eval
from eval.inspect import run as inspection
from eval.inspect.run import Options
from eval.report.page import publish
from r1_mini.config.base import explain
from r1_mini.config.yaml_file import apply_overrides
from r1_mini.doctor.case import Finding
from r1_mini.doctor.doctor import diagnose, of_plan, of_recipe, of_run, show, watch
from r1_mini.errors import Stopped, UserError
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint, load_shape
from r1_mini.pipeline import run as pipeline
from r1_mini.pipeline.recipe import MODEL, Evaluate, Recipe, load
from r1_mini.pipeline.start import check, named, pretrained
from r1_mini.pipeline.store import Store, read_note, say
from r1_mini.plan.plan import Plan, plan
from r1_mini.plan.stages import Share
from r1_mini.rollout.generate import require_readable
from r1_mini.system import distributed as processes
from r1_mini.system import environment
from r1_mini.system.files import require_without
from r1_mini.system.logs import quiet, silent

SAMPLING = ("samples", "greedy", "temperature", "top_p")
"""Settings of an exam that an inspection sets itself."""


def run(recipe: Recipe, folder: Path, console: Console) -> None:
    """Train what a recipe describes, examine it, and publish the comparison."""

    def compared(run: Path, console: Console) -> None:
        publish(columns_of([run]), run, console, run)
        if recipe.evaluate.inspect and processes.count() == 1:
            try:
                inspect([str(run)], None, None, Options(), console)
            except UserError as error:  # too few chains, for example: the run itself is finished
                say(console, f"not inspected: {error}")

    exam = Exam(recipe, compared)
    problems = check(recipe, exam.problems(), console)
    _say_if_small(exam.suite, exam.questions, console)
    try:
        pipeline.run(recipe, pretrained(recipe), problems, folder, console, exam, watch(recipe))
    except Stopped:
        with quiet(folder / "log.txt"):
            show(diagnose(of_run(folder)), console)
        raise
    if processes.is_main() and (findings := diagnose(of_run(folder))):
        with quiet(folder / "log.txt"):
            show(findings, console)


def planned(
    recipe: Recipe, console: Console, share: Share | None = None, gpu: float | None = None, framework: int = 0
) -> Plan:
    """What a recipe would take, on this machine or on GPUs of so many GiB; it is checked first."""
    exam = Exam(recipe)
    check(recipe, exam.problems(), console, elsewhere=gpu is not None)
    device = environment.device() if gpu is None else environment.gpu_of(gpu)
    return plan(recipe, *exam.planned(), device, share or Share(), framework, timed=True)


def doctor(name: Path | str, overrides: Sequence[str], console: Console) -> list[Finding]:
    """Examine a run, or a recipe before it runs, and print what is found."""
    if (Path(name) / "recipe.yaml").is_file() or Path(name).is_dir():
        if overrides:
            raise UserError("a run has its settings", where=overrides[0], fix="leave it out, or name the recipe")
        found = diagnose(of_run(Path(name)))
    else:
        recipe = named(str(name), overrides)
        plan = planned(recipe, console)
        found = diagnose(of_recipe(recipe, of_plan(plan), plan.fits, console))
    show(found, console)
    return found


def evaluate(
    checkpoints: Sequence[Path],
    suite_name: str,
    out: Path | None,
    voice: str | None,
    console: Console,
    overrides: Sequence[str] = (),
) -> Path:
    """Examine any checkpoints on a suite, and compare the others with the first; one trained here is forced too.

    Returns the folder of the comparison, as those below do.
    """
    suite, problems = _suite(suite_name, checkpoints, overrides)
    in_a_run = "../../manifest.json"
    folder = require_without(out or Path("runs") / "eval" / suite.name, "manifest.json", in_a_run, "sweep.yaml")
    dtype = {"bfloat16": "bf16"}.get(suite.dtype, "")
    say(console, f"on: {environment.on(processes.count(), dtype)}")
    _say_if_small(suite, problems, console)
    named: dict[str, Path] = {}
    for path in checkpoints:
        named[_name(path, voice, named)] = find_checkpoint(path)
    for path in named.values():  # each is tried before the first one is examined
        model, tokenizer = load_checkpoint(path, prompt=suite.prompt, dtype="auto")
        require_readable(model.config, tokenizer, [each.problem for each in problems], suite.max_tokens, "max_tokens")
    store = Store(out or Path("runs"))
    trained_here = bool(read_note(next(iter(named.values()))))
    lineup = Lineup.of(named, forced=trained_here and voice is None and len(named) > 1)
    for each in lineup.columns.values():
        examine(named[each.stage], suite, problems, folder / each.folder, store, console, each.voice or voice)
    if processes.is_main():
        lineup.write(folder)
        columns = columns_of([folder])
        _say_if_prompts_differ(columns, console)
        publish(columns, folder, console)
    return folder


def inspect(
    arguments: Sequence[str], suite_name: str | None, out: Path | None, options: Options, console: Console
) -> Path:
    """Look at what training changed, from outside and inside: of a run, or between two checkpoints.

    The problems are those of the run's exam, or of a suite; `key=value` overrides are those of `evaluate`.
    """
    paths, overrides = separated(arguments)
    if processes.count() > 1:
        raise UserError("several processes", where="inspect", fix="run it without accelerate launch")
    if len(paths) == 1 and is_run(paths[0]):
        (run,) = paths
        with silent():
            recipe = load(run / "recipe.yaml")
        before, after, stages = _ends(run, recipe)
        given = recipe.evaluate.model_dump(mode="json", exclude_defaults=True, exclude=Evaluate.OF_RUN)
        named = given.pop("suite", "arithmetic")
        given |= {} if recipe.prompt == "auto" else {"prompt": recipe.prompt}
        suite, problems = _suite(suite_name or named, [run / stages[1]], overrides, given, SAMPLING)
        trained: tuple[Recipe, str, str] | None = (recipe, *stages)
    elif len(paths) == 2:
        before, after = map(find_checkpoint, paths)
        suite, problems = _suite(suite_name or "arithmetic", [before], overrides, without=SAMPLING)
        run, trained = Path("runs"), None
    else:
        fix = "give a finished run, such as runs/tiny-r1-zero, or the checkpoints before and after"
        raise UserError(f"{' '.join(map(str, paths)) or 'nothing'} is no run", where="inspect", fix=fix)
    folder = require_without(out or run / "inspect", "manifest.json", "sweep.yaml", "columns.json")
    store = Store(run.resolve().parent if trained else out or run)
    inspection.inspect(before, after, suite, problems, folder, store, console, options, trained)
    return folder


def _ends(run: Path, recipe: Recipe) -> tuple[Path, Path, tuple[str, str]]:
    """The checkpoints of the first pair that the exam of a run compares, and their stages."""
    lineup = Lineup.read(run / "eval" / Path(recipe.evaluate.suite).stem)
    stages = [lineup.columns[key].stage for pair in lineup.pairs[:1] for key in pair]
    if len(set(stages)) < 2:
        raise UserError("its exam compares no two checkpoints", where=str(run), fix="give two checkpoints")
    before, after = (pretrained(recipe) if stage == MODEL else run / stage for stage in stages)
    assert before is not None and after is not None
    return find_checkpoint(before), find_checkpoint(after), (stages[0], stages[1])


def separated(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The paths and the `key=value` overrides of a command line."""
    paths = [Path(each) for each in arguments if "=" not in each or Path(each).exists()]
    return paths, [each for each in arguments if Path(each) not in paths]


def compare(paths: Sequence[Path], suite: str | None, out: Path | None, console: Console) -> Path:
    """Compare runs, or exams, from their samples alone; into `out`, or of a single run into its own folder."""
    run = paths[0] if len(paths) == 1 and is_run(paths[0]) else None
    sweep = paths[0] if len(paths) == 1 and (paths[0] / "trials.json").is_file() else None
    folder = out or run or sweep or Path("runs") / "compare"
    if [folder.resolve()] != [path.resolve() for path in paths]:
        require_without(folder, "manifest.json", "sweep.yaml", "columns.json")
    if sweep:
        from eval.sweep.summary import compare_sweep  # needs optuna

        compare_sweep(sweep, folder, console)
    else:
        publish(columns_of(paths, suite), folder, console, run)
    return folder


def export(
    checkpoints: Sequence[Path], suite_name: str, folder: Path, console: Console, overrides: Sequence[str] = ()
) -> None:
    """Write the suite as tasks of lm-evaluation-harness, with the prompts of the checkpoint's tokenizer."""
    if len(checkpoints) > 1:
        raise UserError("prompts are those of one tokenizer", where="--export-lm-eval", fix="name one checkpoint")
    suite, problems = _suite(suite_name, checkpoints, overrides)
    checkpoint = find_checkpoint(checkpoints[0])
    _, _, tokenizer = load_shape(checkpoint, suite.prompt)
    tasks = lm_eval.export(suite, problems, tokenizer, folder)
    console.print(f"{len(problems)} problems as {', '.join(tasks)}; docs/LM_EVAL.md tells what differs. To run them:")
    arguments = f"--model_args pretrained={checkpoint},dtype=float32 --include_path {folder} --tasks {tasks[0]}"
    console.print(f"lm_eval --model hf {arguments} --device cpu --batch_size 32", soft_wrap=True)


def _name(checkpoint: Path, voice: str | None, taken: dict[str, Path]) -> str:
    """A name for the samples of a checkpoint: for a stage with the run's name, such as `tiny-r1-zero.02-grpo`."""
    path = checkpoint.resolve()
    alone = f"{path.name}-{voice}" if voice else path.name
    return unused(f"{path.parent.name}.{alone}" if is_run(path.parent) or alone in taken else alone, taken)


def _suite(
    name: str,
    checkpoints: Sequence[Path],
    overrides: Sequence[str],
    given: Mapping[str, Any] | None = None,
    without: Container[str] = (),
) -> tuple[Suite, list[ExamProblem]]:
    """A suite with the settings given and `key=value` overrides: keys of a recipe's `evaluate`, and `prompt`.

    If the first checkpoint lies in a run, the suite `own` has the problems of its recipe.
    """
    if not checkpoints:
        raise UserError("no checkpoint is named", where="eval", fix="give a folder, or the id of a model on the Hub")
    values: dict[str, Any] = {**(given or {})}
    keys = Evaluate.model_fields.keys() - {"suite", *Evaluate.OF_RUN} | {"prompt", "--suite"}
    keys = {key for key in keys if key not in without}
    overridden = apply_overrides(values, overrides, keys)
    prompt = values.pop("prompt", None)
    try:
        changes = Evaluate.model_validate(values).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise explain(error, "eval", overridden) from None
    run = checkpoints[0].resolve().parent
    recipe_problems = load(run / "recipe.yaml").problems if is_run(run) else ()
    return load_suite(name, recipe_problems=recipe_problems, where="--suite", prompt=prompt, **changes)


def _say_if_small(suite: Suite, problems: Sequence[ExamProblem], console: Console) -> None:
    is_small, what = suite.shows(problems)
    if is_small:
        say(console, f"warning: exam {suite.name}: {what}")


def _say_if_prompts_differ(columns: Columns, console: Console) -> None:
    """One line if not all had the same prompt for the first problem: a difference may come from the prompt."""
    (first, prompt), *others = ((name, column.samples[0].first[0]["prompt"]) for name, column in columns.items())
    if different := [name for name, other in others if other != prompt]:
        say(console, f"note: {different[0]} has another prompt than {first}; prompt=base gives all the same")
