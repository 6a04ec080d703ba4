"""The recipes and their data that come with this package, by name: `r1_zero`, or with the folder, `tiny/r1_zero`."""

import re
from itertools import takewhile
from pathlib import Path

from r1_mini.errors import UserError, nearest

GROUPS = ("tiny", "laptop", "gpu", "sweeps", "accelerate")
"""Folders of recipes/: recipes from random weights, of a real model on a laptop, for GPUs; sweeps, and settings of
`accelerate launch`."""


def recipes(*groups: str) -> dict[str, Path]:
    """`folder/name` -> file of every packaged recipe of these folders, of all by default."""
    files = [file for group in groups or GROUPS for file in sorted((_root() / group).glob("*.yaml"))]
    return {f"{file.parent.name}/{file.name.removesuffix('.yaml')}": file for file in files}


def data(name: str) -> Path:
    """The file of that path; where there is none, what a packaged recipe reads under that name."""
    own = _root() / "tiny" / name
    return own if own.is_file() and not Path(name).exists() else Path(name)


def _root() -> Path:
    package = Path(__file__).parents[1]
    return next(folder for folder in (package / "recipes", package.parent / "recipes") if folder.is_dir())


def _named(*groups: str) -> dict[str, Path]:
    """File of every packaged recipe of these folders, with its folder in its name and without."""
    files = recipes(*groups)
    return {key.partition("/")[2]: file for key, file in reversed(files.items())} | files  # the first folder wins


def find(name: str, *groups: str, folder: Path = Path()) -> Path:
    """The file of that path, seen from `folder`, else the packaged recipe of that name; UserError if there is none.

    A name of another group is found too: whoever reads the file says what it is. Only these groups are proposed.
    """
    if (folder / name).is_file():
        return folder / name
    known = _named(*groups)
    found = known.get(name) or _named("tiny", "laptop", "gpu", "sweeps").get(name)
    if found is None:
        place = Path(name) if (folder / name).is_dir() else Path(name).parent  # of a run's folder, the recipe in it
        there = [str(place / each.name) for each in (folder / place).glob("*.yaml")]
        names = there if there and place == Path(name) else [*known, *there]
        fix = nearest(name, names, many="`r1-mini recipes` lists all")
        raise UserError("no such file, and no packaged recipe of that name", where=name, fix=fix)
    return found


def about(file: Path) -> str:
    """The first sentence of the comment that a recipe begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    text = " ".join(line[2:] for line in takewhile(lambda line: line.startswith("# "), lines))
    return re.split(r"(?<=.{20}[.?]) ", text, maxsplit=1)[0]
