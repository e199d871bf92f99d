"""The pulls of the app, one after the other; they go on while their screen is closed. No widget in it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from ..registry import unfinished
from ..registry.order import Order, prepare
from ..registry.pull import Step, fetch
from ..registry.transfer import Paused, Stop
from ..registry.unfinished import Unfinished

State = Literal["waiting", "running", "paused", "failed", "done", "gone"]


@dataclass(eq=False)
class Pull:
    """A pull and how far it is; `error` is why it failed. `halt` pauses it, `given_up` says that nothing shall stay."""

    order: Order
    state: State = "waiting"
    step: Step | None = None
    error: Exception | None = None
    given_up: bool = False
    halt: threading.Event = field(default_factory=threading.Event)

    @property
    def ref(self) -> str:
        """The name that the model will have."""
        return self.order.record.ref

    @property
    def live(self) -> bool:
        """Whether it is on its way, or waits for its turn."""
        return self.state in ("waiting", "running")

    def observe(self, step: Step) -> None:
        """Keep how far it is."""
        self.step = step


class Pulls:
    """What is pulled and what waits. `run` belongs in a thread; the rest answers at once."""

    def __init__(self) -> None:
        self.all: list[Pull] = []
        self._lock = threading.Lock()
        self._working = False

    def of(self, ref: str) -> Pull | None:
        """Give the pull of the model `ref`."""
        return next((one for one in self.all if one.ref == ref), None)

    @property
    def live(self) -> bool:
        """Whether anything is on its way."""
        return any(one.live for one in self.all)

    def put(self, order: Order) -> bool:
        """Have `order` fetched when its turn comes; give whether a thread must call `run` for that."""
        with self._lock:
            old = self.of(order.record.ref)
            if old and old.live:
                return False
            self.all = [one for one in self.all if one is not old] + [Pull(order)]
            start, self._working = not self._working, True
            return start

    def pause(self, one: Pull) -> None:
        """Stop fetching; what has come is kept."""
        with self._lock:
            one.halt.set()
            if one.state == "waiting":
                one.state = "paused"

    def run(self, stop: Stop, tell: Callable[[Pull], None]) -> None:
        """Fetch what waits, one after the other, until nothing does or `stop` says so; `tell` of each that ended."""
        while not stop() and (one := self._take()):
            self._fetch(one, stop)
            tell(one)

    def _take(self) -> Pull | None:
        with self._lock:
            one = next((one for one in self.all if one.state == "waiting"), None)
            if one is None:
                self._working = False
            else:
                one.state = "running"
            return one

    def _fetch(self, one: Pull, stop: Stop) -> None:
        try:
            fetch(one.order, one.observe, lambda: stop() or one.halt.is_set())
            one.state = "done"
        except Paused:
            one.state = "paused"
        except Exception as error:  # the edge: whatever happened is told in the list
            one.state, one.error = "failed", error
        if one.given_up and one.state != "done":
            self._discard(one)

    def give_up(self, one: Pull) -> int:
        """Stop the pull and delete what has come of it; give the bytes freed, which is none while it still runs."""
        with self._lock:
            one.given_up = True
            one.halt.set()
            if one.state == "running":
                return 0
            one.state = "gone"
        return self._discard(one)

    def _discard(self, one: Pull) -> int:
        freed = sum(unfinished.discard(kept) for kept in unfinished.partial() if kept.ref == one.ref)
        with self._lock:
            one.state = "gone"
            self.all = [other for other in self.all if other is not one]
        return freed


def again(kept: Unfinished) -> Order:
    """Give the order that goes on with an interrupted pull, under the same name. Raises as `prepare` does."""
    return prepare(kept.reference, None if kept.ref == kept.reference else kept.ref, force=True)
