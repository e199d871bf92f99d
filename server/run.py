"""The server as a process: the socket, the signals, the end."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence

from ..backends.base import LoadOptions
from ..core.errors import NetworkError
from ..core.i18n import _
from .app import Settings, create
from .pool import Served

_HEADERS = 64 << 10
_CONNECTIONS = 1024
_GRACE = 5


def unavailable() -> str | None:
    """Say what to install when the server cannot run, or None."""
    from importlib.util import find_spec

    if find_spec("starlette") and find_spec("uvicorn"):
        return None
    return _("The server needs starlette and uvicorn: pip install 'vigtui[server]'.")


def bind(host: str, port: int) -> socket.socket:
    """Give a socket that listens. Raises NetworkError when the address is taken or not one of this machine."""
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unbound(host, port, error) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise _unbound(host, port, error) from error
    return listening


def _unbound(host: str, port: int, error: OSError) -> NetworkError:
    return NetworkError(
        _("{host}:{port} cannot be listened on: {reason}.").format(
            host=host, port=port, reason=error.strerror or error
        ),
        _("Choose another --port."),
    )


def run(models: Sequence[Served], loading: LoadOptions, settings: Settings, listening: socket.socket) -> None:
    """Serve `models` on a socket until SIGINT or SIGTERM; answers in the making are stopped, engines given back."""
    import uvicorn  # a third of a second: only a server pays for it

    app, desk = create(models, loading, settings)

    class Server(uvicorn.Server):
        """Ends on a signal without raising it again: the end that was asked for is a good one."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            def end() -> None:
                self.should_exit = True
                desk.end()

            with _signals(end):
                yield

    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        access_log=False,
        log_level="warning",
        ws="none",
        server_header=False,
        h11_max_incomplete_event_size=_HEADERS,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_GRACE,
        proxy_headers=False,
    )
    asyncio.run(Server(config).serve(sockets=[listening]))


@contextlib.contextmanager
def _signals(end: Callable[[], None]) -> Iterator[None]:
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
