"""The workshop: what is being made of which models, how far it is, and what came of it."""

from typing import ClassVar

from rich.text import Text
from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import DataTable, Static

from ...core.errors import VigtuiError
from ...core.i18n import _
from ...core.text import line
from ...registry.record import Record
from ...registry.workshop.pipeline import Step
from ...registry.workshop.report import Report
from ..cli.bar import duration, percent
from ..desk import Desk
from ..jobs import Job
from ..key import N_
from ..widgets.chart import WIDTH, chart
from ..widgets.keys import Keys
from .dialog import Dialog
from .drain import drain
from .table import Table, cell

OFTEN = 0.2
"""Seconds between two looks at how far the jobs are."""


class WorkshopScreen(Dialog[str]):
    """Gives the name of the model that shall answer, None for Esc. Jobs go on when it is left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,f2", "new", N_("New")),
        Binding("enter", "answer", N_("Let it answer")),
        Binding("f5", "halt", N_("Stop")),
        Binding("f6", "go_on", N_("Go on")),
        Binding("l,f7", "log", N_("Log")),
        Binding("f8", "forget", N_("Forget")),
        Binding("pageup", "scroll(-5)", show=False),
        Binding("pagedown", "scroll(5)", show=False),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__("workshop")
        self.desk, self.jobs = desk, desk.jobs
        self._drawn: list[tuple[str, str, int]] | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = _("Workshop")
            yield Table()
            with VerticalScroll(classes="about", can_focus=False):
                yield Static("")
        yield Keys()

    def on_mount(self) -> None:
        self._columns()
        self.query_one(Table).focus()
        self.set_interval(OFTEN, self.look)
        self.look()
        if not self.jobs.all:
            self.action_new()

    def on_resize(self, _event: events.Resize) -> None:
        self._columns()
        self.look()

    def _columns(self) -> None:
        widths = {"ref": 0, "stage": 24, "share": 5, "state": 9}
        titles = {"ref": _("PRODUCT"), "stage": _("STAGE"), "share": "", "state": _("STATE")}
        widths["ref"] = max(12, self.app.size.width - 5 - sum(widths.values()) - 2 * len(widths))
        self.query_one(Table).head((key, titles[key], width) for key, width in widths.items())
        self._drawn = None

    @property
    def current(self) -> Job | None:
        """The job under the cursor."""
        return self.jobs.of(self.query_one(Table).current)

    def look(self) -> None:
        """Show how far the jobs are."""
        if not self.is_current:
            return
        seen = [(one.ref, one.state, len(one.steps)) for one in self.jobs.all]
        table = self.query_one(Table)
        if seen != self._drawn:
            self._drawn = seen
            table.fill([(one.ref, _cells(one)) for one in self.jobs.all])
            self.refresh_bindings()
        for one in self.jobs.all:
            if one.live and one.ref in table.rows:
                table.update_cell(one.ref, "share", cell(_share(one.step), right=True))
        self._about()

    @on(DataTable.RowHighlighted)
    def highlighted(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self._about()
        self.refresh_bindings()

    @on(DataTable.RowSelected)
    def selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.action_answer()

    def _about(self) -> None:
        one = self.current
        text = about(one) if one else Content(_("Nothing is being made. N begins something."))
        self.query_one(".about Static", Static).update(text)

    # What can be done

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        one = self.current if self.is_mounted else None
        if action == "halt":
            return one is not None and one.live
        if action in ("go_on", "forget"):
            return one is not None and not one.live and (action == "forget" or one.state != "done")
        if action == "log":
            return one is not None and any(step.log for step in one.steps)
        if action == "answer":
            return one is not None and answering(one) is not None
        return True

    @work(exclusive=True, group="new")
    async def action_new(self) -> None:
        from .make import MakeScreen

        made = await self.app.push_screen_wait(MakeScreen(self.desk))
        if made is not None:
            self.start(Job(*made))

    def start(self, job: Job) -> None:
        """Have `job` done, now or after those before it."""
        if self.jobs.enter(job):
            drain(self.app, self.jobs, "job", _("{name} is made."))
        self.look()

    def action_halt(self) -> None:
        if self.current is not None:
            self.jobs.halt(self.current)

    def action_go_on(self) -> None:
        if (one := self.current) is not None:
            self.start(Job(one.ref, one.order))

    def action_forget(self) -> None:
        if (one := self.current) is not None:
            self.jobs.forget(one)
            self.look()

    def action_answer(self) -> None:
        one = self.current
        record = answering(one) if one else None
        if record is not None:
            self.dismiss(record.ref)

    def action_log(self) -> None:
        from .log import LogScreen

        logs = [step.log for step in self.current.steps if step.log] if self.current else []
        if logs:
            self.app.push_screen(LogScreen(logs[-1]))

    def action_scroll(self, rows: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=rows, animate=False)


def answering(one: Job) -> Record | None:
    """Give the model of the job that can answer."""
    return next((record for record in one.made if record.kind != "adapter"), None)


def states() -> dict[str, str]:
    """Give the names of a job's states."""
    return {
        "waiting": _("waiting"), "running": _("running"), "stopped": _("stopped"), "failed": _("failed"),
        "done": _("done"),
    }  # fmt: skip


def about(one: Job) -> Content:
    """Give what is known of a job: its stages, what went wrong, and the proof of what came of it."""
    parts = [_stage(step, one.state if step is one.step else "done") for step in one.steps if step.state != "found"]
    if one.error is not None:
        parts.append(Content.styled(f"! {line(str(one.error))}", "$text-error"))
    if one.state == "stopped":
        parts.append(Content.styled(_("Stopped; what is finished is kept. F6 goes on from there."), "$text-warning"))
    for record in one.made:
        parts.append(Content.styled(line(record.ref), "bold"))
        parts += [Content.styled(f"! {line(text)}", "$text-warning") for text in record.notices]
        parts += _proof(record)
    return Content("\n").join(parts)


def _proof(record: Record) -> list[Content]:
    parts: list[Content] = []
    if "report" in record.made_with:
        try:
            parts.append(chart(Report.from_values(record.made_with["report"])))
        except VigtuiError as error:
            parts.append(Content.styled(line(str(error)), "$text-error"))
    if trial := record.made_with.get("trial"):
        parts.append(Content.assemble((_("It answers:") + " ", "$foreground 60%"), line(str(trial.get("text", "")))))
    return parts


def _stage(step: Step, state: str) -> Content:
    marks = {"done": ("✓ ", "$text-success"), "failed": ("✗ ", "$text-error"), "stopped": ("■ ", "$text-warning")}
    if state in marks:
        return Content.assemble(marks[state], line(step.title))
    full = WIDTH * step.done // step.total if step.total else 0
    said = [percent(step.done, step.total)] if step.total else []
    said += [_("≈ {time} left").format(time=duration(step.left))] if step.left and step.left >= 1 else []
    return Content.assemble(
        ("▸ ", "$text-accent"), f"{line(step.title):<22}",
        ("█" * full, "$primary"), ("░" * (WIDTH - full), "$foreground 30%"), "  ", " · ".join(said),
    )  # fmt: skip


def _cells(one: Job) -> list[Text]:
    step = one.step
    title = f"{step.number}/{step.count} {step.title}" if step and step.count > 1 else step.title if step else ""
    state = states()[one.state]
    return [
        cell(one.ref, "bold"), cell(title if one.live else ""), cell(_share(step) if one.live else "", right=True),
        cell(state),
    ]  # fmt: skip


def _share(step: Step | None) -> str:
    return percent(step.done, step.total) if step and step.total else ""
