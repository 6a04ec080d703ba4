"""The run folder survives kills, refuses strangers, and finds finished work again."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_mini.errors import UserError, disk_error
from r1_mini.pipeline.recipe import Recipe, load
from r1_mini.pipeline.store import Inputs, RunFolder, find_checkpoint, stage_metrics
from r1_mini.system.files import (
    Metrics,
    clear_leftovers,
    folder_atomic,
    read_jsonl,
    sha256,
    sha256_of_files,
    write_json_atomic,
    write_text_atomic,
)


@pytest.fixture
def recipe(recipe_file: Callable[..., Path]) -> Recipe:
    return load(recipe_file())


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


INPUTS, OTHERS = Inputs("settings", "exact"), Inputs("other settings", "other exact")


def finish(run: RunFolder, name: str, inputs: Inputs, weights: str = "weights") -> Path:
    """What a stage does: fill the work folder, then take its place."""
    checkpoint = run.begin_stage(name, inputs)[0] / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_text(weights, encoding="utf-8")
    return run.finish_stage(name, inputs, checkpoint, seconds=1.5)


def test_a_new_run_folder_holds_the_resolved_recipe_and_a_manifest(tmp_path: Path, recipe: Recipe) -> None:
    with RunFolder(tmp_path / "deep" / "run", recipe) as run:
        assert names(run.path) == [".lock", "manifest.json", "recipe.yaml"]
        assert load(run.path / "recipe.yaml") == recipe
        manifest = run.manifest
    assert manifest["seed"] == 0
    assert manifest["versions"]["torch"].startswith("2.")
    assert manifest["machine"]["cores"] >= 1
    assert manifest["machine"]["memory_gib"] > 0
    assert manifest["machine"]["cpu"]


def test_a_folder_opens_again_for_its_own_recipe_and_keeps_its_start(tmp_path: Path, recipe: Recipe) -> None:
    with RunFolder(tmp_path / "run", recipe) as run:
        run.update_manifest(started="then")
    with RunFolder(tmp_path / "run", recipe) as run:
        assert run.manifest["started"] == "then"


def test_a_folder_of_another_recipe_is_refused_with_the_key_that_differs(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "run"
    with RunFolder(out, recipe):
        pass
    before = (out / "recipe.yaml").read_bytes(), (out / "manifest.json").read_bytes()
    other = recipe.model_copy(update={"seed": 5})
    with pytest.raises(UserError) as caught, RunFolder(out, other):
        pass
    assert str(caught.value) == (
        f"{out}: belongs to another recipe: seed is 0 there and 5 now; choose another folder with --out, or delete this one"
    )
    assert before == ((out / "recipe.yaml").read_bytes(), (out / "manifest.json").read_bytes())


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, recipe: Recipe) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"not a run folder, and not empty \(it holds thesis.tex\); choose another"):
        RunFolder(folder, recipe).__enter__()
    with pytest.raises(UserError, match="a file is where this folder or one above it should be; choose another folder"):
        RunFolder(folder / "thesis.tex", recipe).__enter__()
    with pytest.raises(UserError, match="a file is where this folder or one above it should be"):
        RunFolder(folder / "thesis.tex" / "run", recipe).__enter__()
    assert names(folder) == ["thesis.tex"]
    with pytest.raises(UserError, match="cannot be made: File name too long; choose another folder with --out"):
        RunFolder(tmp_path / ("x" * 300), recipe).__enter__()


def test_two_processes_cannot_hold_one_folder(tmp_path: Path, recipe: Recipe) -> None:
    with RunFolder(tmp_path / "run", recipe):
        with pytest.raises(UserError) as caught:
            RunFolder(tmp_path / "run", recipe).__enter__()
        assert f"process {os.getpid()} is running in this folder; wait for it, or choose another" in str(caught.value)
    with RunFolder(tmp_path / "run", recipe):
        pass


def _hold_and_wait(path: Path, recipe: Recipe) -> None:
    with RunFolder(path, recipe), folder_atomic(path / "01-base") as aside:
        (aside / "half").touch()
        (path / "ready").touch()
        time.sleep(60)


def test_a_killed_process_leaves_no_lock_and_no_half_of_a_folder(tmp_path: Path, recipe: Recipe) -> None:
    path = tmp_path / "run"
    process = multiprocessing.get_context("fork").Process(target=_hold_and_wait, args=(path, recipe))
    process.start()
    while not (path / "ready").exists():
        assert process.is_alive()
        time.sleep(0.01)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert ".aside-01-base" in names(path)
    with RunFolder(path, recipe):
        assert names(path) == [".lock", "manifest.json", "ready", "recipe.yaml"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_text_atomic(path, "old\n")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_text_atomic(path, "new\n")
    assert path.read_text(encoding="utf-8") == "old\n"
    assert names(tmp_path) == ["file"]


def test_json_has_null_where_a_number_is_not_finite(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": ("x",)})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": None, "b": [None, 1.5], "c": ["x"]}


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    with folder_atomic(tmp_path / "new") as aside:
        (aside / "a").write_text("1", encoding="utf-8")
        assert not (tmp_path / "new").exists()
    assert names(tmp_path) == ["new"]
    with pytest.raises(KeyboardInterrupt), folder_atomic(tmp_path / "new") as aside:
        (aside / "a").write_text("2", encoding="utf-8")
        raise KeyboardInterrupt
    assert (tmp_path / "new" / "a").read_text(encoding="utf-8") == "1"
    with folder_atomic(tmp_path / "new") as aside:
        (aside / "b").touch()
    assert names(tmp_path / "new") == ["b"]
    assert names(tmp_path) == ["new"]


def test_a_folder_moved_aside_by_a_killed_process_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".aside-old-01-base").mkdir()
    (tmp_path / ".aside-01-base").mkdir()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["01-base"]
    (tmp_path / ".aside-old-01-base").mkdir()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == ["01-base"]


def test_metrics_continue_after_the_step_that_a_run_resumes_from(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path) as metrics:
        for step in (1, 2, 3, 4):
            metrics.append({"step": step, "loss": float("nan") if step == 1 else 0.5})
    with Metrics(path, keep_through=2) as metrics:
        metrics.append({"step": 3, "loss": 0.25})
    assert read_jsonl(path) == [{"step": 1, "loss": None}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    with Metrics(path):
        assert read_jsonl(path) == []


def test_a_metrics_line_that_a_kill_cut_in_half_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    with Metrics(path, keep_through=3) as metrics:
        metrics.append({"step": 3})
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'


@given(st.integers(0, 35))
def test_metrics_cut_anywhere_resume_with_whole_lines(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'[:cut])
        with Metrics(path, keep_through=cut // 12) as metrics:
            metrics.append({"step": cut // 12 + 1})
        assert [record["step"] for record in read_jsonl(path)] == list(range(1, cut // 12 + 2))


def test_hashes_are_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"")
    (tmp_path / "stage.json").write_bytes(b"{}")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256(tmp_path / "a") == abc
    assert sha256_of_files(tmp_path) == {"a": abc, "sub/b": empty}


def test_a_finished_stage_is_found_by_what_went_into_it(tmp_path: Path, recipe: Recipe) -> None:
    with RunFolder(tmp_path / "run", recipe) as run:
        assert run.stage_done(INPUTS) is None
        folder = finish(run, "01-base", INPUTS)
        assert run.stage_done(INPUTS) == folder
        assert run.stage_done(OTHERS) is None
        assert names(run.path) == [".lock", "01-base", "manifest.json", "recipe.yaml"]
        stage = run.manifest["stages"]["01-base"]
    assert stage["fingerprint"] == "exact"
    assert stage["seconds"] == 1.5
    assert stage["sha256"] == {"model.safetensors": sha256(folder / "model.safetensors")}


def test_a_stage_of_another_run_is_copied_instead_of_redone(tmp_path: Path, recipe: Recipe) -> None:
    with RunFolder(tmp_path / "a", recipe) as run:
        done = finish(run, "01-base", INPUTS)
    (tmp_path / "thesis").mkdir()
    with RunFolder(tmp_path / "b", recipe.model_copy(update={"name": "b"})) as run:
        found = run.stage_done(INPUTS)
        assert found == done
        folder = run.adopt_stage("01-base", found)
        assert sha256_of_files(folder) == sha256_of_files(done)
        assert run.stage_done(INPUTS) == folder
        assert run.manifest["stages"]["01-base"]["copied_from"] == str(done)
        assert run.adopt_stage("01-base", folder) == folder


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "unreadable note"])
def test_a_damaged_stage_does_not_count_as_done(tmp_path: Path, recipe: Recipe, damage: str) -> None:
    with RunFolder(tmp_path / "run", recipe) as run:
        folder = finish(run, "01-base", INPUTS)
        match damage:
            case "changed":
                (folder / "model.safetensors").write_text("Weights", encoding="utf-8")
            case "missing":
                (folder / "model.safetensors").unlink()
            case "added":
                (folder / "extra").touch()
            case _:
                (folder / "stage.json").write_text('{"fingerprint": "exact"', encoding="utf-8")
        assert run.stage_done(INPUTS) is None
        assert run.stage_done(INPUTS) is None
        finish(run, "01-base", INPUTS)
        assert run.stage_done(INPUTS) == folder


def test_a_stage_in_progress_keeps_its_work_only_for_the_same_inputs(tmp_path: Path, recipe: Recipe) -> None:
    with RunFolder(tmp_path / "run", recipe) as run:
        (run.begin_stage("02-grpo", INPUTS)[0] / "step-100").touch()
    with RunFolder(tmp_path / "run", recipe) as run:
        assert (run.begin_stage("02-grpo", INPUTS)[0] / "step-100").exists()
        assert not (run.begin_stage("02-grpo", OTHERS)[0] / "step-100").exists()


def test_another_number_of_processes_goes_on_with_a_run_s_own_work_and_not_with_a_neighbour_s(
    tmp_path: Path, recipe: Recipe
) -> None:
    by_two = Inputs(INPUTS.settings, "by two processes")
    with RunFolder(tmp_path / "a", recipe) as run:
        folder = finish(run, "01-base", INPUTS)
        (run.begin_stage("02-grpo", Inputs("rl", "rl by one"))[0] / "step-100").touch()
    with RunFolder(tmp_path / "a", recipe) as run:
        assert run.stage_done(by_two) == folder
        assert (run.begin_stage("02-grpo", Inputs("rl", "rl by two"))[0] / "step-100").exists()
    with RunFolder(tmp_path / "b", recipe) as run:
        assert run.stage_done(by_two) is None
        assert run.stage_done(INPUTS) == folder


def _work_at_a_stage(path: Path, recipe: Recipe, said: Any, finishes: bool) -> None:
    with RunFolder(path, recipe) as run:
        checkpoint = run.begin_stage("01-base", INPUTS)[0] / "checkpoint"
        said.send("begun")
        time.sleep(1.0 if finishes else 60.0)
        checkpoint.mkdir()
        (checkpoint / "model.safetensors").write_text("theirs", encoding="utf-8")
        run.finish_stage("01-base", INPUTS, checkpoint, seconds=1.0)


@pytest.mark.parametrize("finishes", [True, False])
def test_a_run_waits_for_a_stage_that_one_beside_it_is_at_and_does_it_itself_if_that_one_is_killed(
    tmp_path: Path, recipe: Recipe, finishes: bool
) -> None:
    hears, said = multiprocessing.Pipe(duplex=False)
    arguments = (tmp_path / "a", recipe, said, finishes)
    beside = multiprocessing.get_context("spawn").Process(target=_work_at_a_stage, args=arguments)
    beside.start()
    assert hears.recv() == "begun"
    if not finishes:
        threading.Timer(1.0, beside.kill).start()
    begun = time.monotonic()
    with RunFolder(tmp_path / "b", recipe) as run:
        work, found = run.begin_stage("01-base", INPUTS)
        assert time.monotonic() - begun > 0.5
        assert found == (tmp_path / "a" / "01-base" if finishes else None)
        assert work.exists() is not finishes
        other, _ = run.begin_stage("02-grpo", OTHERS)  # of nobody's interest: no wait
        assert other.exists()
    beside.join()


def test_the_metrics_of_several_stages_of_a_kind_go_on_counting(tmp_path: Path) -> None:
    for name, steps in (("01-base", (10, 20)), ("02-grpo", (1, 2)), ("03-grpo", (1, 2, 3))):
        (tmp_path / name).mkdir()
        lines = "".join(f'{{"step": {step}, "stage": "{name}"}}\n' for step in steps)
        (tmp_path / name / "metrics.jsonl").write_text(lines)
    found = stage_metrics(tmp_path)
    assert list(found) == ["base", "grpo"]
    assert [row["step"] for row in found["grpo"]] == [1, 2, 3, 4, 5]
    assert [row["stage"] for row in found["grpo"]] == ["02-grpo"] * 2 + ["03-grpo"] * 3


def test_the_manifest_is_merged_not_replaced(tmp_path: Path, recipe: Recipe) -> None:
    with RunFolder(tmp_path / "run", recipe) as run:
        run.update_manifest(seconds={"base": 1.0})
        run.update_manifest(seconds={"grpo": 2.0})
        assert run.manifest["seconds"] == {"base": 1.0, "grpo": 2.0}


def test_a_path_that_is_no_checkpoint_gets_the_likely_fix(tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder; give the folder of a checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError, match=r"file: not a checkpoint; give a folder with config.json and model.safetensors"
    ):
        find_checkpoint(tmp_path / "file")
    with RunFolder(tmp_path / "run", recipe) as run:
        folder = finish(run, "01-base", INPUTS)
    with pytest.raises(UserError, match=f"run: not a checkpoint; did you mean {folder}?"):
        find_checkpoint(tmp_path / "run")
    (folder / "config.json").touch()
    assert find_checkpoint(folder) == folder


@pytest.mark.parametrize(
    ("code", "what"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the disk is read-only"), (errno.EACCES, "permission denied")],
)
def test_a_disk_that_cannot_be_written_is_one_line(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, code: int, what: str
) -> None:
    def refuse(path: Path, *args: object, **options: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=f"run: {what}; "):
        RunFolder(tmp_path / "run", recipe).__enter__()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_fills_up_while_metrics_are_written_says_so() -> None:
    metrics = Metrics.__new__(Metrics)
    metrics._file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as caught:
        metrics.append({"step": 1})
    assert str(disk_error(caught.value)) == "the disk is full; free some space and run the same command again"


def test_a_model_that_is_neither_a_folder_nor_on_the_hub_is_one_line(monkeypatch):
    import huggingface_hub

    def not_there(*_, **__):
        raise OSError("Repository Not Found\nand a page of advice")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", not_there)
    with pytest.raises(UserError) as refused:
        find_checkpoint(Path("someone/no-such-model"))
    assert str(refused.value).startswith("someone/no-such-model: no such folder, nor model on the Hub (Repository Not")


def test_a_model_on_the_hub_is_its_local_copy(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda model, **_: str(tmp_path / model))
    assert find_checkpoint(Path("someone/model")) == tmp_path / "someone" / "model"
