"""Run the experiments on two checkpoints: each is a node of the store, and the tables are computed from its rows.

`EXPERIMENTS` is the registry: a new experiment is one module here and one line there.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

from eval.exam.suite import ExamProblem, Suite
from eval.inspect import chains, patching, probes, said, tokens, tries, weights
from eval.inspect.case import AFTER, BEFORE, NOISE, TEXT, Case, Marks, Network, difference, noise, weights_of
from eval.inspect.control import control
from eval.inspect.page import publish
from eval.inspect.residual import blocks
from r1_mini.data.mix import draw
from r1_mini.errors import UserError, nearest, shown
from r1_mini.model.checkpoint import find_checkpoint, load_checkpoint
from r1_mini.pipeline.recipe import Recipe
from r1_mini.pipeline.store import Store, checkpoint_hash, fingerprint, is_intact
from r1_mini.system import distributed as processes
from r1_mini.system.files import read_jsonl, write_json_atomic, write_text_atomic

VERSION = 1
"""Raise it when the same inspection gives other rows than before."""
EXPERIMENTS: dict[str, ModuleType] = {
    "chains": chains,
    "said": said,
    "tries": tries,
    "weights": weights,
    "tokens": tokens,
    "probes": probes,
    "patching": patching,
}
LEARNED = 12_000
"""Problems of the train split, that probes and steering vectors are fitted on."""
QUICK = 0.125
"""Share of the usual problems that --quick asks."""


@dataclass(frozen=True)
class Options:
    """What a user may choose."""

    only: tuple[str, ...] = ()
    """Names of experiments; empty is all."""
    control: Path | None = None
    """A checkpoint that was trained on from BEFORE with other text; None: a run that has a base trains one."""
    marks: str | None = None
    """What begins and ends a chain, if that is not `<think>` and `</think>`."""
    layers: tuple[int, ...] = ()
    """Blocks to look into; empty is all."""
    quick: bool = False

    def experiments(self) -> list[str]:
        """The names of the experiments in order; UserError if one is unknown."""
        for name in self.only:
            if name not in EXPERIMENTS:
                raise UserError(f"no experiment is called '{name}'", where="--only", fix=nearest(name, EXPERIMENTS))
        return [name for name in EXPERIMENTS if not self.only or name in self.only]

    def written(self) -> Marks:
        """The marks; UserError if they are not two."""
        if self.marks is None:
            return Marks()
        begin, _, end = self.marks.strip().partition(" ")
        if not begin or not end or len(end.split()) > 1:
            raise UserError(f"{shown(self.marks)} is not two marks", where="--marks", fix="write '<think> </think>'")
        return Marks(begin, end.strip(), "\n")


def require_alike(before: Network, after: Network, where: str) -> None:
    """UserError unless both have the same weights by name and shape, and the same tokens."""
    old, new = ({name: tuple(w.shape) for name, w in weights_of(each.model).items()} for each in (before, after))
    if old != new:
        name = next(name for name in (*old, *new) if old.get(name) != new.get(name))
        what = f"{name} has the shape {old.get(name, 'of nothing')} before and {new.get(name, 'of nothing')} after"
        raise UserError(what, where=where, fix="compare two checkpoints of one architecture")
    if before.tokenizer.get_vocab() != after.tokenizer.get_vocab() or before.asked != after.asked:
        what = "the tokenizers, or the prompts that they write, differ"
        raise UserError(what, where=where, fix="compare checkpoints of one tokenizer, or set prompt=base")


def require(case: Case, names: Sequence[str]) -> None:
    """UserError if the case cannot be inspected: another shape, a layer that is not there, too few chains."""
    for name, network in case.networks.items():
        require_alike(case.before, network, name)
    number = len(blocks(case.before.model))
    for layer in case.layers or ():
        if not 0 <= layer < number:
            raise UserError(f"layer {layer} does not exist", where="--layer", fix=f"the layers are 0 to {number - 1}")
    if "chains" in names:
        chains.require(case)


def with_noise(networks: Mapping[str, Network], seed: int) -> dict[str, Network]:
    """The networks, and BEFORE with a random difference, of the size of AFTER's in every weight."""
    before, after = networks[BEFORE], networks[AFTER]
    other = replace(before, model=copy.deepcopy(before.model))
    delta = noise(difference(before, after), seed)
    with torch.no_grad():
        for name, weight in weights_of(other.model).items():
            weight.add_(delta[name])
    return {**networks, NOISE: other}


def inspect(
    before: Path,
    after: Path,
    suite: Suite,
    asked: Sequence[ExamProblem],
    folder: Path,
    store: Store,
    console: Console,
    options: Options,
    trained: tuple[Recipe, str, str] | None = None,
) -> None:
    """Measure what is not yet measured; write inspect.json and the page.

    `trained`: the recipe that trained both, and their stages, so that a control can be trained too.
    """
    names, marks, share = options.experiments(), options.written(), QUICK if options.quick else 1.0
    problems = [each.problem for each in asked if each.axis is None]
    sources = trained[0].problems if trained and trained[0].problems else [entry.spec for entry in suite.problems]
    learned = list(islice(draw(sources, "train", suite.seed), round(LEARNED * share)))

    def network(path: Path) -> Network:
        dtype = getattr(torch, suite.dtype)
        return Network(*load_checkpoint(path, processes.state().device, suite.prompt, dtype=dtype), marks, suite.rows)

    checkpoints = {BEFORE: before, AFTER: after}
    if options.control is not None:
        checkpoints[TEXT] = find_checkpoint(options.control)
    networks = {name: network(path) for name, path in checkpoints.items()}
    case = Case(
        networks, problems, learned, suite.max_tokens, share, tuple(sorted({*options.layers})) or None, suite.seed
    )
    require(case, names)
    if trained and TEXT not in checkpoints:
        path = control(*trained, before, folder / "more-text", store, console)
        if path is not None:
            checkpoints[TEXT], networks[TEXT] = path, network(path)
    case = replace(case, networks=with_noise(networks, suite.seed))
    about = {"suite": suite.name, "problems": len(problems), "before": str(before), "after": str(after)}
    _experiments(case, checkpoints, names, about, folder, store, console)


def _experiments(
    case: Case,
    checkpoints: Mapping[str, Path],
    names: Sequence[str],
    about: Mapping[str, Any],
    folder: Path,
    store: Store,
    console: Console,
) -> None:
    """Measure each experiment, or find its rows; publish the tables of all."""
    identity = {
        "inspect": VERSION,
        "networks": {name: checkpoint_hash(path) for name, path in checkpoints.items()},
        "problems": fingerprint([(each.question, each.answer) for each in case.problems]),
        "learned": fingerprint([(each.question, each.answer) for each in case.learned]),
        "prompts": fingerprint(case.before.prompts(case.problems[:1])),
        "dtype": str(case.before.model.dtype),
        "marks": [case.before.marks.begin, case.before.marks.end, case.before.marks.answer],
        **{name: getattr(case, name) for name in ("max_tokens", "share", "layers", "seed")},
    }
    found: dict[str, Any] = {}
    for name in EXPERIMENTS:
        known = {**identity, "experiment": name}
        if name not in names and not is_intact(folder / name, fingerprint(known)):
            continue
        with store.open(known, folder / name, console) as node:
            if not node.finished:
                with console.status(f"{name} …"):
                    lines = "".join(f"{json.dumps(row)}\n" for row in EXPERIMENTS[name].measure(case))
                write_text_atomic(node.work / "rows.jsonl", lines)
        if rows := list(read_jsonl(folder / name / "rows.jsonl")):
            found[name] = EXPERIMENTS[name].table(rows)
            console.print(f"{name:<10} {len(rows):,} rows in {folder / name}", soft_wrap=True)
        else:
            why = "too few sums and differences with steps that a checker reads"
            console.print(f"{name:<10} left out: {why}", soft_wrap=True)
    summary = {"schema": 1, **about, "networks": list(case.networks), "share": case.share, "seed": case.seed, **found}
    write_json_atomic(folder / "inspect.json", summary)
    publish(summary, folder, console)
