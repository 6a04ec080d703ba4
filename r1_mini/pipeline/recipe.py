"""A recipe: YAML and `key=value` overrides become frozen, validated settings, a graph of stages and an exam.

All that a run depends on is here, and it is validated before anything is computed.
"""

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from r1_mini.config import yaml_file
from r1_mini.config.base import Families, Seed, Several, Strict, Temperature, explain, wrong
from r1_mini.data.collected import Collected
from r1_mini.data.source import Source
from r1_mini.data.table import Table
from r1_mini.errors import nearest
from r1_mini.model.templates import PromptStyle
from r1_mini.model.tokenizer import is_ours
from r1_mini.train import STAGES, AnyStage
from r1_mini.train.sft import SolutionStage
from r1_mini.train.stage import Problems, StageSettings

MODEL = "00-model"
"""Name of the recipe's `model` among the checkpoints of a run; a `from` and a column may say `model`."""

Column = Annotated[str, Field(pattern=r"^[\w-]+(\+worked|\+direct)?$")]
"""A checkpoint to examine, and the voice that it is forced to: `base+worked`."""


class Evaluate(Strict):
    """The exam at the end of a run; null takes the suite's own value."""

    OF_RUN: ClassVar = {"columns", "pairs", "many", "inspect"}
    """What only the exam of a run has."""

    suite: str = "arithmetic"
    """Name of a suite in eval/exam/suites, or the path of one; `own` asks the problems of the recipe."""
    families: Families | None = None
    """Those of the suite's families to ask; null is all."""
    limit: int | None = Field(None, ge=2, le=1_000_000)
    """Ask the first so many problems, evenly from all entries of the suite."""
    split: Literal["dev", "test"] | None = None
    """Settings are chosen on dev; test is for the figures that are reported."""
    samples: int | None = Field(None, ge=1, le=10_000)
    """Completions per problem."""
    greedy: bool | None = None
    """Whether each problem is also answered once at temperature 0."""
    temperature: Temperature | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=100_000)
    """Longest completion, tokens."""
    rows: int | None = Field(None, ge=1, le=1_000_000)
    """Most completions in work at once."""
    dtype: Literal["float32", "bfloat16"] | None = None
    """Of every checkpoint that is examined, however it was saved; null is bfloat16 if a stage trains with `bf16`
    on a GPU."""
    seed: Seed | None = None
    many: int | None = Field(None, ge=2, le=10_000)
    """Completions of each of the first 100 problems, besides, for pass@k up to this k; null asks no more."""
    inspect: bool = False
    """Whether the run ends with `r1-mini inspect`, which looks at what training changed; several processes skip it."""
    columns: Several[Column] = ()
    """The checkpoints to examine, the first is what the others are compared with; stages, or `model`. Empty: what RL
    started from, that forced to `worked`, also at its best temperature, and the last stage."""
    pairs: Several[Annotated[Several[Column], Field(min_length=2, max_length=2)]] = ()
    """Pairs of columns to compare; empty is every column with the first, and the last with the forced ones."""


class Recipe(Strict):
    """One run: problems, a graph of stages, the exam."""

    name: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Also the name of the run folder."""
    seed: Seed = 0
    deterministic: bool = False
    """Whether a GPU uses only operations that give the same bits in each run, which are slower. On a CPU all do."""
    model: str | None = None
    """The model that the first stage starts from, a folder or an id on the Hub; null when that stage is `base`."""
    prompt: PromptStyle = "auto"
    """How that model is prompted: with its `chat` template, or as R1-Zero prompted `base` models; `auto` is chat if it
    has a template, as some base models have too; a mapping sets variables of the template, such as
    `{enable_thinking: false}`, and with `system` the system message: a text, or null for none. A trained model is saved
    with the template it was trained on."""
    problems: Problems = ()
    stages: Annotated[Several[AnyStage], Field(min_length=1)]
    """A list, in which each stage starts from the one above it unless it has a `from`; or a mapping, name -> stage, in
    which a stage without a `from` starts from `model` or from random weights."""
    evaluate: Evaluate = Evaluate()

    @field_validator("stages", mode="before")
    @classmethod
    def _from_mapping(cls, stages: Any) -> Any:
        """The list that a mapping stands for: each stage has its name, and says what it starts from."""
        if not isinstance(stages, Mapping):
            return stages

        def named(name: str, stage: Any) -> Any:
            if not isinstance(stage, Mapping):
                return stage
            kind = STAGES.get(str(stage.get("kind")))
            return {"from": None if kind is None or kind.from_scratch else MODEL, **stage, "name": name}

        return [named(*item) for item in stages.items()]

    @model_validator(mode="after")
    def _stages_fit_together(self) -> Self:
        if any(isinstance(source, Collected) for source in self.problems):
            raise wrong("what is collected is for a stage", "name it in the `problems` of a stage", "problems")
        if len(self.nodes) < len(self.stages) or "eval" in self.nodes:  # the folder of the exams
            raise wrong("two stages have one name, or one is called eval", "give each its own", "stages")
        for place, stage in enumerate(self.stages):
            here = f"stages.{place}"
            if not self.problems_of(stage):
                raise wrong("no problems here nor at the top", "add for example `- {family: sum}`", f"{here}.problems")
            unworked = [each for each in self.problems_of(stage) if not each.worked and not stage.reinforces]
            if unworked:
                column = "name the column that has them, as `solution: steps`, or "
                fix = f"{column * isinstance(unworked[0], Table)}give the {stage.kind} stage `problems` of a family"
                raise wrong(f"'{unworked[0].name}' has no worked solutions to learn from", fix, f"{here}.problems")
            if stage.from_scratch and (stage.start or (place and not stage.name)):
                fix = "leave out its `from`, and make it the first stage or give it a `name`"
                raise wrong(f"a {stage.kind} stage starts from random weights", fix, f"{here}.kind")
            for key, reference, is_data in (("from", stage.start, False), *stage.reads):
                node = self.nodes.get(self.find(reference, f"{here}.{key}")) if reference else None
                makes_data = node is not None and not node.trains  # `model` is no node
                if reference and makes_data != is_data:
                    what, other = ("a data set", "a checkpoint") if is_data else ("a checkpoint", "a data set")
                    fix = (
                        "name a `collect` stage"
                        if is_data
                        else f"read it with `problems: [{{collected: {reference}}}]`"
                    )
                    raise wrong(f"'{reference}' makes {other}, not {what}", fix, f"{here}.{key}")
        if not any(stage.trains for stage in self.stages):
            raise wrong(
                "no stage trains anything", "add for example an `sft` stage that reads what is collected", "stages"
            )
        read = {name for stage in self.stages for name in self.read_by(stage)}
        wanted = MODEL in {*map(self.start_of, self.nodes), *read}
        if wanted and self.model is None:
            raise wrong("missing, and no base stage makes one", "add `model: <folder>` or a base stage", "model")
        if self.model is not None and not wanted:
            fix = "remove `model`, or write `from: model` in a stage"
            raise wrong("given, but every stage starts from other weights", fix, "model")
        try:
            self.order()
        except CycleError as error:
            fix = "change a `from`, a `teacher` or a `collected`"
            raise wrong(f"a circle: {' -> '.join(error.args[1])}", fix, "stages") from None
        for place, (name, stage) in enumerate(self.nodes.items()):
            way = [self.nodes.get(each) for each in self.way_to(name)]
            shares = [each.languages for each in way if isinstance(each, SolutionStage)]
            kept = getattr(getattr(stage, "keep", None), "language", None)
            for language in ("signs", "words") if None not in way else ():  # nothing is known of a recipe's model
                wanted = language == kept or f"language_{language}" in getattr(stage, "rewards", ())
                if wanted and not any(getattr(each, language) + each.mixed for each in shares):
                    fix = f"give `languages` of {self.root_of(name)} a share of {language}"
                    raise wrong(f"the model has never read {language}", fix, f"stages.{place}")
        for column in (*self.evaluate.columns, *(each for pair in self.evaluate.pairs for each in pair)):
            name = self.find(column.partition("+")[0], "evaluate.columns")
            if name != MODEL and not self.nodes[name].trains:
                raise wrong(f"'{column}' makes a data set, not a checkpoint", "leave it out", "evaluate.columns")
        given = "our model" if self.model is not None and is_ours(Path(self.model)) else "model"
        stages = (
            stage.started_from(given if self.root_of(name) == MODEL else "random weights")
            for name, stage in self.nodes.items()
        )
        return self.model_copy(update={"stages": tuple(stages)})

    @property
    def nodes(self) -> dict[str, StageSettings]:
        """Name of each stage, also of its folder, -> its settings; by default `02-grpo`, number and kind."""
        return {stage.name or f"{place:02d}-{stage.kind}": stage for place, stage in enumerate(self.stages, start=1)}

    def find(self, reference: str, key: str = "") -> str:
        """The stage of that name, or the only one of that kind; MODEL for `model`. If none: an error at `key`."""
        of_kind = [name for name, stage in self.nodes.items() if stage.kind == reference]
        if reference in self.nodes:
            return reference
        if reference in ("model", MODEL):
            return MODEL
        if len(of_kind) != 1:
            what = f"{len(of_kind)} stages are" if of_kind else "no stage is"
            raise wrong(f"{what} called '{reference}'", nearest(reference, [*self.nodes, "model"]), key)
        return of_kind[0]

    def start_of(self, name: str) -> str | None:
        """What a stage starts from: another stage, MODEL, or None for random weights."""
        names = list(self.nodes)
        stage = self.nodes[name]
        if stage.from_scratch:
            return None
        if stage.start:
            return self.find(stage.start)
        above = [each for each in names[: names.index(name)] if self.nodes[each].trains]
        return above[-1] if above else MODEL

    def way_to(self, name: str) -> list[str]:
        """The stages from the first one, or from MODEL, to this one."""
        way = [name]
        while way[0] != MODEL and (above := self.start_of(way[0])) is not None:
            way.insert(0, above)
        return way

    def root_of(self, name: str) -> str:
        """What the branch of a stage begins with: MODEL, or the stage of random weights."""
        return self.way_to(name)[0]

    def order(self) -> list[str]:
        """The stages, each after those that it starts from or reads; graphlib.CycleError."""
        graph = TopologicalSorter(
            {name: filter(None, [self.start_of(name), *self.read_by(self.nodes[name])]) for name in self.nodes}
        )
        return [name for name in graph.static_order() if name != MODEL]

    def read_by(self, stage: StageSettings) -> dict[str, str]:
        """The stages that it reads, besides the one that it starts from: -> their names where it names them."""
        return {self.find(reference): reference for _, reference, _ in stage.reads}

    def seed_of(self, stage: StageSettings) -> int:
        """The stage's own seed, else the recipe's."""
        return self.seed if stage.seed is None else stage.seed

    def problems_of(self, stage: StageSettings) -> tuple[Source, ...]:
        """The stage's own problems, else the recipe's."""
        return stage.problems or self.problems

    def foreseen(self, sources: Sequence[Source]) -> list[Source]:
        """The sources before anything is collected: what is to be collected is like what it is sampled from."""
        found: list[Source] = []
        for each in sources:
            inner = self.problems_of(self.nodes[self.find(each.collected)]) if isinstance(each, Collected) else ()
            found += self.foreseen(inner) if inner else [each]
        return found


def load(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file with `key=value` overrides applied in order; UserError if anything is wrong."""
    values = yaml_file.read_mapping(Path(path), "stages")
    overridden = yaml_file.apply_overrides(values, overrides, Recipe.model_fields)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise explain(error, str(path), overridden, values.get("stages")) from None


def dump(recipe: Recipe) -> str:
    """The recipe as YAML with its defaults written out; `load` reads an equal recipe from it."""
    values = recipe.model_dump(mode="json")
    for stage in values["stages"]:
        for key in ("name", "from"):
            if stage[key] is None:
                del stage[key]
    return yaml_file.dump(values)
