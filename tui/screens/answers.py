"""The answer that streams into a conversation, and the exact count of what would be sent."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from textual import on, work
from textual.message import Message
from textual.timer import Timer

from ...backends.base import Beams, Prefill, Text
from ...chat.prepare import Prepared
from ...chat.record import Entry
from ...core.errors import ContextError, VigtuiError
from ...core.i18n import _
from ..desk import Desk
from ..inbox import Inbox
from ..widgets.prompt import Prompt
from ..widgets.reply import Reply, rate
from ..widgets.transcript import Transcript
from .choices import Choices

TICK = 0.05
"""Seconds between two drawings of a growing answer: 20 a second read as a flow and leave the processor alone."""
WATCH = 0.5
"""Seconds between two looks at the engine's process."""
SHARE = 6
"""What a drawing took of the processor, the next one waits so many times: at most a seventh of a core goes into it."""


class Answers(Choices):
    """Has the engine answer in a thread and draws what arrives. `reply` is the answer on its way."""

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
        self.transcript, self.prompt = Transcript(self.place), Prompt()
        self.reply: Reply | None = None
        self.editing: str | None = None
        self.inbox, self.halt = Inbox(), threading.Event()
        self._serial = 0
        self.beams: Sequence[tuple[str, float]] = ()
        self._tokens = (0, 0)
        self._typing: Timer | None = None
        self._alive = True
        self._before: str | None = None

    async def on_mount(self) -> None:
        self.set_interval(WATCH, self.watch_engine)

    def on_unmount(self) -> None:
        self.halt.set()

    def watch_engine(self) -> None:
        """Say it once when the engine's process has ended while nobody asked anything."""
        died, self._alive = self._alive and not self.desk.alive, self.desk.alive
        if died and not self.busy and not self.loading_now:
            self.notify(_("The engine process has ended; the next message starts it again."), severity="warning")

    def place(self, entry: Entry) -> tuple[int, int]:
        """Give the position of a message among its versions and their number."""
        versions = self.desk.session.siblings(entry.id)
        return 1 + next(i for i, one in enumerate(versions) if one.id == entry.id), len(versions)

    @property
    def draft(self) -> str:
        """What is being written, nothing while an earlier message is edited."""
        return "" if self.editing else self.prompt.text

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way."""
        return self.reply is not None

    @work(group="turn")
    async def answer_waiting(self) -> None:
        async with self.turn() as session:
            if session.path() and session.path()[-1].role == "user":
                await self.answer()

    @work(group="turn")
    async def answer_with(self, name: str, entry: Entry | None = None) -> None:
        """Have the model `name` answer once what the answer `entry`, or the last one, answers; then the one before is
        back."""
        async with self.turn() as session:
            before = session.path()[-1].id
            session.regenerate(entry.id if entry else None)
            await self.redraw()
            self.start_visit(name)
            self.waiting, self._before = True, before

    @work(group="turn")
    async def load_failed(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            async with self.turn() as session:
                session.select(before)
                await self.redraw()

    async def answer(self) -> None:
        """Have the last message of the user answered, now or as soon as a model is loaded."""
        if self.desk.engine is None or (self.loading_now and self.desk.visited):
            self.waiting = True
            if not self.loading_now:
                self.start_load(self.desk.wanted())
            return
        self.waiting, self._before, self.beams = False, None, ()
        self.idle.clear()
        self.halt, self.inbox = threading.Event(), Inbox()
        self.prompt.ready = False
        self.reply = Reply(who=self.desk.source.name)
        self._tokens = (0, 0)
        self.status.show(activity=_("reading"), exact=True)
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
            elif isinstance(event, Beams):
                self.beams = event.candidates
        text = "".join(event.delta for event in events if isinstance(event, Text))
        if text and self.reply is not None:
            await self.reply.grow(text)
            self.status.show(activity=_("writing"), used=sum(self._tokens) or None)
        if self.beams and self.reply is not None:
            self.reply.lean(self.beams[0][0])
        return bool(events)

    def _progressed(self, event: Prefill) -> None:
        share = 100 * event.done // event.total if event.total else 100
        self.status.show(activity=_("reading {share} %").format(share=share), used=event.total)

    @on(Finished)
    async def finished(self, event: Finished) -> None:
        await self._draw()
        reply, self.reply = self.reply, None
        session, status = self.desk.session, self.status
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
        if self.desk.visited:
            self.end_visit()

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
        self.status.show(
            used=event.prepared.tokens if event.prepared else None,
            context=self.desk.context,
            fits=not long,
            exact=True,
            activity=_("too long for the context") if long else self.load_activity,
        )
        if event.prepared:
            self.transcript.cut(event.prepared.dropped, event.prepared.shortened)
