"""YAML 1.2 files (`1e-3` is a number, `no` is text, a key that comes twice is an error), and `key=value` overrides."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from r1_mini.errors import UserError, nearest


def parse(text: str, where: str) -> Any:
    """The value of a YAML text; UserError with line and column if it is not YAML."""
    try:
        return YAML(typ="safe", pure=True).load(text)  # builds plain data only
    except (YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}: line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"not valid YAML: {problem}", where=place, fix="correct it") from None


def dump(value: Any) -> str:
    """YAML text that `parse` reads back as an equal value."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 120, False
    yaml.representer.ignore_aliases = lambda data: True
    text = io.StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; UserError if it cannot be read or holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot be read: {reason}", where=str(path), fix="name a YAML file in UTF-8") from None
    value = parse(text, str(path))
    if not isinstance(value, dict):
        raise UserError("holds no keys and values", where=str(path), fix="start it with `name: …`")
    return value


def apply_overrides(settings: dict[str, Any], overrides: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """Set each `key=value` in `settings`, in order; returns the path that each one set -> its text.

    A path starts with one of `keys`, the top-level keys that `settings` may have, or with the name or the kind of a
    stage: `seed=1`, `stages.1.trainer.max_steps=5`, `grpo.trainer.max_steps=5`.
    """
    return {_apply(settings, text, list(keys)): text for text in overrides}


def _apply(settings: dict[str, Any], text: str, keys: Sequence[str]) -> str:
    where = f"override {text!r}"
    key, equals, value = text.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise UserError("not of the form key=value", where=where, fix="write for example seed=1")
    if path[0] not in keys:
        path = [*_stage_path(settings.get("stages"), path[0], keys, where), *path[1:]]
    place: Any = settings
    for depth, name in enumerate(path):
        index: Any = name
        if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
            index = int(name)
        elif not isinstance(place, dict):
            what = f"{'.'.join(path[:depth])} has no '{name}'"
            raise UserError(what, where=where, fix="shorten the path, or choose an index of the list")
        if depth == len(path) - 1:
            place[index] = parse(value, where)
        elif isinstance(place, dict) and place.get(index) is None:
            place[index] = {}
        place = place[index]
    return ".".join(path)


def _stage_path(stages: Any, called: str, keys: Sequence[str], where: str) -> tuple[str, str]:
    """Where the stage of that name, else the only stage of that kind, stands in a list or a mapping of stages."""
    entries = stages.items() if isinstance(stages, Mapping) else enumerate(stages if isinstance(stages, list) else ())
    found = [(str(place), stage) for place, stage in entries if isinstance(stage, Mapping)]
    named = [place for place, stage in found if called in (place, stage.get("name"))]
    matches = named or [place for place, stage in found if stage.get("kind") == called]
    if len(matches) == 1:
        return "stages", matches[0]
    if matches:
        fix = f"write {' or '.join(f'stages.{place}' for place in matches)} instead"
        raise UserError(f"there are {len(matches)} {called} stages", where=where, fix=fix)
    names = {str(name) for place, stage in found for name in (stage.get("name"), stage.get("kind")) if name}
    what = f"no key {'and no stage ' if names else ''}is called '{called}'"
    raise UserError(what, where=where, fix=nearest(called, {*keys, *names}))
