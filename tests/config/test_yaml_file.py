"""YAML means what its 1.2 standard says, and an override sets the value that its path names."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_mini.config.yaml_file import apply_overrides, dump, parse, read_mapping
from r1_mini.errors import UserError


def test_words_and_numbers_that_yaml_1_1_misreads_mean_what_they_say() -> None:
    text = "{a: no, b: on, c: 010, d: 1:30, e: 1e-3, g: 1E5, h: .5, i: 0x1F, j: true, k: ~, l: -3, m: 0o10}"
    assert parse(text, "here") == {
        "a": "no", "b": "on", "c": 10, "d": "1:30", "e": 0.001, "g": 100000.0, "h": 0.5, "i": 31, "j": True, "k": None,
        "l": -3, "m": 8,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [a", "here: line 1, column 9: not valid YAML: expected ',' or ']', but got '<stream end>'; correct it"),
        ("name: a\nname: b", 'here: line 2, column 1: not valid YAML: found duplicate key "name" with value "b"'),
        ("a: !!python/object:os.system {}", "here: line 1, column 4: not valid YAML: could not determine a constr"),
        ("[" * 5000, "here: not valid YAML: maximum recursion depth exceeded"),
        ("seed: " + "1" * 5000, "here: not valid YAML: Exceeds the limit"),
    ],
)
def test_text_that_is_no_yaml_gets_one_line(text: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, "here")
    assert str(caught.value).startswith(line)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@,0189.eE+~ \n\t?", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        parse(text, "here")
    except UserError as error:
        assert "\n" not in str(error)


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.just("\n"))
NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN)
def test_whatever_is_dumped_is_read_back_alike(value: object) -> None:
    read = parse(dump(value), "here")
    assert (type(read), read) == (type(value), value)


def test_a_file_that_cannot_be_read_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("name: Bärbel".encode("latin-1"))
    (tmp_path / "list").write_text("- 1")
    faults = {"no.yaml": "cannot be read: No such file", ".": "cannot be read: Is a dir"}
    faults |= {"latin": "cannot be read: 'utf-8'", "list": "holds no keys and values"}
    for name, line in faults.items():
        with pytest.raises(UserError, match=f": {line}.*; name a YAML file in UTF-8 with keys and values"):
            read_mapping(tmp_path / name)


def recipe(as_mapping: bool = False) -> dict[str, Any]:
    stages = [{"kind": "base"}, {"kind": "grpo", "name": "short", "dev": None}, {"kind": "grpo", "name": "long"}]
    return {"seed": 0, "stages": {s.get("name", "base"): s for s in stages} if as_mapping else stages}


def test_an_override_names_a_place_by_key_by_index_or_by_the_name_or_kind_of_a_stage_and_the_later_one_wins() -> None:
    for path, as_mapping, place in (
        ("stages.1.trainer.max_steps", False, ("stages", 1, "trainer", "max_steps")),
        ("short.trainer.max_steps", False, ("stages", 1, "trainer", "max_steps")),
        ("short.dev.every", False, ("stages", 1, "dev", "every")),
        ("base.seed", False, ("stages", 0, "seed")),
        ("long.trainer.max_steps", True, ("stages", "long", "trainer", "max_steps")),
        ("base.seed", True, ("stages", "base", "seed")),
        ("name", False, ("name",)),
    ):
        values: Any = recipe(as_mapping)
        set_paths = apply_overrides(values, [f"{path}=4", f"{path}=5"], ["seed", "stages", "name"])
        assert set_paths == {".".join(map(str, place)): f"{path}=5"}
        for key in place:
            values = values[key]
        assert values == 5, path


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed", "names no setting; write key=value without spaces, as seed=1"),
        ("stages.3.kind=grpo", "names no setting; "),
        ("stages.base.kind=grpo", "names no setting; "),
        ("seed.x=1", "names no setting; "),
        ("lung.seed=1", "no key and no stage is called 'lung'; did you mean 'long'?"),
        ("grpo.seed=1", "2 stages are called 'grpo'; write stages.1 or stages.2"),
    ],
)
def test_an_override_that_names_no_place_gets_one_line(override: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        apply_overrides(recipe(), [override], ["seed", "stages"])
    assert str(caught.value).startswith(f"override {override!r}: {line}")
