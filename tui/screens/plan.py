"""What a pull takes, before its first byte: licence, builds, disk and memory."""

from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, DataTable, Static

from ...core.errors import CapacityError
from ...core.i18n import _
from ...core.text import line
from ...registry.order import Order, prepare, require, weighed
from ...registry.plan import Plan
from ..cli.pull import free, headline, offers, row, titles
from ..key import N_
from .dialog import Dialog
from .table import Table, cell


@dataclass(frozen=True, slots=True)
class Forecast:
    """An order with what is to be known of it; `trouble` is why it does not fit, or nothing."""

    order: Order
    plans: tuple[Plan, ...]
    chosen: Plan | None
    said: tuple[str, ...]
    trouble: str = ""


def forecast(text: str, name: str | None = None) -> Forecast:
    """Work out what pulling `text` takes; asks the hub. Raises as `prepare` does, but not for what does not fit."""
    order = weighed(prepare(text, name, force=True))
    plans = tuple(order.plans()) if order.files else ()
    said, trouble = (headline(order), *order.notices, *offers(order)), ""
    try:
        require(order)
    except CapacityError as error:
        trouble = error.message
    return Forecast(order, plans, order.plan(plans), said, trouble)


class PlanScreen(Dialog[str]):
    """Gives the label of the build to pull, "" where there is one only; Esc gives None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "pull", N_("Pull")),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(self, known: Forecast) -> None:
        super().__init__("plan")
        self.known = known

    def compose(self) -> ComposeResult:
        known = self.known
        with Vertical(classes="box") as box:
            box.border_title = _("Pull {name}").format(name=line(known.order.record.ref))
            with VerticalScroll(classes="said", can_focus=False):
                yield Static("\n".join(line(text) for text in known.said), markup=False)
            if known.plans:
                yield Table()
                yield Static(free(known.plans), classes="free", markup=False)
            yield Static(line(known.trouble), classes="complaint", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(_("Cancel"), id="no", compact=True)
                yield Button(_("Pull"), id="yes", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one(".complaint").display = bool(self.known.trouble)
        if not self.known.plans:
            self.query_one("#yes").focus()
            return
        table = self.query_one(Table)
        rows = [row(one, one == self.known.chosen)[:-1] for one in self.known.plans]
        heads = [(place, title) for place, title in enumerate(titles(self.known.plans)[:-1]) if not place or title]
        table.head((str(place), title, None) for place, title in heads)
        for place, texts in enumerate(rows):
            table.add_row(*(cell(texts[column]) for column, _title in heads), key=str(place))
        at = next((place for place, one in enumerate(self.known.plans) if one == self.known.chosen), 0)
        table.move_cursor(row=at)
        table.focus()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Say what is against the build under the cursor."""
        event.stop()
        known, one = self.known, self.known.plans[event.cursor_row]
        trouble = known.trouble if one == known.chosen and known.trouble else row(one, False)[-1]
        complaint = self.query_one(".complaint", Static)
        complaint.update(line(trouble))
        complaint.display = bool(trouble)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_pull()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_pull() if event.button.id == "yes" else self.action_cancel()

    def action_pull(self) -> None:
        plans = self.known.plans
        self.dismiss(plans[self.query_one(Table).cursor_row].label if len(plans) > 1 else "")
