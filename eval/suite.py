"""A suite: which problems are asked, how often, and how answers are drawn."""

from __future__ import annotations

from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field

from r1_mini.errors import UserError, nearest
from r1_mini.problems.problem import Split


class Suite(BaseModel):
    """One exam. Its problems are those of the recipe, on `split`; `evaluate:` of a recipe can change the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    split: Split = "test"
    min_depth: int = Field(1, ge=1)
    number: int = Field(ge=1)
    samples: int = Field(ge=1)
    """Completions per problem."""
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(ge=1)
    seed: int = 0


def load_suite(name: str, **changes: int | float | None) -> Suite:
    """The suite of that name, with the `changes` that are not None in place of its own; UserError if there is none."""
    folder = files("eval") / "suites"
    known = [entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    if name not in known:
        raise UserError(f"no suite is called '{name}'", where="evaluate.suite", fix=nearest(name, known))
    text = (folder / f"{name}.yaml").read_text(encoding="utf-8")
    given = {key: value for key, value in changes.items() if value is not None}
    return Suite(name=name, **{**yaml.safe_load(text), **given})
