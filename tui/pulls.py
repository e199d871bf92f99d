"""The pulls of the app, one after the other; they go on while their screen is closed. No widget in it."""

import threading
from dataclasses import dataclass, field
from typing import Literal

from ..registry import unfinished
from ..registry.order import Order, prepare
from ..registry.pull import Step, fetch
from ..registry.transfer import Paused, Stop
from ..registry.unfinished import Unfinished
from .queue import Queue

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


class Pulls(Queue[Pull]):
    """What is pulled and what waits."""

    def put(self, order: Order) -> bool:
        """Have `order` fetched when its turn comes; give whether a thread must call `run` for that."""
        return self.enter(Pull(order))

    def pause(self, one: Pull) -> None:
        """Stop fetching; what has come is kept."""
        with self._lock:
            one.halt.set()
            if one.state == "waiting":
                one.state = "paused"

    def do(self, one: Pull, stop: Stop) -> None:
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
