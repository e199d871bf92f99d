"""The hub's HTTP protocol, as huggingface_hub 2.4 speaks it: metadata, trees, files with ranges, refusals."""

import json
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from .content import Repository, Stored
from .fault import Fault

if TYPE_CHECKING:
    from .server import Hub

_BLOCK = 64 << 10
_REFUSALS = {
    "none": (401, "GatedRepo", "Access to model {name} is restricted. You must have access to it and be authenticated"),
    "unknown": (403, "GatedRepo", "Access to model {name} is restricted and you are not in the authorized list. Visit "
                "{url}/{name} to ask for access."),
    "pending": (403, "GatedRepo", "Your request to access model {name} is awaiting a review from the repo authors."),
    "rejected": (403, "GatedRepo", "Your request to access model {name} has been rejected by the repo's authors."),
}  # fmt: skip


class Refused(Exception):
    """An answer with an error's status, the hub's code and its message."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        super().__init__(status)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message, **headers}


class Server(ThreadingHTTPServer):
    """One port of the hub: "hub" for the protocol, "cdn" for the bytes of large files."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: "Hub", role: Literal["hub", "cdn"], port: int) -> None:
        self.hub, self.role = hub, role
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        """Keep stderr clean."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        from .server import Request

        self.hub, self.parts = self.server.hub, urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(self.parts.query).items()}
        path, authorization = unquote(self.parts.path), self.headers.get("Authorization", "")
        self.token = authorization.removeprefix("Bearer ")
        self.hub.note(Request(self.command, path, self.headers.get("Range", ""), bool(self.token), self.server.role))
        fault = self.hub.faults.strike(self.command, path)
        try:
            if fault.status:
                after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                raise Refused(fault.status, message="ordered", **after)
            self._route(path, fault)
        except Refused as refusal:
            self._send(refusal.status, b"" if self.command == "HEAD" else b'{"error": "refused"}', refusal.headers)

    def _route(self, path: str, fault: Fault) -> None:
        if self.server.role == "cdn":
            _empty, _cdn, name, commit, file = path.split("/", 4)
            return self._bytes(self.hub.repositories[name.replace("--", "/")].commits[commit][file], {}, fault)
        if path == "/api/agent-harnesses":
            return self._json({"standardEnvVars": [], "harnesses": {}})
        if path == "/api/models":
            return self._listing(self._found())
        if match := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
            repository, commit = self._readable(match[1]), match[2]
            return self._bytes(repository.commits[commit][match[3]], {"X-Repo-Commit": commit}, fault)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|refs)(?:/(.+))?)?", path):
            return self._about(self._known(match[1]), match[2], match[3])
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(self._known(match[1]), match[2], match[3])
        raise Refused(404, message="Not found")

    def _about(self, repository: Repository, what: str | None, rest: str | None) -> None:
        if what == "refs":
            refs = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": hash}
                for name, hash in repository.branches.items()
            ]
            return self._json({"branches": refs, "converts": [], "tags": []})
        commit = self._commit(repository, rest or "main")
        if what == "tree":
            self._readable(repository.name)
            return self._listing(repository.tree(commit))
        self._json(repository.info(commit, blobs=self.query.get("blobs", "").lower() == "true"))

    def _resolve(self, repository: Repository, revision: str, name: str) -> None:
        self._readable(repository.name)
        commit = self._commit(repository, revision)
        file = repository.commits[commit].get(name)
        if file is None:
            raise Refused(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": commit})
        place = f"{quote(repository.name)}/{commit}/{quote(name)}"
        headers = {"X-Repo-Commit": commit, "ETag": f'"{file.oid}"'}
        if file.sha256:
            place = f"{self.hub.cdn}/cdn/{place.replace('/', '--', 1)}"
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
            return self._send(302, b"", {**headers, "Location": place})
        self._send(307, b"", {**headers, "Location": f"/api/resolve-cache/models/{place}"})

    def _bytes(self, file: Stored, headers: dict[str, str], fault: Fault) -> None:
        size, start, end, status = file.size, 0, file.size, 200
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match and not fault.whole:
            start, end, status = int(match[1]), min(size, int(match[2]) + 1 if match[2] else size), 206
            if start >= size:
                raise Refused(416, **{"Content-Range": f"bytes */{size}"})
            headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self.send_response(status)
        for name, value in {**headers, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "GET":
            self._body(file, start, end, fault)

    def _body(self, file: Stored, start: int, end: int, fault: Fault) -> None:
        at, block = start, _BLOCK if fault.rate is None else max(1, min(_BLOCK, int(fault.rate / 50)))
        stops = [stop for stop in (fault.drop_after, fault.stall_after) if stop is not None]
        while at < end:
            length = min(block, end - at, *(stop - at for stop in stops if stop > at))
            data = file.read(at, length)
            if fault.corrupt_at is not None and at <= fault.corrupt_at < at + length:
                index = fault.corrupt_at - at
                data = data[:index] + bytes([data[index] ^ 0xFF]) + data[index + 1 :]
            self.wfile.write(data)
            at += len(data)
            self.hub.count(unquote(self.parts.path), len(data))
            if not data or at == fault.drop_after:
                self.close_connection = True
                return
            if at == fault.stall_after:
                self.hub.closing.wait(60)
                self.close_connection = True
                return
            if fault.rate:
                time.sleep(length / fault.rate)

    def _found(self) -> list[dict[str, Any]]:
        words = self.query.get("search", "").casefold().split()
        return [
            {**repository.info(repository.branches["main"], blobs=False), "siblings": None}
            for repository in self.hub.repositories.values()
            if all(word in repository.name.casefold() for word in words) and not repository.private
        ][: int(self.query.get("limit", 1000))]

    def _known(self, name: str) -> Repository:
        if name in self.hub.renames:
            place = self.path.replace(name, self.hub.renames[name], 1)
            raise Refused(307, Location=place)
        if self.token and self.token not in self.hub.users:
            raise Refused(401, message="Invalid credentials in Authorization header")
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and self.hub.users.get(self.token, {}).get(name) != "accepted"):
            raise Refused(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return repository

    def _readable(self, name: str) -> Repository:
        repository = self._known(name)
        if repository.gated:
            standing = self.hub.users[self.token].get(name, "unknown") if self.token else "none"
            if standing != "accepted":
                status, code, message = _REFUSALS[standing]
                raise Refused(status, code, message.format(name=name, url=self.hub.url))
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _listing(self, entries: list[dict[str, Any]]) -> None:
        start, page = int(self.query.get("cursor", 0)), self.hub.page
        rest = "&".join(f"{name}={quote(value)}" for name, value in self.query.items() if name != "cursor")
        after = f'<{self.hub.url}{self.parts.path}?{rest}&cursor={start + page}>; rel="next"'
        self._json(entries[start : start + page], {"Link": after} if start + page < len(entries) else {})

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
