"""Runs that are broken on purpose: overrides of recipes/tiny/smoke.yaml, and what a doctor has to find first.

Training all of them takes minutes, so what the doctor reads of them is kept in runs.jsonl, and tests train a few anew:
`python -m tests.doctor.broken` trains them all and writes that file.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from r1_mini.config import packaged
from r1_mini.doctor.case import Case, Course, Row
from r1_mini.doctor.doctor import diagnose, needed, of_run, rewarded
from r1_mini.errors import Stopped
from r1_mini.pipeline import run as pipeline
from r1_mini.pipeline.recipe import load
from r1_mini.system.files import read_jsonl

KEPT = Path(__file__).parent / "runs.jsonl"
READ = ("step", "finish", "text", "steps", "reward", "correct", "depth")
"""What the doctor reads of a rollout."""
FIXED = ("limit", "hot", "cold", "leash", "hard", "upside-down", "noise", "long", "fooled")
"""Runs whose fix is followed; the others were followed once: docs/DOCTOR.md."""

BROKEN: dict[str, tuple[str, list[str]]] = {
    "limit": ("truncated", ["grpo.trainer.max_completion_length=8"]),
    "hot": ("falls apart", ["grpo.trainer.learning_rate=0.1"]),
    "cold": ("nothing moves", ["grpo.trainer.learning_rate=1e-7"]),
    "leash": ("nothing moves", ["grpo.trainer.beta=20.0"]),
    "untrained": ("nothing earns", ["base.trainer.max_steps=3"]),
    "unseen": (
        "steps were never seen",
        [
            *(f"base.{voices}={{direct: 1.0, worked: 0.0, checked: 0.0}}" for voices in ("voices", "early_voices")),
            "base.trainer.max_steps=250",
        ],
    ),
    "foreign": (
        "a language was never seen",
        [
            "base.languages={signs: 0.999, words: 0.001, mixed: 0.0}",
            "base.trainer.max_steps=250",
            "grpo.rewards={accuracy: 1.0, language_words: 1.0}",
        ],
    ),
    "hard": (
        "too hard",
        [
            "grpo.problems=[{family: sum, terms: [8, 9], digits: 2, largest: 99}]",
            "grpo.trainer.max_completion_length=100",
        ],
    ),
    "easy": ("solved already", ["base.voices={direct: 0.0, worked: 1.0, checked: 0.0}"]),
    "upside-down": ("reward without accuracy", ["grpo.rewards={inverted: 1.0}"]),
    "long": ("reward without accuracy", ["grpo.rewards={length: 1.0}", "grpo.trainer.learning_rate=4e-3"]),
    "luck": ("reward without accuracy", ["grpo.rewards={random: 1.0}"]),
    "alike": ("reward without accuracy", ["grpo.rewards={constant: 1.0}"]),
    "noise": ("not sampled as it is", ["grpo.trainer.temperature=3.0"]),
    "narrow": ("not sampled as it is", ["grpo.trainer.top_p=0.5"]),
    "fooled": (
        "reward hacked",
        [
            "grpo.judge=weak",
            "grpo.problems=[{family: sum, terms: [7, 8], digits: 1, largest: 9}]",
            "grpo.trainer.max_completion_length=80",
        ],
    ),
}


def trained(name: str, settings: Sequence[str]) -> tuple[int, Case]:
    """Train the smoke recipe with these settings, without an exam, in a folder here; its exit code, and its case."""
    recipe, code = load(packaged.find("smoke", "tiny"), settings), 0
    problems = {each: recipe.problems_of(stage) for each, stage in recipe.nodes.items()}
    try:
        pipeline.run(recipe, None, problems, Path(name), Console(quiet=True), lambda *arguments: None)
    except Stopped:
        code = 1
    return code, of_run(Path(name))


def kept(name: str, settings: Sequence[str]) -> tuple[int, Case]:
    """What `trained` gave when the runs were kept."""
    recipe = load(packaged.find("smoke", "tiny"), settings)
    run = next(each for each in read_jsonl(KEPT) if each["name"] == name)
    assert run["settings"] == [*settings], "train them anew"
    steps, rollouts = (rows(run[key]) for key in ("steps", "rollouts"))
    course = Course(recipe, "02-grpo", rewarded(steps), rollouts, needed(recipe, "02-grpo"))
    return run["code"], Case(recipe, [course])


def columns(records: Sequence[Row]) -> dict[str, list[Any]]:
    """Records as lists by name, None where one lacks a name; floats with four digits."""
    names = dict.fromkeys(name for record in records for name in record)
    values = {name: [record.get(name) for record in records] for name in names}
    return json.loads(json.dumps(values), parse_float=lambda text: float(f"{float(text):.4g}"))


def rows(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The records of such columns."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def main() -> None:
    """Train every run, and those with the fix that is named, and write what the doctor reads of them."""
    lines = []

    def keep(name: str, settings: list[str]) -> Case:
        code, case = trained(name, settings)
        (course,) = case.courses
        kept_rollouts = [{key: row[key] for key in READ} for row in course.rollouts]
        run = {"steps": columns(course.steps), "rollouts": columns(kept_rollouts)}
        lines.append({"name": name, "settings": settings, "code": code, **run})
        return case

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, (_, settings) in BROKEN.items():
            found = diagnose(keep(name, settings))
            if name in FIXED:
                keep(f"{name}-fixed", [*settings, *found[0].fix])
    KEPT.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
