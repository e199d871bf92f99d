"""From a job to the client: the whole answer at once, or a stream of server-sent events."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from .fault import Fault
from .guard import Receive, Scope, Send
from .job import Job
from .reply import Reply, failed

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # or nginx holds the events back
]


async def whole(job: Job, reply: Reply) -> dict[str, Any]:
    """Give the finished answer. Raises Fault."""
    async for events in job.events():
        reply.form = job.form
        for event in events:
            reply.take(event)
    return reply.whole()


async def pieces(job: Job, reply: Reply) -> AsyncIterator[bytes]:
    """Yield the answer as it comes. Raises Fault as long as nothing came; later the stream tells of it."""
    begun = False
    try:
        async for events in job.events():
            reply.form = job.form
            data = b"".join(map(reply.piece, events))
            if data or (reply.done and not begun):
                yield data if begun else reply.opening() + data
                begun = True
        yield b"".join(reply.closing())
    except Fault as error:
        if not begun:
            raise
        yield failed(error)


class Flow:
    """A response that streams `parts` after `first`; `leave` is called when it ends, however it does."""

    def __init__(self, first: bytes, parts: AsyncIterator[bytes], leave: Callable[[], Awaitable[None]]) -> None:
        self._first, self._parts, self._leave = first, parts, leave

    @classmethod
    async def begun(cls, job: Job, reply: Reply, leave: Callable[[], Awaitable[None]]) -> "Flow":
        """Give the stream of an answer whose first piece is there. Raises Fault when there is none."""
        parts = pieces(job, reply)
        try:
            return cls(await anext(parts), parts, leave)
        except BaseException:
            await leave()
            raise

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for part in self._parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            await self._leave()
