"""Work that waits for its turn: one thing after the other, in one thread. No widget in it."""

import threading
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from ..registry.transfer import Stop


class Waits(Protocol):
    """Something that is "waiting", then "running", then anything else; `error` is why it failed."""

    state: Any
    error: Exception | None

    @property
    def ref(self) -> str:
        """What tells it from the others."""
        ...


W = TypeVar("W", bound=Waits)


class Queue(Generic[W]):
    """What is worked on and what waits. `run` belongs in a thread; the rest answers at once."""

    def __init__(self) -> None:
        self.all: list[W] = []
        self._lock = threading.Lock()
        self._working = False

    def of(self, ref: str) -> W | None:
        """Give what is called `ref`."""
        return next((one for one in self.all if one.ref == ref), None)

    @property
    def live(self) -> bool:
        """Whether anything is on its way."""
        return any(one.state in ("waiting", "running") for one in self.all)

    def enter(self, new: W) -> bool:
        """Have `new` done when its turn comes, in place of what was called so before; give whether a thread must call
        `run` for that."""
        with self._lock:
            old = self.of(new.ref)
            if old and old.state in ("waiting", "running"):
                return False
            self.all = [one for one in self.all if one is not old] + [new]
            start, self._working = not self._working, True
            return start

    def run(self, stop: Stop, tell: Callable[[W], None]) -> None:
        """Do what waits, one after the other, until nothing does or `stop` says so; `tell` of each that ended."""
        while not stop() and (one := self._take()):
            self.do(one, stop)
            tell(one)

    def do(self, one: W, stop: Stop) -> None:
        """Do `one` and leave it in the state that came of it."""
        raise NotImplementedError

    def _take(self) -> W | None:
        with self._lock:
            one = next((one for one in self.all if one.state == "waiting"), None)
            if one is None:
                self._working = False
            else:
                one.state = "running"
            return one
