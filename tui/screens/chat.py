"""The conversation: transcript, prompt and status, and the answer that streams into it."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer

from ...backends.base import Prefill, Text
from ...chat.prepare import Prepared
from ...chat.record import Entry
from ...core.errors import ContextError, VigtuiError
from ...core.i18n import _
from ...core.text import safe
from ...registry.builtin import EMBEDDED
from .. import clipboard
from ..desk import Desk
from ..fence import blocks
from ..inbox import Inbox
from ..key import N_, translate
from ..widgets.heading import Heading
from ..widgets.keys import Keys
from ..widgets.prompt import Prompt
from ..widgets.reply import Reply, rate
from ..widgets.status import Status
from ..widgets.transcript import Transcript
from ..widgets.turn import Turn
from .choices import Choices

TICK = 0.05
"""Seconds between two drawings of a growing answer: 20 a second read as a flow and leave the processor alone."""
SHARE = 6
"""What a drawing took of the processor, the next one waits so many times: at most a seventh of a core goes into it."""
PAUSE = 0.15
"""Seconds without a key before what is typed is counted."""


class ChatScreen(Choices):
    """Everything about one conversation at a time."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", N_("Stop")),
        Binding("ctrl+n", "new", N_("New")),
        Binding("ctrl+o", "chats", N_("Chats")),
        Binding("ctrl+r", "regenerate", N_("Again"), tooltip=N_("Answer the last message once more")),
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
        Binding("f8", "delete", N_("Delete"), show=False),
        Binding("ctrl+home", "top", N_("To the beginning"), show=False),
        Binding("ctrl+end", "bottom", N_("To the end"), show=False),
        Binding("pageup", "page(-1)", N_("Scroll up"), show=False, priority=True),
        Binding("pagedown", "page(1)", N_("Scroll down"), show=False, priority=True),
    ]

    class Arrived(Message):
        """There are events of the answer in the inbox."""

    @dataclass
    class Finished(Message):
        """The answer has ended, by itself or with `error`."""

        error: Exception | None

    @dataclass
    class Counted(Message):
        """What would be sent now, or why it cannot be; `serial` tells an old count from the newest."""

        serial: int
        prepared: Prepared | None
        error: VigtuiError | None = None

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        translate(self)
        self.reply: Reply | None = None
        self.editing: str | None = None
        self.inbox, self.halt = Inbox(), threading.Event()
        self._serial = 0
        self._tokens = (0, 0)
        self._typing: Timer | None = None
        self._draft = ""

    def compose(self) -> ComposeResult:
        yield Heading()
        yield Transcript(self._place)
        yield Prompt()
        yield Status()
        yield Keys()

    async def on_mount(self) -> None:
        self.prompt.focus()
        await self.redraw()
        self.start_load(self.desk.wanted())

    def on_unmount(self) -> None:
        self.halt.set()
        super().on_unmount()

    @property
    def prompt(self) -> Prompt:
        """Where the user writes."""
        return self.query_one(Prompt)

    @property
    def transcript(self) -> Transcript:
        """The messages."""
        return self.query_one(Transcript)

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way."""
        return self.reply is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop":
            return self.busy or self.editing is not None or self.loading_now
        if action in ("regenerate", "edit_last", "copy_answer", "copy_block", "delete", "version", "focus_transcript"):
            return bool(self.desk.session.path())
        return True

    def _place(self, entry: Entry) -> tuple[int, int]:
        """Give the position of a message among its versions and their number."""
        versions = self.desk.session.siblings(entry.id)
        return 1 + next(i for i, one in enumerate(versions) if one.id == entry.id), len(versions)

    async def redraw(self, at: str | None = None) -> None:
        """Show the conversation as it stands, its end or the message `at`."""
        session = self.desk.session
        path = session.path()
        if self.editing is not None and not session.has(self.editing):
            self._leave_editing(self.prompt.text)
        await self.transcript.show(path, at)
        persona = session.persona.name if session.persona else ""
        self.query_one(Heading).entitle(session.title, persona)
        self.prompt.remember([entry.content for entry in path if entry.role == "user"])
        last = next((entry.stamp for entry in reversed(path) if entry.stamp), None)
        self.query_one(Status).show(speed=rate(last) if last else None)
        self.show_model()
        self.refresh_bindings()
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
    async def submit(self, event: Prompt.Submitted) -> None:
        if self.busy:  # it was typed faster than the screen could say so
            self.prompt.put(event.text + self.prompt.text)
            return self.refused()
        session, editing = self.desk.session, self.editing
        if editing:
            session.edit(editing, event.text)
            self._leave_editing()
        else:
            session.say(event.text)
        await self.redraw()
        if session.path()[-1].role == "user":
            await self.answer()

    @on(Prompt.Refused)
    def refused(self) -> None:
        self.notify(_("The answer is still coming; Esc stops it."), severity="warning")

    @on(Prompt.Typed)
    def typed(self, _event: Prompt.Typed) -> None:
        self.query_one(Status).show(exact=False)
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
        elif what == "version":
            self.go_version(entry.id, value)
        elif what == "pin":
            self.desk.session.pin(entry.id, not entry.pinned)
            self.app.call_later(self.redraw, entry.id)
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

    # The answer

    async def answer(self) -> None:
        """Have the last message of the user answered, now or as soon as a model is loaded."""
        if self.desk.engine is None:
            self.waiting = True
            if not self.loading_now:
                self.start_load(self.desk.wanted())
            return
        self.waiting = False
        self.idle.clear()
        self.halt, self.inbox = threading.Event(), Inbox()
        self.prompt.ready = False
        self.reply = Reply(who=self.desk.source.name)
        self._tokens = (0, 0)
        self.query_one(Status).show(activity=_("reading"), exact=True)
        self.refresh_bindings()
        await self.transcript.push(self.reply)
        self.generate()

    @work(thread=True, exclusive=True, group="generation", exit_on_error=False)
    def generate(self) -> None:
        halt, inbox, error = self.halt, self.inbox, None
        try:
            for event in self.desk.reply(halt.is_set):
                if inbox.put(event):
                    self.post_message(self.Arrived())
        except Exception as caught:  # the edge: whatever happened becomes a sentence in the chat
            error = caught
        self.post_message(self.Finished(error))

    @on(Arrived)
    async def pump(self) -> None:
        """Draw what has arrived, and look again when the screen has been painted and a while has passed."""
        began = time.thread_time()
        if await self._draw():
            self.call_after_refresh(self._pause, began)

    def _pause(self, began: float) -> None:
        self.set_timer(max(TICK, SHARE * (time.thread_time() - began)), self.pump)

    async def _draw(self) -> bool:
        events = self.inbox.take()
        for event in events:
            if isinstance(event, Prefill):
                self._tokens = (event.total, 0)
                self._progressed(event)
            elif isinstance(event, Text):
                self._tokens = (self._tokens[0], self._tokens[1] + event.tokens)
        text = "".join(event.delta for event in events if isinstance(event, Text))
        if text and self.reply is not None:
            await self.reply.grow(text)
            self.query_one(Status).show(activity=_("writing"), used=sum(self._tokens) or None)
        return bool(events)

    def _progressed(self, event: Prefill) -> None:
        share = 100 * event.done // event.total if event.total else 100
        self.query_one(Status).show(activity=_("reading {share} %").format(share=share), used=event.total)

    @on(Finished)
    async def finished(self, event: Finished) -> None:
        await self._draw()
        reply, self.reply = self.reply, None
        session, status = self.desk.session, self.query_one(Status)
        last = session.path()[-1:]
        kept = last[0] if last and last[0].role == "assistant" else None
        if reply is not None:
            await self.transcript.settle(reply, kept)
        stamp = kept.stamp if kept else None
        status.show(activity="", speed=rate(stamp) if stamp else status.state.speed)
        if event.error is not None:
            await self._failed(event.error, kept)
        self.prompt.ready = True
        self.refresh_bindings()
        self.idle.set()
        self.recount()

    async def _failed(self, error: Exception, kept: Entry | None) -> None:
        """Say what happened. A message that does not fit goes back to where it was written."""
        if isinstance(error, ContextError):
            texts = [turn.entry.content for turn in self.transcript.turns if turn.entry]
            await self.redraw()
            if not self.prompt.text and texts:
                self.prompt.put(texts[-1])
        self.complain(error)

    def recount(self, pause: float = 0.0) -> None:
        """Count what would be sent, after `pause` seconds in which nothing is typed."""
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(max(pause, 0.01), self._count)

    def _count(self) -> None:
        self._typing = None
        if self.busy or self.editing:
            return
        self._serial += 1
        self.count(self._serial, self.prompt.text, self.desk.session.path())

    @work(thread=True, exclusive=True, group="count", exit_on_error=False)
    def count(self, serial: int, draft: str, path: Sequence[Entry]) -> None:
        try:
            self.post_message(self.Counted(serial, self.desk.count(draft, path)))
        except VigtuiError as error:
            self.post_message(self.Counted(serial, None, error))

    @on(Counted)
    def counted(self, event: Counted) -> None:
        if event.serial != self._serial or self.busy:
            return
        long = isinstance(event.error, ContextError)
        self.query_one(Status).show(
            used=event.prepared.tokens if event.prepared else None,
            context=self.desk.context,
            fits=not long,
            exact=True,
            activity=_("too long for the context") if long else self.load_activity,
        )
        if event.prepared:
            self.transcript.cut(event.prepared.dropped)

    # What can be done

    def action_stop(self) -> None:
        if self.busy:
            self.halt.set()
        elif self.editing is not None:
            self._leave_editing()
        else:
            self.stop_load()

    @work(exclusive=True, group="turn")
    async def answer_again(self, entry: Entry | None = None) -> None:
        """Answer the last message once more, or the one before the answer `entry`, which stays as a version."""
        await self.settle()
        session = self.desk.session
        try:
            session.regenerate(entry.id if entry else None)
        except VigtuiError as error:
            self.complain(error)
            return
        await self.redraw()
        await self.answer()

    @work(exclusive=True, group="turn")
    async def go_version(self, id: str, step: int) -> None:
        """Show the version of the message `id` that is `step` after it."""
        await self.settle()
        session = self.desk.session
        versions = [entry.id for entry in session.siblings(id)]
        at = versions.index(id) + step
        if 0 <= at < len(versions):
            focused = isinstance(self.focused, Turn)
            session.select(versions[at])
            await self.redraw(versions[at] if focused else None)

    def action_regenerate(self) -> None:
        self.answer_again()

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
