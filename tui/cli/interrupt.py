"""Ctrl-C, SIGTERM and SIGHUP while an answer streams: a flag that the engine's `stop()` reads; nothing is torn."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """Whether the person asked to stop the answer (`asked`), or the system to end the program (`ending`).

    Outside an answer Ctrl-C raises KeyboardInterrupt, as it does when asked twice, and the others SystemExit.
    """

    def __init__(self) -> None:
        self.asked = False
        self.ending = False
        self.streaming = False

    def __call__(self) -> bool:
        return self.asked

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        again, self.asked = self.asked, True
        self.ending |= number != signal.SIGINT
        if again or not self.streaming:
            raise SystemExit(128 + signal.SIGINT) if self.ending else KeyboardInterrupt

    @contextmanager
    def stream(self) -> Iterator[None]:
        """While an answer streams, the first signal only sets the flag."""
        self.asked, self.streaming = False, True
        try:
            yield
        finally:
            self.streaming = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Give an Interrupt that takes the signals, but those that the caller has us ignore (nohup, `&`)."""
    interrupt = Interrupt()
    wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt.handle) for number in wanted}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
