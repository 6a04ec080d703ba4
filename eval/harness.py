"""A checkpoint and a suite become samples.jsonl: one object per completion."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from eval import compare
from eval.suite import Suite, load_suite
from r1_mini.errors import UserError
from r1_mini.files import sha256, write_text_atomic
from r1_mini.machine import source, versions
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.problems.problem import Problem
from r1_mini.problems.sources import exam
from r1_mini.recipe import Recipe, fingerprint
from r1_mini.rewards import RULES
from r1_mini.runs import RunFolder, checkpoint_hash
from r1_mini.sampling.engine import Decoding, rollout
from r1_mini.training.callbacks import progress_bar
from r1_mini.transcript import FORCED, prompt, read


class Exam:
    """The exam at the end of a run: base, base forced to work, and RL on the same problems; then the proof.

    Its problems are drawn when it is made, before any training: UserError if there are too few.
    """

    def __init__(self, recipe: Recipe) -> None:
        settings = recipe.evaluate.model_dump()
        self.suite = load_suite(settings.pop("suite"), **settings)
        suite = self.suite
        if not recipe.problems:
            raise UserError("no `problems` at the top of the recipe", where="evaluate", fix="add those to examine on")
        try:
            self.problems = exam(recipe.problems, suite.split, suite.number, suite.seed, suite.min_depth)
        except ValueError as error:
            fix = "change evaluate.number or evaluate.min_depth, or the problems"
            raise UserError(str(error), where="evaluate", fix=fix) from None
        if all(problem.difficulty["depth"] < compare.MIN_DEPTH for problem in self.problems):
            what = f"no problem of {compare.MIN_DEPTH} or more operations to examine"
            raise UserError(what, where="evaluate", fix="add deeper ones to the problems of the recipe")

    def __call__(
        self, run: RunFolder, checkpoints: Mapping[str, Path], seconds: Mapping[str, float], console: Console
    ) -> None:
        """Examine the first and the last checkpoint of a run; write samples, summary and report into its folder.

        A run without a stage of reinforcement has nothing to compare: its samples are written, no summary.
        """
        first, last = next(iter(checkpoints)), list(checkpoints)[-1]
        self._samples(run, "base", first, checkpoints[first], None, console)
        self._samples(run, "base-forced", first, checkpoints[first], "worked", console)
        if first == last:
            console.print(f"no grpo stage, so nothing to compare; the samples: {run.path / 'eval' / self.suite.name}")
            return
        self._samples(run, "rl", last, checkpoints[last], None, console)
        spent = {"base": 0.0, "grpo": 0.0}
        for stage, value in seconds.items():
            spent[stage.split("-", 1)[1]] += value
        exams = [value for key, value in run.manifest["samples"].items() if key.startswith(f"{self.suite.name}/")]
        spent["exam"] = sum(entry["seconds"] for entry in exams)
        spent["total"] = sum(spent.values())
        summary = compare.prove(run.path, self.suite.name, {key: round(value, 2) for key, value in spent.items()})
        compare.print_summary(summary, console)
        console.print(f"the page: {run.path / 'report.html'}", soft_wrap=True)

    def _samples(
        self, run: RunFolder, name: str, stage: str, checkpoint: Path, voice: str | None, console: Console
    ) -> None:
        """Write one checkpoint's samples.jsonl, unless it is there, made from the same and untouched."""
        path = run.path / "eval" / self.suite.name / name / "samples.jsonl"
        inputs = fingerprint(
            {
                "suite": self.suite,
                "problems": [(problem.question, problem.answer) for problem in self.problems],
                "voice": voice,
                "checkpoint": checkpoint_hash(checkpoint),
                "source": source(),
                "versions": versions(),
            }
        )
        done = run.manifest.get("samples", {}).get(f"{self.suite.name}/{name}")
        if done and done["fingerprint"] == inputs and path.is_file() and sha256(path) == done["sha256"]:
            return
        begun = time.perf_counter()
        lines = sit(checkpoint, self.problems, self.suite, stage, voice, console, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
        seconds = round(time.perf_counter() - begun, 3)
        entry = {"fingerprint": inputs, "sha256": sha256(path), "seconds": seconds}
        run.update_manifest(samples={f"{self.suite.name}/{name}": entry})


def sit(
    checkpoint: Path,
    problems: Sequence[Problem],
    suite: Suite,
    model_name: str,
    voice: str | None,
    console: Console,
    title: str,
) -> list[dict[str, Any]]:
    """Every sample of one checkpoint in one exam, in the order of the problems."""
    model, tokenizer = load_checkpoint(checkpoint)
    prefix, banned = (tuple(tokenizer.convert_tokens_to_ids(list(t))) for t in FORCED[voice])
    decoding = Decoding(suite.max_tokens, suite.temperature, suite.top_p, prefix, banned)
    prompts = [prompt(problem.question) for problem in problems]
    with progress_bar(console) as progress:
        bar = progress.add_task(f"exam {title}", total=len(problems) * suite.samples, note="")
        groups = rollout(
            model,
            tokenizer(prompts, add_special_tokens=False)["input_ids"],
            suite.samples,
            decoding,
            seed=suite.seed,
            stop=[tokenizer.eos_token_id],
            pad=tokenizer.pad_token_id,
            progress=lambda count: progress.advance(bar, count),
        )
    samples = []
    for problem, text, group in zip(problems, prompts, groups, strict=True):
        for index, done in enumerate(group):
            completion = tokenizer.decode(done.tokens, skip_special_tokens=True)
            transcript = read(completion, done.finish)
            rewards = {name: rule(transcript, problem.answer) for name, rule in RULES.items()}
            samples.append(
                {
                    "key": problem.key,
                    "family": problem.family,
                    "difficulty": dict(problem.difficulty),
                    "split": suite.split,
                    "question": problem.question,
                    "answer": problem.answer,
                    "prompt": text,
                    "completion": completion,
                    "n_tokens": len(done.tokens),
                    "finish": done.finish,
                    "parsed": transcript.answer,
                    "correct": rewards["accuracy"] == 1.0,
                    "well_formed": transcript.well_formed,
                    "voice": transcript.voice,
                    "rewards": rewards,
                    "sample_index": index,
                    "model": model_name,
                    "seed": suite.seed,
                    "temperature": suite.temperature,
                    "top_p": suite.top_p,
                    "max_tokens": suite.max_tokens,
                }
            )
    return samples
