"""How commands print: JSON for programs, aligned columns and honest sizes for people."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from ...core.text import line


def print_json(value: Any) -> None:
    """Print `value` as indented JSON; what JSON has no type for becomes text."""
    import json

    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def json_line(value: Any) -> str:
    """Give `value` as one line of JSON with a newline."""
    import json

    return json.dumps(value, ensure_ascii=False, default=str) + "\n"


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Print rows as aligned columns, each cell safe and on one line."""
    cells = [[row[0][: len(row[0]) - len(row[0].lstrip())] + line(row[0]), *map(line, row[1:])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    click.echo("\n".join(map(str.rstrip, lines)))


def size(count: int) -> str:
    """Give a number of bytes in the unit that people read, decimal as on a disk's label."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 999.5 or unit == "TB":
            break
    return f"{amount:.1f} {unit}" if amount < 99.5 else f"{amount:.0f} {unit}"


def emphasis(text: str, code: str, err: bool = False) -> str:
    """Give `text` in the style `code` where the stream is a terminal that wants colours."""
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty() or no_color():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def no_color() -> bool:
    """Whether the person wants no colours (https://no-color.org) or the terminal has none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


class Meter:
    """Progress of long work on stderr, for a terminal only, and only when the work takes half a second."""

    PATIENCE = 0.5

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.shown = ""

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, *_error: object) -> None:
        self._show("")

    def __call__(self, stage: str, done: int, total: int) -> None:
        if sys.stderr is not None and sys.stderr.isatty() and time.monotonic() - self.began > self.PATIENCE:
            share = f" {100 * done // total} %" if total else ""
            self._show(line(f"{stage}{share}"))

    def _show(self, text: str) -> None:
        if text != self.shown:
            sys.stderr.write("\r" + text.ljust(len(self.shown)) + ("" if text else "\r"))
            sys.stderr.flush()
            self.shown = text
