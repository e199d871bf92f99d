"""The HTTP application: the OpenAI API over the models of a pool."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..backends.base import DEFAULT_CONTEXT, LoadOptions
from ..core.errors import VigtuiError
from ..core.i18n import _
from . import fault
from .fault import Fault
from .flow import Flow, whole
from .guard import App, Guard, respond
from .job import Job, ending, gone
from .line import Line
from .metric import Metrics
from .pool import Pool, Served
from .reply import Reply
from .request import Asked, parse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

MOST_BYTES = 16 << 20
"""The longest body of a request."""
BODY_SECONDS = 60.0
"""How long a client may take to send it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to serve: the name or address that is listened on, the key that clients show, how many requests may wait,
    and how long an unused model stays in memory, in seconds (None: for ever)."""

    host: str = "127.0.0.1"
    key: str | None = None
    most: int = 64
    keep_alive: float | None = 300.0
    force: bool = False


def create(models: Sequence[Served], loading: LoadOptions, settings: Settings) -> "tuple[App, Desk]":
    """Give the ASGI application that serves `models`, and the desk that can end its answers."""
    from starlette.applications import Starlette  # only a server pays for it
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    metrics = Metrics()
    pool = Pool(models, loading, metrics, settings.keep_alive, settings.force)
    desk = Desk(pool, Line(settings.most, metrics), metrics)
    routes = [
        Route("/v1/chat/completions", desk.chat, methods=["POST"]),
        Route("/v1/completions", desk.complete, methods=["POST"]),
        Route("/v1/models", desk.list),
        Route("/v1/models/{name:path}", desk.show),
        Route("/health", desk.health),
        Route("/metrics", desk.measure),
    ]
    handlers: Any = {Fault: _told, VigtuiError: _failed, HTTPException: _refused}
    app = Starlette(routes=routes, lifespan=desk.lifespan, exception_handlers=handlers)
    return Guard(app, settings.host, settings.key, metrics), desk


async def _told(_request: "Request", error: Fault) -> "Response":
    return respond(error)


async def _failed(_request: "Request", error: VigtuiError) -> "Response":
    return respond(fault.of(error))


async def _refused(request: "Request", error: Any) -> "Response":
    text = _("{method} {path} is not served here.").format(method=request.method, path=request.url.path[:200])
    return respond(Fault(error.status_code, text))


@dataclass
class Desk:
    """Takes requests and gives answers."""

    pool: Pool
    line: Line
    metrics: Metrics
    _jobs: set[Job] = field(default_factory=set)

    def end(self) -> None:
        """Stop every answer that is being made or waited for."""
        for job in [*self._jobs]:
            job.cancel(ending())

    @asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncIterator[None]:
        """Watch over idle models while the server runs, and give everything back when it ends."""
        watch = asyncio.create_task(self.pool.watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(*(job.end() for job in [*self._jobs]))
            await asyncio.to_thread(self.pool.close)

    async def chat(self, request: "Request") -> "Response | Flow":
        """POST /v1/chat/completions."""
        return await self._answer(request, chat=True)

    async def complete(self, request: "Request") -> "Response | Flow":
        """POST /v1/completions."""
        return await self._answer(request, chat=False)

    async def _answer(self, request: "Request", chat: bool) -> "Response | Flow":
        from starlette.responses import JSONResponse  # as above

        asked = parse(await _body(request), chat)
        model = self.pool.find(asked.model)
        _able(asked, model)
        job = Job(asked, model, self.pool, self.line, self.metrics)
        self._jobs.add(job)
        job.start(request.client.host if request.client else "")
        watch = asyncio.create_task(_watch(request, job))

        async def leave() -> None:
            watch.cancel()
            await self._leave(job)

        reply = Reply(asked, model.record.ref)
        if asked.stream:
            return await Flow.begun(job, reply, leave)
        try:
            return JSONResponse(await whole(job, reply))
        finally:
            await leave()

    async def _leave(self, job: Job) -> None:
        await job.end()
        self._jobs.discard(job)

    async def list(self, _request: "Request") -> "Response":
        """GET /v1/models."""
        from starlette.responses import JSONResponse  # as above

        return JSONResponse({"object": "list", "data": [self._facts(one) for one in self.pool.models]})

    async def show(self, request: "Request") -> "Response":
        """GET /v1/models/NAME."""
        from starlette.responses import JSONResponse  # as above

        return JSONResponse(self._facts(self.pool.find(request.path_params["name"])))

    def _facts(self, one: Served) -> dict[str, Any]:
        context = self.pool.loading.context or min(one.record.context or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
        added = int(datetime.fromisoformat(one.record.added).timestamp()) if one.record.added else 0
        found = {"id": one.record.ref, "object": "model", "created": added, "owned_by": "vigtui"}
        return {**found, "max_model_len": context}

    async def health(self, _request: "Request") -> "Response":
        """GET /health."""
        from starlette.responses import JSONResponse  # as above

        return JSONResponse({"status": "ok"})

    async def measure(self, _request: "Request") -> "Response":
        """GET /metrics."""
        from starlette.responses import Response  # as above

        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")


def _able(asked: Asked, model: Served) -> None:
    """Refuse what the engine of the model cannot do, rather than answer something else."""
    for name in ("json_schema", "grammar"):
        if getattr(asked.generation, name) is not None and name not in model.supports:
            text = _("The {backend} backend has no grammars.").format(backend=model.backend)
            raise Fault(400, text, "response_format" if name == "json_schema" else name)


async def _watch(request: "Request", job: Job) -> None:
    """Call the job off when the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
    job.cancel(gone())


async def _body(request: "Request") -> bytes:
    """Give the body of a request. Raises Fault for one that is too long, too slow or no JSON.

    A page on the web may send text to any address without asking, JSON it may not.
    """
    from starlette.requests import ClientDisconnect  # as above

    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Fault(415, _("The Content-Type must be application/json."))
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        raise _too_long()
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:
                    raise _too_long()
    except TimeoutError:
        raise Fault(408, _("The body came too slowly.")) from None
    except ClientDisconnect:
        raise Fault(400, _("The body ended too early.")) from None
    return bytes(data)


def _too_long() -> Fault:
    return Fault(413, _("The body is longer than {size} MiB.").format(size=MOST_BYTES >> 20), code="too_large")
