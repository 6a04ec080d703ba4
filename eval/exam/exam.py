"""The exam of a run: its problems are sampled before any training; afterwards the checkpoints are examined."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from eval.exam.lineup import MANY, Sitting, lineup_of
from eval.exam.run import examine
from eval.exam.samples import load_samples, row
from eval.exam.suite import ExamProblem, Suite, load_suite
from r1_mini.completion import grade, write
from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import Evaluate, Recipe
from r1_mini.pipeline.run import RunFolder
from r1_mini.pipeline.start import start_of
from r1_mini.pipeline.store import say
from r1_mini.plan import stages as planning
from r1_mini.problems.problem import Problem
from r1_mini.rollout.generate import Sample, generate, generate_together, require_readable
from r1_mini.system import distributed as processes
from r1_mini.system import environment
from r1_mini.train.grpo import DevExam

TEMPERATURES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Those that a column which is cooled chooses from; greedy answers every column has besides."""
TRIED = 100
"""Problems of the exam that are answered many times, for pass@k at a large k."""
CHOOSING = 400
"""Problems of dev that it chooses by, one sample of each at each temperature."""


class Exam:
    """The exam at the end of a run, and the exams on dev during training.

    Its problems are sampled when it is constructed, before any training. UserError if there are too few, or if the
    model that the recipe trains could not read them.
    """

    def __init__(self, recipe: Recipe, publish: Callable[[Path, Console], None] | None = None) -> None:
        """`publish` compares what sat the exam of the run in a folder."""
        self.recipe, self.publish, self._start = recipe, publish, start_of(recipe)
        settings = recipe.evaluate.model_dump(exclude={"suite", *Evaluate.OF_RUN})
        half = any(stage.trains and stage.fields["bf16"] for stage in recipe.stages)
        if settings["dtype"] is None and half and environment.kind() == "cuda":  # a CPU may be slower at it
            settings["dtype"] = "bfloat16"
        settings["prompt"] = None if recipe.prompt == "auto" else recipe.prompt
        self.suite, self.questions = self._readable(recipe.evaluate.suite, "evaluate.suite", **settings)
        dev = {number: getattr(stage, "dev", None) for number, stage in enumerate(recipe.stages, start=1)}
        self._dev = {number: self._dev_suite(settings) for number, settings in dev.items() if settings is not None}
        self._choosing = self._for_choosing(settings)
        proper = [each for each in self.questions if each.axis is None]
        self._tried = proper[:TRIED] if self.suite.temperature else []  # of greedy answers one tells all
        self.lineup = lineup_of(recipe, cooled=bool(self._choosing))

    def _readable(self, name: str, where: str, **settings: Any) -> tuple[Suite, list[ExamProblem]]:
        """A suite and its problems; UserError if the trained model lacks a character, or the context length."""
        suite, questions = load_suite(name, recipe_problems=self.recipe.problems, where=where, **settings)
        start, asked = self._start, [each.problem for each in questions]
        key = where.replace("evaluate.suite", "evaluate.max_tokens")
        require_readable(start.config, start.tokenizer, asked, suite.max_tokens, key)
        return suite, questions

    def _dev_suite(self, settings: DevExam) -> tuple[Suite, list[ExamProblem]]:
        """A suite with problems of the dev split, whatever split the suite itself has."""
        chosen = settings.model_dump(include={"families", "limit"})
        return self._readable(settings.suite, "dev.suite", split="dev", **chosen)

    def _for_choosing(self, settings: Mapping[str, Any]) -> list[ExamProblem]:
        """The problems of dev that a temperature is chosen by, of the same kinds as those of the exam.

        None of an exam that has a temperature of its own, and none of problems whose dev split is too small.
        """
        if self.suite.temperature != 1:
            return []
        most = {**settings, "split": "dev", "limit": min(CHOOSING, settings["limit"] or CHOOSING)}
        try:
            _, questions = self._readable(self.recipe.evaluate.suite, "evaluate.suite", **most)
        except UserError:
            return []
        return [each for each in questions if each.axis is None]

    def problems(self) -> list[Problem]:
        """Every problem whose answers are reported, during training too."""
        on_dev = (each for _, questions in self._dev.values() for each in questions)
        return [each.problem for each in (*self.questions, *on_dev)]

    def on_dev(self, settings: DevExam) -> Callable[[PreTrainedModel, PreTrainedTokenizerBase], float]:
        """A function of model and tokenizer: pass@1 on dev problems, without those on an axis."""
        suite, questions = self._dev_suite(settings)
        proper = [each for each in questions if each.axis is None]

        def score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
            # Where weights are sharded, each forward pass takes all processes, so all sample the same.
            together = generate if processes.sharded() else generate_together
            groups = together(model, tokenizer, [each.problem for each in proper], suite.sampling())
            return float(np.mean([sample.graded.correct for group in groups for sample in group]))

        return score

    def planned(self) -> tuple[planning.Exam, dict[int, planning.Exam]]:
        """What `r1-mini plan` needs to know of the exam, and of those during training, by the number of their stage."""
        dev = {number: replace(_planned(*each), greedy=False) for number, each in self._dev.items()}
        columns = self.lineup.columns.values()
        more = len(TEMPERATURES) * len(self._choosing) * sum(each.cooled for each in columns)
        more += len(columns) * len(self._tried) * (self.recipe.evaluate.many or 0)
        return replace(_planned(self.suite, self.questions), columns=len(columns), more=more), dev

    def __call__(
        self, run: RunFolder, checkpoints: Mapping[str, Path], seconds: Mapping[str, float], console: Console
    ) -> None:
        """Examine each column and publish the comparison; of one checkpoint there is none."""
        spent: defaultdict[str, float] = defaultdict(float)
        for stage, value in seconds.items():
            spent[self.recipe.nodes[stage].kind] += value

        def sit(each: Sitting, suite: Suite, problems: Sequence[ExamProblem], name: str) -> Path:
            """The folder with the samples of one column."""
            checkpoint, reference = checkpoints[each.stage], checkpoints[each.reference] if each.reference else None
            folder = run.path / "eval" / name
            note = examine(checkpoint, suite, problems, folder, run.store, console, each.voice, reference)
            spent["exam"] += note["seconds"]
            if processes.is_main():
                run.update_manifest(samples={name: note["files"]})
            return folder

        def best(each: Sitting) -> float:
            """The temperature whose pass@1 on dev is best; of several the highest, which changes the model least."""
            scores = {}
            for temperature in TEMPERATURES:
                changes = {"temperature": temperature, "split": "dev", "samples": 1, "greedy": False}
                name = f"{self.suite.name}-dev/{each.stage}-{each.voice}-{temperature:g}"
                folder = sit(each, self.suite.model_copy(update=changes), self._choosing, name)
                scores[temperature] = float(load_samples(folder / "samples.jsonl").correct_PN.mean())
            chosen = max(scores, key=lambda temperature: (scores[temperature], temperature))
            if processes.is_main():
                shares = ", ".join(f"{100 * score:.1f}% at {temperature:g}" for temperature, score in scores.items())
                say(console, f"{each.label}: temperature {chosen:g}, by pass@1 on dev: {shares}")
            return chosen

        for each in self.lineup.columns.values():
            suite = self.suite.model_copy(update={"temperature": best(each)}) if each.cooled else self.suite
            sit(each, suite, self.questions, f"{suite.name}/{each.folder}")
            if self._tried and (many := self.recipe.evaluate.many):
                suite = suite.model_copy(update={"samples": many, "greedy": False})
                sit(each, suite, self._tried, f"{suite.name}-{MANY}/{each.folder}")
        if not processes.is_main():
            return
        folder = run.path / "eval" / self.suite.name
        self.lineup.write(folder)
        rounded = {name: round(value, 2) for name, value in spent.items()}
        run.update_manifest(seconds={**rounded, "total": round(sum(rounded.values()), 2)})
        if len({each.stage for each in self.lineup.columns.values()}) == 1 and not self.recipe.evaluate.columns:
            console.print(f"one checkpoint, so nothing to compare; the samples: {folder}")
        elif self.publish is not None:
            self.publish(run.path, console)


def _planned(suite: Suite, questions: Sequence[ExamProblem]) -> planning.Exam:
    lines = []
    for each in questions[:100]:  # a line of each, as if it were answered by the worked solution
        text = write(each.problem.steps, each.problem.answer)
        prompt = f"User: {each.problem.question}\nAssistant:"
        sample = Sample(prompt, text, [0] * len(text), "stop", 0.0, 0.0, grade(each.problem, text, "stop"))
        line = row(each, sample, 0, suite, suite.sampling())
        lines.append(len(json.dumps(line, ensure_ascii=False)) + 1)
    return planning.Exam(
        suite=suite.name,
        questions=tuple(each.problem.question for each in questions),
        sampling=suite.sampling(),
        greedy=suite.greedy_sampling() is not None,
        dtype=suite.dtype,
        line=sum(lines) // len(lines),
        shows=suite.shows(questions),
    )
