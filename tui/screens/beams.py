"""All hypotheses of a beam search, as they are or as they were at its end."""

from collections.abc import Callable, Sequence
from itertools import takewhile

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ...core.i18n import _
from ...core.text import safe
from .. import number
from .dialog import Dialog

LOOK = 0.2
"""Seconds between two looks at a search that goes on."""


class BeamsScreen(Dialog[None]):
    """Lists what `look` gives, best first: each (text, sum of log-probabilities)."""

    def __init__(self, look: Callable[[], Sequence[tuple[str, float]]]) -> None:
        super().__init__("help")
        self.look = look

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="box") as box:
            box.border_title = _("Beams")
            yield Static(_text(self.look()))

    def on_mount(self) -> None:
        self.set_interval(LOOK, lambda: self.query_one(Static).update(_text(self.look())))


def _text(beams: Sequence[tuple[str, float]]) -> Content:
    letters = zip(*(text for text, _score in beams), strict=False)
    settled = sum(1 for _same in takewhile(lambda column: len(set(column)) == 1, letters))
    parts = []
    for rank, (text, score) in enumerate(beams, 1):
        head = Content.styled(f"{rank}  {number.decimal(score)}", "bold $text-primary")
        parts.append(Content.assemble(head, "\n", safe(text[:settled]), (safe(text[settled:]), "$text-warning")))
    return Content("\n\n").join(parts)
