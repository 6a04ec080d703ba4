"""Files with a JSON object per line as tables, `jsonl: PATH`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from r1_mini.data.table import Row, Table
from r1_mini.errors import UserError, shown


class JsonlTable(Table):
    """A file with a JSON object per line."""

    KEY = "jsonl"

    jsonl: str = Field(min_length=1)
    """Path, as seen from the folder in which the command runs."""

    @property
    def name(self) -> str:
        return self.label or Path(self.jsonl).stem

    @property
    def place(self) -> str:
        return self.jsonl

    def rows(self) -> tuple[Iterable[Row], None]:
        return islice(self._lines(), self.limit), None

    def _lines(self) -> Iterator[Row]:
        try:
            lines = Path(self.jsonl).read_text(encoding="utf-8-sig").split("\n")
        except FileNotFoundError:
            raise UserError("no such file", where=self.jsonl, fix="give the path of a JSONL file") from None
        except IsADirectoryError:
            raise UserError("a folder, not a file", where=self.jsonl, fix="write `dataset:` instead") from None
        except UnicodeDecodeError:
            raise UserError("not UTF-8 text", where=self.jsonl, fix="save the file as UTF-8") from None
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=self.jsonl, fix="check the path") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield Row(f"{self.jsonl}:{number}", _object(line, f"{self.jsonl}:{number}"))


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise UserError("not JSON", where=where, fix="write one object per line") from None
    if not isinstance(values, dict):
        raise UserError(f"not an object: {shown(values)}", where=where, fix='write {"question": …, "answer": …}')
    return values
