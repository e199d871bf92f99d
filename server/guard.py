"""What every request passes: the Host header, the key, the count and the log."""

import hmac
import ipaddress
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..core.i18n import _
from ..core.text import line
from .fault import Fault
from .metric import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
PATHS = ("/v1/models", "/v1/chat/completions", "/v1/completions", "/health", "/metrics")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """Lets through to `app` what comes from where it may. `key` is what clients must show, if any.

    A page on the web can make a browser ask a server on this machine by a name of its own (DNS rebinding), so the
    Host header must be a name of this machine: loopback's, `host`, or any address when the server is open to others.
    """

    def __init__(self, app: App, host: str, key: str | None, metrics: Metrics) -> None:
        self._app, self._key, self._metrics = app, key, metrics
        self._open = not _loopback(host)
        self._names = _LOOPBACK | {host.lower()} | ({socket.gethostname().lower()} if self._open else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            fault = self._fault(scope)
            await (respond(fault)(scope, receive, sending) if fault else self._app(scope, receive, sending))
        finally:
            self._note(scope, status or 500, time.perf_counter() - began)

    def _fault(self, scope: Scope) -> Fault | None:
        headers = dict(scope["headers"])
        if not self._known(headers.get(b"host", b"").decode("latin-1")):
            return Fault(403, _("This Host is not served here; start the server with --host to allow it."))
        if self._key is None or scope["path"] == "/health":
            return None
        scheme, _space, shown = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(shown.strip(), self._key.encode()):
            return Fault(401, _("The key is missing or wrong."), code="invalid_api_key")
        return None

    def _known(self, host: str) -> bool:
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return name.lower() in self._names or (self._open and _address(name))

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        known = next((one for one in PATHS if path == one or path.startswith(f"{one}/")), "other")
        self._metrics.requests[known, status] += 1
        client = (scope.get("client") or ("-",))[0]
        text = f"{client} {scope['method']} {path[:200]} {status} {seconds:.3f} s"
        print(line(text), file=sys.stderr, flush=True)


def respond(fault: Fault) -> Any:
    """Give the response that tells of `fault`."""
    from starlette.responses import JSONResponse  # only a server pays for it

    return JSONResponse(fault.body(), fault.status, fault.headers())


def _address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _loopback(host: str) -> bool:
    return host.lower() == "localhost" or (_address(host) and ipaddress.ip_address(host).is_loopback)
