"""A finished node is found again, an interrupted one goes on, and nothing that was computed is ever deleted."""

import io
import json
import multiprocessing
import os
import shutil
import time

import pytest
from rich.console import Console

from r1_mini.errors import UserError
from r1_mini.pipeline import store as module
from r1_mini.pipeline.store import Store, fingerprint, first_difference, is_intact, read_note

PROCESS = multiprocessing.get_context("fork").Process
QUIET = Console(quiet=True)
WANTED, OTHER = {"kind": "base", "settings": {"steps": 1}}, {"kind": "base", "settings": {"steps": 2}}


class Lines(Console):
    """A console, and the lines that were printed on it."""

    def __init__(self):
        super().__init__(file=io.StringIO(), width=1000)

    def __call__(self):
        return self.file.getvalue().splitlines()


@pytest.fixture
def lines():
    return Lines()


def make(root, run, identity=WANTED, text="weights", lines=QUIET, interrupted=False):
    """Whether the node `run`/01-base had to be made; its one file then holds `text`."""
    (root / run).mkdir(parents=True, exist_ok=True)
    with Store(root).open(identity, root / run / "01-base", lines) as node:
        if interrupted:
            (node.scratch / "begun").write_text(str(identity))
            raise KeyboardInterrupt
        if not node.finished:
            (node.work / "sub").mkdir(exist_ok=True)
            (node.work / "sub" / "weights").write_text(text)
            (node.scratch / "checkpoint-1").write_text("half")
    return not node.finished


def interrupt(root, run, identity=WANTED):
    """A node that comes as far as its first file."""
    with pytest.raises(KeyboardInterrupt):
        make(root, run, identity, interrupted=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_node_is_found_again_and_holds_only_its_result(tmp_path, lines):
    assert make(tmp_path, "a")
    assert not make(tmp_path, "a", text="other", lines=lines)
    assert names(tmp_path / "a") == ["01-base"]
    assert names(tmp_path / "a" / "01-base") == ["node.json", "sub"]
    (tmp_path / "a" / "01-base" / "notes.txt").write_text("a file of the user's is no damage")
    assert not make(tmp_path, "a")
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
    shutil.copytree(tmp_path / "sweep", tmp_path / "elsewhere")
    assert not make(tmp_path / "elsewhere", "b")  # copied alone, complete
    shutil.rmtree(tmp_path / "a")
    assert not make(tmp_path, "c")
    assert mine.read_text() == "weights"
    (tmp_path / ".index" / fingerprint(WANTED)).write_bytes(b"\xff\0")
    assert make(tmp_path, "d")


@pytest.mark.parametrize("run", ["a", "b"])
@pytest.mark.parametrize(
    "damage", ["changed", "missing", "{", '{"key": 1}', '{"key": "a", "identity": {}, "made_with": 3}']
)
def test_a_damaged_node_does_not_count(tmp_path, lines, run, damage):
    make(tmp_path, "a")
    folder = tmp_path / "a" / "01-base"
    file = folder / ("node.json" if "{" in damage else "sub/weights")
    file.unlink() if damage == "missing" else file.write_text(damage)
    assert make(tmp_path, run, lines=lines)
    assert is_intact(tmp_path / run / "01-base", fingerprint(WANTED))
    aside = f"01-base.{'unknown' if '{' in damage else fingerprint(WANTED)[:8]}"
    assert names(tmp_path / "a") == (["01-base", aside] if run == "a" else ["01-base"])
    assert len(lines()) == (run == "a")


def test_a_changed_setting_makes_a_new_node_and_keeps_the_old_one(tmp_path, lines):
    make(tmp_path, "a")
    assert make(tmp_path, "a", OTHER, "others", lines)
    aside = f"01-base.{fingerprint(WANTED)[:8]}"
    assert lines() == [f"01-base: moved to {aside}, because settings.steps is 1 there and 2 now"]
    assert (tmp_path / "a" / aside / "sub" / "weights").read_text() == "weights"
    assert not make(tmp_path, "a", WANTED)
    assert (tmp_path / "a" / "01-base" / "sub" / "weights").read_text() == "weights"
    assert not make(tmp_path, "b", OTHER)


def test_interrupted_work_is_kept_for_its_settings_while_others_are_tried(tmp_path, lines):
    (tmp_path / "a" / ".work-01-base" / ".resume").mkdir(parents=True)  # killed before it wrote anything
    interrupt(tmp_path, "a")
    interrupt(tmp_path, "a", OTHER)
    assert names(tmp_path / "a") == [".work-01-base", f".work-01-base.{fingerprint(WANTED)[:8]}"]
    with Store(tmp_path).open(WANTED, tmp_path / "a" / "01-base", lines) as node:
        assert (node.scratch / "begun").read_text() == str(WANTED)
    assert lines() == [
        f".work-01-base: moved to .work-01-base.{fingerprint(OTHER)[:8]}, because settings.steps is 2 there and 1 now"
    ]


def slowly(root, run):
    """A node that takes 60 seconds, or one if it was begun before."""
    (root / run).mkdir(exist_ok=True)
    screen = (root / f"{run}.txt").open("w", buffering=1)
    with Store(root).open(WANTED, root / run / "01-base", Console(file=screen, width=200)) as node:
        if not node.finished:
            begun = (node.scratch / "begun").exists()
            with (root / "started").open("a") as started:
                started.write(f"{run} {begun}\n")
            (node.scratch / "begun").touch()
            time.sleep(1 if begun else 60)
            (node.work / "weights").write_text(run)


def wait_for(is_time):
    deadline = time.monotonic() + 60
    while not is_time():
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
    if not killed:  # the first one needs a second
        interrupt(tmp_path, "a")
    first, second = (PROCESS(target=slowly, args=(tmp_path, run)) for run in ("a", "b"))
    first.start()
    wait_for((tmp_path / "a" / ".work-01-base" / ".resume" / "begun").exists)
    wait_for((tmp_path / "started").exists)
    second.start()
    if killed:
        wait_for(lambda: (tmp_path / "b.txt").exists() and (tmp_path / "b.txt").read_text())
        assert (tmp_path / "started").read_text().count("\n") == 1
        assert (tmp_path / "b.txt").read_text() == "01-base: waiting for another run, which works on the same stage\n"
        first.kill()
        wait_for((tmp_path / "b" / ".work-01-base" / ".resume" / "begun").exists)
        second.kill()
    for process in (first, second):
        process.join()
    assert (tmp_path / "started").read_text() == ("a False\nb False\n" if killed else "a True\n")
    assert killed or (tmp_path / "b" / "01-base" / "weights").read_text() == "a"
    assert not (tmp_path / "too long").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_other_code_and_other_versions_are_said_once_and_the_node_is_used(tmp_path, lines, monkeypatch, finished):
    (make if finished else interrupt)(tmp_path, "a")
    now = module.made_with()
    monkeypatch.setattr(module, "made_with", lambda: {**now, "program": "edited", "torch": "9.9"})
    store = Store(tmp_path)
    for first in (True, False):
        with store.open(WANTED, tmp_path / "a" / "01-base", lines) as node:
            assert node.finished or not finished
            assert node.finished or not first or (node.scratch / "begun").exists()
    name = "01-base" if finished else ".work-01-base"
    assert lines() == [f"{name}: was made with other code, torch {now['torch']} (now 9.9); it is used as it is"]


def test_a_node_of_another_number_of_processes_counts_in_its_own_run_only(tmp_path, monkeypatch):
    make(tmp_path, "a")
    now = module.made_with()
    monkeypatch.setattr(module, "made_with", lambda: {**now, "processes": 2})
    assert not make(tmp_path, "a")
    assert make(tmp_path, "b")


def test_a_fingerprint_tells_settings_apart_and_ignores_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": (1, 2), "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}, None),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, ("a.1.b", "2", "3")),
        ({"a": [1]}, {"a": [1, 2]}, ("a", "[1]", "[1, 2]")),
        *(({}, {"c": 2}, ("c", "not set", "2")), ({"c": 2}, {}, ("c", "2", "not set"))),
    ],
)
def test_the_first_difference_is_named_by_its_dotted_key(old, new, difference):
    assert first_difference(old, new) == difference


LOADED = "model.safetensors model.safetensors.index.json config.json spiece.model chat_template.json vocab.txt "
LOADED += "special_tokens_map.json added_tokens.json chat_template.jinja additional_chat_templates/tool_use.jinja"


def test_the_hash_of_a_checkpoint_is_that_of_every_file_that_a_model_is_loaded_from(tmp_path):
    for file in (*LOADED.split(), "node.json", "trainer.json", "metrics.jsonl", "adapter/adapter_config.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("a")
        before = module.checkpoint_hash(tmp_path)
        (tmp_path / file).write_text("b")
        assert (module.checkpoint_hash(tmp_path) != before) is (file in LOADED), file


def test_the_metrics_of_a_stage_that_goes_on_with_one_of_its_kind_go_on_counting(tmp_path):
    stages = {"base": ("base", None, (10, 20)), "rl1": ("grpo", "base", (1, 2)), "rl2": ("grpo", "rl1", (1, 2, 3))}
    stages |= {"other": ("sft", "base", (1,))}

    def metrics():
        record = {name: {"kind": kind, "from": start, "sha256": {}} for name, (kind, start, _) in stages.items()}
        (tmp_path / "manifest.json").write_text(json.dumps({"stages": record}))
        return {name: [each["step"] for each in rows] for name, rows in module.stage_metrics(tmp_path).items()}

    for name, (_, _, steps) in stages.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in steps))
    assert metrics() == {"base": [10, 20], "grpo": [1, 2, 3, 4, 5], "sft": [1]}
    stages["other"] = ("grpo", "base", (1,))  # two of a kind, in two branches
    assert metrics() == {"base": [10, 20], "rl2": [1, 2, 3, 4, 5], "other": [1]}
    (tmp_path / "manifest.json").write_text('{"stages": {"base": {"kind": "base"}}}')
    with pytest.raises(UserError, match=r"manifest.json: is damaged .*; run the recipe again"):
        module.stage_metrics(tmp_path)
