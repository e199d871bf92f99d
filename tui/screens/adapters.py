"""LoRA adapters on the model that answers: on or off, and how strongly."""

import math
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, HorizontalGroup, Vertical, VerticalScroll
from textual.widgets import Button, Checkbox, Input, Static

from ...core.i18n import _
from ...core.text import line
from .. import number
from ..desk import Adapter, Desk
from ..key import N_
from .dialog import Dialog


class AdaptersScreen(Dialog[list[Adapter]]):
    """Gives the adapters as they should be from the next message on; Esc gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "keep", N_("Keep"), priority=True),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__("adapters")
        chosen = {one.ref: one for one in desk.adapters()}
        known = {one.ref: Adapter(one.ref, on=False) for one in desk.models()[1]}
        self.adapters = list({**known, **chosen}.values())

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = _("Adapters")
            with VerticalScroll(classes="rows", can_focus=False):
                for index, one in enumerate(self.adapters):
                    with HorizontalGroup(classes="row"):
                        yield Checkbox(line(one.ref), one.on, id=f"on-{index}", compact=True)
                        yield Input(number.plain(one.scale), id=f"scale-{index}", compact=True, classes="scale")
            if not self.adapters:
                yield Static(_("No adapter is registered. `vigtui add FOLDER` brings one in."), markup=False)
            yield Input(
                placeholder=_("Another one: NAME or PATH, and =SCALE where it is not 1"), id="other", compact=True
            )
            yield Static("", classes="complaint", markup=False)
            yield Static(_("Space switches, the number is the scale, Ctrl+S keeps it."), classes="hint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(_("Cancel"), id="no", compact=True)
                yield Button(_("Keep"), id="yes", variant="primary", compact=True)

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        self.action_keep()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.action_keep() if event.button.id == "yes" else self.action_cancel()

    def action_keep(self) -> None:
        chosen: list[Adapter] = []
        for index, one in enumerate(self.adapters):
            scale = _scale(self.query_one(f"#scale-{index}", Input).value)
            if scale is None:
                self.query_one(".complaint", Static).update(_("The scale of {name} is no number.").format(name=one.ref))
                return
            chosen.append(Adapter(one.ref, scale, self.query_one(f"#on-{index}", Checkbox).value))
        if other := self.query_one("#other", Input).value.strip():
            name, _equals, text = other.partition("=")
            chosen.append(Adapter(name.strip(), _scale(text) or 1.0))
        self.dismiss(chosen)


def _scale(text: str) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
