"""The generation values, each with where it comes from."""

from dataclasses import replace
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, HorizontalGroup, Vertical, VerticalScroll
from textual.widgets import Button, Input, Static

from ...backends.base import Generation
from ...core.errors import UsageError
from ...core.i18n import _
from ...core.text import line
from .. import number
from ..cli.layer import Layers, parse
from ..desk import Desk
from ..key import N_
from .dialog import Dialog

# The values that people turn, in the order of the panel; those that an engine lacks are left out.
NAMES = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "repetition_window",
    "presence_penalty",
    "frequency_penalty",
    "no_repeat_ngram_size",
    "num_beams",
    "max_tokens",
    "min_tokens",
    "seed",
    "stop",
    "banned_strings",
)
ONLY_WITH = ("num_beams", "no_repeat_ngram_size", "banned_strings")
"""Values that are shown only for an engine that has them."""


class GenerationScreen(Dialog[Generation]):
    """Gives the values set for this conversation; what is left empty comes from the persona, the model or ours."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "keep", N_("Keep"), priority=True),
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
        Binding("f8", "clear", N_("Give all back")),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__("generation")
        self.values = desk.layers()
        self.own = desk.session.conversation.generation
        supports = desk.engine.supports if desk.engine else frozenset(NAMES)
        self.names = [name for name in NAMES if name not in ONLY_WITH or name in supports or self._given(name)]
        self.below = Layers({**self.values.values, "session": Generation()})

    def _given(self, name: str) -> bool:
        return getattr(self.own, name) is not None

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = _("Generation values")
            with VerticalScroll(classes="rows", can_focus=False):
                for name in self.names:
                    with HorizontalGroup(classes="row"):
                        yield Static(name, classes="name", markup=False)
                        yield Input(self._text(name), placeholder=self._below(name), id=name, compact=True)
                        yield Static("", classes="source", id=f"source-{name}", markup=False)
            yield Static("", classes="complaint", markup=False)
            yield Static(_("An empty field gives the value back to where it comes from."), classes="hint")
            with Horizontal(classes="buttons"):
                yield Button(_("Give all back"), id="clear", compact=True)
                yield Button(_("Cancel"), id="no", compact=True)
                yield Button(_("Keep"), id="yes", variant="primary", compact=True)

    def _text(self, name: str) -> str:
        return number.plain(getattr(self.own, name)) if self._given(name) else ""

    def _below(self, name: str) -> str:
        value = getattr(self.below.effective(), name)
        return "–" if value is None else line(number.plain(value))

    def on_mount(self) -> None:
        for name in self.names:
            self._say_source(name, self._given(name))
        self.query(Input).first().focus()

    def _say_source(self, name: str, own: bool) -> None:
        source = "session" if own else self.below.source(name)
        self.query_one(f"#source-{name}", Static).update(sources().get(source or "", _("not set")))

    def on_input_changed(self, event: Input.Changed) -> None:
        self._say_source(event.input.id or "", bool(event.value.strip()))

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        self.action_keep()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        actions = {"yes": self.action_keep, "no": self.action_cancel, "clear": self.action_clear}
        actions[event.button.id or "no"]()

    def action_clear(self) -> None:
        for field in self.query(Input):
            field.value = ""

    def action_keep(self) -> None:
        values: dict[str, Any] = {}
        for name in self.names:
            text = self.query_one(f"#{name}", Input).value.strip()
            try:
                values[name] = parse(name, text) if text else None
                Generation(**{name: values[name]})
            except UsageError as error:
                self.query_one(".complaint", Static).update(line(error.message))
                self.query_one(f"#{name}").focus()
                return
        self.dismiss(replace(self.own, **values))


def sources() -> dict[str, str]:
    """Give the names of where a value can come from."""
    return {
        "default": _("vigtui's default"),
        "model": _("from the model"),
        "persona": _("from the persona"),
        "session": _("this conversation"),
    }
