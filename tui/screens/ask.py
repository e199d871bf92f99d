"""A question that is answered by a line of text."""

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, Static

from ...core.i18n import _
from .dialog import Dialog


class Ask(Dialog[str]):
    """Asks for a text, `value` being what stands there already; Esc gives None."""

    def __init__(self, title: str, value: str = "") -> None:
        super().__init__()
        self.heading, self.value = title, value

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self.heading, markup=False, classes="title")
            yield Input(self.value, compact=True)
            yield Static(_("Enter keeps it, Esc cancels."), classes="hint")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)
