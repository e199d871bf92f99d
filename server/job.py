"""One answer being made: it waits for its turn, runs in a thread, and can be called off at any moment."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator

from ..backends.base import Backend, Done, Event, Generation, Prompt, Text
from ..chat import formats
from ..chat.formats import Format
from ..chat.prepare import stopping
from ..chat.render import render
from ..core.errors import VigtuiError
from ..core.i18n import _
from . import fault
from .fault import Fault
from .line import Line
from .metric import Metrics
from .pool import Pool, Served
from .request import Asked


class Job:
    """The answer to `asked` by `model`. `form` is the prompt format, known once the engine is there."""

    def __init__(self, asked: Asked, model: Served, pool: Pool, line: Line, metrics: Metrics) -> None:
        self._asked, self._model = asked, model
        self._pool, self._line, self._metrics = pool, line, metrics
        self._stop = threading.Event()
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._running = self._ended = False
        self._fault: Fault | None = None
        self._reason: Fault | None = None
        self._born = time.perf_counter()
        self._first = True
        self.form: Format | None = None

    def start(self, client: str) -> None:
        """Take a place in the line for `client`."""
        self._task = asyncio.create_task(self._run(client))

    def cancel(self, reason: Fault) -> None:
        """Call it off: leave the line, or stop at the next token. The first reason is what the client is told."""
        self._reason = self._reason or reason
        self._stop.set()
        if self._task and not self._running:
            self._task.cancel()

    async def end(self) -> None:
        """Call it off and wait until the engine is free."""
        self.cancel(gone())
        if self._task:
            await asyncio.wait([self._task])

    async def events(self) -> AsyncIterator[list[Event]]:
        """Yield what came since the last time, until the answer is whole. Raises Fault."""
        while True:
            await self._news.wait()
            self._news.clear()
            ended = self._ended
            found = [self._events.popleft() for _ in range(len(self._events))]
            if found:
                yield found
            if ended and not self._events:
                if self._fault:
                    raise self._fault
                return

    async def _run(self, client: str) -> None:
        try:
            async with self._line.turn(client):
                self._running = True
                async with self._pool.use(self._model) as engine:
                    await asyncio.to_thread(self._produce, engine)
        except Fault as error:
            self._fault = error
        except VigtuiError as error:
            self._fault = fault.of(error)
        except asyncio.CancelledError:
            self._fault = self._reason or gone()
        finally:
            self._ended = True
            self._news.set()

    def _produce(self, engine: Backend) -> None:
        prompt, generation = self._prepared(engine)
        for event in engine.stream(prompt, generation, self._stop.is_set):
            if isinstance(event, Text) and self._first:
                self._first = False
                self._metrics.began(time.perf_counter() - self._born)
            elif isinstance(event, Done):
                self._metrics.answered(event)
            if isinstance(event, Done) and event.finish_reason == "cancelled":
                raise self._reason or gone()
            if isinstance(event, Done) and event.finish_reason == "error":
                raise Fault(500, _("The engine ended the answer with an error."), code="engine_failed")
            self._put(event)

    def _put(self, event: Event) -> None:
        """Hand an event over, and wake the reader unless it was woken already."""
        self._events.append(event)
        if len(self._events) == 1:
            self._loop.call_soon_threadsafe(self._news.set)

    def _prepared(self, engine: Backend) -> tuple[Prompt, Generation]:
        """Give what the engine is sent. A user's text never becomes a control token in a chat; the text of a
        completion is a prompt that the client has rendered, in which special tokens are meant."""
        record, info = self._model.record, engine.info
        assert info is not None
        generation = self._asked.generation.over(Generation(**record.generation))
        if self._asked.prompt is not None:
            return Prompt(((self._asked.prompt, True),)), generation
        self.form, _reason = formats.choose(record.format, info, self._model.form)
        prompt = render(self.form, self._asked.messages, info)
        return prompt, stopping(generation, self.form, engine, info)


def gone() -> Fault:
    """Give the reason for calling off what nobody waits for any more (499 is nginx's word for it)."""
    return Fault(499, _("The client went away."))


def ending() -> Fault:
    """Give the reason for calling off what the server cannot finish."""
    return Fault(503, _("The server ends."), code="ending")
