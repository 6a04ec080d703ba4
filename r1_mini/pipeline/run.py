"""Runs a recipe: its stages in order, then the exam. What is done is skipped, what was cut off resumes."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from r1_mini.config.trl_fields import require_machine
from r1_mini.data.mix import draw
from r1_mini.data.overlap import separated
from r1_mini.data.source import Source
from r1_mini.errors import UserError
from r1_mini.model.prompts import encode, prompts_for, require_context
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.start import start_of
from r1_mini.pipeline.store import Inputs, RunFolder, checkpoint_hash, find_checkpoint, fingerprint
from r1_mini.problems.problem import Problem
from r1_mini.system import distributed as processes
from r1_mini.system import environment as machine
from r1_mini.system.files import read_jsonl
from r1_mini.system.logs import quiet, silent
from r1_mini.train.grpo import DevExam
from r1_mini.train.stage import Job, StageSettings, TuningStage


class Examiner(Protocol):
    """The exam, as the command line hands it over."""

    def __call__(
        self, run: RunFolder, checkpoints: Mapping[str, Path], seconds: Mapping[str, float], console: Console
    ) -> None:
        """The exam of a run's checkpoints, in order; `seconds` of each stage."""

    def on_dev(self, settings: DevExam) -> Callable[[Any, Any], float]:
        """A function of model and tokenizer: pass@1 on dev, for use during training."""

    def problems(self) -> Sequence[Problem]:
        """All that is asked, during training too."""


def run(recipe: Recipe, out: Path, console: Console, examine: Examiner) -> None:
    """Every stage of `recipe` into the run folder `out`, then the exam over its checkpoints.

    UserError for what this machine lacks, before anything is trained.
    Under `accelerate launch` all processes work, and the main one writes.
    """
    _require_machine(recipe)
    start = None if recipe.model is None else find_checkpoint(Path(recipe.model))
    with silent():
        require_possible(recipe)
    sources = _sources(recipe, examine.problems(), console)
    folder = RunFolder(out, recipe)
    with contextlib.ExitStack() as held:
        processes.on_main(lambda: held.enter_context(folder) and None)
        held.enter_context(quiet(folder.path / "log.txt"))
        checkpoints = {} if start is None else {"00-model": start}
        seconds: dict[str, float] = {}
        for number, (stage, drawn) in enumerate(zip(recipe.stages, sources, strict=True), start=1):
            name = f"{number:02d}-{stage.kind}"
            start, seconds[name] = _run_stage(folder, name, stage, drawn, start, console, examine)
            checkpoints[name] = start
            gc.collect()  # a trainer's model lies in a circle of references
            torch.cuda.empty_cache()
        examine(folder, checkpoints, seconds, console)
        if processes.is_main():
            peak = machine.peak() // 2**20
            folder.update_manifest(peak_memory_mib=max(peak, folder.manifest.get("peak_memory_mib", 0)))
            if torch.cuda.is_available():  # of the main process
                peak = torch.cuda.max_memory_allocated() // 2**20
                folder.update_manifest(peak_gpu_memory_mib=max(peak, folder.manifest.get("peak_gpu_memory_mib", 0)))


def _require_machine(recipe: Recipe) -> None:
    """UserError for what a stage needs and this machine, or the way that it is launched, lacks."""
    spread = "true" in (os.environ.get("ACCELERATE_USE_FSDP"), os.environ.get("ACCELERATE_USE_DEEPSPEED"))
    for number, stage in enumerate(recipe.stages):
        require_machine(stage.trainer, f"stages.{number}.trainer")
        if spread and isinstance(stage, TuningStage) and stage.peft is not None:
            what = "an adapter of weights that are spread over processes cannot be merged"
            raise UserError(what, where=f"stages.{number}.peft", fix="launch with recipes/accelerate/ddp.yaml")


def require_possible(recipe: Recipe) -> None:
    """UserError for what no machine could do: an adapter that fits no module of the model, problems that its tokenizer
    cannot write or that do not exist, questions of a table that are longer than its window."""
    start = start_of(recipe)
    for number, stage in enumerate(recipe.stages):
        if isinstance(stage, TuningStage) and stage.peft is not None:
            from r1_mini.train.trainer import shape_of

            shape_of(start.config, torch.float32, stage.peft)
        for source in recipe.problems_of(stage):
            try:
                first = list(islice(draw([source], stage.split, "possible"), _TRIED))
            except ValueError as error:
                raise UserError(str(error), where=f"stages.{number}.problems") from None
            questions = prompts_for(start.tokenizer, source.listed(stage.split) or first)
            sampling = stage.work().sampling
            where = f"stages.{number}.{stage.LENGTH_KEY}"
            require_context(
                start.config, encode(start.tokenizer, questions), sampling.max_tokens if sampling else 0, where
            )


_TRIED = 100  # problems of a source: its every depth is among them


def _sources(recipe: Recipe, asked: Sequence[Problem], console: Console) -> list[tuple[Source, ...]]:
    """What each stage draws from, without what an exam asks. Says what was wrong with the data, each thing once.

    Whatever a source cannot do is found out here, before anything is trained: UserError.
    """
    stages, lines = [], []
    for stage in recipe.stages:
        sources, overlaps = separated(recipe.problems_of(stage), asked)
        stages.append(sources)
        lines += [*(note for one in recipe.problems_of(stage) if one.content_hash() for note in one.notes()), *overlaps]
    for line in dict.fromkeys(lines):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return stages


def _run_stage(
    folder: RunFolder,
    name: str,
    stage: StageSettings,
    sources: tuple[Source, ...],
    start: Path | None,
    console: Console,
    examine: Examiner,
) -> tuple[Path, float]:
    """The stage's checkpoint folder and the seconds it took, now or when it was done."""
    recipe = folder.recipe
    seed = recipe.seed_of(stage)
    said = {
        "stage": stage.model_copy(update={"seed": None}),
        "problems": recipe.problems_of(stage),
        "data": [each.content_hash() for each in sources],
        "seed": seed,
        "start": checkpoint_hash(start) if start else None,
        "prompt": recipe.prompt,
        "source": machine.source(),
        "versions": machine.versions(),
    }
    done_by = {"threads": torch.get_num_threads(), "processes": processes.count()}
    inputs = Inputs(fingerprint(said), fingerprint({**said, **done_by}))
    work, found = processes.on_main(lambda: folder.begin_stage(name, inputs))
    if found is not None:
        here = processes.on_main(lambda: folder.adopt_stage(name, found))
        console.print(f"{name:<10} done before, skipped")
        return here, folder.seconds_of(name)

    checkpoint = work / "finished"
    processes.on_main(lambda: checkpoint.mkdir(exist_ok=True))
    before = _seconds_spent(work / "metrics.jsonl")
    begun = time.perf_counter()
    inputs_ = {} if start is None else {"from": start}
    dev = getattr(stage, "dev", None)
    score = examine.on_dev(dev) if dev is not None else None
    stage.train(Job(name, stage, inputs_, sources, recipe.prompt, seed, work, checkpoint, console, score))

    def finish() -> Path:
        for file in ("metrics.jsonl", "trainer.json"):
            shutil.copy(work / file, checkpoint / file)
        for logged in ("runs", "completions"):  # what TRL wrote for TensorBoard, and its tables of completions
            if (work / logged).is_dir():
                shutil.copytree(work / logged, checkpoint / logged, dirs_exist_ok=True)
        return folder.finish_stage(name, inputs, checkpoint, before + time.perf_counter() - begun)

    processes.wait()
    return processes.on_main(finish), folder.seconds_of(name)


def _seconds_spent(metrics: Path) -> float:
    """What a stage that was cut off had taken, from its metrics; 0 if it had not begun."""
    records: list[dict[str, Any]] = read_jsonl(metrics) if metrics.exists() else []
    return math.fsum(record["seconds"] for record in records)
