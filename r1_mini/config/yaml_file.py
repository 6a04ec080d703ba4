"""YAML as a recipe means it: the 1.2 core schema, no duplicate keys, `key=value` overrides.

PyYAML reads YAML 1.1, where `1e-3` is a string, `no` is false, `010` is eight and `1:30` is ninety.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from r1_mini.errors import UserError, nearest


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            if key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{getattr(key_node, 'value', '?')}' is not text", key_node.start_mark
                )
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key_node.value}' is there twice", key_node.start_mark
                )
            seen.add(key_node.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


class _Dumper(yaml.SafeDumper):  # keeps the 1.1 schema too, so that what either schema would misread is quoted
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text in quotes that keep what YAML 1.1 takes for a line break and would read back as a space."""
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if set(text) & set("\x85\u2028\u2029") else None
    )


_Dumper.add_representer(str, _represent_text)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value
    if len(text) > 100:  # Python refuses to read more than 4300 digits, with a traceback
        raise yaml.constructor.ConstructorError(None, None, "a number of more than 100 digits", node.start_mark)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse(text: str, where: str) -> Any:
    """The value that `text` holds; UserError with line and column if it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain data only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}: line {mark.line + 1}, column {mark.column + 1}" if mark else where
        raise UserError(
            f"not valid YAML: {error.problem or error.context}", where=place, fix="correct that line"
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"not valid YAML: {error}", where=where, fix="correct the file") from None
    except RecursionError:
        raise UserError("not valid YAML: nested too deeply", where=where, fix="flatten it") from None


def dump(value: Any) -> str:
    """YAML text that `parse` reads back as an equal value."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; UserError if there is no such file or it holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            "no such file", where=str(path), fix="give the path of a recipe, such as recipes/tiny/r1_zero.yaml"
        ) from None
    except IsADirectoryError:
        raise UserError(
            "this is a folder, not a file",
            where=str(path),
            fix="give the path of a recipe, such as recipes/tiny/r1_zero.yaml",
        ) from None
    except UnicodeDecodeError:
        raise UserError("not UTF-8 text", where=str(path), fix="save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            where=str(path),
            fix="check the path and its permissions",
        ) from None
    value = parse(text, str(path))
    if not isinstance(value, dict):
        held = "nothing" if value is None else f"a {type(value).__name__}"
        raise UserError(f"holds {held}, not keys and values", where=str(path), fix="start it with `name: …`")
    return value


def apply_override(settings: dict[str, Any], text: str, top_level: Mapping[str, Any]) -> str:
    """Set one `key=value` in `settings`; the dotted path that was set, with stage kinds resolved to indices.

    A path names keys and list indices, `stages.1.trainer.max_steps=5`, or starts with the kind of a stage,
    `grpo.trainer.max_steps=5`. `top_level`: the keys that a recipe may have.
    """
    where = f"override {text!r}"
    key, equals, value_text = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError(
            "not of the form key=value", where=where, fix="write for example seed=1 or grpo.trainer.max_steps=5"
        )
    value = parse(value_text, where)
    stages = settings.get("stages")
    if parts[0] not in top_level and isinstance(stages, list):
        kinds = [stage.get("kind") if isinstance(stage, dict) else None for stage in stages]
        if kinds.count(parts[0]) > 1:
            raise UserError(
                f"the recipe has {kinds.count(parts[0])} {parts[0]} stages",
                where=where,
                fix="write stages.0, stages.1, … instead",
            )
        if parts[0] in kinds:
            parts = ["stages", str(kinds.index(parts[0])), *parts[1:]]
        elif len(parts) > 1:
            fix = nearest(parts[0], [*top_level, *(str(kind) for kind in kinds)])
            raise UserError(f"the recipe has no key and no stage '{parts[0]}'", where=where, fix=fix)
    place: Any = settings
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                raise UserError(
                    f"{'.'.join(parts[:depth])} has no item '{part}'",
                    where=where,
                    fix=f"choose 0 to {len(place) - 1}" if place else "give the whole list",
                )
            if last:
                place[int(part)] = value
            else:
                place = place[int(part)]
        elif isinstance(place, dict):
            if last:
                place[part] = value
            else:
                if place.get(part) is None:
                    place[part] = {}
                place = place[part]
        else:
            raise UserError(
                f"{'.'.join(parts[:depth])} is a single value and has no '{part}'", where=where, fix="shorten the path"
            )
    return ".".join(parts)
