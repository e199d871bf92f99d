"""A server that speaks the OpenAI API, through the openai client: its models, its answers, its refusals."""

import asyncio
import json
import os
import re
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.errors import BackendError, UsageError, VigtuiError
from ..core.i18n import _
from ..core.text import line
from .base import Remote
from .dialect import Dialect, recognise
from .refusal import Unreachable, refusal, sentence

if TYPE_CHECKING:
    import openai

CONNECT, READ = 10.0, 600.0
"""Seconds to wait for a connection, and for the next bytes: a slow processor reads a long prompt for minutes."""
ASKING = 20.0
"""Seconds to wait for the list of models."""
MOST_BYTES = 64 << 20
"""The longest answer that is read, with everything around its text."""
_OPENAI = "api.openai.com"
_construction = threading.Lock()


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a server has: its name there, who the server says owns it, and its context in tokens if told."""

    id: str
    owner: str = ""
    context: int | None = None


def unavailable() -> str | None:
    """Say what to install when the openai client is not there, or None."""
    from importlib.util import find_spec

    if find_spec("openai"):
        return None
    return _("The remote backend needs the openai package: pip install 'vigtui[remote]'.")


def key(remote: Remote) -> str:
    """Give the key for the server, "EMPTY" for none. OPENAI_API_KEY goes to OpenAI alone. Raises UsageError."""
    if remote.key_env:
        if not os.environ.get(remote.key_env):
            raise UsageError(
                _("{url} wants a key, and the variable {name} is not set.").format(url=remote.url, name=remote.key_env),
                _("Set it: export {name}=…").format(name=remote.key_env),
            )
        return os.environ[remote.key_env]
    return os.environ.get("OPENAI_API_KEY") or "EMPTY" if host(remote.url) == _OPENAI else "EMPTY"


def host(url: str) -> str:
    """Give the host of an http or https URL. Raises UsageError for anything else."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it raises ValueError for what is no number
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise UsageError(
            _("{url} is not the address of a server.").format(url=line(url)),
            _("Write it as http://host:8000/v1, without a password in it."),
        )
    return parts.hostname


class Connection:
    """One server and one thread that speaks with it. Close it when done."""

    def __init__(self, remote: Remote) -> None:
        if missing := unavailable():
            raise BackendError(missing)
        self.remote, self._host, self._key = remote, host(remote.url), key(remote)
        self._client = _client(remote.url, self._key, self._host)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def offers(self) -> list[Offer]:
        """Give the models that the server has. Raises NetworkError, or BackendError when it speaks another language."""
        return self._wait(self._offers())

    def dialect(self, owner: str) -> Dialect:
        """Give the kind of server, of which a model says that `owner` owns it."""
        return self._wait(self._recognise(owner))

    def context(self, dialect: Dialect) -> int | None:
        """Give the context that llama-server tells beside its list of models."""
        if dialect.name != "llama-server":
            return None
        settings = self._wait(self._get("/props")).get("default_generation_settings")
        return _count(settings.get("n_ctx")) if isinstance(settings, dict) else None

    def start(self, body: Mapping[str, Any], put: Callable[[Any], None]) -> "Future[None]":
        """Ask for an answer; `put` gets its chunks, in another thread. Cancelling the future stops the server."""
        return asyncio.run_coroutine_threadsafe(self._stream(dict(body), put), self._loop)

    def close(self) -> None:
        """End the connection and its thread."""
        if self._loop.is_closed():
            return
        with _quiet():
            self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _offers(self) -> list[Offer]:
        import openai  # a second: only who speaks with a server pays for it

        try:
            page = await self._client.models.list(timeout=ASKING)
            return [_offer(one) for one in list(page.data)[:10_000] if isinstance(one.id, str)]
        except openai.OpenAIError as error:
            raise self.error(error) from error
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise self._foreign(error) from error

    async def _recognise(self, owner: str) -> Dialect:
        header, info = "", {}
        if self._host != _OPENAI:
            info, header = await self._get("/info"), await self._server()
        return recognise(self._host, owner, header, info)

    async def _get(self, path: str) -> dict[str, Any]:
        """Give the JSON object at `path` of the server's root, or an empty one."""
        root = re.sub(r"/v1/?$", "", self.remote.url.rstrip("/"))
        try:
            found = await self._client.get(root + path, cast_to=object, options={"timeout": ASKING})
        except Exception:  # whatever this server makes of a page that it need not have
            return {}
        return found if isinstance(found, dict) else {}

    async def _server(self) -> str:
        try:
            answer = await self._client.models.with_raw_response.list(timeout=ASKING)
        except Exception:  # the header only helps to guess
            return ""
        return str(answer.headers.get("server", ""))

    async def _stream(self, body: dict[str, Any], put: Callable[[Any], None]) -> None:
        import openai  # as above

        known = {name: body.pop(name) for name in _TYPED if name in body}
        create = self._client.completions if "prompt" in known else self._client.chat.completions
        watch, begun = None, False
        try:
            async with await create.create(**known, extra_body=body) as stream:  # pyright: ignore
                watch = asyncio.create_task(_bounded(stream, asyncio.current_task()))
                async for chunk in stream:
                    begun = True
                    put(chunk)
        except openai.OpenAIError as error:
            raise self.error(error) from error
        except (AttributeError, TypeError, ValueError, RecursionError) as error:
            raise self._foreign(error, begun) from error
        finally:
            if watch:
                watch.cancel()

    def _foreign(self, error: Exception, begun: bool = False) -> BackendError:
        """Give the error for what the client cannot read, which it tells of in its own terms."""
        reason = self._said(str(error)) if isinstance(error, json.JSONDecodeError) else _("it answers in another form")
        if begun:
            told = _("{url} broke off with what is not of the OpenAI API: {reason}.")
            return BackendError(told.format(url=self.remote.url, reason=reason), _("What came is kept; ask again."))
        told = _("{url} does not speak the OpenAI API: {reason}.").format(url=self.remote.url, reason=reason)
        return BackendError(told, _("Its address usually ends in /v1."))

    def error(self, error: "openai.OpenAIError") -> VigtuiError:
        """Give our error for one of the client: what the server said, without the key."""
        import openai  # as above

        url, said = self.remote.url, self._said(sentence(error))
        if isinstance(error, openai.APIStatusError):
            return refusal(url, error.status_code, f"{error.code or ''} {said}".strip(), self.remote)
        if isinstance(error, openai.APITimeoutError):
            return Unreachable(_("{url} does not answer in time.").format(url=url), _("Try again, or ask its owner."))
        if isinstance(error, openai.APIConnectionError):
            return Unreachable(
                _("{url} cannot be reached: {reason}.").format(url=url, reason=said),
                _("Start the server, or correct the address with `vigtui add`."),
            )
        return BackendError(_("{url} failed: {reason}.").format(url=url, reason=said), _("Its own log tells more."))

    def _said(self, text: str) -> str:
        """Give what the other side said on one short line, without the key."""
        text = line(text[:2000])
        if self._key not in ("", "EMPTY"):
            text = text.replace(self._key, "…")
        return text[:300].rstrip(".")


_TYPED = ("model", "messages", "prompt", "stream", "stream_options")


def _offer(one: Any) -> Offer:
    extra = dict(one.model_extra or {})
    meta = extra["meta"] if isinstance(extra.get("meta"), dict) else {}
    names = ("max_model_len", "context_length", "context_window", "max_context_length", "loaded_context_length")
    told = [extra.get(name) for name in names] + [meta.get("n_ctx"), meta.get("n_ctx_train")]
    context = next((count for value in told if (count := _count(value))), None)
    owner = one.owned_by if isinstance(one.owned_by, str) else ""
    return Offer(line(one.id)[:256], owner[:64], context)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 1 << 31 else None


async def _bounded(stream: Any, task: "asyncio.Task[Any] | None") -> None:
    """Cancel `task` when the server sends without end."""
    while stream.response.num_bytes_downloaded < MOST_BYTES:
        await asyncio.sleep(0.2)
    if task:
        task.cancel()


def _client(url: str, secret: str, name: str) -> "openai.AsyncOpenAI":
    import openai  # as above

    timeout = openai.Timeout(READ, connect=CONNECT)
    with _hidden(name):
        return openai.AsyncOpenAI(base_url=url, api_key=secret, max_retries=0, timeout=timeout)


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Hide OpenAI's own variables (organization, headers, other keys) from a client of another server."""
    with _construction:
        hidden = {} if name == _OPENAI else {n: os.environ.pop(n) for n in [*os.environ] if n.startswith("OPENAI_")}
        try:
            yield
        finally:
            os.environ.update(hidden)


@contextmanager
def _quiet() -> Iterator[None]:
    try:
        yield
    except Exception:  # at the end there is nobody to tell
        return
