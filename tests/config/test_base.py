"""Settings are strict, and what is wrong with them is one line with the key and the fix."""

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import Field, ValidationError

from r1_mini.config.base import Several, Strict, explain


class Inner(Strict):
    size: int = 1


class Outer(Strict):
    start: str | None = Field(None, alias="from")
    inner: Inner = Inner()
    items: Several[Inner] = ()


def line(values: Any, overrides: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    return str(explain(caught.value, "file.yaml", overrides))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"form": "x"}, "file.yaml: form: unknown key; did you mean 'from'?"),
        ({"inner": {"sise": 1}}, "file.yaml: inner.sise: unknown key; did you mean 'size'?"),
        ({"items": [{}, {"size": "2"}]}, 'file.yaml: items.1.size: should be a valid integer, got "2"; change it'),
        ({"items": [{}, {"size": True}]}, "file.yaml: items.1.size: should be a valid integer, got true; change it"),
        ({"inner": 7}, "file.yaml: inner: should be keys and values, got 7; change it"),
        ({"items": 7}, "file.yaml: items: should be a list, got 7; change it"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_key_and_the_fix(values: Any, expected: str) -> None:
    assert line(values) == expected


def test_an_override_that_is_wrong_is_named_instead_of_the_file() -> None:
    assert line({"inner": {"size": "a"}}, {"inner.size": "inner.size=a"}).startswith("override 'inner.size=a': inner")
    assert line({"inner": {"size": "a"}}, {"items": "items=[]"}).startswith("file.yaml: inner.size")


def test_a_field_with_an_alias_is_given_and_dumped_under_the_alias() -> None:
    assert Outer.model_validate({"from": "a"}) == Outer.model_validate({"start": "a"})
    assert Outer.model_validate({"from": "a"}).model_dump(exclude_defaults=True) == {"from": "a"}
