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
from r1_mini.model.checkpoint import load_checkpoint
from r1_mini.problems.problem import Problem
from r1_mini.problems.sources import exam
from r1_mini.recipe import Recipe, fingerprint
from r1_mini.rewards import RULES
from r1_mini.runs import RunFolder
from r1_mini.sampling.engine import Decoding, rollout
from r1_mini.training.callbacks import progress_bar
from r1_mini.transcript import prompt, read

FORCED = (("<think>",), ("</think>",))
"""The worked voice, forced: thinking has begun, and may not end before it has said something."""


class Exam:
    """The exam at the end of a run: base, base forced to work, and RL on the same problems; then the proof.

    Its problems are drawn when it is made, before any training: UserError if there are too few.
    """

    def __init__(self, recipe: Recipe) -> None:
        settings = recipe.evaluate.model_dump()
        self.suite = load_suite(settings.pop("suite"), **settings)
        suite = self.suite
        try:
            self.problems = exam(recipe.problems, suite.split, suite.number, suite.seed, suite.min_depth)
        except ValueError as error:
            raise UserError(str(error), where="evaluate", fix="ask fewer with evaluate.number") from None

    def __call__(
        self, run: RunFolder, checkpoints: Mapping[str, Path], seconds: Mapping[str, float], console: Console
    ) -> None:
        """Examine the first and the last checkpoint of a run; write samples, summary and report into its folder."""
        begun = time.perf_counter()
        first, last = next(iter(checkpoints)), list(checkpoints)[-1]
        for name, stage, forced in (("base", first, False), ("base-forced", first, True), ("rl", last, False)):
            self._samples(run, name, stage, checkpoints[stage], forced, console)
        spent = {"base": 0.0, "grpo": 0.0}
        for stage, value in seconds.items():
            spent[stage.split("-", 1)[1]] += value
        spent["exam"] = time.perf_counter() - begun
        spent["total"] = sum(spent.values())
        summary = compare.prove(run.path, self.suite.name, {key: round(value, 2) for key, value in spent.items()})
        compare.print_summary(summary, console)
        console.print(f"the page: {run.path / 'report.html'}", soft_wrap=True)

    def _samples(self, run: RunFolder, name: str, stage: str, checkpoint: Path, forced: bool, console: Console) -> None:
        """Write one checkpoint's samples.jsonl, unless it is there, made from the same and untouched."""
        path = run.path / "eval" / self.suite.name / name / "samples.jsonl"
        inputs = fingerprint(
            {
                "suite": self.suite,
                "problems": [problem.question for problem in self.problems],
                "forced": forced,
                "weights": run.weights_hash(checkpoint),
            }
        )
        done = run.manifest.get("samples", {}).get(f"{self.suite.name}/{name}")
        if done and done["fingerprint"] == inputs and path.is_file() and sha256(path) == done["sha256"]:
            return
        lines = sit(checkpoint, self.problems, self.suite, stage, forced, console, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
        run.update_manifest(samples={f"{self.suite.name}/{name}": {"fingerprint": inputs, "sha256": sha256(path)}})


def sit(
    checkpoint: Path,
    problems: Sequence[Problem],
    suite: Suite,
    model_name: str,
    forced: bool,
    console: Console,
    title: str,
) -> list[dict[str, Any]]:
    """Every sample of one checkpoint in one exam, in the order of the problems."""
    model, tokenizer = load_checkpoint(checkpoint)
    prefix, banned = (tuple(tokenizer.convert_tokens_to_ids(list(t))) for t in (FORCED if forced else ((), ())))
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
