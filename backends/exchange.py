"""One answer of a server as it comes: chunks of the OpenAI API turned into events."""

import queue
import time
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

from ..core.errors import BackendError
from ..core.i18n import _
from .base import Chosen, Done, Event, FinishReason, Notice, Prefill, Stop, Text
from .connection import Connection
from .logprob import chosen
from .text import TextStream

MOST_TEXT = 1 << 20
"""The longest piece of an answer, in characters: one that is longer is cut."""
_END: Any = object()


class Answer:
    """One answer as it comes: what was said and measured so far. `prompt_tokens` is ≈ until the server counts;
    `likely` is how many alternatives of each token are kept."""

    def __init__(self, seed: int, stops: tuple[str, ...], prompt_tokens: int, likely: int = 0) -> None:
        self.out = TextStream(stops)
        self.begun = False
        self.finish: FinishReason | None = None
        self.prompt_tokens, self._seed = prompt_tokens, seed
        self._cached = self._completed = self._pieces = self._shown = 0
        self._likely, self._chosen = likely, list[Chosen]()
        self._told: set[str] = set()
        self._started, self._first = time.perf_counter(), None
        self._future: Future[None] | None = None

    def ask(self, server: Connection, body: dict[str, Any], stop: Stop) -> Generator[Any, None, None]:
        """Yield the chunks of the answer to `body` until it ends or `stop` says so. Raises what the connection does."""
        chunks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.finish = None
        self._future = future = server.start(body, chunks.put)
        future.add_done_callback(lambda _future: chunks.put(_END))
        while not stop():
            try:
                chunk = chunks.get(timeout=0.02)
            except queue.Empty:
                continue
            if chunk is _END:
                break
            yield chunk
        else:
            future.cancel()
            return
        try:
            future.result()
        except CancelledError:
            raise BackendError(_("{url} sends without end.").format(url=server.remote.url)) from None

    def cancel(self) -> None:
        """Stop the server when it still answers."""
        if self._future:
            self._future.cancel()

    def take(self, chunk: Any) -> Iterator[Event]:
        """Give the events of one chunk; what in it is not as the API says counts as nothing."""
        if usage := getattr(chunk, "usage", None):
            self._count(usage)
        choices = getattr(chunk, "choices", None)
        for choice in choices if isinstance(choices, list) else ():
            delta = getattr(choice, "delta", None)
            yield from self._remarks(choice, delta)
            told = getattr(choice, "text", None) if delta is None else getattr(delta, "content", None)
            text = told[:MOST_TEXT] if isinstance(told, str) else ""
            tokens = chosen(getattr(choice, "logprobs", None), self._likely)
            self._chosen += tokens
            self._pieces += len(tokens) or bool(text)
            if text:
                yield from self._text(text)
            if reason := getattr(choice, "finish_reason", None):
                self.finish = "length" if reason == "length" else "stop"

    def _text(self, text: str) -> Iterator[Event]:
        if not self.begun:
            self.begun, self._first = True, time.perf_counter()
            yield Prefill(self.prompt_tokens, self.prompt_tokens, self._cached)
        if shown := self.out.feed(text.encode("utf-8", "replace")):
            yield self._piece(shown)

    def _piece(self, text: str) -> Text:
        """Give `text` with the tokens that came since the last piece."""
        piece = Text(text, self._pieces - self._shown, tuple(self._chosen) or None)
        self._shown, self._chosen = self._pieces, []
        return piece

    def _remarks(self, choice: Any, delta: Any) -> Iterator[Notice]:
        """Say once what of an answer is not shown."""
        strange = {
            _("The model's reasoning is not shown."): ("reasoning_content", "reasoning"),
            _("The model asked for a tool; tools are not supported."): ("tool_calls", "function_call"),
            _("The model refused to answer."): ("refusal",),
        }
        found = [text for text, names in strange.items() if any(getattr(delta, name, None) for name in names)]
        if getattr(choice, "finish_reason", None) == "content_filter":
            found.append(_("The server's content filter ended the answer."))
        for text in found:
            if text not in self._told:
                self._told.add(text)
                yield Notice(text)

    def _count(self, usage: Any) -> None:
        self.prompt_tokens = _number(usage, "prompt_tokens") or self.prompt_tokens
        self._completed = _number(usage, "completion_tokens")
        self._cached = _number(getattr(usage, "prompt_tokens_details", None), "cached_tokens")

    def rest(self) -> Iterator[Event]:
        """Give what was held back for the sake of a stop string."""
        if not self.out.stopped and (text := self.out.finish()):
            yield self._piece(text)

    def done(self, finish: FinishReason) -> Done:
        """Give the end of the answer, with the server's counts where it gave any."""
        ended = time.perf_counter()
        first = self._first or ended
        count = self._completed or self._pieces
        return Done(finish, self.prompt_tokens, self._cached, count, first - self._started, ended - first, self._seed)


def _number(value: Any, name: str) -> int:
    found = getattr(value, name, None)
    return found if type(found) is int and 0 <= found < 1 << 31 else 0
