"""What is chosen around a conversation: another one, its title, the model, the format, the persona, the values."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from textual import work

from ...chat.session import Session
from ...core.i18n import _
from ...core.text import line, safe
from ..cli.models import lasting
from ..desk import Desk
from ..fence import blocks
from .dialog import Dialog
from .loads import Loads


class Choices(Loads):
    """Opens the dialogs and does what was chosen in them."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._turning = asyncio.Lock()
        self.idle = asyncio.Event()
        self.idle.set()

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way."""
        raise NotImplementedError

    @property
    def draft(self) -> str:
        """What is being written."""
        raise NotImplementedError

    async def redraw(self, at: str | None = None) -> None:
        """Show the conversation as it stands."""
        raise NotImplementedError

    def entitle(self) -> None:
        """Show the title, who speaks and how; count again."""
        raise NotImplementedError

    def copy(self, text: str) -> None:
        """Put `text` on the clipboard."""
        raise NotImplementedError

    def action_stop(self) -> None:
        """Stop the answer."""
        raise NotImplementedError

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Session]:
        """Change the conversation: one change at a time, after the answer was stopped and kept; errors are told."""
        async with self._turning:
            if self.busy:
                self.action_stop()
                await self.idle.wait()
            with self.told():
                yield self.desk.session

    @work(group="turn")
    async def action_new(self) -> None:
        async with self.turn():
            self.desk.new()
            await self.redraw()

    @work(exclusive=True, group="dialog")
    async def action_chats(self) -> None:
        from .chats import ChatsScreen

        chosen = await self.app.push_screen_wait(ChatsScreen(self.desk))
        if chosen is not None:
            await self.open(*chosen.split(" "))
        elif self.desk.gone:
            async with self.turn():
                self.desk.new()
                await self.redraw()

    async def open(self, id: str, message: str | None = None) -> None:
        """Go on with the conversation `id`, at a message where one was found."""
        async with self.turn():
            self.desk.open(id)
            if message:
                self.desk.session.select(message)
            await self.redraw(message)
            self.start_load(self.desk.wanted())

    @work(exclusive=True, group="dialog")
    async def action_rename(self) -> None:
        from .ask import Ask

        session = self.desk.session
        title = await self.app.push_screen_wait(Ask(_("Title of this conversation"), line(session.title)))
        if title is not None and title.strip():
            session.rename(title)
            self.entitle()

    @work(exclusive=True, group="dialog")
    async def action_delete(self) -> None:
        from .confirm import Confirm

        session = self.desk.session
        if not session.path():
            return
        question = _("Delete the conversation “{title}” for good?").format(title=line(session.title) or session.id)
        if await self.app.push_screen_wait(Confirm(question, _("Delete"))):
            async with self.turn():
                self.desk.delete(session.id)
                self.desk.new()
                await self.redraw()

    @work(exclusive=True, group="dialog")
    async def action_models(self) -> None:
        from .models import ModelsScreen

        await self._change_model(ModelsScreen(self.desk))

    @work(exclusive=True, group="dialog")
    async def action_library(self) -> None:
        from .library import LibraryScreen

        await self._change_model(LibraryScreen(self.desk))

    @work(exclusive=True, group="dialog")
    async def action_workshop(self) -> None:
        from .workshop import WorkshopScreen

        await self._change_model(WorkshopScreen(self.desk))

    async def _change_model(self, dialog: Dialog[str]) -> None:
        """Let the model answer that is chosen in `dialog`."""
        name = await self.app.push_screen_wait(dialog)
        if name is not None:
            async with self.turn():
                self.start_load([name])

    @work(exclusive=True, group="dialog")
    async def action_formats(self) -> None:
        from .formats import FormatsScreen

        await self._change_format(FormatsScreen(self.desk))

    @work(exclusive=True, group="dialog")
    async def action_doctor(self) -> None:
        from .doctor import DoctorScreen

        await self._change_format(DoctorScreen(self.desk, self.draft, self.desk.session.path()))

    async def _change_format(self, dialog: Dialog[str]) -> None:
        """Have the conversation take the format that is chosen in `dialog`."""
        chosen = await self.app.push_screen_wait(dialog)
        if chosen is not None:
            with self.told():
                self.desk.session.set_format(chosen or None)
            self.entitle()

    @work(exclusive=True, group="dialog")
    async def action_personas(self) -> None:
        from .personas import PersonasScreen

        chosen = await self.app.push_screen_wait(PersonasScreen(self.desk))
        if chosen is not None:
            with self.told():
                self.desk.session.set_persona(chosen or None)
            self.entitle()

    @work(exclusive=True, group="dialog")
    async def action_system(self) -> None:
        from .system import SystemScreen

        system = await self.app.push_screen_wait(SystemScreen(self.desk))
        if system is not None:
            with self.told():
                self.desk.session.set_system(system.state, system.text)
            self.entitle()

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
            async with self.turn():
                self.desk.choose_adapters(chosen)
                self.start_load([lasting(self.desk.record) if self.desk.record else None])

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
