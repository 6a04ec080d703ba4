"""YAML 1.2 files (`1e-3` is a number, `no` is text, a key that comes twice is an error), and `key=value` overrides."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from r1_mini.errors import UserError, nearest
from r1_mini.text import cut, secrets

KINDS = {
    "stages": ("a recipe", "r1-mini run"),
    "recipe": ("a sweep", "r1-mini sweep"),
    "max_tokens": ("a suite", "r1-mini eval CHECKPOINT --suite"),
}
"""The key by which a file is known -> what it is, and the command that takes it."""


def parse(text: str, where: str, fix: str = "correct it") -> Any:
    """The value of a YAML text; UserError with line and column if it is not YAML."""
    try:
        return YAML(typ="safe", pure=True).load(text)  # builds plain data only
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}: line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"not valid YAML: {cut(problem)}", where=place, fix=fix) from None


def dump(value: Any) -> str:
    """YAML text that `parse` reads back as an equal value."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 120, False
    yaml.representer.ignore_aliases = lambda data: True
    text = io.StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def read_mapping(path: Path, key: str = "") -> dict[str, Any]:
    """The keys and values of a YAML file; UserError if it cannot be read, or is of another of KINDS than `key`."""
    try:
        value = parse(path.read_text(encoding="utf-8"), str(path))
        what = "holds no keys and values"
    except (OSError, UnicodeError) as error:
        value, what = None, f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not isinstance(value, dict):
        raise UserError(what, where=str(path), fix="name a YAML file in UTF-8 with keys and values, as `seed: 1`")
    if key and key not in value:
        for kind, command in (KINDS[other] for other in KINDS if other in value):
            raise UserError(f"is {kind}, not {KINDS[key][0]}", where=str(path), fix=f"{command} {path}")
    _refuse_secrets(value, str(path))
    return value


def _refuse_secrets(value: Any, where: str, key: str = "") -> None:
    """UserError for a password or a token: recipes end in files, pages and lists of processes."""
    for found in secrets(value, key):
        fix = "leave it out; log in with `hf auth login`, or use what the service reads from the environment"
        raise UserError("holds a password or a token", where=f"{where}: {found}", fix=fix)


def apply_overrides(settings: dict[str, Any], overrides: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """Set each `key=value` in `settings`, in order; returns the path that each one set -> its text.

    A path starts with one of `keys`, the top-level keys that `settings` may have, or with the name or the kind of a
    stage: `seed=1`, `stages.1.trainer.max_steps=5`, `grpo.trainer.max_steps=5`.
    """
    known, paths = set(keys), {}
    for text in overrides:
        where = f"override {cut(text)!r}"
        try:
            key, value = text.split("=", 1)
            first, *rest = key.strip().split(".")
            path = [first, *rest] if first in known else ["stages", _stage(settings, first, known, where), *rest]
            parsed = parse(value, where, "correct it, and put all of it in quotes")
            _refuse_secrets(parsed, where, ".".join(path))
            _set(settings, path, parsed)
        except (ValueError, LookupError, TypeError):
            raise UserError("names no setting", where=where, fix="write key=value without spaces, as seed=1") from None
        paths[".".join(path)] = text
    return paths


def _set(place: Any, path: Sequence[str], value: Any) -> None:
    """Set the value at a path below a mapping or a list. Mappings that are missing on the way are made."""
    name, *rest = path
    index: Any = int(name) if isinstance(place, list) and name.isascii() and name.isdecimal() else name
    if not rest:
        place[index] = value
        return
    if isinstance(place, dict) and place.get(index) is None:
        place[index] = {}
    _set(place[index], rest, value)


def _stage(settings: Mapping[str, Any], called: str, keys: set[str], where: str) -> str:
    """Where the stage of that name, else the only stage of that kind, stands in the list or the mapping of stages."""
    stages = settings.get("stages")
    entries = stages.items() if isinstance(stages, Mapping) else enumerate(stages if isinstance(stages, list) else ())
    found = [(str(place), stage) for place, stage in entries if isinstance(stage, Mapping)]
    named = [place for place, stage in found if called in (place, stage.get("name"))]
    matches = named or [place for place, stage in found if stage.get("kind") == called]
    if len(matches) == 1:
        return matches[0]
    names = {str(name) for _, stage in found for name in (stage.get("name"), stage.get("kind")) if name}
    what, fix = f"no key and no stage is called '{called}'", nearest(called, keys | names)
    if matches:
        what, fix = f"{len(matches)} stages are called '{called}'", f"write stages.{' or stages.'.join(matches)}"
    raise UserError(what, where=where, fix=fix)
