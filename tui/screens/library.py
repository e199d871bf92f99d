"""The models: those that are here, pulls on their way, the catalogue and the hub, in one list."""

from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from ...core.errors import VigtuiError
from ...core.i18n import _
from ...core.text import line
from ...registry.record import Record
from ...registry.unfinished import Unfinished
from ..desk import Desk
from ..key import N_
from ..pulls import Pull
from ..shelf import Row, Shelf, gather, offered, progress, searched, standing
from ..widgets.keys import Keys
from .stock import Stock
from .table import Table, cell

OFTEN = 0.2
"""Seconds between two looks at how far the pulls are."""
HALF, WIDE = 100, 140
"""Columns of a terminal from which on more is shown, and everything."""


class LibraryScreen(Stock):
    """Gives the name of the model that shall answer, None for Esc. Typing narrows the list, ↑ and ↓ move in it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", N_("Open"), priority=True),
        Binding("f5", "pause", N_("Pause")),
        Binding("f6", "go_on", N_("Go on")),
        Binding("f8", "remove", N_("Remove")),
        Binding("up", "move('cursor_up')", show=False, priority=True),
        Binding("down", "move('cursor_down')", show=False, priority=True),
        Binding("pageup", "move('page_up')", show=False, priority=True),
        Binding("pagedown", "move('page_down')", show=False, priority=True),
    ]

    @dataclass
    class Listed(Message):
        """What is here has been read."""

        shelf: Shelf

    @dataclass
    class Found(Message):
        """The hub has answered the search for `words`."""

        words: str
        rows: list[Row]
        error: VigtuiError | None = None

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.shelf, self.hub, self.searched = Shelf((), ""), list[Row](), ""
        self.shown: list[Row] = []
        self.states: list[tuple[str, str, bool]] = []
        self.doing = self.wanted = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = _("Models")
            yield Input(placeholder=_("Type to narrow the list; ORG/REPO names any model of the hub"), compact=True)
            yield Table()
            yield Static("", classes="about", markup=False)
            yield Static("", classes="disk", markup=False)
        yield Keys()

    def on_mount(self) -> None:
        self._columns()
        self.query_one(Input).focus()
        self.set_interval(OFTEN, self._look)
        self.relist()

    def on_resize(self, _event: events.Resize) -> None:
        self._columns()
        self.narrow()

    # The list

    @property
    def table(self) -> Table:
        """The list."""
        return self.query_one(Table)

    @property
    def current(self) -> Row | None:
        """The row under the cursor."""
        return next((row for row in self.shown if row.key == self.table.current), None)

    @property
    def _words(self) -> str:
        return self.query_one(Input).value

    @property
    def hidden(self) -> tuple[str, ...]:
        """The columns for which there is no room; what they say stands below the list too."""
        width = self.app.size.width
        return () if width >= WIDE else ("type", "context") if width >= HALF else ("frees", "type", "context", "format")

    def _columns(self) -> None:
        widths = {"name": 0, "kind": 11, "size": 8, "frees": 8, "type": 12, "context": 8, "format": 18, "state": 21}
        widths = {key: width for key, width in widths.items() if key not in self.hidden}
        titles = {
            "name": _("NAME"), "kind": _("KIND"), "size": _("SIZE"), "frees": _("FREES"), "type": _("TYPE"),
            "context": _("CONTEXT"), "format": _("FORMAT"), "state": _("STATE"),
        }  # fmt: skip
        widths["name"] = max(12, self.app.size.width - 5 - sum(widths.values()) - 2 * len(widths))
        self.table.head((key, titles[key], width) for key, width in widths.items())

    def relist(self) -> None:
        self.gather()

    @work(thread=True, exclusive=True, group="gather", exit_on_error=False)
    def gather(self) -> None:
        try:
            self.post_message(self.Listed(gather(self.pulls, self.desk.record.ref if self.desk.record else "")))
        except (VigtuiError, OSError) as error:
            self.app.call_from_thread(self.complain, error)

    @on(Listed)
    def listed(self, event: Listed) -> None:
        for sentence in event.shelf.damaged:
            if sentence not in self.shelf.damaged:
                self.notify(line(sentence), severity="warning", timeout=10, markup=False)
        self.shelf = event.shelf
        if self.wanted and self.wanted not in {row.key for row in offered(self._words, self.shelf.rows)}:
            self.query_one(Input).value = ""
        self.narrow()
        self.note(self.doing)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.narrow()

    def narrow(self) -> None:
        """Show what fits the words typed; what the hub found belongs to the words that were searched."""
        words = self._words
        rows = offered(words, self.shelf.rows)
        if self.searched and words.strip() == self.searched:
            known = {row.ref.casefold() for row in rows}
            rows = [row for row in rows if row.place != "search"]
            rows += [row for row in self.hub if row.ref.casefold() not in known]
        self.shown = list({row.key: row for row in rows}.values())
        self.table.fill([(row.key, self._cells(row)) for row in self.shown], self._place())
        self._about()

    def _place(self) -> str:
        """Give the row to go to: the one that was asked for, the model that a pull has become, else the same."""
        keys = {row.key for row in self.shown}
        wanted, now = self.wanted, self.table.current
        if wanted in keys:
            self.wanted = ""
            return wanted
        become = now.replace("pull ", "model ", 1)
        return become if now not in keys and become in keys else now

    def reach(self, key: str) -> None:
        self.wanted = key
        self.relist()

    def _cells(self, row: Row) -> list[Text]:
        here = row.place in ("model", "pull")
        name = cell(row.name, "bold" if here else "")
        cells = {
            "name": name, "kind": cell(row.kind, "dim"), "size": cell(row.size, right=True),
            "frees": cell(row.frees, right=True), "type": cell(row.type), "context": cell(row.context, right=True),
            "format": cell(row.format), "state": cell(row.state),
        }  # fmt: skip
        return [text for key, text in cells.items() if key not in self.hidden]

    def _look(self) -> None:
        """Show how far the pulls are; when one has ended, what is here by then."""
        if not self.is_current:
            return
        states = [(one.ref, one.state, one.step is not None) for one in self.pulls.all]
        if states != self.states:
            self.states = states
            self.relist()
        for one in self.pulls.all:
            if one.live and any(row.key == f"pull {one.ref}" for row in self.shown):
                self.table.update_cell(f"pull {one.ref}", "state", cell(standing(one)))
        if self._live(self.current):
            self._about()

    @on(DataTable.RowHighlighted)
    def highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._about()
        self.refresh_bindings()

    def _about(self) -> None:
        row = self.current
        live = self._pull(row)
        said = list(progress(live) if live else row.about) if row else []
        parts = [Content.styled(line(row.name), "bold")] if row else [Content(_("No model is called so."))]
        parts += [Content.styled(text, "$foreground 60%") for text in map(line, filter(None, said))]
        self.query_one(".about", Static).update(Content("\n").join(parts))

    def note(self, text: str) -> None:
        self.doing = text
        self.query_one(".disk", Static).update(
            Content.styled(text, "bold $text-accent") if text else Content(self.shelf.disk)
        )

    # The hub

    @work(thread=True, exclusive=True, group="search", exit_on_error=False)
    def search(self, words: str) -> None:
        try:
            self.post_message(self.Found(words, searched(words)))
        except VigtuiError as error:
            self.post_message(self.Found(words, [], error))

    @on(Found)
    def found(self, event: Found) -> None:
        self.note("")
        if event.error is not None:
            return self.complain(event.error)
        self.searched, self.hub = event.words, event.rows
        if not event.rows:
            self.notify(_("The hub has no model of these words."), severity="warning")
        self.narrow()

    # What can be done

    def _pull(self, row: Row | None) -> Pull | None:
        return self.pulls.of(row.ref) if row and row.place == "pull" else None

    def _live(self, row: Row | None) -> bool:
        one = self._pull(row)
        return one is not None and one.live

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        row = self.current if self.is_mounted else None
        if action == "pause":
            return self._live(row)
        if action == "go_on":
            return row is not None and row.place == "pull" and not self._live(row)
        if action == "remove":
            return row is not None and row.place in ("model", "pull")
        return True

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_open()

    def action_open(self) -> None:
        row = self.current
        if row is None:
            return
        if row.place == "search":
            self.note(_("Searching the hub …"))
            self.search(row.ref)
        elif isinstance(row.held, Record):
            self.show_model(row.held)
        elif row.place == "pull":
            self.action_pause() if self._live(row) else self.action_go_on()
        else:
            self.plan(row.ref)

    def action_pause(self) -> None:
        if (one := self._pull(self.current)) is not None:
            self.pulls.pause(one)

    def action_go_on(self) -> None:
        row = self.current
        live = self._pull(row)
        if row and isinstance(row.held, Unfinished):
            self.go_on(row.held)
        elif live is not None:
            self.start(live.order)

    def action_remove(self) -> None:
        if self.current is not None:
            self.remove_row(self.current)

    def action_move(self, how: str) -> None:
        getattr(self.table, f"action_{how}")()
