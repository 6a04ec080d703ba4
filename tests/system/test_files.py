"""Files appear whole or not at all, and metrics survive a kill."""

import errno
import json
import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1_mini.errors import disk_error
from r1_mini.system.files import (
    Metrics,
    clear_leftovers,
    folder_atomic,
    read_jsonl,
    remove,
    sha256,
    write_json_atomic,
    write_text_atomic,
)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


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
    with closing(Metrics(path)) as metrics:
        for step in (1, 2, 3, 4):
            metrics.append({"step": step, "loss": float("nan") if step == 1 else 0.5})
    with closing(Metrics(path, keep_through=2)) as metrics:
        metrics.append({"step": 3, "loss": 0.25})
    assert read_jsonl(path) == [{"step": 1, "loss": None}, {"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]
    with closing(Metrics(path)):
        assert read_jsonl(path) == []


def test_a_metrics_line_that_a_kill_cut_in_half_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3, "lo')
    with closing(Metrics(path, keep_through=3)) as metrics:
        metrics.append({"step": 3})
    assert path.read_bytes() == b'{"step":1}\n{"step":2}\n{"step":3}\n'


@given(st.integers(0, 35))
def test_metrics_cut_anywhere_resume_with_whole_lines(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "metrics.jsonl"
        path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step": 3}\n'[:cut])
        with closing(Metrics(path, keep_through=cut // 12)) as metrics:
            metrics.append({"step": cut // 12 + 1})
        assert [record["step"] for record in read_jsonl(path)] == list(range(1, cut // 12 + 2))


def test_hashes_are_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert sha256(tmp_path / "a") == abc


def test_on_a_read_only_disk_what_is_not_there_need_not_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    remove(tmp_path / "absent")
    (tmp_path / "there").touch()
    with pytest.raises(OSError, match="Read-only"):
        remove(tmp_path / "there")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_fills_up_while_metrics_are_written_says_so() -> None:
    metrics = Metrics.__new__(Metrics)
    metrics._file = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115
    with pytest.raises(OSError, match="No space left") as caught:
        metrics.append({"step": 1})
    assert (
        str(disk_error(caught.value)) == "/dev/full: the disk is full; free some space and run the same command again"
    )
