"""The sources by their keys, and the mixture of several: what a stage, or a run, trains on."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import PlainValidator, SerializeAsAny

from r1_mini.config.base import Strict, wrong
from r1_mini.config.yaml_file import read_mapping
from r1_mini.data.collected import Collected
from r1_mini.data.gym import GymTask
from r1_mini.data.own import Own
from r1_mini.data.source import FamilySource, Source
from r1_mini.data.table import Table
from r1_mini.errors import UserError, shown
from r1_mini.problems.problem import Problem, Split

SOURCES: tuple[type[Source], ...] = (FamilySource, Table, GymTask, Collected)
"""What an entry of `problems:` may be. A new source is a file beside this one and its name here."""


def source_of(entry: Any) -> Source:
    """The source that an entry of `problems:` names; ValidationError or the error of a validator if it is wrong."""
    if isinstance(entry, Source):
        return entry
    known = {key: kind for kind in SOURCES for key in kind.KEYS}
    named = [key for key in known if isinstance(entry, Mapping) and entry.get(key) is not None]
    if len(named) != 1:
        raise wrong(f"{shown(entry)} does not name one source", f"give one of {', '.join(known)}")
    return known[named[0]].model_validate(entry)


AnySource = Annotated[SerializeAsAny[Source], PlainValidator(source_of)]
"""The type of an entry in a settings class."""


def draw(sources: Sequence[Source], split: Split, seed: int | str) -> Iterator[Problem]:
    """Sample a split's problems without end, the same for the same seed; all but test may teach (`may_teach`)."""
    rng = random.Random(f"{split} {seed}")
    streams = [source.stream(split, rng) for source in sources]
    weights = [source.weight for source in sources]
    while True:
        (chosen,) = rng.choices(streams, weights)
        yield next(chosen)


def listed(sources: Iterable[Source]) -> Iterator[Problem]:
    """Every row of the sources that are tables, of all splits; what is streamed or sampled has none."""
    for source in sources:
        for split in get_args(Split):
            yield from source.listed(split) or ()


def sources_of(recipe: Path) -> list[Source]:
    """What a run trains on, without what it collects; nothing where the recipe is gone."""
    with suppress(UserError, LookupError, TypeError, ValueError):  # not as a run writes it
        values = read_mapping(recipe) if recipe.is_file() else {"problems": (), "stages": ()}
        entries = [*values["problems"], *(entry for stage in values["stages"] for entry in stage["problems"])]
        return [source_of(entry) for entry in entries if "collected" not in entry]
    return []


def tasks(sources: Iterable[Source]) -> Iterator[tuple[Own, Strict]]:
    """The tasks of the user's own among the sources, with their axes."""
    return ((each.own, each.axes) for each in sources if isinstance(each, FamilySource) and each.own)


def problems_of(recipe: Path, n: int = 500) -> tuple[list[Problem], dict[str, Problem]]:
    """A sample of what a run trains on, and the rows of its tables by key; nothing where recipe or data are gone."""
    sources = sources_of(recipe)
    with suppress(UserError, LookupError):  # of no source, nothing is drawn
        return list(islice(draw(sources, "train", "sample"), n)), {row.key: row for row in listed(sources)}
    return [], {}
