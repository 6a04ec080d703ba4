"""The base class of all settings (recipes, stages, suites, sweeps), and the wording of their errors."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from r1_mini.errors import UserError, nearest, shown

T = TypeVar("T")
Several = Annotated[tuple[T, ...], pydantic.Strict(False)]
"""A tuple that may be given as a list, as YAML has it; the items stay strict."""
Families = Annotated[Several[str], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def temperature(value: float) -> float:
    """The temperature itself; an error for one at which logits overflow, or at which nothing is left of the model."""
    if value != 0 and not 0.01 <= value <= 10:
        raise PydanticCustomError("temperature", "Input should be 0 (greedy) or from 0.01 to 10")
    return value


Temperature = Annotated[float, AfterValidator(temperature)]


class Strict(BaseModel):
    """Frozen settings that convert no types. An unknown key is an error that names the nearest known key."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for key in values if isinstance(values, Mapping) else ():
            if key not in known and key not in cls.model_fields:
                raise wrong("unknown key", nearest(str(key), known), str(key))
        return values


def wrong(what: str, fix: str, key: str = "") -> PydanticCustomError:
    """The error that a validator of settings raises. `key` is the wrong key below what is being validated."""
    return PydanticCustomError("settings", "{what}", {"what": what, "fix": fix, "key": key})


def known_name(name: str, known: Iterable[str], key: str = "") -> str:
    """`name` if it is known, else the error of a validator."""
    if name not in (names := list(known)):
        raise wrong(f"'{name}' is not known", nearest(name, names), key)
    return name


def explain(
    error: ValidationError, where: str, overrides: Mapping[str, str] | None = None, stages: Any = None
) -> UserError:
    """What pydantic found wrong, as one line: what, the file or override and the key, the fix.

    `overrides` maps each path that was overridden to the text of the override. `stages` are those of the file: of a
    mapping, the key names the stage where pydantic has its number.
    """
    first = max(error.errors(), key=lambda each: len(each["loc"]))  # the alternative of a union that fits best
    context = first.get("ctx") or {}
    # without the names of alternatives, such as `list[int]`
    location = [str(key) for key in first["loc"] if "[" not in str(key) and key not in ("float", "Late")]
    if first["type"] == "settings":
        what, fix = context["what"], context["fix"]
        location += context["key"].split(".") if context["key"] else []
    elif first["type"] == "missing":
        what, fix = "missing", "add it"
    elif first["type"] == "literal_error":
        choices = re.findall("'([^']*)'", context["expected"])
        what, fix = f"{shown(first['input'])} is not a choice", nearest(str(first["input"]), choices)
    elif "error" in context:  # a ValueError, whose text says what to do
        what, fix = str(context["error"]).rstrip("."), "correct it"
    else:
        message = re.sub(r"^(Input|String|Tuple|List|Dictionary|Value) should", "should", first["msg"])
        message = re.sub("a valid dictionary.*", "keys and values, as {a: 1}", message).replace(" after validation", "")
        message = message.replace("a valid tuple", "a list, as [a, b]").replace("a valid boolean", "true or false")
        what, fix = f"{message}, got {shown(first['input'])}", "change it"
    if isinstance(stages, Mapping) and location[0] == "stages" and location[1:]:
        location[1] = list(stages)[int(location[1])]
    key = ".".join(location)
    for path, text in (overrides or {}).items():
        if key and (f"{key}.".startswith(f"{path}.") or f"{path}.".startswith(f"{key}.")):
            where = f"override {text!r}"
    return UserError(what, where=f"{where}: {key}" if key else where, fix=fix)
