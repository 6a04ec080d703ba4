"""The exam of a run, at its end, and the exam of any checkpoints, on demand."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.analysis import metrics
from eval.analysis.columns import checked, column, columns_of, is_run
from eval.exam.run import Candidate, drawing_of, drawn, examine, read_note
from eval.exam.samples import at_axis, row, tabled
from eval.exam.suite import Asked, Suite, load_suite
from eval.export import lm_eval as lm_eval_export
from eval.report.publish import publish
from r1_mini.completion import grade, write
from r1_mini.config.base import explain
from r1_mini.config.yaml_file import apply_overrides
from r1_mini.data.source import Source
from r1_mini.errors import UserError
from r1_mini.model.checkpoint import load_shape
from r1_mini.model.prompts import encode, prompts_for, require_context
from r1_mini.pipeline.recipe import Evaluate, Recipe, load
from r1_mini.pipeline.start import start_of
from r1_mini.pipeline.store import RunFolder, find_checkpoint
from r1_mini.plan import exam as planning
from r1_mini.problems.problem import Problem
from r1_mini.rollout.cache import RolloutCache
from r1_mini.rollout.generate import Sample
from r1_mini.system import distributed as processes
from r1_mini.train.grpo import DevExam, GrpoStage

REINFORCED = ("-grpo", "-rejection")
"""How the names of checkpoints end that a stage of reinforcement has made."""


class Exam:
    """The exam at the end of a run: base, base forced to work, and RL on the same problems; then the proof.

    Its problems are drawn when it is made, before any training: UserError if there are too few, or if the model that
    the recipe trains will not be able to read them.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self._start = recipe, start_of(recipe)
        settings = recipe.evaluate.model_dump(exclude={"columns", "pairs"})
        settings["prompt"] = None if recipe.prompt == "auto" else recipe.prompt
        self.suite, self.asked = load_suite(settings.pop("suite"), recipe_problems=recipe.problems, **settings)
        self._require_readable(self.suite, self.asked, "evaluate.max_tokens")
        dev = [stage.dev for stage in recipe.stages if isinstance(stage, GrpoStage) and stage.dev is not None]
        self.asked_on_dev = [each for settings in dev for each in self._dev_suite(settings)[1]]

    def problems(self) -> list[Problem]:
        """All that is asked, during training too."""
        return [each.problem for each in (*self.asked, *self.asked_on_dev)]

    def _dev_suite(self, settings: DevExam) -> tuple[Suite, list[Asked]]:
        suite, asked = load_suite(
            settings.suite,
            recipe_problems=self.recipe.problems,
            families=settings.families,
            limit=settings.limit,
            split="dev",
            where="dev.suite",
        )
        self._require_readable(suite, asked, "dev.suite")
        return suite, asked

    def on_dev(self, settings: DevExam) -> Callable[[PreTrainedModel, PreTrainedTokenizerBase], float]:
        """A function of model and tokenizer: pass@1 on a suite's problems, drawn from dev whatever the suite says."""
        suite, asked = self._dev_suite(settings)

        def score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
            rows = drawn(model, tokenizer, "training", suite, asked, drawing_of(suite))
            return float(metrics.pass_at_1(at_axis(tabled(rows, "dev"), None)).mean())

        return score

    def planned(self) -> planning.Exam:
        """What `r1-mini plan` has to know of it."""
        return _planned(self.suite, self.asked)

    def planned_on_dev(self) -> dict[int, planning.Exam]:
        """The same of the examinations during training, by the number of their stage."""
        stages = enumerate(self.recipe.stages, start=1)
        return {
            number: replace(_planned(*self._dev_suite(stage.dev)), greedy=False)
            for number, stage in stages
            if isinstance(stage, GrpoStage) and stage.dev is not None
        }

    def _require_readable(self, suite: Suite, asked: Sequence[Asked], where: str) -> None:
        """UserError if the model that is examined will not know a character of a problem, or not read so much, or if
        our sampler does not know it."""
        tokenizer, config = self._start.tokenizer, self._start.config
        prompts = encode(tokenizer, prompts_for(tokenizer, [each.problem for each in asked]))
        require_context(config, prompts, suite.max_tokens, where)
        RolloutCache(config, 1, max(map(len, prompts), default=0) + suite.max_tokens)

    def __call__(
        self, run: RunFolder, checkpoints: Mapping[str, Path], seconds: Mapping[str, float], console: Console
    ) -> None:
        """Examine what RL started from and the last checkpoint of a run; write samples, summary and report.

        A run without a stage of reinforcement has nothing to compare: its samples are written, no summary.
        """
        names, last = list(checkpoints), list(checkpoints)[-1]
        first = next((one for one, after in pairwise(names) if after.endswith(REINFORCED)), last)
        candidates = [
            Candidate(first, checkpoints[first]),
            Candidate(f"{first}-worked", checkpoints[first], "worked"),
            *([Candidate(last, checkpoints[last], reference=checkpoints[first])] if last != first else []),
        ]
        spent = 0.0
        for candidate in candidates:
            place = Path("eval") / self.suite.name / candidate.name
            folder = run.path / place
            beside = sorted(other.parent / place for other in run.path.resolve().parent.glob("*/recipe.yaml"))
            spent += examine(candidate, self.suite, self.asked, folder, console, replaces=True, beside=beside)
            if processes.is_main():
                run.update_manifest(samples={f"{self.suite.name}/{candidate.name}": read_note(folder)["sha256"]})
        if not processes.is_main():
            return
        if first == last:
            console.print(
                f"no stage of reinforcement, so nothing to compare; the samples: {run.path / 'eval' / self.suite.name}"
            )
            return
        phases: dict[str, float] = {}
        for stage, value in seconds.items():
            kind = stage.split("-", 1)[1]
            phases[kind] = phases.get(kind, 0.0) + value
        rounded = {name: round(value, 2) for name, value in {**phases, "exam": spent}.items()}
        run.update_manifest(seconds={**rounded, "total": round(sum(rounded.values()), 2)})
        publish(columns_of([run.path], self.suite.name), self.suite.name, run.path, console, run.path)


def evaluate(
    checkpoints: Sequence[Path],
    suite_name: str,
    out: Path | None,
    voice: str | None,
    console: Console,
    overrides: Sequence[str] = (),
) -> None:
    """Examine any checkpoints on a suite, and compare the others to the first."""
    changes = _changes(checkpoints, overrides)
    candidates = [Candidate(_name(path, voice), find_checkpoint(path), voice) for path in checkpoints]
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):  # checkpoint-500 of two runs
        candidates = [
            replace(c, name=f"{p.resolve().parent.name}.{c.name}") for c, p in zip(candidates, checkpoints, strict=True)
        ]
        names = [candidate.name for candidate in candidates]
    for name in names:
        if names.count(name) > 1:
            raise UserError("given twice", where=name, fix="give each checkpoint once")
    recipe_problems = _recipe_problems(checkpoints[0])
    suite, asked = load_suite(suite_name, recipe_problems=recipe_problems, where="--suite", **changes)
    folder = out or Path("runs") / "eval" / suite.name
    for candidate in candidates:
        examine(candidate, suite, asked, folder / candidate.name, console)
    if processes.is_main():
        _say_if_asked_differently([folder / name for name in names], console)
        columns = {name: column(name, [folder / name], [None]) for name in names}
        publish(checked(columns), suite.name, folder, console)


def _changes(checkpoints: Sequence[Path], overrides: Sequence[str]) -> dict[str, Any]:
    """What `key=value` changes of a suite: keys of a recipe's `evaluate`, and `prompt`."""
    if not checkpoints:
        raise UserError("no checkpoint is named", where="eval", fix="give a folder, or the id of a model on the Hub")
    values: dict[str, Any] = {}
    keys = Evaluate.model_fields.keys() - {"suite", "columns", "pairs"}
    overridden = apply_overrides(values, overrides, [*keys, "prompt"])
    prompt = values.pop("prompt", None)
    try:
        return {**Evaluate.model_validate(values).model_dump(exclude_unset=True), "prompt": prompt}
    except ValidationError as error:
        raise explain(error, "eval", overridden) from None


def _say_if_asked_differently(exams: Sequence[Path], console: Console) -> None:
    """One line if not all were given the same prompt for the first problem: a difference may be the prompt's."""
    prompts = []
    for exam in exams:
        with (exam / "samples.jsonl").open(encoding="utf-8") as file:
            prompts.append(json.loads(next(file))["prompt"])
    other = next((place for place, prompt in enumerate(prompts) if prompt != prompts[0]), None)
    if other is not None:
        said = f"note: {exams[other].name} is asked by another prompt than {exams[0].name}; prompt=base asks all alike"
        console.print(said, highlight=False, markup=False, soft_wrap=True)


def export(
    checkpoints: Sequence[Path], suite_name: str, folder: Path, console: Console, overrides: Sequence[str] = ()
) -> None:
    """Write the suite as tasks of lm-evaluation-harness, with the prompts of the checkpoint's tokenizer."""
    changes = _changes(checkpoints, overrides)
    if len(checkpoints) > 1:
        raise UserError("prompts are those of one tokenizer", where="--export-lm-eval", fix="name one checkpoint")
    checkpoint = find_checkpoint(checkpoints[0])
    recipe_problems = _recipe_problems(checkpoint)
    suite, asked = load_suite(suite_name, recipe_problems=recipe_problems, where="--suite", **changes)
    _, _, tokenizer = load_shape(checkpoint, suite.prompt)
    tasks = lm_eval_export.export(suite, asked, tokenizer, folder)
    console.print(f"{len(asked)} problems as {', '.join(tasks)}; docs/LM_EVAL.md tells what differs. To run them:")
    arguments = f"--model_args pretrained={checkpoint},dtype=float32 --include_path {folder} --tasks {tasks[0]}"
    console.print(f"lm_eval --model hf {arguments} --device cpu --batch_size 32", soft_wrap=True)


def _planned(suite: Suite, asked: Sequence[Asked]) -> planning.Exam:
    drawing = drawing_of(suite)
    line = []
    for each in asked[:100]:  # a line of each, as if it were answered by the worked solution
        text = write(each.problem.steps, each.problem.answer)
        prompt = f"User: {each.problem.question}\nAssistant:"
        sample = Sample(prompt, text, [0] * len(text), "stop", 0.0, 0.0, grade(each.problem, text, "stop"))
        judged = row(each, sample, 0, "01-base", suite, drawing)
        line.append(len(json.dumps(judged, ensure_ascii=False)) + 1)
    return planning.Exam(
        suite=suite.name,
        split=suite.split,
        questions=tuple(each.problem.question for each in asked),
        samples=suite.samples,
        greedy=suite.greedy and suite.temperature > 0,
        max_tokens=suite.max_tokens,
        temperature=suite.temperature,
        top_p=suite.top_p,
        rows=suite.rows,
        dtype=suite.dtype,
        line=sum(line) // len(line),
    )


def _name(checkpoint: Path, voice: str | None) -> str:
    """A name for a checkpoint's folder of samples: of a stage also its run's, `tiny-r1-zero.02-grpo`."""
    path = checkpoint.resolve()
    name = f"{path.parent.name}.{path.name}" if is_run(path.parent) else path.name
    return f"{name}-{voice}" if voice else name


def _recipe_problems(checkpoint: Path) -> tuple[Source, ...]:
    """The problems of the recipe whose run the checkpoint lies in; none if it lies in no run."""
    run = checkpoint.resolve().parent
    return load(run / "recipe.yaml").problems if is_run(run) else ()
