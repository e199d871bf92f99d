"""The template doctor: what this model is sent in this chat, token by token, and how it answers under other formats."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, DataTable, Static

from ...chat.doctor import Report
from ...chat.record import Entry
from ...chat.trial import Trial
from ...core.errors import VigtuiError
from ...core.i18n import _
from ...core.text import line
from .. import clinic
from ..desk import Desk
from ..key import N_
from ..widgets.keys import Keys
from .dialog import Dialog
from .report import answer, findings, overview, prompt, row, titled, tokens
from .table import Table, cell


class DoctorScreen(Dialog[str]):
    """Gives the id of the prompt format chosen for this chat, "" for the model's, None for Esc."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "ask", N_("Ask"), tooltip=N_("Have the model answer this prompt, kept nowhere")),
        Binding("t", "try", N_("Try formats"), tooltip=N_("Rank the plausible formats by how cleanly it answers")),
        Binding("f", "choose", N_("Another format"), tooltip=N_("Use another format in this chat")),
        Binding("up", "scroll(-1)", show=False),
        Binding("down", "scroll(1)", show=False),
        Binding("pageup", "scroll(-10)", show=False, priority=True),
        Binding("pagedown", "scroll(10)", show=False, priority=True),
    ]

    @dataclass
    class Examined(Message):
        """The report on the prompt, or why there is none."""

        report: Report | None
        error: Exception | None = None

    @dataclass
    class Tried(Message):
        """Answers: one to the prompt as it is (`ranked` false), or one under each format, the cleanest first."""

        trials: Sequence[Trial]
        ranked: bool
        error: Exception | None = None

    def __init__(self, desk: Desk, draft: str, path: Sequence[Entry]) -> None:
        super().__init__("doctor")
        self.desk, self.draft, self.path = desk, draft, list(path)
        self.report: Report | None = None
        self.trials: list[Trial] = []
        self.halt: threading.Event | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = _("What the model is sent")
            with VerticalScroll(id="report"):
                yield Static("", id="overview")
                yield Static("", id="prompt-text")
                yield Static("", id="tokens")
                yield Static("", id="findings")
                yield Static("", id="answer")
                yield Static("", id="ranking")
                yield Table()
            with Horizontal(classes="buttons"):
                yield Button(_("Ask"), id="ask", compact=True)
                yield Button(_("Try formats"), id="try", compact=True)
                yield Button(_("Another format"), id="choose", variant="primary", compact=True)
        yield Keys()

    def on_mount(self) -> None:
        self.query_one(Table).display = False
        self.query_one("#report").focus()
        self.query_one("#overview", Static).update(_("Looking at the prompt …"))
        self.examine()

    def on_unmount(self) -> None:
        self._stop()

    def _stop(self) -> None:
        if self.halt is not None:
            self.halt.set()

    # In threads

    @work(thread=True, exclusive=True, group="examine", exit_on_error=False)
    def examine(self) -> None:
        try:
            self.post_message(self.Examined(clinic.examine(self.desk, self.draft, self.path)))
        except Exception as error:  # the edge: whatever happened becomes a sentence
            self.post_message(self.Examined(None, error))

    @work(thread=True, exclusive=True, group="trial", exit_on_error=False)
    def attempt(self, report: Report, ranked: bool, halt: threading.Event) -> None:
        try:
            trials = clinic.trials(self.desk, report, ranked, halt.is_set)
            self.post_message(self.Tried(trials, ranked))
        except Exception as error:  # the edge: whatever happened becomes a sentence
            self.post_message(self.Tried((), ranked, error))

    # What they bring

    @on(Examined)
    def examined(self, event: Examined) -> None:
        if event.report is None:
            return self._say("#overview", Content.styled(_sentence(event.error), "$text-error"))
        self.report = report = event.report
        self._say("#overview", overview(self.desk.source.name, report))
        self._say("#prompt-text", prompt(report))
        self._say("#tokens", tokens(report, self._width))
        self._say("#findings", findings(report))
        self.refresh_bindings()

    @property
    def _width(self) -> int:
        return self.app.size.width - 5  # the frame, the space beside it and the scroll bar

    def on_resize(self, _event: events.Resize) -> None:
        if self.report is not None:
            self._say("#tokens", tokens(self.report, self._width))

    @on(Tried)
    def tried(self, event: Tried) -> None:
        self.halt = None
        place = "#ranking" if event.ranked else "#answer"
        if event.error is not None:
            self._say(place, Content.styled(_sentence(event.error), "$text-error"))
        elif event.ranked:
            self._rank(list(event.trials))
        else:
            self._say(place, answer(event.trials[0]))
        self.refresh_bindings()
        self.call_after_refresh(self.query_one("#report", VerticalScroll).scroll_end, animate=False)

    def _rank(self, trials: list[Trial]) -> None:
        self.trials = trials
        self._say("#ranking", titled(_("Formats, the cleanest first; Enter uses one in this chat"), Content("")))
        table = self.query_one(Table)
        names = (_("FORMAT"), _("ENDS"), _("LEAKED"), _("LIKELIHOOD"), _("ANSWER"))
        table.head((name, name, None) for name in names)
        table.fill([(one.form, [cell(text) for text in row(one)]) for one in trials])
        table.display = True
        table.focus()

    def _say(self, place: str, text: Content) -> None:
        self.query_one(place, Static).update(text)

    # What can be done

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("ask", "try"):
            return self.report is not None and self.halt is None
        return True

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if self.check_action(event.button.id or "", ()):
            getattr(self, f"action_{event.button.id}")()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.dismiss(event.row_key.value)

    def action_ask(self) -> None:
        self._begin(False)

    def action_try(self) -> None:
        self._begin(True)

    def _begin(self, ranked: bool) -> None:
        if self.report is None or self.halt is not None:
            return
        self.halt = threading.Event()
        self._say("#ranking" if ranked else "#answer", titled(_("The model answers …"), Content("")))
        self.refresh_bindings()
        self.attempt(self.report, ranked, self.halt)

    @work(exclusive=True, group="choose")
    async def action_choose(self) -> None:
        from .formats import FormatsScreen

        chosen = await self.app.push_screen_wait(FormatsScreen(self.desk))
        if chosen is not None:
            self.dismiss(chosen)

    def action_scroll(self, rows: int) -> None:
        self.query_one("#report", VerticalScroll).scroll_relative(y=rows, animate=False)


def _sentence(error: Exception | None) -> str:
    return line(str(error) if isinstance(error, VigtuiError) else f"{type(error).__name__}: {error}")
