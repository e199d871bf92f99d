"""A growing answer: what came, saved as it grows, stamped when it ends."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from ..backends.base import DEFAULTS, Done, Event, Notice, Text
from ..core.errors import VigtuiError
from .formats import postprocess
from .prepare import Prepared, Source
from .record import Entry, Stamp, State

SAVE_EVERY = 0.5
"""Seconds between two saves of a growing answer."""


class Answer:
    """Collects the events of one answer into `entry`. `save` stores it and gives the error when it could not."""

    def __init__(
        self,
        entry: Entry,
        prepared: Prepared,
        source: Source,
        backend: str,
        save: Callable[[Entry], VigtuiError | None],
    ) -> None:
        self._form = prepared.form
        self._save, self._saved_at, self._told, self._ended = save, float("-inf"), False, False
        self._entry = replace(entry, state="partial", stamp=_stamp(prepared, source, backend))
        self._parts: list[str] = []
        self._notices: list[str] = []

    def note(self, text: str) -> Notice:
        """Keep a sentence for the stamp and give it as an event."""
        self._notices.append(text)
        return Notice(text)

    def take(self, event: Event) -> Iterator[Event]:
        """Give what the screen should get for `event`; at the end the answer is saved before Done is given."""
        if isinstance(event, Notice):
            self._notices.append(event.text)
        elif isinstance(event, Text):
            event = self._grow(event)
            if self._parts and time.monotonic() - self._saved_at >= SAVE_EVERY:
                yield from self._store("partial")
        elif isinstance(event, Done):
            yield from self.end(_state(event), event)
        yield event

    def _grow(self, event: Text) -> Text:
        event = replace(event, delta=postprocess(self._form, event.delta, bool(self._parts)))
        if event.delta:
            self._parts.append(event.delta)
        return event

    def end(self, state: State, done: Done | None = None, reason: str = "") -> Iterator[Notice]:
        """Save the answer as it is, once. One that was stopped before its first word is nothing to keep."""
        if self._ended:
            return
        self._ended = True
        stamp = self._entry.stamp or Stamp()
        if done:
            stamp = replace(
                stamp,
                seed=done.seed,
                prompt_tokens=done.prompt_tokens,
                cached_tokens=done.cached_tokens,
                completion_tokens=done.completion_tokens,
                prefill_s=done.prefill_s,
                decode_s=done.decode_s,
            )
        stamp = replace(stamp, finish_reason=done.finish_reason if done else reason)
        self._entry = replace(self._entry, stamp=stamp)
        if self._parts or state != "partial":
            yield from self._store(state)

    def discard(self) -> None:
        """Keep nothing: there was no answer, not even a failed one."""
        self._ended = True

    def _store(self, state: State) -> Iterator[Notice]:
        stamp = self._entry.stamp and replace(self._entry.stamp, notices=tuple(self._notices))
        self._entry = replace(self._entry, content="".join(self._parts), state=state, stamp=stamp)
        error = self._save(self._entry)
        self._saved_at = time.monotonic()
        if error and not self._told:
            self._told = True
            yield self.note(str(error))


def _state(done: Done) -> State:
    return {"cancelled": "partial", "error": "error"}.get(done.finish_reason, "complete")  # pyright: ignore


def _stamp(prepared: Prepared, source: Source, backend: str) -> Stamp:
    return Stamp(
        model=source.name,
        sha256=source.sha256,
        backend=backend,
        format=prepared.form.id,
        format_reason=prepared.reason,
        generation=prepared.generation.over(DEFAULTS).given(),
        adapters=source.adapters,
        prompt_tokens=prepared.tokens,
        dropped=prepared.dropped,
        shortened=prepared.shortened,
    )
