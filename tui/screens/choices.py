"""What is chosen around a conversation: another one, its title, the model, the format, the persona, the values."""

import asyncio
import threading
from dataclasses import dataclass, field

from textual import on, work
from textual.message import Message
from textual.screen import Screen
from textual.worker import get_current_worker

from ...core.errors import VigtuiError
from ...core.i18n import _
from ...core.progress import Progress
from ...core.text import line, safe
from ..desk import Desk
from ..fence import blocks
from ..widgets.status import Status


class Stopped(Exception):
    """The user does not want the load any more."""


class Choices(Screen[None]):
    """A screen over a Desk: loads models in the background and opens the dialogs."""

    @dataclass
    class Loading(Message):
        """A load has come this far; `total` 0 when nobody knows."""

        stage: str
        done: int
        total: int

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, Choices.Loading)

    @dataclass
    class Loaded(Message):
        """The load that `halt` stops has ended, with `error` or with what the user should know."""

        halt: threading.Event
        said: list[str] = field(default_factory=list)
        error: Exception | None = None

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        self.waiting = False
        self.load_activity = ""
        self._load_halt: threading.Event | None = None
        self.idle = asyncio.Event()
        self.idle.set()

    def on_unmount(self) -> None:
        self.stop_load()

    # Implemented by the conversation's screen

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way."""
        raise NotImplementedError

    async def redraw(self, at: str | None = None) -> None:
        """Show the conversation as it stands."""
        raise NotImplementedError

    async def answer(self) -> None:
        """Answer the last message of the user."""
        raise NotImplementedError

    def recount(self, pause: float = 0.0) -> None:
        """Count what would be sent."""
        raise NotImplementedError

    def copy(self, text: str) -> None:
        """Put `text` on the clipboard."""
        raise NotImplementedError

    def action_stop(self) -> None:
        """Stop the answer."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Stop the answer and wait until it has ended and is kept."""
        if self.busy:
            self.action_stop()
            await self.idle.wait()

    def complain(self, error: Exception) -> None:
        """Show an error: its sentence, and the next step."""
        if isinstance(error, VigtuiError):
            title, text = error.message, error.hint
        else:
            title, text = _("Unexpected error"), f"{type(error).__name__}: {error}"
        whole = line(f"{title} {text}")
        self.notify(whole, severity="error", timeout=10, markup=False)

    # Loading

    @property
    def loading_now(self) -> bool:
        """Whether a model is being loaded."""
        return self._load_halt is not None

    def start_load(self, names: list[str | None]) -> None:
        """Load the first of `names` that can be loaded; the screen goes on meanwhile."""
        self.stop_load()
        self._load_halt = threading.Event()
        self._show_load(_("loading"))
        self.refresh_bindings()
        self.load(names, self._load_halt)

    def stop_load(self) -> None:
        """Give up the load that runs, if any."""
        if self._load_halt is not None:
            self._load_halt.set()

    @work(thread=True, group="load", exit_on_error=False)
    def load(self, names: list[str | None], halt: threading.Event) -> None:
        try:
            self.post_message(self.Loaded(halt, self._load_first(names, self._meter(halt))))
        except Exception as error:  # the edge: whatever happened becomes a sentence
            self.post_message(self.Loaded(halt, error=error))

    def _load_first(self, names: list[str | None], progress: Progress) -> list[str]:
        said: list[str] = []
        for name in names[:-1]:
            try:
                return said + self.desk.load(name, progress)
            except VigtuiError as error:
                said.append(f"{error.message} {_('Another model answers instead.')}")
        return said + self.desk.load(names[-1], progress)

    def _meter(self, halt: threading.Event) -> Progress:
        worker = get_current_worker()

        def progress(stage: str, done: int, total: int) -> None:
            if halt.is_set() or worker.is_cancelled:
                raise Stopped
            self.post_message(self.Loading(stage, done, total))

        return progress

    @on(Loading)
    def show_loading(self, event: Loading) -> None:
        if self.loading_now:
            share = f" {100 * event.done // event.total} %" if event.total else ""
            self._show_load(_("loading") + share)

    @on(Loaded)
    async def loaded(self, event: Loaded) -> None:
        if event.halt is not self._load_halt:
            return
        self._load_halt = None
        self._show_load("")
        for sentence in event.said:
            self.notify(line(sentence), severity="warning", timeout=8, markup=False)
        if event.error is not None and not isinstance(event.error, Stopped):
            self.complain(event.error)
        self.show_model()
        self.refresh_bindings()
        self.recount()
        if self.waiting and self.desk.engine is not None:
            await self.answer()
        self.waiting = False

    def _show_load(self, text: str) -> None:
        self.load_activity = text
        self.query_one(Status).show(activity=text)

    def show_model(self) -> None:
        """Show who answers, in which format."""
        desk, status = self.desk, self.query_one(Status)
        try:
            chosen = desk.form()
        except VigtuiError as error:
            chosen = None
            self.complain(error)
        backend = desk.engine.name if desk.engine else ""
        form = chosen[0].id if chosen else ""
        status.show(model=desk.source.name, backend=backend, format=form, context=desk.context)

    # Dialogs

    @work(exclusive=True, group="turn")
    async def action_new(self) -> None:
        await self.settle()
        self.desk.new()
        await self.redraw()

    @work(exclusive=True, group="dialog")
    async def action_chats(self) -> None:
        from .chats import ChatsScreen

        chosen = await self.app.push_screen_wait(ChatsScreen(self.desk))
        if chosen is not None:
            await self.open(*chosen.split(" "))
        elif self.desk.gone:
            self.desk.new()
            await self.redraw()

    async def open(self, id: str, message: str | None = None) -> None:
        """Go on with the conversation `id`, at a message where one was found."""
        await self.settle()
        try:
            self.desk.open(id)
            if message:
                self.desk.session.select(message)
        except VigtuiError as error:
            return self.complain(error)
        await self.redraw(message)
        self.start_load(self.desk.wanted())

    @work(exclusive=True, group="dialog")
    async def action_rename(self) -> None:
        from .ask import Ask

        session = self.desk.session
        title = await self.app.push_screen_wait(Ask(_("Title of this conversation"), line(session.title)))
        if title is not None and title.strip():
            session.rename(title)
            await self.redraw()

    @work(exclusive=True, group="dialog")
    async def action_delete(self) -> None:
        from .confirm import Confirm

        session = self.desk.session
        if not session.path():
            return
        question = _("Delete the conversation “{title}” for good?").format(title=line(session.title) or session.id)
        if await self.app.push_screen_wait(Confirm(question, _("Delete"))):
            await self.settle()
            self.desk.delete(session.id)
            self.desk.new()
            await self.redraw()

    @work(exclusive=True, group="dialog")
    async def action_models(self) -> None:
        from .models import ModelsScreen

        name = await self.app.push_screen_wait(ModelsScreen(self.desk))
        if name is not None:
            await self.settle()
            self.start_load([name])

    @work(exclusive=True, group="dialog")
    async def action_formats(self) -> None:
        from .formats import FormatsScreen

        chosen = await self.app.push_screen_wait(FormatsScreen(self.desk))
        if chosen is not None:
            self.desk.session.set_format(chosen or None)
            await self.redraw()

    @work(exclusive=True, group="dialog")
    async def action_personas(self) -> None:
        from .personas import PersonasScreen

        chosen = await self.app.push_screen_wait(PersonasScreen(self.desk))
        if chosen is not None:
            self.desk.session.set_persona(chosen or None)
            await self.redraw()

    @work(exclusive=True, group="dialog")
    async def action_system(self) -> None:
        from .system import SystemScreen

        system = await self.app.push_screen_wait(SystemScreen(self.desk))
        if system is not None:
            self.desk.session.set_system(system.state, system.text)
            await self.redraw()

    @work(exclusive=True, group="dialog")
    async def action_generation(self) -> None:
        from .generation import GenerationScreen

        values = await self.app.push_screen_wait(GenerationScreen(self.desk))
        if values is not None:
            self.desk.session.set_generation(values)
            self.recount()

    @work(exclusive=True, group="dialog")
    async def action_adapters(self) -> None:
        from .adapters import AdaptersScreen

        chosen = await self.app.push_screen_wait(AdaptersScreen(self.desk))
        if chosen is not None:
            await self.settle()
            self.desk.choose_adapters(chosen)
            self.start_load([self.desk.record.ref if self.desk.record else None])

    @work(exclusive=True, group="dialog")
    async def action_copy_block(self) -> None:
        from .blocks import BlocksScreen

        found = [block for entry in self.desk.session.path() for block in blocks(safe(entry.content))]
        if not found:
            self.notify(_("There is no code block in this conversation."), severity="warning")
        elif len(found) == 1:
            self.copy(found[0].text)
        elif (text := await self.app.push_screen_wait(BlocksScreen(found))) is not None:
            self.copy(text)
