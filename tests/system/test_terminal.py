"""The screen shows hostile text as text, and the work goes on when nobody reads."""

import io
import os

import pytest
from rich.text import Text

from eval.report.page import show
from r1_mini.system.terminal import Terminal
from r1_mini.train.callbacks import progress_bar

HOSTILE = {
    "\x1b]0;title\x07": r"\u001b]0;title", "\x1b[2J": r"\u001b[2J", "\x1b]52;c;ZXZ\x07": r"\u001b]52;c;ZXZ",
    **{f"a{c}b": rf"a\u{ord(c):04x}b" for c in "\x9b\u202e\u2066\ud800\u200b"}, "\U000e0041": r"\U000e0041",
}  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_escape_codes_and_direction_overrides_are_shown_as_text(text, shown):
    file = io.StringIO()
    terminal = Terminal(file=file, width=80)
    terminal.print(Text(text), text)
    show("exam", ["", text], [[("pass@1", text)]], (), terminal)
    assert file.getvalue().count(shown) == 4
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\ud800", "\u200b", "\U000e0041"} & set(file.getvalue())


def test_what_stands_in_brackets_is_text():
    file = io.StringIO()
    terminal = Terminal(file=file)
    terminal.print("runs/o[/y]")
    with progress_bar(terminal) as progress:
        progress.add_task("[bold], samples", note="[red]")
    assert all(text in file.getvalue() for text in ("runs/o[/y]", "[bold], samples", "[red]"))


def test_our_own_colors_and_cursor_moves_are_left_alone():
    file = io.StringIO()
    terminal = Terminal(file=file, force_terminal=True, color_system="standard", width=80)
    terminal.print("no", style="red")
    with terminal.status("loading"):
        pass
    assert "\x1b[31mno\x1b[0m" in file.getvalue()
    assert "\\u001b" not in file.getvalue()


def test_printing_goes_on_in_silence_when_the_reader_has_left():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as file:
        terminal = Terminal(file=file)
        terminal.print("one")
        terminal.print("two")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_behind_the_standard_output_is_named():
    with pytest.raises(OSError, match="No space left") as caught:
        Terminal(file=io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True)).print("one")
    assert caught.value.filename == "standard output"


def test_a_notebook_gets_text_as_a_terminal_does(monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    console = Terminal()
    console.print("[b] 3 of 4")
    assert capsys.readouterr().out == "[b] 3 of 4\n" and console.early == ["[b] 3 of 4"]
