"""A list to choose from, with a line that narrows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ...core.i18n import _
from ...core.text import line
from ..widgets.options import Options
from .dialog import Dialog


@dataclass(frozen=True, slots=True)
class Item:
    """Something to choose: `id` is what the choice gives, `note` stands behind the title, `detail` below it."""

    id: str
    title: str
    detail: str = ""
    note: str = ""
    chosen: bool = False


class Picker(Dialog[str]):
    """Gives the id of the item chosen, None for Esc. Typing narrows the list, ↑ and ↓ move in it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move('cursor_up')", show=False, priority=True),
        Binding("down", "move('cursor_down')", show=False, priority=True),
        Binding("pageup", "move('page_up')", show=False, priority=True),
        Binding("pagedown", "move('page_down')", show=False, priority=True),
    ]

    def __init__(self, title: str, items: Sequence[Item] = (), hint: str = "", empty: str = "") -> None:
        super().__init__("picker")
        self.heading, self.items, self.shown = title, list(items), list(items)
        self.hint, self.empty = hint, empty

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = self.heading
            yield Input(placeholder=_("Type to narrow the list"), compact=True)
            yield Options(markup=False, compact=True)
            yield Static(self.empty, classes="empty", markup=False)
            yield Static(self.hint or _("Enter chooses, Esc goes back."), classes="hint", markup=False)

    def on_mount(self) -> None:
        self.narrow("")
        chosen = next((i for i, item in enumerate(self.shown) if item.chosen), 0)
        self.choices.highlighted = chosen if self.shown else None

    @property
    def choices(self) -> OptionList:
        """The list."""
        return self.query_one(OptionList)

    @property
    def current(self) -> Item | None:
        """The item under the cursor."""
        at = self.choices.highlighted
        return self.shown[at] if at is not None and at < len(self.shown) else None

    def on_input_changed(self, event: Input.Changed) -> None:
        self.narrow(event.value)

    def narrow(self, text: str) -> None:
        """Show the items that have every word of `text`."""
        words = text.casefold().split()
        self.fill([i for i in self.items if all(w in f"{i.title} {i.note} {i.detail}".casefold() for w in words)])

    def fill(self, items: Sequence[Item]) -> None:
        """Show these items."""
        self.shown = list(items)
        self.choices.set_options(Option(_prompt(item)) for item in self.shown)
        self.choices.display = bool(self.shown)
        self.query_one(".empty").display = not self.shown
        self.choices.highlighted = 0 if self.shown else None

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.choose(self.current)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.choose(self.shown[event.option_index])

    def choose(self, item: Item | None) -> None:
        """End with `item`."""
        if item is not None:
            self.dismiss(item.id)

    def action_move(self, how: str) -> None:
        getattr(self.choices, f"action_{how}")()


def _prompt(item: Item) -> Content:
    parts: list[str | tuple[str, str]] = ["● " if item.chosen else "  ", (line(item.title), "bold")]
    if item.note:
        parts += ["  ", (line(item.note), "$foreground 60%")]
    if item.detail:
        parts += ["\n    ", (line(item.detail), "$foreground 60%")]
    return Content.assemble(*parts)
