"""An inspection published: its sentences on the screen, and inspect.html beside inspect.json."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from eval.inspect import plots, words
from eval.report.words import in_hundred, render
from r1_mini.system.files import write_text_atomic
from r1_mini.text import visible


def publish(summary: Mapping[str, Any], folder: Path, console: Console) -> None:
    """Print what was found and write the page."""
    sentences = words.sentences(summary)
    for sentence in sentences:
        console.print(visible(sentence))
    style = Markup(files("eval.report").joinpath("page.css").read_text("utf-8"))
    values = {
        "style": style,
        "script": "",
        "plots": plots,
        "percent": in_hundred,
        "ends": words.ends,
        "points": words.points,
    }
    page = render("inspect/page.html.jinja", summary=summary, sentences=sentences, **values)
    write_text_atomic(folder / "inspect.html", visible(page))
    console.print(f"the page: {folder / 'inspect.html'}", soft_wrap=True)
