"""The conversation on the screen: a window of mounted messages over a path of any length."""

import asyncio
from collections.abc import Callable, Collection, Sequence

from textual import events
from textual.containers import VerticalScroll
from textual.widgets import Static

from ...chat.record import Entry
from ...core.i18n import _
from .reply import Reply
from .turn import Question, Turn

FIRST = 6
"""Messages mounted at once when a conversation opens: what is seen at first, and a little more."""
PAGE = 10
"""Messages mounted more when the edge comes near."""
MOST = 60
"""Messages mounted at the most: beyond, those at the far end go."""
NEAR = 5
"""Rows from the edge at which more messages are mounted."""

Place = Callable[[Entry], tuple[int, int]]


class Transcript(VerticalScroll, can_focus=False):
    """Shows messages `first` to `last` of a path; older and newer ones come as the reader scrolls."""

    BLANK = True  # its background is the screen's: a repaint skips it

    def __init__(self, place: Place) -> None:
        super().__init__(id="transcript")
        self._place = place
        self.path: list[Entry] = []
        self.first = self.last = 0
        self._welcome = Static("", id="welcome", markup=False)
        self._filling = False
        self._changing = asyncio.Lock()
        self._dropped: frozenset[str] = frozenset()
        self._shortened: frozenset[str] = frozenset()

    def update_node_styles(self, animate: bool = True) -> None:
        """Nothing here depends on the state of this container; restyling its whole history would."""

    def on_mount(self) -> None:
        self.mount(self._welcome)
        self.anchor()

    @property
    def turns(self) -> list[Turn]:
        """The messages that are mounted, oldest first."""
        return [child for child in self.children if isinstance(child, Turn)]

    @property
    def at_end(self) -> bool:
        """Whether the newest message is among those mounted."""
        return self.last == len(self.path)

    def welcome(self, text: str) -> None:
        """Say this while there is no message."""
        self._welcome.update(text)

    async def show(self, path: Sequence[Entry], at: str | None = None) -> None:
        """Show `path`, its end or the message `at`; what is mounted already stays as it is."""
        async with self._changing:
            await self._show(path, at)

    async def _show(self, path: Sequence[Entry], at: str | None = None) -> None:
        shown = [turn.entry.id if turn.entry else "" for turn in self.turns]
        self.path = list(path)
        ids = [entry.id for entry in self.path[self.first : self.last]]
        kept = next(
            (i for i, (old, new) in enumerate(zip(shown, ids, strict=False)) if old != new), min(len(shown), len(ids))
        )
        with self.app.batch_update():
            if at is None and kept and self.first + kept >= len(self.path) - FIRST:
                await self.remove_children(self.turns[kept:])
                self.last = self.first + kept
            elif at not in shown[:kept] or at is None:
                await self._window(at)
            self._revise()
            await self._append(len(self.path) if at is None else self.last + PAGE)
            self._welcome.display = not self.path
            self._mark()
        if at is None:
            self.anchor()
        else:
            self.call_after_refresh(self.reach, at)

    async def _window(self, at: str | None) -> None:
        """Start anew, with the window around `at` or at the end."""
        await self.remove_children(self.turns)
        size = len(self.path)
        index = next((i for i, entry in enumerate(self.path) if entry.id == at), size)
        self.first = self.last = max(0, min(index - FIRST // 2, size - FIRST))

    def reach(self, id: str) -> None:
        """Scroll to the message `id` and give it the keys."""
        for turn in self.turns:
            if turn.entry and turn.entry.id == id:
                self.release_anchor()
                turn.focus(scroll_visible=False)
                self.scroll_to_widget(turn, animate=False, top=turn.size.height > self.size.height)

    async def push(self, turn: Reply) -> None:
        """Add `turn`, an answer on its way, at the end."""
        async with self._changing:
            if not self.at_end:
                await self._show(self.path)
            self._welcome.display = False
            await self.mount(turn)
            self.anchor()
            await self._prune()

    async def settle(self, reply: Reply, entry: Entry | None) -> None:
        """End a growing answer: it becomes `entry`, or goes when nothing was kept of it."""
        async with self._changing:
            if entry is None:
                await reply.remove()
            else:
                self.path.append(entry)
                self.last += 1
                await reply.finish(entry, self._place(entry))
            self._mark()

    def cut(self, dropped: Collection[str], shortened: Collection[str] = ()) -> None:
        """Draw the line below the last message that the model does not see, and mark those it sees in part."""
        if (frozenset(dropped), frozenset(shortened)) != (self._dropped, self._shortened):
            self._dropped, self._shortened = frozenset(dropped), frozenset(shortened)
            self._mark()

    def _mark(self) -> None:
        places = [place for place, entry in enumerate(self.path) if entry.id in self._dropped]
        below = self.path[places[-1] + 1 :] if places else []
        cut = below[0].id if below else None
        for turn in self.turns:
            id = turn.entry.id if turn.entry else ""
            turn.set_class(id in self._dropped, "-unseen")
            turn.set_class(id in self._shortened, "-shortened")
            turn.set_class(bool(id) and id == cut, "-cut")
            turn.border_title = _line(len(places), places[-1] + 1 == len(places)) if id and id == cut else None
            turn.border_subtitle = _("the model sees the end of it only") if id in self._shortened else None

    def _revise(self) -> None:
        for turn, entry in zip(self.turns, self.path[self.first : self.last], strict=False):
            turn.revise(entry, self._place(entry))

    def _make(self, entry: Entry) -> Turn:
        return (Question if entry.role == "user" else Reply)(entry, self._place(entry))

    async def _append(self, until: int) -> None:
        """Mount the messages after the window, up to the position `until`."""
        until = min(until, len(self.path))
        await self.mount_all([self._make(entry) for entry in self.path[self.last : until]])
        self.last = max(self.last, until)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._look()

    def on_resize(self, _event: events.Resize) -> None:
        self.call_after_refresh(self._look)
        self.call_after_refresh(self.vertical_scrollbar.refresh)  # an anchored view moves without telling its bar

    def _look(self) -> None:
        """Fill the window where an edge has come near."""
        if self._filling or not self.is_mounted or not self.path:
            return
        if self.first > 0 and self.scroll_y <= NEAR:
            self._filling = True
            self.call_next(self._older)
        elif not self.at_end and self.scroll_y >= self.max_scroll_y - NEAR:
            self._filling = True
            self.call_next(self._newer)

    async def _older(self) -> None:
        """Mount older messages and stay where the reader is."""
        async with self._changing:
            await self._mount_older()

    async def _mount_older(self) -> None:
        before = max(0, self.first - PAGE)
        new = [self._make(entry) for entry in self.path[before : self.first]]
        turns, following = self.turns, self._following
        held = None if following or not turns else (turns[0], self._offset(turns[0]))
        with self.app.batch_update():
            await self.mount_all(new, before=turns[0] if turns else None)
            self.first = before
            if not following and len(self.turns) > MOST:
                await self.remove_children(self.turns[MOST:])
                self.last = self.first + MOST
            self._mark()
        self.call_after_refresh(self._settle_at, held)

    async def _newer(self) -> None:
        """Mount newer messages and stay where the reader is."""
        async with self._changing:
            await self._mount_newer()

    async def _mount_newer(self) -> None:
        turns = self.turns
        held = (turns[-1], self._offset(turns[-1])) if turns else None
        with self.app.batch_update():
            await self._append(self.last + PAGE)
            await self._prune()
            self._mark()
        self.call_after_refresh(self._settle_at, held)

    def _offset(self, turn: Turn) -> float:
        """Give how many rows below the upper edge `turn` begins."""
        return turn.virtual_region.y - self.scroll_y

    def _settle_at(self, held: tuple[Turn, float] | None) -> None:
        """Scroll so that a message stands where it stood, and look whether more is wanted."""
        if held is not None and held[0].is_mounted:
            self.scroll_to(y=held[0].virtual_region.y - held[1], animate=False, immediate=True)
        self._filling = False
        self.call_after_refresh(self._look)

    async def _prune(self) -> None:
        """Let the oldest messages go, while the reader is at the other end."""
        extra = len(self.turns) - MOST
        if extra >= PAGE or (extra > 0 and not self.at_end):
            await self.remove_children(self.turns[:extra])
            self.first += extra

    @property
    def _following(self) -> bool:
        """Whether the view sticks to the end of the conversation."""
        return self._anchored and not self._anchor_released and self.at_end


def _line(count: int, all_above: bool) -> str:
    """Give what stands in the cut line: how many messages above the model does not see."""
    if count == 1:
        return (
            _("the model does not see the message above")
            if all_above
            else _("the model does not see one message above")
        )
    if all_above:
        return _("the model does not see the {count} messages above").format(count=count)
    return _("the model does not see {count} of the messages above").format(count=count)
