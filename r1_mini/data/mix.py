"""The sources by their keys, and the mixture of several: what a stage trains on."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import PlainValidator, SerializeAsAny

from r1_mini.config.base import wrong
from r1_mini.data.collected import Collected
from r1_mini.data.gym import GymTask
from r1_mini.data.source import FamilySource, Source
from r1_mini.data.table import Table
from r1_mini.errors import shown
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
