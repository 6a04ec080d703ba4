"""The screen: rich's console, which shows hostile text as the page does and lets the work go on without a reader."""

import io
import os
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from r1_mini.system.files import named
from r1_mini.text import visible


class Terminal(Console):
    """The console of every command. What stands in brackets is text, too, not a style."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, force_jupyter=False, **options)
        self.early: list[str] = []  # printed before there is a log
        self.tell: Callable[[str], object] = self.early.append

    def log_to(self, tell: Callable[[str], object]) -> None:
        """Give `tell` every text that was printed, and each that will be: plain, and without progress bars."""
        self.tell = tell
        for text in self.early:
            tell(text)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*objects, **options)
        plain = io.StringIO()
        Console(file=plain, width=self.width, markup=False, highlight=False, force_jupyter=False).print(
            *objects, **{**options, "soft_wrap": True}
        )
        if text := visible(plain.getvalue()).strip("\n"):
            self.tell(f"\n{text}" if "\n" in text else text)

    def render(self, *args: Any, **options: Any) -> Iterable[Segment]:
        """What is written, with escape codes made visible; rich's own codes are styles and controls."""
        for text, style, control in super().render(*args, **options):
            yield Segment(text if control else visible(text), style, control)

    def _write_buffer(self) -> None:
        with named("standard output"):
            super()._write_buffer()

    def on_broken_pipe(self) -> None:
        """The reader has seen enough (`head`, for example): go on in silence."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
