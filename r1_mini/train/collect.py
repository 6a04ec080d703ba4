"""Collect: sample from a checkpoint and keep what passes, as a data set that `sft` reads. Nothing is trained.

This is the rejection sampling of DeepSeek-R1 (2501.12948, section 2.3.3): what a model has learned by RL becomes text
to teach another model, or the base again. Expert iteration (`rejection.py`) is this and `sft` in a loop.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import ClassVar, Literal

from pydantic import Field, field_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1_mini.completion import TAGS
from r1_mini.config.base import Strict, Temperature, wrong
from r1_mini.data.collected import FILE, row_of
from r1_mini.data.mix import draw
from r1_mini.errors import UserError
from r1_mini.problems.arithmetic import canonical_key, operations, parse
from r1_mini.problems.languages import in_signs
from r1_mini.problems.problem import Problem, is_held_out
from r1_mini.rollout.generate import Sample, generate_together, share
from r1_mini.rollout.params import SamplingParams
from r1_mini.system import distributed as processes
from r1_mini.system.files import write_json_atomic, write_text_atomic
from r1_mini.train.callbacks import progress_bar
from r1_mini.train.stage import Job, Sharding, StageSettings, Work
from r1_mini.train.trainer import load

COUNTS = "counts.json"


class Keep(Strict):
    """What a completion has to be, besides right, to be kept; asked in this order."""

    sound: bool = False
    """True: it is well-formed and each step is right too."""
    language: Literal["signs", "words"] | None = None
    """The language of all of its steps."""
    longest: int | None = Field(None, ge=1)
    """The most tokens."""
    distinct: bool = True
    """One copy of identical completions of a problem (RFT, 2308.01825)."""
    most: int | None = Field(None, ge=1)
    """The most completions of a problem."""

    def why_not(self, sample: Sample, before: Sequence[Sample]) -> str | None:
        """The filter that a completion does not pass; None if it is kept. `before`: what is kept of its problem."""
        graded = sample.graded
        if not graded.correct:
            return "wrong"
        if self.sound and not (graded.well_formed and graded.chain in ("right", "none")):
            return "sound"
        if self.language and graded.language not in (self.language, None):
            return "language"
        if self.longest and len(sample.tokens) > self.longest:
            return "longest"
        if self.distinct and any(sample.tokens == each.tokens for each in before):
            return "distinct"
        return "most" if self.most and len(before) >= self.most else None


def kept(groups: Sequence[Sequence[Sample]], keep: Keep) -> tuple[list[Sample], Counter[str]]:
    """The completions that pass, and how many each filter took."""
    passed: list[Sample] = []
    taken: Counter[str] = Counter()
    for group in groups:
        mine: list[Sample] = []
        for sample in group:
            if why := keep.why_not(sample, mine):
                taken[why] += 1
            else:
                mine.append(sample)
        passed += mine
    return passed, taken


def sampled(
    job: Job,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    params: SamplingParams,
) -> list[list[Sample]]:
    """The completions of all problems, with a bar of those that this process samples."""
    with progress_bar(job.console) as bar:
        task = bar.add_task(job.name, total=len(share(problems)) * params.n, note="sampling")
        return generate_together(model, tokenizer, problems, params, partial(bar.advance, task))


def states_held_out(text: str) -> bool:
    """Whether a line states a held-out problem of two or more operations, as a restated expression may."""
    for line in re.sub("|".join(TAGS), "\n", text).split("\n"):
        try:
            tree = parse(in_signs(line.strip()).partition("=")[0])
        except ValueError:
            continue
        if operations(tree) >= 2 and is_held_out(canonical_key(tree)):
            return True
    return False


class CollectStage(StageSettings):
    """Sample completions of problems from a checkpoint, and write those that pass into data.jsonl."""

    VERSION = 2
    CONFIG = "SFTConfig"
    DEFAULTS: ClassVar = {}
    LENGTH_KEY = "max_tokens"
    reinforces = True
    trains = False

    kind: Literal["collect"]
    prompts: int = Field(1000, ge=1, le=10_000_000)
    """Problems. After RL the samples of a problem are much alike: more problems give more data than more samples."""
    samples: int = Field(1, ge=1, le=10_000)
    """Completions of each problem."""
    max_tokens: int = Field(128, ge=1, le=100_000)
    """Longest completion, tokens."""
    temperature: Temperature = 1.0
    rows: int = Field(1024, ge=1, le=1_000_000)
    """Most completions in progress at once; the others wait. Bounds the memory of the sampler's cache."""
    keep: Keep = Keep()

    @field_validator("trainer")
    @classmethod
    def _has_no_trainer(cls, values: dict[str, object]) -> dict[str, object]:
        if values:
            raise wrong("a collect stage trains nothing", "leave it out")
        return values

    def params(self, seed: int = 0) -> SamplingParams:
        return SamplingParams(self.samples, self.max_tokens, self.temperature, seed=seed, rows=self.rows)

    def work(self, processes: int = 1, sharding: Sharding = "none") -> Work:
        in_flight = min(max(self.rows, self.samples), -(-self.prompts // processes) * self.samples)
        return Work(0, 0, 1, 0, rollouts=1, prompts=self.prompts, sampling=self.params(), in_flight=in_flight)

    def train(self, job: Job) -> None:
        """Sample, and write data.jsonl and counts.json. UserError if nothing is kept."""
        model, tokenizer = load(job)
        problems = list(islice(draw(job.problems, "train", job.seed), self.prompts))
        drawn = sampled(job, model, tokenizer, problems, self.params(job.seed))
        groups: dict[str, list[Sample]] = {}  # of a problem, which may be drawn more than once
        for problem, group in zip(problems, drawn, strict=True):
            groups.setdefault(problem.question, []).extend(group)
        passed, taken = kept(list(groups.values()), self.keep)
        clean = [each for each in passed if not states_held_out(each.graded.text)]
        taken["held out"] = len(passed) - len(clean)
        counts = {
            "sampled": len(problems) * self.samples,
            "kept": len(clean),
            "taken": {k: n for k, n in taken.items() if n},
        }
        if not clean:
            taken_by = ", ".join(f"{name} took {number:,}" for name, number in taken.most_common() if number)
            raise UserError(
                f"nothing is kept: {taken_by}", where=job.name, fix="loosen `keep`, or train the start longer"
            )
        rows = [row_of(each.graded.problem, each.graded.text) for each in clean]
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)

        def write() -> None:
            job.out.mkdir(parents=True, exist_ok=True)
            write_text_atomic(job.out / FILE, text)
            write_json_atomic(job.out / COUNTS, counts)

        processes.on_main(write)
        asked = f"of {len(groups):,} problems"
        job.console.print(f"{job.name:<10} kept {len(rows):,} of {counts['sampled']:,} completions {asked}")
