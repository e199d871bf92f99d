"""What the libraries of a stage print, as it comes."""

from pathlib import Path

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from ...core.i18n import _
from ...core.text import safe
from .dialog import Dialog

LAST = 64 << 10
"""Bytes of the log's end that are shown."""
LOOK = 0.5
"""Seconds between two looks."""


class LogScreen(Dialog[None]):
    """Shows the end of the file `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__("help")
        self.path, self._shown = path, ""

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box") as box:
            box.border_title = self.path.name
            yield Static("", markup=False)

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).anchor()
        self.set_interval(LOOK, self.look)
        self.look()

    def look(self) -> None:
        """Show what has come since."""
        text = tail(self.path) or _("Nothing has been printed.")
        if text != self._shown:
            self._shown = text
            self.query_one(Static).update(text)


def tail(path: Path) -> str:
    """Give the end of a log as safe text; lines that overwrite themselves count once."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = (row.rstrip("\r").rpartition("\r")[2] for row in text.split("\n"))
    return safe("\n".join(lines)).strip("\n")
