"""The conversations that were kept, and a search over every word in them."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widgets import Input

from ...chat.record import Conversation, Hit
from ...core.errors import VigtuiError
from ...core.i18n import _
from ...core.text import line
from ..desk import Desk
from ..key import N_
from .picker import Item, Picker

PAUSE = 0.12
"""Seconds without a key before the search begins."""
MOST = 200
"""Conversations shown without a search; the search finds all."""


class ChatsScreen(Picker):
    """Gives "CONVERSATION" or "CONVERSATION MESSAGE" for what was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "rename", N_("Rename")),
        Binding("f8,delete", "remove", N_("Delete")),
    ]

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._typing: Timer | None = None
        hint = _("Enter opens, F2 renames, F8 deletes. Type words to search all that was said.")
        super().__init__(_("Conversations"), self._all(), hint, _("Nothing was found."))

    def _all(self) -> list[Item]:
        kept = self.desk.store.list(limit=MOST) if self.desk.store else []
        return [_item(one, one.id == self.desk.session.id) for one in kept]

    def narrow(self, text: str) -> None:
        if self._typing is not None:
            self._typing.stop()
        if not text.strip():
            return self.fill(self.items)
        self._typing = self.set_timer(PAUSE, lambda: self.search(text))

    @work(exclusive=True, group="search")
    async def search(self, text: str) -> None:

        store = self.desk.store
        if store is None:
            return
        try:
            hits = await asyncio.to_thread(store.search, text, False)
        except VigtuiError as error:
            self.notify(line(str(error)), severity="error", markup=False)
            return
        words = text.casefold().split()
        titled = [item for item in self.items if all(word in item.title.casefold() for word in words)]
        self.fill(titled + [_hit(hit) for hit in hits])

    @work
    async def action_rename(self) -> None:
        from .ask import Ask

        found = self._conversation()
        if found is None or self.desk.store is None:
            return
        title = await self.app.push_screen_wait(Ask(_("Title of this conversation"), line(found.title)))
        if title is not None and title.strip():
            self._change(lambda: self.desk.rename(found.id, title))

    @work
    async def action_remove(self) -> None:
        from .confirm import Confirm

        found = self._conversation()
        if found is None:
            return
        question = _("Delete the conversation “{title}” for good?").format(title=line(found.title) or found.id)
        if await self.app.push_screen_wait(Confirm(question, _("Delete"))):
            self._change(lambda: self.desk.delete(found.id))

    def _conversation(self) -> Conversation | None:
        item, store = self.current, self.desk.store
        return store.get(item.id.split(" ")[0]) if item and store else None

    def _change(self, change: Callable[[], None]) -> None:
        """Change what is kept, and show what is kept then."""
        try:
            change()
        except VigtuiError as error:
            self.notify(line(str(error)), severity="error", markup=False)
        self.items = self._all()
        self.narrow(self.query_one(Input).value)


def _item(one: Conversation, now: bool) -> Item:
    facts = [when(one.updated), one.model or "", one.persona or ""]
    return Item(one.id, line(one.title) or one.id, " · ".join(filter(None, facts)), chosen=now)


def _hit(hit: Hit) -> Item:
    who = _("You") if hit.entry.role == "user" else (hit.entry.stamp.model if hit.entry.stamp else "") or _("Model")
    detail = f"{who}: {line(hit.excerpt)}"
    return Item(f"{hit.conversation.id} {hit.entry.id}", line(hit.conversation.title), detail, when(hit.entry.created))


def when(time: float) -> str:
    """Give a moment as date and time."""
    return datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M")
