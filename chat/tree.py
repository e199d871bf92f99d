"""The tree of messages: each has a parent, siblings are other versions, one leaf is where the conversation stands."""

from collections.abc import Iterable

from ..core.errors import NotFoundError
from ..core.i18n import _
from .record import Entry


class Tree:
    """Messages in the order they were made, and the id of the current `leaf` (None before the first)."""

    def __init__(self, entries: Iterable[Entry] = (), leaf: str | None = None) -> None:
        self._entries: dict[str, Entry] = {}
        self._children: dict[str | None, list[str]] = {}
        for entry in entries:
            self.put(entry)
        self.leaf = leaf if leaf in self._entries else next(reversed(self._entries), None)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: object) -> bool:
        return id in self._entries

    def __iter__(self):
        return iter(list(self._entries.values()))

    def put(self, entry: Entry) -> None:
        """Add `entry`, or replace its earlier state."""
        if entry.id not in self._entries:
            self._children.setdefault(entry.parent, []).append(entry.id)
        self._entries[entry.id] = entry

    def get(self, id: str) -> Entry:
        """Give the message `id`. Raises NotFoundError."""
        if id not in self._entries:
            raise NotFoundError(_("There is no message “{id}” in this conversation.").format(id=id))
        return self._entries[id]

    def path(self) -> list[Entry]:
        """Give the messages from the first to the leaf."""
        found, id = [], self.leaf
        while id in self._entries:
            found.append(self._entries[id])
            id = found[-1].parent
        return found[::-1]

    def siblings(self, id: str) -> list[Entry]:
        """Give all versions of the message `id`, itself among them, oldest first."""
        return [self._entries[one] for one in self._children[self.get(id).parent]]

    def end_of(self, id: str) -> str:
        """Give the id of the newest message that follows from `id`, at every step the newest."""
        self.get(id)
        while self._children.get(id):
            id = self._children[id][-1]
        return id
