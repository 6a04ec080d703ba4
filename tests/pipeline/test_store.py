"""A finished node is found again, an interrupted one goes on, and nothing that was computed is ever deleted."""

import io
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from r1_mini.pipeline import store as module
from r1_mini.pipeline.store import Store, fingerprint, first_difference, is_intact, read_note

PROCESS = multiprocessing.get_context("fork").Process
WANTED, OTHER = {"kind": "base", "settings": {"steps": 1}}, {"kind": "base", "settings": {"steps": 2}}


class Lines:
    """A console, and the lines that were printed on it."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        self.console = Console(file=self.file, width=1000)

    def __call__(self) -> list[str]:
        return self.file.getvalue().splitlines()


@pytest.fixture
def lines() -> Lines:
    return Lines()


def make(root: Path, run: str, identity: object = WANTED, text: str = "weights", lines: Lines | None = None) -> bool:
    """Whether the node `run`/01-base had to be made; its one file then holds `text`."""
    (root / run).mkdir(parents=True, exist_ok=True)
    with Store(root).open(identity, root / run / "01-base", (lines or Lines()).console) as node:
        if not node.finished:
            (node.work / "sub").mkdir(exist_ok=True)
            (node.work / "sub" / "weights").write_text(text)
            (node.scratch / "checkpoint-1").write_text("half")
    return not node.finished


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_node_is_found_again_and_holds_only_its_result(tmp_path, lines):
    assert make(tmp_path, "a")
    assert not make(tmp_path, "a", text="other", lines=lines)
    assert names(tmp_path / "a") == ["01-base"]
    assert names(tmp_path / "a" / "01-base") == ["node.json", "sub"]
    note = read_note(tmp_path / "a" / "01-base")
    # printf weights | sha256sum
    assert note["files"] == {"sub/weights": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"}
    assert (note["key"], note["identity"]) == (fingerprint(WANTED), WANTED)
    assert lines() == []


@pytest.mark.parametrize("links", [True, False])
def test_another_run_takes_the_node_from_the_run_that_has_it(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    assert make(tmp_path, "a")
    assert not make(tmp_path, "sweep/b")
    mine, theirs = (tmp_path / run / "01-base" / "sub" / "weights" for run in ("sweep/b", "a"))
    assert mine.samefile(theirs) is links
    shutil.rmtree(tmp_path / "a")
    assert not make(tmp_path, "c")
    assert mine.read_text() == "weights"


@pytest.mark.parametrize("run", ["a", "b"])
@pytest.mark.parametrize("damage", ["changed", "missing", "no note"])
def test_a_damaged_node_does_not_count(tmp_path, lines, run, damage):
    make(tmp_path, "a")
    folder = tmp_path / "a" / "01-base"
    if damage == "changed":
        (folder / "sub" / "weights").write_text("Weights")
    elif damage == "missing":
        (folder / "sub" / "weights").unlink()
    else:
        (folder / "node.json").write_text("{")
    assert make(tmp_path, run, lines=lines)
    assert is_intact(tmp_path / run / "01-base", fingerprint(WANTED))
    aside = f"01-base.{fingerprint(WANTED)[:8] if damage != 'no note' else 'unknown'}"
    assert names(tmp_path / "a") == (["01-base", aside] if run == "a" else ["01-base"])
    assert len(lines()) == (run == "a")


def test_a_file_of_the_user_s_in_a_node_is_no_damage(tmp_path):
    make(tmp_path, "a")
    (tmp_path / "a" / "01-base" / "notes.txt").write_text("my favorite")
    assert not make(tmp_path, "a")


def test_a_changed_setting_makes_a_new_node_and_keeps_the_old_one(tmp_path, lines):
    make(tmp_path, "a")
    assert make(tmp_path, "a", OTHER, "others", lines)
    aside = f"01-base.{fingerprint(WANTED)[:8]}"
    assert lines() == [f"01-base: moved to {aside}, because settings.steps is 1 there and 2 now"]
    assert (tmp_path / "a" / aside / "sub" / "weights").read_text() == "weights"
    assert not make(tmp_path, "a", WANTED)
    assert (tmp_path / "a" / "01-base" / "sub" / "weights").read_text() == "weights"
    assert not make(tmp_path, "b", OTHER)


def interrupted(root: Path, identity: object) -> None:
    """A node that comes as far as its first file."""
    with pytest.raises(KeyboardInterrupt), Store(root).open(identity, root / "01-base", Lines().console) as node:
        (node.scratch / "checkpoint-1").write_text(str(identity))
        raise KeyboardInterrupt


def test_interrupted_work_is_kept_for_its_settings_while_others_are_tried(tmp_path, lines):
    interrupted(tmp_path, WANTED)
    interrupted(tmp_path, OTHER)
    assert names(tmp_path) == [".index", ".work-01-base", f".work-01-base.{fingerprint(WANTED)[:8]}"]
    with Store(tmp_path).open(WANTED, tmp_path / "01-base", lines.console) as node:
        assert (node.scratch / "checkpoint-1").read_text() == str(WANTED)
    assert lines() == [
        f".work-01-base: moved to .work-01-base.{fingerprint(OTHER)[:8]}, because settings.steps is 2 there and 1 now"
    ]


def slowly(root: Path, run: str) -> None:
    """A node that takes 60 seconds, or one if it was begun before."""
    (root / run).mkdir(exist_ok=True)
    screen = (root / f"{run}.txt").open("w", buffering=1)
    with Store(root).open(WANTED, root / run / "01-base", Console(file=screen, width=200)) as node:
        if not node.finished:
            begun = (node.scratch / "begun").exists()
            (node.scratch / "begun").touch()
            with (root / "started").open("a") as started:
                started.write(f"{run} {begun}\n")
            time.sleep(1 if begun else 60)
            (node.work / "weights").write_text(run)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("killed", [True, False])
def test_of_two_processes_that_want_a_node_one_works_and_the_other_waits(tmp_path, monkeypatch, killed):
    """It waits in short pieces: after one of half an hour gloo would end the processes that wait for the main one."""

    def timed(work):
        begun, result = time.monotonic(), work()
        if time.monotonic() - begun > 0.4:
            (tmp_path / "too long").touch()
        return result

    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(module.processes, "on_main", timed)
    (tmp_path / "a" / ".work-01-base" / ".resume").mkdir(parents=True)
    if not killed:  # the first one needs a second
        interrupted_like(tmp_path)
    first, second = (PROCESS(target=slowly, args=(tmp_path, run)) for run in ("a", "b"))
    first.start()
    wait_for(tmp_path / "started")
    second.start()
    if killed:
        time.sleep(0.5)
        assert (tmp_path / "started").read_text().count("\n") == 1
        assert (tmp_path / "b.txt").read_text() == "01-base: waiting for another run, which works on the same stage\n"
        first.kill()
        wait_for(tmp_path / "b" / ".work-01-base" / ".resume" / "begun")
        second.kill()
    for process in (first, second):
        process.join()
    assert (tmp_path / "started").read_text() == ("a False\nb False\n" if killed else "a True\n")
    assert killed or (tmp_path / "b" / "01-base" / "weights").read_text() == "a"
    assert not (tmp_path / "too long").exists()


def interrupted_like(root: Path) -> None:
    """The work of a process that was killed after it had begun the node of run a."""
    with pytest.raises(ValueError), Store(root).open(WANTED, root / "a" / "01-base", Console(quiet=True)) as node:
        (node.scratch / "begun").touch()
        raise ValueError


@pytest.mark.parametrize("finished", [True, False])
def test_other_code_and_other_versions_are_said_in_one_line_and_the_node_is_used(
    tmp_path, lines, monkeypatch, finished
):
    if finished:
        make(tmp_path, "a")
    else:
        (tmp_path / "a").mkdir()
        interrupted_like(tmp_path)
    now = module.made_with()
    monkeypatch.setattr(module, "made_with", lambda: {**now, "program": "edited", "torch": "9.9"})
    store = Store(tmp_path)
    for _ in range(2):
        with store.open(WANTED, tmp_path / "a" / "01-base", lines.console) as node:
            assert node.finished or finished or (node.scratch / "begun").exists()
            assert node.finished or not finished
    name = "01-base" if finished else ".work-01-base"
    assert lines() == [f"{name}: was made with other code, torch {now['torch']} (now 9.9); it is used as it is"]


def test_a_node_of_another_number_of_processes_counts_in_its_own_run_only(tmp_path, monkeypatch):
    make(tmp_path, "a")
    now = module.made_with()
    monkeypatch.setattr(module, "made_with", lambda: {**now, "processes": 2})
    assert not make(tmp_path, "a")
    assert make(tmp_path, "b")


def test_a_run_folder_that_is_copied_elsewhere_is_complete(tmp_path):
    make(tmp_path / "runs", "a")
    make(tmp_path / "runs", "b")
    shutil.copytree(tmp_path / "runs" / "b", tmp_path / "elsewhere" / "b")
    shutil.rmtree(tmp_path / "runs")
    assert not make(tmp_path / "elsewhere", "b")


def test_a_fingerprint_tells_settings_apart_and_ignores_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": (1, 2), "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    # printf '{"a":1}' | sha256sum
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, None),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, ("a.1.b", "2", "3")),
        ({"a": [1]}, {"a": [1, 2]}, ("a", "[1]", "[1, 2]")),
        ({"a": 1}, {"a": 1, "c": 2}, ("c", "not set", "2")),
        ({"a": 1, "c": 2}, {"a": 1}, ("c", "2", "not set")),
    ],
)
def test_the_first_difference_is_named_by_its_dotted_key(old, new, difference):
    assert first_difference(old, new) == difference


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        *(
            (name, True)
            for name in ("model.safetensors", "model.safetensors.index.json", "config.json", "spiece.model")
        ),
        *((name, True) for name in ("chat_template.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt")),
        *((name, True) for name in ("chat_template.jinja", "additional_chat_templates/tool_use.jinja")),
        *((name, False) for name in ("node.json", "trainer.json", "metrics.jsonl", "adapter/adapter_config.json")),
    ],
)
def test_the_hash_of_a_checkpoint_is_that_of_every_file_that_a_model_is_loaded_from(tmp_path, file, counts):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("a")
    before = module.checkpoint_hash(tmp_path)
    (tmp_path / file).write_text("b")
    assert (module.checkpoint_hash(tmp_path) != before) is counts


def test_the_metrics_of_several_stages_of_a_kind_go_on_counting(tmp_path):
    stages = {"base": ("base", (10, 20)), "rl1": ("grpo", (1, 2)), "rl2": ("grpo", (1, 2, 3))}
    manifest = {"stages": {name: {"kind": kind} for name, (kind, _) in stages.items()}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for name, (_, steps) in stages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in steps))
    found = module.stage_metrics(tmp_path)
    assert {kind: [each["step"] for each in records] for kind, records in found.items()} == {
        "base": [10, 20],
        "grpo": [1, 2, 3, 4, 5],
    }
