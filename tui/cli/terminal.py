"""The terminal of the plain chat: line editing and history, several lines at once, one-time remarks."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from ...core import paths
from ...core.i18n import _
from ...core.text import line
from ...registry.record import Record
from .output import emphasis

QUOTES = '"""'
HISTORY = 1000
"""Lines that the history file keeps."""


@contextmanager
def editing(keep: bool = True) -> Iterator[None]:
    """Edit lines with the history of earlier chats, and write it back when `keep`; without readline, plain input."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = paths.data() / "history"
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY)
    try:
        yield
    finally:
        with suppress(OSError):
            if keep:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(mode=0o600)
                readline.write_history_file(path)


def read(prompt: str, more: str) -> str:
    """Read a line, or the lines between two `\"\"\"`. Raises EOFError at the end, KeyboardInterrupt for Ctrl-C."""
    text = _line(prompt)
    if not text.startswith(QUOTES):
        return text
    text = text[len(QUOTES) :]
    while not text.rstrip().endswith(QUOTES):
        text += "\n" + _line(more)
    return text.rstrip()[: -len(QUOTES)].strip("\n")


def _line(prompt: str) -> str:
    while True:
        try:
            text = input(prompt)
            text.encode("utf-8")
            return text
        except UnicodeError:
            complain(_("That line was not UTF-8."))


def complain(text: str) -> None:
    """Write one safe line of complaint to stderr."""
    print(emphasis(line(text), "31", err=True), file=sys.stderr, flush=True)


def question(record: Record) -> str:
    """Give the question whether the code that comes with a model may run."""
    text = _("{name} comes with Python code of its own, which can do whatever you can: {path}. Run it this once?")
    return line(text.format(name=record.ref, path=record.path))


def trusts(record: Record) -> bool:
    """Ask whether the code that comes with a model may run; no answer is a no."""
    try:
        return click.confirm(question(record), default=False)
    except click.Abort:
        print()
        return False


def first_time(what: str) -> bool:
    """Whether `what` is said for the first time ever; from now on it is not."""
    marker = paths.data() / f"said-{what}"
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
