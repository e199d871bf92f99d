"""What the model is told before the first message."""

from typing import ClassVar, get_args

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, OptionList, Static, TextArea
from textual.widgets.option_list import Option

from ...chat.formats import System, SystemState
from ...core.i18n import _
from ...core.text import safe
from ..desk import Desk
from ..key import N_
from ..widgets.options import Options
from .dialog import Dialog


class SystemScreen(Dialog[System]):
    """Gives the system message chosen: the default one, an own text, an empty one, or none; Esc gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "keep", N_("Keep"), priority=True),
    ]
    STATES: ClassVar[tuple[SystemState, ...]] = get_args(SystemState)

    def __init__(self, desk: Desk) -> None:
        super().__init__("system")
        self.system = desk.session.conversation.system
        self.default = desk.system_text()
        self.own = self.system.text if self.system.state == "text" else self.default or ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = _("System message")
            yield Options(*(Option(text) for text in self._choices()), compact=True, markup=False)
            yield TextArea(safe(self.own), tab_behavior="focus", highlight_cursor_line=False)
            yield Static("", classes="shown", markup=False)
            yield Static(_("Ctrl+S keeps it from the next message on, Esc goes back."), classes="hint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(_("Cancel"), id="no", compact=True)
                yield Button(_("Keep"), id="yes", variant="primary", compact=True)

    def _choices(self) -> tuple[str, ...]:
        return (
            _("default: the persona's or the format's"),
            _("own text"),
            _("empty: there is one, and it says nothing"),
            _("none: no system message at all"),
        )

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        choices.highlighted = self.STATES.index(self.system.state)
        choices.focus()

    @property
    def state(self) -> SystemState:
        """The state under the cursor."""
        return self.STATES[self.query_one(OptionList).highlighted or 0]

    def on_option_list_option_highlighted(self, _event: OptionList.OptionHighlighted) -> None:
        texts: dict[SystemState, str] = {
            "default": safe(self.default or "") or _("The format has none."),
            "empty": _("The format writes the place of a system message with nothing in it."),
            "none": _("The format leaves it out."),
        }
        self.query_one(TextArea).display = self.state == "text"
        shown = self.query_one(".shown", Static)
        shown.display = self.state != "text"
        shown.update(texts.get(self.state, ""))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if self.state == "text":
            self.query_one(TextArea).focus()
        else:
            self.action_keep()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.action_keep() if event.button.id == "yes" else self.action_cancel()

    def action_keep(self) -> None:
        text = self.query_one(TextArea).text
        state = self.state
        if state == "text" and not text.strip():
            state = "empty"
        self.dismiss(System(state, text if state == "text" else ""))
