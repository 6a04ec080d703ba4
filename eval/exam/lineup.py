"""The columns of an exam: which checkpoints are examined, forced to a voice or not, and which pairs are compared.

By default a run has a column for each stage on the way to its last checkpoint, and what RL started from, forced to
write its steps, at the temperature of the exam and at the one that is best on dev; each difference is what one stage
made of the one before it, or RL of what it started from.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise, takewhile
from pathlib import Path

from pydantic import TypeAdapter

from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import MODEL, Recipe
from r1_mini.pipeline.store import fingerprint
from r1_mini.system.files import example, reading, write_json_atomic

FILE, MANY = "columns.json", "many"
BASE, FORCED, COOLED, RL = "base", "forced_worked", "forced_cooled", "rl"
"""The keys of the default columns."""
Pair = tuple[str, str]
"""(before, after), the keys of two columns."""


@dataclass(frozen=True)
class Sitting:
    """One column: a checkpoint of a stage, forced to a voice or not."""

    label: str
    stage: str
    voice: str | None = None
    reference: str | None = None
    """The stage from whose checkpoint the KL divergence is measured."""
    start: str | None = None
    """The key of the column whose checkpoint it was trained from, if that is examined too."""
    cooled: bool = False
    """Whether it is sampled at the temperature that is best on dev, and not at that of the suite."""

    @property
    def folder(self) -> str:
        """Its folder in that of the exam."""
        return "-".join(filter(None, (self.stage, self.voice, "cooled" if self.cooled else None)))


@dataclass(frozen=True)
class Lineup:
    """The columns of an exam by their keys, and the pairs of them that are compared, the headline first."""

    columns: dict[str, Sitting]
    pairs: list[Pair] = field(default_factory=list)
    seed: int | None = None
    """The training seed; None if no run is known."""
    setting: str = ""
    """Hash of the recipe but for its name and seeds: runs with the same are seeds of one setting."""

    @property
    def final(self) -> str:
        """The column that stands for the whole run: the last one that is not forced."""
        return [key for key, sitting in self.columns.items() if sitting.voice is None][-1]

    @staticmethod
    def of(names: Iterable[str], forced: bool = False) -> "Lineup":
        """Any candidates, whose folders have these names; each is compared with the first, and with that forced."""
        first, *others = names
        columns = {name: Sitting(name, name) for name in (first, *others)}
        rivals = [first]
        if forced:
            rivals.append(f"{first}+worked")
            columns = {first: columns[first], rivals[1]: Sitting(f"{first}, forced", first, "worked"), **columns}
        pairs = [(rival, other) for other in others for rival in rivals]
        return Lineup(columns, [*pairs, (first, rivals[1])] if forced else pairs)

    def write(self, folder: Path) -> None:
        write_json_atomic(folder / FILE, asdict(self))

    @staticmethod
    def read(folder: Path) -> "Lineup":
        """The lineup of the exams in a folder; UserError if none was finished there."""
        if not (folder / FILE).is_file():
            run = example(folder, "summary.json", "recipe.yaml", otherwise="runs/tiny-r1-zero")
            fix = f"give a finished run, such as {run}, or a folder that r1-mini eval wrote"
            raise UserError("no exam", where=str(folder), fix=fix)
        with reading(folder / FILE):
            return TypeAdapter(Lineup).validate_json((folder / FILE).read_bytes())


def lineup_of(recipe: Recipe, cooled: bool = True) -> Lineup:
    """The columns and pairs that a recipe asks for, or the default ones, with or without the one that is `cooled`."""
    last = [name for name, stage in recipe.nodes.items() if stage.trains][-1]
    if columns := _named(recipe):
        pairs = [(before, after) for before, after in recipe.evaluate.pairs] or pairs_of(columns)
    elif {MODEL, *recipe.way_to(last)} >= {name for name, stage in recipe.nodes.items() if stage.trains}:
        columns, pairs = _default(recipe, last, cooled)
    else:
        columns, pairs = _graph(recipe)
    columns = _with_starts(recipe, columns)
    stages = tuple(stage.model_copy(update={"seed": None}) for stage in recipe.stages)
    evaluate = recipe.evaluate.model_copy(
        update={"rows": None, "many": None, "inspect": False}
    )  # they change no completion
    setting = recipe.model_copy(update={"name": "", "seed": 0, "stages": stages, "evaluate": evaluate})
    return Lineup(columns, pairs, recipe.seed_of(recipe.nodes[last]), fingerprint(setting))


def pairs_of(columns: dict[str, Sitting]) -> list[Pair]:
    """The pairs of named columns: the first and the last, the forced and the last, the first and each other one."""
    first, *others = columns
    forced = [(key, others[-1]) for key in others[:-1] if columns[key].voice]
    return [*((first, key) for key in others[-1:]), *forced, *((first, key) for key in others[:-1])]


def _graph(recipe: Recipe) -> tuple[dict[str, Sitting], list[Pair]]:
    """Of a recipe that branches: every checkpoint under its name, the first one forced too; the first and the last, and
    every edge."""
    trained = [name for name in recipe.order() if recipe.nodes[name].trains]
    edges = [(start, name) for name in trained if (start := recipe.start_of(name))]
    names = list(dict.fromkeys([*(start for start, _ in edges if start == MODEL), *trained]))
    columns = {name: Sitting(name, name) for name in names}
    for start, name in edges:
        if recipe.nodes[name].reinforces:
            columns[name] = replace(columns[name], reference=start)
    forced = f"{names[0]}+worked"
    columns = {names[0]: columns[names[0]], forced: Sitting(f"{names[0]}, forced", names[0], "worked"), **columns}
    forced_edges = [(forced, after) for before, after in edges if before == names[0]]
    return columns, list(dict.fromkeys([(names[0], names[-1]), *edges, *forced_edges, (names[0], forced)]))


def _with_starts(recipe: Recipe, columns: dict[str, Sitting]) -> dict[str, Sitting]:
    """The columns, each with the nearest one above it in the recipe's graph."""
    keys = {sitting.stage: key for key, sitting in columns.items() if sitting.voice is None}
    found = {}
    for key, sitting in columns.items():
        above = [keys[stage] for stage in recipe.way_to(sitting.stage)[:-1] if stage in keys]
        found[key] = replace(sitting, start=above[-1] if above and not sitting.voice else None)
    return found


def _default(recipe: Recipe, last: str, cooled: bool) -> tuple[dict[str, Sitting], list[Pair]]:
    """`base`, `after SFT`, `after RL`; the name of a stage where that would not tell it from others."""
    way = recipe.way_to(last)
    kinds = ["RL" if recipe.nodes[stage].reinforces else recipe.nodes[stage].kind.upper() for stage in way[1:]]
    labels = [f"after {kind if kinds.count(kind) == 1 else stage}" for stage, kind in zip(way[1:], kinds, strict=True)]
    reinforced = len(list(takewhile("RL".__eq__, reversed(kinds))))
    start = way[-1 - max(1, reinforced)] if kinds else last
    keys = {stage: stage for stage in way} | {way[0]: BASE}
    if reinforced:
        keys[last] = RL
    columns = {}
    for stage, label in zip(way, ["base", *labels], strict=True):
        columns[keys[stage]] = Sitting(label, stage, reference=start if keys[stage] == RL else None)
        if stage == start:
            columns[FORCED] = Sitting(f"{label}, forced", stage, "worked")
            if cooled and last != start:
                columns[COOLED] = Sitting(f"{label}, forced, best T", stage, "worked", cooled=True)
    rivals = [key for key in (keys[start], FORCED, COOLED) if key in columns and last != start]
    pairs = [(rival, keys[last]) for rival in rivals]
    pairs += [(keys[old], keys[new]) for old, new in pairwise(way)]
    controls = [(keys[start], FORCED), (FORCED, COOLED)] if COOLED in columns else [(keys[start], FORCED)]
    return columns, list(dict.fromkeys([*pairs, *controls]))


def _named(recipe: Recipe) -> dict[str, Sitting]:
    """The columns that the recipe names, such as `base+worked`; those of its pairs belong to them.

    The KL divergence is measured from the stage of the first column, for the stages that were trained from it.
    """
    evaluate = recipe.evaluate
    columns: dict[str, Sitting] = {}
    start = None
    for key in dict.fromkeys([*evaluate.columns, *(key for pair in evaluate.pairs for key in pair)]):
        name, _, voice = key.partition("+")
        stage = recipe.find(name)
        start = start or stage
        label = {"": name, "worked": f"{name}, forced"}.get(voice, f"{name}, {voice}")
        measured = not voice and start in recipe.way_to(stage)[:-1]
        columns[key] = Sitting(label, stage, voice or None, start if measured else None)
    return columns
