"""Files appear whole or not at all, and metrics survive a kill."""

import errno
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from r1_mini.errors import UserError, disk_error
from r1_mini.system import files
from r1_mini.system.files import Metrics, folder_atomic, read_jsonl, write_json_atomic, write_text_atomic


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_text_atomic(path, "old\n")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text_atomic(path, "new\n")
    assert path.read_text(encoding="utf-8") == "old\n"
    assert names(tmp_path) == ["file"]


def test_json_has_null_where_a_number_is_not_finite(tmp_path):
    write_json_atomic(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5], "c": ("x",)})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": None, "b": [None, 1.5], "c": ["x"]}


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
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


def test_a_folder_moved_aside_by_a_killed_process_comes_back(tmp_path):
    for leftovers in ((".aside-old-01-base", ".aside-01-base"), (".aside-old-01-base",)):
        for name in leftovers:
            (tmp_path / name).mkdir()
        files.clear_leftovers(tmp_path)
        assert names(tmp_path) == ["01-base"]
        (tmp_path / "01-base" / "kept").touch()


def test_metrics_continue_after_the_step_that_a_run_resumes_from(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with closing(Metrics(path)) as metrics:
        for step in (1, 2, 3, 4):
            metrics.append({"step": step, "loss": float("nan") if step == 1 else 0.5})
    with closing(Metrics(path, keep_through=2)) as metrics:
        metrics.append({"step": 3, "loss": 0.25})
    assert read_jsonl(path) == [{"step": 1, "loss": None}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    with closing(Metrics(path)):
        assert read_jsonl(path) == []


@pytest.mark.parametrize("damage", [b"\xff\n", b"x\n", b"[1]\n", b"{}\n", b'{"step": "x"}\n'])
def test_damaged_metrics_are_said_with_the_fix(tmp_path, damage):
    (tmp_path / "metrics.jsonl").write_bytes(damage)
    with pytest.raises(UserError, match=r"metrics.jsonl: is damaged .*; remove it, and run the same command again"):
        Metrics(tmp_path / "metrics.jsonl", keep_through=5)


def test_metrics_that_a_kill_cut_anywhere_resume_with_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for cut in range(36):
        path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'[:cut])
        with closing(Metrics(path, keep_through=cut // 12)) as metrics:
            metrics.append({"step": cut // 12 + 1})
        assert path.read_text() == "".join(f'{{"step":{step}}}\n' for step in range(1, cut // 12 + 2))


def test_on_a_read_only_disk_what_is_not_there_need_not_be_removed(tmp_path, monkeypatch):
    def refuse(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    files.remove(tmp_path / "absent")
    (tmp_path / "there").touch()
    with pytest.raises(OSError, match="Read-only"):
        files.remove(tmp_path / "there")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_fills_up_while_metrics_are_written_says_so():
    metrics = Metrics.__new__(Metrics)
    metrics._file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as caught:
        metrics.append({"step": 1})
    assert str(disk_error(caught.value)).startswith("/dev/full: the disk is full; free some space")
