"""What all settings are: frozen and strict, with errors that name the key and the fix."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from r1_mini.errors import nearest

Families = Annotated[tuple[str, ...], Strict(False), Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def wrong(what: str, fix: str, key: str = "") -> PydanticCustomError:
    """An error of ours inside pydantic's; `key` is the wrong key below the one that is being validated."""
    return PydanticCustomError("recipe", "{what}", {"what": what, "fix": fix, "key": key})


class Settings(BaseModel):
    """Frozen and strict; an unknown key is an error that names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        for key in values if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                raise wrong("unknown key", nearest(str(key), cls.model_fields), str(key))
        return values
