"""Everything that is known of one model."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Static

from ...core.i18n import _
from ...core.text import line
from ...registry.detail import Detail
from ..cli.listing import lines
from ..cli.output import size
from ..key import N_
from .dialog import Dialog


class DetailScreen(Dialog[str]):
    """Gives "answer" when the model shall answer from now on, "remove" when it shall go."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f8", "end('remove')", N_("Remove")),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
        Binding("up", "scroll(-1)", show=False),
        Binding("down", "scroll(1)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
        Binding("pagedown", "scroll(10)", show=False),
    ]

    def __init__(self, known: Detail, answers: bool) -> None:
        super().__init__("details")
        self.known, self.answers = known, answers

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = line(self.known.record.ref)
            with VerticalScroll(classes="facts", can_focus=False):
                yield Static(self.text())
            with Horizontal(classes="buttons"):
                yield Button(_("Remove"), id="remove", variant="error", compact=True)
                yield Button(_("Back"), id="cancel", compact=True)
                if self.answers:
                    yield Button(_("Let it answer"), id="answer", variant="primary", compact=True)

    def text(self) -> Content:
        """Give the facts in two columns, what is to be known below them, then the files."""
        known = self.known
        facts = [(name, text) for name, text in lines(known) if text]
        wide = max((len(name) for name, _text in facts), default=0) + 2
        parts = [Content.assemble((name.ljust(wide), "$foreground 60%"), line(text)) for name, text in facts]
        parts += [Content.styled(f"! {line(text)}", "$text-warning") for text in known.record.notices]
        parts += [Content.styled(f"! {line(known.problem)}", "$text-error")] if known.problem else []
        parts += [Content.styled(_("files"), "bold $text-primary")] if known.record.files else []
        for file in known.record.files:
            parts.append(Content(f"{line(file.path.name)}  {size(file.size)}"))
            parts.append(Content.styled(f"  sha256 {file.sha256 or '–'}", "$foreground 60%"))
        return Content("\n").join(parts)

    def on_mount(self) -> None:
        self.query_one("#answer" if self.answers else "#cancel").focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss(None if event.button.id == "cancel" else event.button.id)

    def action_end(self, what: str) -> None:
        self.dismiss(what)

    def action_scroll(self, rows: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=rows, animate=False)
