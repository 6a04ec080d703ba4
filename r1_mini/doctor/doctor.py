"""What a doctor does: makes a case of a run or of a recipe, lets every check look at it, and says what was found."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.text import Text
from transformers import TrainerState

from r1_mini.config import yaml_file
from r1_mini.data.mix import draw
from r1_mini.doctor.case import Case, Course, Finding, Row, pilot_step
from r1_mini.doctor.checks import CASE, COURSE
from r1_mini.errors import UserError
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint
from r1_mini.pipeline.recipe import MODEL, Recipe, load
from r1_mini.pipeline.start import start_of
from r1_mini.pipeline.store import say
from r1_mini.plan.plan import Plan
from r1_mini.plan.stages import POOL, worked
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import distributed as processes
from r1_mini.system.files import read_jsonl, reading
from r1_mini.train import rollouts
from r1_mini.train.grpo import GrpoStage

PROMPTS, COMPLETIONS = 8, 4
"""Of a pilot."""


def diagnose(case: Case) -> list[Finding]:
    """What is not well: what is grave first, and causes before what follows from them."""
    found = [
        replace(finding, stage=course.name)
        for course in case.courses
        for check in COURSE
        if (finding := check(course)) is not None
    ]
    found += [finding for check in CASE if (finding := check(case)) is not None]
    found += case.remarks
    found = [replace(each, fix=tuple(fix for fix in each.fix if changes(case.recipe, fix))) for each in found]
    return sorted(found, key=lambda finding: not finding.grave)


def changes(recipe: Recipe, setting: str) -> bool:
    """Whether a recipe accepts a setting, and is another one with it."""
    values = recipe.model_dump(mode="json")
    try:
        yaml_file.apply_overrides(values, [setting], Recipe.model_fields)
        other = Recipe.model_validate(values)
    except (UserError, ValidationError):
        return False
    every = (
        [stage.model_dump(exclude={"trainer"}) | stage.fields for stage in each.stages] for each in (recipe, other)
    )
    return len({repr(each) for each in every}) > 1 or recipe.model_copy(update={"stages": ()}) != other.model_copy(
        update={"stages": ()}
    )


def of_run(run: Path) -> Case:
    """A run as it is now: running, interrupted or finished. UserError if the folder is none."""
    if not (run / "recipe.yaml").is_file():
        raise UserError("no run", where=str(run), fix="name a run folder, such as runs/tiny-r1-zero, or a recipe")
    recipe = load(run / "recipe.yaml")
    courses = []
    for name, stage in recipe.nodes.items():
        folder = next(
            (each for each in (run / name, run / f".work-{name}") if (each / "metrics.jsonl").is_file()), None
        )
        if isinstance(stage, GrpoStage) and folder is not None:
            with reading(folder / "metrics.jsonl"):
                steps = read_jsonl(folder / "metrics.jsonl")
            with reading(folder / rollouts.FILE):
                kept = read_jsonl(folder / rollouts.FILE) if (folder / rollouts.FILE).is_file() else []
            courses.append(Course(recipe, name, rewarded(steps), kept, needed(recipe, name), str(folder)))
    with reading(summary := run / "summary.json"):
        return Case(recipe, courses, json.loads(summary.read_text("utf-8")) if summary.is_file() else {})


def rewarded(steps: Sequence[Row]) -> list[Row]:
    """The records of steps that began with a rollout; the others train on it again."""
    return [row for row in steps if row.get("accuracy") is not None]


def of_plan(plan: Plan) -> list[Finding]:
    """What a plan warns of: grave if the recipe does not fit."""
    found = []
    if not plan.fits:
        needs, has = (f"{size / 2**30:,.1f} GiB" for size in (plan.needed, plan.device.memory))
        found.append(
            Finding(
                "does not fit",
                f"{needs} are needed for the {plan.peak[1]}, {plan.device.name} has {has}",
                "it would be killed when memory is used up",
                ("a model, or batches, too large for this machine",),
                tuple(word for word in plan.fix.replace(",", " ").split() if "=" in word),
            )
        )
    why = "it may keep the run from its end, or its exam from a result"
    return found + [Finding("plan", each, why, ("see `r1-mini plan`",), grave=False) for each in plan.warnings]


def of_recipe(recipe: Recipe, remarks: Sequence[Finding], ask: bool, console: Console) -> Case:
    """A recipe before it runs. `ask`: a model that RL starts from, with no stage in between, is asked a few prompts."""
    courses = []
    for name, stage in recipe.nodes.items():
        if isinstance(stage, GrpoStage):
            course = Course(recipe, name, needed=needed(recipe, name))
            if ask and recipe.start_of(name) == MODEL:
                with console.status(f"{name}: asking {PROMPTS} prompts {COMPLETIONS} times"):
                    kept = pilot(recipe, name)
                course = replace(course, steps=[pilot_step(kept)], rollouts=kept)
            courses.append(course)
    return Case(recipe, courses, remarks=remarks)


def pilot(recipe: Recipe, name: str) -> list[dict[str, Any]]:
    """The rollouts that a stage of RL would keep at step 0, of the recipe's own model."""
    stage = recipe.nodes[name]
    assert isinstance(stage, GrpoStage) and recipe.model is not None
    model, tokenizer = load_checkpoint(
        find_checkpoint(Path(recipe.model)), prompt=recipe.prompt, device=processes.state().device, dtype="auto"
    )
    problems = rollouts.spread(
        draw(recipe.foreseen(recipe.problems_of(stage)), "train", recipe.seed_of(stage)), PROMPTS
    )
    fields = stage.fields
    sampling = (fields["max_completion_length"], fields["temperature"], fields["top_p"])
    params = SamplingParams(COMPLETIONS, *sampling, seed=recipe.seed_of(stage))
    return rollouts.rows(model, tokenizer, problems, params, stage.weighed(), TrainerState(global_step=0))


def needed(recipe: Recipe, name: str) -> int:
    """Tokens of the longest worked solution of a stage's problems; 0 if it has none, or the model is not here."""
    with suppress(UserError):
        stage = recipe.nodes[name]
        sources = recipe.foreseen(recipe.problems_of(stage))
        problems = list(islice(draw(sources, stage.split, recipe.seed_of(stage)), POOL))
        return max(map(len, worked(recipe, problems, start_of(recipe, name).tokenizer)), default=0)
    return 0


def watch(recipe: Recipe) -> Callable[[str], Callable[[Row], str]]:
    """Stage -> what a doctor says of its steps as they come: the name of the first grave finding, or nothing.

    It looks at each of the first steps, and later each time that a twentieth more is done.
    """

    def of(name: str) -> Callable[[Row], str]:
        steps: list[Row] = []
        grave = ""

        def tell(record: Row) -> str:
            nonlocal grave
            steps.extend(rewarded([record]))
            if len(steps) >= 3 and len(steps) % max(1, len(steps) // 20) == 0:
                found = (check(Course(recipe, name, steps)) for check in COURSE)
                grave = next((finding.name for finding in found if finding is not None and finding.grave), "")
            return grave

        return tell if isinstance(recipe.nodes[name], GrpoStage) else lambda record: ""

    return of


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print the findings, the grave ones first, or that there are none."""
    for finding in findings:
        first, *others = finding.lines()
        console.print(Text(first, "bold red" if finding.grave else "yellow"), soft_wrap=True)
        for line in others:
            say(console, line)
    if not findings:
        say(console, "nothing found: see docs/DOCTOR.md for what was looked at")
