"""The line of those who wait: one answer at a time, clients in turn, and no more waiting than there is room for."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..core.i18n import _
from .fault import Fault
from .metric import Metrics


class Line:
    """One turn at a time. Among clients the turn goes round; each client's own requests keep their order.

    One answer at a time is what a processor does best: two engines on the same cores are slower than one after the
    other.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.most, self._metrics = most, metrics
        self._busy = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Wait for the turn of `client` and hold it. Raises Fault 429 when too many wait already."""
        await self._enter(client)
        self._metrics.running += 1
        try:
            yield
        finally:
            self._metrics.running -= 1
            self._next()

    async def _enter(self, client: str) -> None:
        if not self._busy:
            self._busy = True
            return
        if self._metrics.queued >= self.most:
            text = _("{count} requests wait already; try again in a moment.").format(count=self._metrics.queued)
            raise Fault(429, text, code="queue_full", retry_after=5)
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(place)
        self._metrics.queued += 1
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._next()
            else:
                self._leave(client, place)
            raise
        finally:
            self._metrics.queued -= 1

    def _leave(self, client: str, place: "asyncio.Future[None]") -> None:
        own = self._waiting.get(client)
        if own and place in own:
            own.remove(place)
            if not own:
                del self._waiting[client]

    def _next(self) -> None:
        """Give the turn to the first request of the client whose turn it is."""
        while self._waiting:
            client, own = self._waiting.popitem(last=False)
            place = own.popleft()
            if own:
                self._waiting[client] = own
            if not place.done():
                place.set_result(None)
                return
        self._busy = False
