"""The conversation: transcript, prompt and status, and what can be done with its messages."""

from collections.abc import Iterator
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from ...chat.record import Entry
from ...core.i18n import _
from ...core.text import safe
from ...registry.builtin import EMBEDDED
from .. import clipboard
from ..desk import Desk
from ..fence import blocks
from ..key import N_, translate
from ..widgets.heading import Heading
from ..widgets.keys import Keys
from ..widgets.prompt import Prompt
from ..widgets.reply import rate
from ..widgets.turn import Turn
from .answers import Answers

PAUSE = 0.15
"""Seconds without a key before what is typed is counted."""


class ChatScreen(Answers):
    """Everything about one conversation at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", N_("Stop")),
        Binding("ctrl+n", "new", N_("New")),
        Binding("ctrl+o", "chats", N_("Chats")),
        Binding("ctrl+r", "regenerate", N_("Again"), tooltip=N_("Answer the last message once more")),
        Binding("f10", "elsewhere", N_("Again with…"), show=False, tooltip=N_("Have another model answer this once")),
        Binding("f12", "beams", N_("Beams"), show=False, tooltip=N_("All hypotheses of the beam search")),
        Binding("ctrl+t", "edit_last", N_("Edit"), tooltip=N_("Edit the last message and send it again")),
        Binding("ctrl+y", "copy_answer", N_("Copy"), priority=True, tooltip=N_("Copy the last answer")),
        Binding("ctrl+b", "copy_block", N_("Code"), tooltip=N_("Copy a code block")),
        Binding("ctrl+l", "models", N_("Model")),
        Binding("ctrl+g", "generation", N_("Values"), tooltip=N_("Temperature and other generation values")),
        Binding("ctrl+s", "system", N_("System"), tooltip=N_("The system message")),
        Binding("f2", "rename", N_("Rename"), show=False),
        Binding("f3", "personas", N_("Persona"), show=False),
        Binding("f4", "formats", N_("Prompt format"), show=False),
        Binding("f5", "adapters", N_("Adapters"), show=False),
        Binding("f6", "library", N_("All models"), show=False, priority=True, tooltip=N_("Pull and remove models")),
        Binding("f7", "doctor", N_("Prompt doctor"), show=False, priority=True, tooltip=N_("What the model is sent")),
        Binding("f9", "workshop", N_("Workshop"), show=False, priority=True, tooltip=N_("Merge, quantize, convert")),
        Binding("f8", "delete", N_("Delete"), show=False),
        Binding("ctrl+home", "top", N_("To the beginning"), show=False),
        Binding("ctrl+end", "bottom", N_("To the end"), show=False),
        Binding("pageup", "page(-1)", N_("Scroll up"), show=False, priority=True),
        Binding("pagedown", "page(1)", N_("Scroll down"), show=False, priority=True),
    ]

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        translate(self)
        self.heading = Heading()
        self._draft = ""

    def compose(self) -> ComposeResult:
        yield self.heading
        yield self.transcript
        yield self.prompt
        yield self.status
        yield Keys()

    async def on_mount(self) -> None:
        self.prompt.focus()
        await self.redraw()
        self.start_load(self.desk.wanted())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop":
            return self.busy or self.editing is not None or self.loading_now
        if action == "beams":
            return bool(self.beams)
        if action in (
            "regenerate",
            "elsewhere",
            "edit_last",
            "copy_answer",
            "copy_block",
            "delete",
            "version",
            "focus_transcript",
        ):
            return bool(self.desk.session.path())
        return True

    async def redraw(self, at: str | None = None) -> None:
        """Show the conversation as it stands, its end or the message `at`."""
        session = self.desk.session
        path = session.path()
        if self.editing is not None and not session.has(self.editing):
            self._leave_editing(self.prompt.text)
        await self.transcript.show(path, at)
        self.prompt.remember([entry.content for entry in path if entry.role == "user"])
        last = next((entry.stamp for entry in reversed(path) if entry.stamp), None)
        self.status.show(speed=rate(last) if last else None)
        self.entitle()
        self.refresh_bindings()

    def entitle(self) -> None:
        session = self.desk.session
        self.heading.entitle(session.title, session.persona.name if session.persona else "")
        self.show_model()
        self.recount()

    def show_model(self) -> None:
        super().show_model()
        self.transcript.welcome("\n\n".join(self._greeting()))

    def _greeting(self) -> Iterator[str]:
        """Give what stands in an empty conversation: who is there, and how to begin."""
        persona, record = self.desk.session.persona, self.desk.record
        if persona and persona.greeting:
            yield safe(persona.greeting)
        elif record is not None and record.ref == EMBEDDED:
            yield _("vigogneau is a tiny guide to vigtui: it knows this program and little else.")
        yield _("Write below; Enter sends. Ctrl+P lists everything that can be done, F1 the keys.")

    # What is typed

    @on(Prompt.Submitted)
    def submitted(self, event: Prompt.Submitted) -> None:
        self.send(event.text)

    @work(group="turn")
    async def send(self, text: str) -> None:
        """Say `text`, or make it another version of the message being edited, and have it answered."""
        async with self._turning:
            if self.busy:  # it was typed faster than the screen could say so
                self.prompt.put(text + self.prompt.text)
                return self.refused()
            with self.told():
                session, editing = self.desk.session, self.editing
                session.edit(editing, text) if editing else session.say(text)
                if editing:
                    self._leave_editing()
                await self.redraw()
                if session.path()[-1].role == "user":
                    await self.answer()

    @on(Prompt.Refused)
    def refused(self) -> None:
        self.notify(_("The answer is still coming; Esc stops it."), severity="warning")

    @on(Prompt.Typed)
    def typed(self, _event: Prompt.Typed) -> None:
        self.status.show(exact=False)
        self.recount(PAUSE)

    @on(Prompt.Left)
    def left(self, _event: Prompt.Left) -> None:
        self.action_stop()

    @on(Prompt.Turned)
    def turned(self, event: Prompt.Turned) -> None:
        many = [e for e in self.desk.session.path() if len(self.desk.session.siblings(e.id)) > 1]
        if many:
            self.go_version(many[-1].id, event.step)

    @on(Turn.Wanted)
    def wanted(self, event: Turn.Wanted) -> None:
        event.stop()
        entry = event.turn.entry
        if event.what == "move":
            self._move(event.turn, event.value)
        elif entry is not None:
            self._do(event.what, entry, event.value)

    def _do(self, what: str, entry: Entry, value: int) -> None:
        if what == "edit":
            self.begin_editing(entry)
        elif what == "again":
            self.answer_again(entry)
        elif what == "elsewhere":
            self.choose_elsewhere(entry)
        elif what == "beams":
            self.action_beams()
        elif what == "version":
            self.go_version(entry.id, value)
        elif what == "pin":
            self.pin(entry)
        elif what == "copy":
            self.copy(entry.content)
        elif what == "block":
            self._copy_block(entry.content, value)

    def _move(self, turn: Turn, step: int) -> None:
        turns = self.transcript.turns
        at = turns.index(turn) + step
        if at >= len(turns):
            self.action_focus_prompt()
        elif at >= 0:
            self.transcript.release_anchor()
            turns[at].focus()

    # What can be done

    def action_stop(self) -> None:
        if self.busy:
            self.halt.set()
        elif self.editing is not None:
            self._leave_editing()
        else:
            self.stop_load()

    @work(group="turn")
    async def answer_again(self, entry: Entry | None = None) -> None:
        """Answer the last message once more, or the one before the answer `entry`, which stays as a version."""
        async with self.turn() as session:
            session.regenerate(entry.id if entry else None)
            await self.redraw()
            await self.answer()

    @work(group="turn")
    async def pin(self, entry: Entry) -> None:
        """Keep a message in the context for as long as it fits, or no longer."""
        async with self.turn() as session:
            session.pin(entry.id, not entry.pinned)
            await self.redraw(entry.id)

    @work(group="turn")
    async def go_version(self, id: str, step: int) -> None:
        """Show the version of the message `id` that is `step` after it."""
        async with self.turn() as session:
            versions = [entry.id for entry in session.siblings(id)]
            at = versions.index(id) + step
            if 0 <= at < len(versions):
                session.select(versions[at])
                await self.redraw(versions[at] if isinstance(self.focused, Turn) else None)

    def action_regenerate(self) -> None:
        self.answer_again()

    def action_elsewhere(self) -> None:
        self.choose_elsewhere()

    @work(exclusive=True, group="dialog")
    async def choose_elsewhere(self, entry: Entry | None = None) -> None:
        """Ask which model shall answer once what `entry`, or the last answer, answers."""
        from .models import ModelsScreen

        name = await self.app.push_screen_wait(ModelsScreen(self.desk, _("Answer again with…")))
        if name is not None:
            self.answer_with(name, entry)

    @work(exclusive=True, group="dialog")
    async def action_beams(self) -> None:
        from .beams import BeamsScreen

        if self.beams:
            await self.app.push_screen_wait(BeamsScreen(lambda: self.beams))

    def action_version(self, step: int) -> None:
        self.turned(Prompt.Turned(step))

    def action_edit_last(self) -> None:
        asked = [entry for entry in self.desk.session.path() if entry.role == "user"]
        if asked:
            self.begin_editing(asked[-1])

    def begin_editing(self, entry: Entry) -> None:
        """Take a message into the prompt; sending makes another version of it."""
        if self.editing is None:
            self._draft = self.prompt.text
        self.editing = entry.id
        self.prompt.put(entry.content)
        self.prompt.add_class("-editing")
        self.prompt.border_title = _("another version: Enter keeps both, Esc goes back")
        self.action_focus_prompt()
        self.refresh_bindings()

    def _leave_editing(self, text: str = "") -> None:
        """Write messages again; what was being written comes back, with `text` after it."""
        self.editing = None
        self.prompt.remove_class("-editing")
        self.prompt.border_title = None
        self.prompt.put("\n\n".join(filter(None, (self._draft, text))))
        self.refresh_bindings()

    def action_copy_answer(self) -> None:
        answers = [entry for entry in self.desk.session.path() if entry.role == "assistant"]
        if answers:
            self.copy(answers[-1].content)

    def copy(self, text: str) -> None:
        """Put `text`, made safe, on the clipboard."""
        clipboard.copy(self.app, safe(text))
        self.notify(_("Copied."), timeout=2)

    def _copy_block(self, markdown: str, number: int) -> None:
        found = blocks(markdown)
        if number <= len(found):
            self.copy(found[number - 1].text)
        else:
            self.notify(_("There is no code block {number} in this message.").format(number=number), severity="warning")

    def action_focus_prompt(self) -> None:
        self.prompt.focus()

    def action_focus_transcript(self) -> None:
        if self.transcript.turns:
            self.transcript.turns[-1].focus()

    def action_page(self, step: int) -> None:
        self.transcript.scroll_page_up() if step < 0 else self.transcript.scroll_page_down()

    def action_top(self) -> None:
        self.transcript.scroll_home(animate=False)

    async def action_bottom(self) -> None:
        await self.transcript.show(self.desk.session.path())
