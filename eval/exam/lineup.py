"""The columns of an exam: which checkpoints are examined, forced to a voice or not, and which pairs are compared.

By default a run has three: what RL started from, the same forced to write its steps, and the last checkpoint.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from r1_mini.errors import UserError
from r1_mini.pipeline.recipe import MODEL, Recipe
from r1_mini.pipeline.store import fingerprint
from r1_mini.system.files import write_json_atomic

FILE = "columns.json"
BASE, FORCED, RL = "base", "forced_worked", "rl"
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

    @property
    def folder(self) -> str:
        """Its folder in that of the exam."""
        return f"{self.stage}-{self.voice}" if self.voice else self.stage


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
    def of(names: Iterable[str]) -> "Lineup":
        """Any candidates, whose folders have these names; each is compared with the first."""
        first, *others = names
        return Lineup({name: Sitting(name, name) for name in (first, *others)}, [(first, other) for other in others])

    def write(self, folder: Path) -> None:
        write_json_atomic(folder / FILE, asdict(self))

    @staticmethod
    def read(folder: Path) -> "Lineup":
        """The lineup of the exams in a folder; UserError if none was finished there."""
        if not (folder / FILE).is_file():
            fix = "give a run, or a folder that r1-mini eval wrote; or run the recipe to its end"
            raise UserError("no exam", where=str(folder), fix=fix)
        return TypeAdapter(Lineup).validate_json((folder / FILE).read_bytes())


def lineup_of(recipe: Recipe) -> Lineup:
    """The columns and pairs that a recipe asks for, or the default ones."""
    last = list(recipe.nodes)[-1]
    columns = _named(recipe) or _default(recipe, last)
    pairs = [(before, after) for before, after in recipe.evaluate.pairs] or pairs_of(columns)
    stages = tuple(stage.model_copy(update={"seed": None}) for stage in recipe.stages)
    setting = recipe.model_copy(update={"name": "", "seed": 0, "stages": stages})
    return Lineup(columns, pairs, recipe.seed_of(recipe.nodes[last]), fingerprint(setting))


def pairs_of(columns: dict[str, Sitting]) -> list[Pair]:
    """The default pairs: the first and the last column, the forced and the last, the first and each other one."""
    first, *others = columns
    last, middle = list(columns)[-1], others[:-1]
    forced = [(key, last) for key in middle if columns[key].voice]
    return [(first, last), *forced, *((first, key) for key in middle)] if others else []


def _default(recipe: Recipe, last: str) -> dict[str, Sitting]:
    reinforcing = [name for name, stage in recipe.nodes.items() if stage.reinforces]
    start = (recipe.start_of(reinforcing[0]) or last) if reinforcing else last
    label = "after SFT" if start != MODEL and recipe.nodes[start].kind == "sft" else "base"
    columns = {BASE: Sitting(label, start), FORCED: Sitting(f"{label}, forced", start, "worked")}
    return columns if last == start else {**columns, RL: Sitting("after RL", last, reference=start)}


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
        before: str | None = stage
        while before not in (None, MODEL, start):
            before = recipe.start_of(before)
        label = {"": name, "worked": f"{name}, forced"}.get(voice, f"{name}, {voice}")
        measured = not voice and before == start != stage
        columns[key] = Sitting(label, stage, voice or None, start if measured else None)
    return columns
