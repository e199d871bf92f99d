"""The hub as one object: what it holds, who may read it, what goes wrong, and what was asked of it."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event, Thread
from typing import Any

from .content import Repository
from .fault import Fault, Faults
from .handler import Server

Access = dict[str, str]
"""Repository → "accepted", "pending" or "rejected"."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that came in: `range` its Range header, `token` whether it carried one, `port` "hub" or "cdn"."""

    method: str
    path: str
    range: str
    token: bool
    port: str


class Hub:
    """Speaks the hub's protocol at `url`; large files come from another origin, as from the hub's own CDN.

    Use it as a context manager. `sent` counts the bytes of bodies served by path, `requests` lists what came in,
    `page` is the length of a listing's page, `events` counts requests and blocks sent.
    """

    def __init__(self, port: int = 0) -> None:
        self.repositories: dict[str, Repository] = {}
        self.renames: dict[str, str] = {}
        self.users: dict[str, Access] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.sent: dict[str, int] = {}
        self.page = 1000
        self.events = 0
        self.closing = Event()
        self.news = Condition()
        self._servers = (Server(self, "hub", port), Server(self, "cdn", 0))
        self.url, self.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def __enter__(self) -> "Hub":
        for server in self._servers:
            Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(
        self,
        name: str,
        files: Mapping[str, bytes | Path],
        revision: str = "main",
        gated: str | bool | None = None,
        private: bool = False,
        card: Mapping[str, Any] | None = None,
        downloads: int = 0,
        claimed: Mapping[str, int] | None = None,
    ) -> str:
        """Put `files` on a branch of a repository, made when new; give the commit's hash.

        `gated` is "auto" or "manual", `card` the metadata of its README, `claimed` sizes to lie about.
        """
        repository = self.repositories.setdefault(name, Repository(name))
        repository.gated = repository.gated if gated is None else gated
        repository.private, repository.card = private, card or repository.card
        repository.downloads = downloads or repository.downloads
        return repository.commit(revision, files, claimed or {})

    def user(self, token: str, access: Access | None = None) -> None:
        """Know a token, with its standing at gated repositories."""
        self.users[token] = access or {}

    def fault(self, text: str, **what: Any) -> None:
        """Order a fault (the fields of Fault) for every path that contains `text`."""
        self.faults.order(text, Fault(**what))

    def note(self, request: Request) -> None:
        """Keep what was asked."""
        with self.news:
            self.requests.append(request)
            self.events += 1
            self.news.notify_all()

    def count(self, path: str, length: int) -> None:
        """Add to the bytes sent for `path`."""
        with self.news:
            self.sent[path] = self.sent.get(path, 0) + length
            self.events += 1
            self.news.notify_all()

    def bytes_of(self, text: str) -> int:
        """Give the bytes of bodies sent so far for paths that contain `text`."""
        with self.news:
            return sum(length for path, length in self.sent.items() if text in path)

    def wait_for(self, text: str, at_least: int, seconds: float = 30.0) -> None:
        """Wait until `at_least` bytes have been sent for paths that contain `text`. Raises TimeoutError."""
        with self.news:
            if not self.news.wait_for(
                lambda: sum(n for path, n in self.sent.items() if text in path) >= at_least, seconds
            ):
                raise TimeoutError(f"{text}: fewer than {at_least} bytes after {seconds} s")

    def wait_events(self, count: int, until: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until `count` requests and blocks have been counted, or `until` says so. Raises TimeoutError."""
        end = time.monotonic() + seconds
        with self.news:
            while self.events < count and not until():
                self.news.wait(0.02)
                if time.monotonic() > end:
                    raise TimeoutError(f"{self.events} of {count} events after {seconds} s")

    def asked(self, method: str, text: str) -> Iterable[Request]:
        """Give the requests of `method` whose path contains `text`."""
        return [request for request in self.requests if request.method == method and text in request.path]
