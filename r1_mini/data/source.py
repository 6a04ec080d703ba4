"""Where problems come from, as an entry of a recipe's `problems:` names it: a stream for training, some for an exam.

Of a family of ours, the depth is chosen first, each one equally likely; then problems of that depth are sampled until
the split admits one. Deep problems are rejected more often, because more is solved on their way to the answer.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, ClassVar, Self

from pydantic import Field, PrivateAttr, SerializeAsAny, model_serializer, model_validator

from r1_mini.config.base import Strict, known_name
from r1_mini.data.own import Own
from r1_mini.errors import UserError
from r1_mini.problems.arithmetic import parse
from r1_mini.problems.families import FAMILIES
from r1_mini.problems.families.base import Family
from r1_mini.problems.families.countdown import countdown_key
from r1_mini.problems.problem import Problem, Split, is_held_out, split_of
from r1_mini.system import plugin

PATIENCE = 20_000  # samples without a problem that can be used, before a source counts as exhausted


class Exhausted(UserError):
    """A source has too few problems: `found` of those that an exam wants."""

    def __init__(self, source: "Source", what: str, found: int = 0) -> None:
        axes = getattr(source, "axes", None)
        fix = "ask for fewer problems, or give it more rows"
        if axes and (wide := [name for name in type(axes).model_fields if name != "wording"]):
            fix = f"widen {', '.join(wide)}"
        elif getattr(source, "test", "") is None:  # a table without a file for the exam
            fix = "ask for fewer problems, give it more rows, or name a file for the exam with `test:`"
        super().__init__(what, where=source.name, fix=fix)
        self.what, self.found = f"{source.name}: {what}", found


class Source(Strict, ABC):
    """One entry of a recipe's `problems:`. The same seed gives the same problems."""

    KEYS: ClassVar[tuple[str, ...]]
    """The keys that tell an entry of this source from others."""
    weight: float = Field(default=1.0, gt=0)
    """How often this entry is sampled, relative to the others."""

    _excluded: frozenset[str] = PrivateAttr(frozenset())
    _excludes_countdowns: bool = PrivateAttr(False)

    @property
    def worked(self) -> bool:
        """Whether its problems have solutions to learn from."""
        return False

    @property
    @abstractmethod
    def name(self) -> str:
        """What its problems are called in an exam."""

    @abstractmethod
    def _stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        """As `stream`, with what is excluded."""

    def stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        """Problems of a split without end; other sources sample from `rng` in between. All but test may teach."""
        refused = 0
        for problem in self._stream(split, rng):
            if not self._excludes(problem):
                refused = 0
                yield problem
            elif (refused := refused + 1) > PATIENCE:
                break
        raise Exhausted(self, f"no {split} problem, or an exam asks them all")

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        """`n` distinct problems of a split, of `min_depth` where depth is known, and with no key that is `used`."""
        chosen: dict[str, Problem] = {}
        for problem in self._candidates(split, seed):
            if (problem.difficulty["depth"] or min_depth) >= min_depth and problem.key not in used:
                chosen.setdefault(problem.key, problem)
                if len(chosen) == n:
                    return list(chosen.values())
        raise Exhausted(self, f"{len(chosen)} {split} problems to ask, not {n}", len(chosen))

    def _candidates(self, split: Split, seed: int) -> Iterable[Problem]:
        """Problems of a split that an exam chooses from, as many as it may look at."""
        return islice(self._stream(split, random.Random(f"exam {split} {seed}")), PATIENCE)

    def listed(self, split: Split) -> Sequence[Problem] | None:
        """Every problem of a split; None where they are sampled on the spot, or too many to hold."""
        return None

    def without(self, keys: Iterable[str]) -> Self:
        """The same source, whose training problems neither have these keys nor solve such a problem on their way."""
        kept = self.model_copy()
        kept._excluded = self._excluded | frozenset(keys)
        kept._excludes_countdowns = any("=" in key for key in kept._excluded)
        return kept

    def _excludes(self, problem: Problem) -> bool:
        keys = {problem.key, *problem.inside}
        if self._excludes_countdowns and problem.formula is not None:
            keys.add(countdown_key(parse(problem.formula)))  # the sum is a solution of that countdown
        return not keys.isdisjoint(self._excluded)

    def content_hash(self) -> str:
        """Hash, hex, of what its problems depend on besides settings and code, or ""; UserError if it cannot be had."""
        data, excluded = self._data_hash(), "\n".join(sorted(self._excluded))
        return sha256(f"{data}\n{excluded}".encode()).hexdigest() if excluded else data

    def _data_hash(self) -> str:
        return ""

    def notes(self) -> Sequence[str]:
        """What a run says of its data before it trains, a line each."""
        return ()


def family_of(name: str) -> Family[Any, Any] | Own:
    """The family of this package, or the user's own task, of that name; the error of a validator, or UserError."""
    return Own(name) if plugin.is_own(name) else FAMILIES[known_name(name, FAMILIES, "family")]


class FamilySource(Source):
    """A family, such as `{family: sum, terms: [2, 6], digits: 2, weight: 0.98}`, or a task of the user's own."""

    KEYS = ("family",)

    family: str
    axes: SerializeAsAny[Strict]
    _family: Family[Any, Any] | Own = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _read_axes(cls, entry: Any) -> Any:
        """The axes stand beside `family` and `weight` in a recipe; their family validates them."""
        if not isinstance(entry, Mapping) or isinstance(entry.get("axes"), Strict):
            return entry
        axes = dict(entry)
        own = {key: axes.pop(key) for key in ("family", "weight") if key in axes}
        return {**own, "axes": family_of(str(own.get("family"))).axes.model_validate(axes)}

    def model_post_init(self, context: Any) -> None:
        self._family = family_of(self.family)

    @model_serializer(mode="wrap")
    def _write_axes(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        own = write(self)
        return {"family": own.pop("family"), **own.pop("axes"), **own}

    @property
    def name(self) -> str:
        return self._family.name

    @property
    def own(self) -> Own | None:
        """The task, if it is the user's own."""
        return self._family if isinstance(self._family, Own) else None

    def _data_hash(self) -> str:
        return self.own.proved(self.axes) if self.own else ""

    @property
    def worked(self) -> bool:
        return True

    def _stream(self, split: Split, rng: random.Random) -> Iterator[Problem]:
        depths = self._family.depths(self.axes)
        while True:
            yield self._sample(rng.choice(depths), split, rng)

    def exam(self, split: Split, n: int, seed: int, min_depth: int = 1, used: Container[str] = ()) -> list[Problem]:
        """As every source; the problems are dealt in turn to each depth from `min_depth`."""
        rng = random.Random(f"exam {split} {seed}")
        depths = [depth for depth in self._family.depths(self.axes) if (depth or min_depth) >= min_depth]
        if not depths:
            raise Exhausted(self, f"no problem of depth {min_depth} or more with {self.axes!r}")
        problems: dict[str, Problem] = {}
        while len(problems) < n:
            try:
                problem = self._sample(depths[len(problems) % len(depths)], split, rng, problems, used)
            except Exhausted as error:
                error.found = len(problems)
                raise
            problems[problem.key] = problem
        return list(problems.values())

    def _sample(self, depth: int, split: Split, rng: random.Random, *used: Container[str]) -> Problem:
        """Sample a problem of one depth that belongs to the split and whose key is not used yet."""
        family: Any = self._family
        for _ in range(PATIENCE):
            sketch = family.sketch(rng, self.axes, depth)
            key = family.key(sketch)
            if split_of(key) != split or any(key in keys for keys in used):
                continue
            if split == "test" or not any(map(is_held_out, family.inside(sketch))):  # may_teach, before the solution
                problem: Problem = family.problem(sketch, self.axes)
                return problem
        raise Exhausted(self, f"no further {split} problem of depth {depth} in {PATIENCE:,} samples with {self.axes!r}")
