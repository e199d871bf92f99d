"""Faults to order: what goes wrong while a path is served."""

from dataclasses import dataclass
from threading import Lock


@dataclass(slots=True)
class Fault:
    """What happens to requests whose path contains a given text.

    `drop_after`, `stall_after` and `corrupt_at` count bytes of the file (not of the answer), `rate` bytes per second,
    `times` the requests that it strikes (None: all), `methods` the methods. `status` answers with an error instead,
    `retry_after` with that header in seconds; `whole` ignores Range and answers 200.
    """

    drop_after: int | None = None
    stall_after: int | None = None
    corrupt_at: int | None = None
    rate: float | None = None
    status: int | None = None
    retry_after: int | None = None
    whole: bool = False
    times: int | None = None
    methods: tuple[str, ...] = ("GET",)


class Faults:
    """The faults in force, by a text in the path."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._faults: list[tuple[str, Fault]] = []

    def order(self, text: str, fault: Fault) -> None:
        """Let `fault` strike every path that contains `text`."""
        with self._lock:
            self._faults.append((text, fault))

    def clear(self) -> None:
        """Withdraw all faults."""
        with self._lock:
            self._faults.clear()

    def strike(self, method: str, path: str) -> Fault:
        """Give the fault for this request, one time less left of it; a harmless one when there is none."""
        with self._lock:
            for text, fault in self._faults:
                if text in path and method in fault.methods and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return Fault()
