"""From the thread of an engine to the screen, without waking the screen for every token."""

import threading

from ..backends.base import Event


class Inbox:
    """Events on their way. `put` says whether the reader must be woken; a `take` that finds nothing asks for that."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._asleep = True
        self._lock = threading.Lock()

    def put(self, event: Event) -> bool:
        """Add an event; give whether nobody will come for it unless woken."""
        with self._lock:
            self._events.append(event)
            asleep, self._asleep = self._asleep, False
            return asleep

    def take(self) -> list[Event]:
        """Give what has arrived since the last time."""
        with self._lock:
            events, self._events = self._events, []
            self._asleep = not events
            return events
