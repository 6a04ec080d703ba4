"""The screen: rich's console, which shows hostile text as the page does and lets the work go on without a reader."""

import os
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from r1_mini.system.files import named
from r1_mini.text import visible


class Terminal(Console):
    """The console of every command. What stands in brackets is text, too, not a style."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, **options)

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
