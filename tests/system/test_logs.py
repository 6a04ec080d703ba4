"""log.txt: the story of a run, with warnings of libraries once, and nothing that only fills it."""

import io
import logging
import re
import warnings

import pytest
from rich.table import Table

from r1_mini.system.logs import quiet
from r1_mini.system.terminal import Terminal
from r1_mini.train.callbacks import progress_bar

OURS, THEIRS = logging.getLogger("r1_mini.somewhere"), logging.getLogger("library.part")
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def lines(path):
    """Those of a log, without the time; a line that has none is part of the one before."""
    return re.split(f"^{TIME}", path.read_text(encoding="utf-8"), flags=re.M)[1:]


def test_the_log_has_our_story_and_each_warning_of_a_library_once(tmp_path, capsys):
    with quiet(tmp_path / "log.txt"):
        OURS.info("a stage %s", "begins")
        for _ in range(2):
            OURS.info("step")
            THEIRS.warning("slow %d", 3)
            THEIRS.info("chatter")
            warnings.warn("odd", stacklevel=1)
            warnings.warn("later", FutureWarning, stacklevel=1)
    OURS.info("after")
    begins, *rest = lines(tmp_path / "log.txt")
    assert begins == "a stage begins\n"
    assert rest[:2] == ["step\n", "WARNING library.part: slow 3\n"]
    assert rest[2].startswith("WARNING py.warnings: ") and "UserWarning: odd" in rest[2]
    assert rest[3:] == ["step\n"]
    assert capsys.readouterr() == ("", "")


def test_what_is_on_the_screen_is_in_the_log_without_styles_and_progress_bars(tmp_path):
    screen = Terminal(file=io.StringIO(), width=40, force_terminal=True)
    screen.print("a note of the data")
    table = Table("pass@1")
    table.add_row("94.2")
    with quiet(tmp_path / "log.txt"):
        OURS.info("the command")
        screen.log_to(OURS.info)
        with progress_bar(screen) as progress:
            progress.update(progress.add_task("base", total=2, note=""), advance=1)
            screen.print("red \x1b[2J", style="red")
        screen.print()
        screen.print("a sentence of more than forty characters, in one line")
        screen.print(table)
    told = lines(tmp_path / "log.txt")
    assert told[:3] == ["the command\n", "a note of the data\n", "red \\u001b[2J\n"]
    assert told[3] == "a sentence of more than forty characters, in one line\n"
    assert told[4].startswith("\n") and "94.2" in told[4] and "\x1b" not in "".join(told) and len(told) == 5


def test_a_log_goes_on_after_one_within_it_and_in_the_next_attempt_and_says_how_it_ended(tmp_path):
    with quiet(tmp_path / "log.txt"):
        with quiet(tmp_path / "inner.txt"):
            OURS.info("inside")
        OURS.info("outside")
    with pytest.raises(KeyboardInterrupt), quiet(tmp_path / "log.txt"):
        raise KeyboardInterrupt
    with pytest.raises(ValueError), quiet(tmp_path / "log.txt"):
        raise ValueError("bad")
    assert lines(tmp_path / "inner.txt") == ["inside\n"]
    assert lines(tmp_path / "log.txt") == ["outside\n", "ended early: KeyboardInterrupt\n", "ended early: bad\n"]


def test_only_the_main_process_tells_the_story(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with quiet(tmp_path / "log.txt"):
        OURS.info("step")
        THEIRS.warning("slow")
    assert lines(tmp_path / "log.txt") == ["WARNING library.part: slow\n"]


@pytest.mark.slow
def test_the_log_of_a_run_reads_from_the_command_to_the_verdict(smoke):
    out, printed = smoke
    told = "".join(lines(out / "log.txt"))
    places = [
        *("r1-mini run ", "tiny-smoke, seed 0: 01-base, 02-grpo, exam smoke", "torch 2."),
        *("run/01-base: begins", "run/01-base: done in ", "run/02-grpo: begins", "run/02-grpo: done in "),
        *("run/eval/smoke/01-base: begins", "run/eval/smoke/02-grpo: done in ", "[95% interval]", "the page: "),
    ]
    found = [told.find(text) for text in places]
    assert -1 not in found and found == sorted(found)
    assert "━" not in told and "Traceback" not in told and told.count("rollout_func") <= 2
    sentence = next(line for line in told.splitlines() if "points (95% interval" in line)
    assert sentence in " ".join(printed.split())
