"""Answers as clients of the OpenAI API read them, whole or as server-sent events."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..backends.base import Chosen, Done, Event, Notice, Text
from ..chat.formats import Format, postprocess
from . import logprob
from .fault import Fault
from .request import Asked

END = b"data: [DONE]\n\n"


@dataclass(slots=True)
class Reply:
    """One answer on its way to the client. `form` is the prompt format of a chat, None for a completion."""

    asked: Asked
    model: str
    form: Format | None = None
    created: int = field(default_factory=lambda: int(time.time()))
    done: Done | None = None
    began: bool = False
    _id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _parts: list[str] = field(default_factory=list)
    _chosen: list[Chosen] = field(default_factory=list)
    _columns: logprob.Columns = field(default_factory=logprob.Columns)
    _notices: list[str] = field(default_factory=list)

    def take(self, event: Event) -> str | None:
        """Keep an event; give the text that it adds."""
        if isinstance(event, Notice):
            self._notices.append(event.text)
        elif isinstance(event, Done):
            self.done = event
        elif isinstance(event, Text):
            text = postprocess(self.form, event.delta, bool(self._parts)) if self.form else event.delta
            if text:
                self._parts.append(text)
            self._chosen += event.chosen or ()
            return text
        return None

    def whole(self) -> dict[str, Any]:
        """Give the finished answer."""
        text = "".join(self._parts)
        if self.asked.chat:
            choice = {"message": {"role": "assistant", "content": text, "refusal": None}}
        else:
            choice = {"text": text}
        frame = self._frame(choice, self._finish(), self._logprobs(self._chosen))
        return frame | {"usage": self._usage()} | self._told()

    def opening(self) -> bytes:
        """Give the first event of a stream: who speaks."""
        return self._event({"delta": {"role": "assistant", "content": ""}}) if self.asked.chat else b""

    def piece(self, event: Event) -> bytes:
        """Give what `event` adds to a stream, b"" when that is nothing."""
        text = self.take(event)
        logprobs = self._logprobs(event.chosen) if isinstance(event, Text) else None
        return self._event(self._delta(text), None, logprobs) if text or logprobs else b""

    def closing(self) -> Iterator[bytes]:
        """Give the last events of a stream: why it ended, what it took if that was asked for, and the end."""
        yield self._event(self._delta(None), self._finish(), extra=self._told())
        if self.asked.usage:
            yield _line({**self._head(), "choices": [], "usage": self._usage()})
        yield END

    def _delta(self, text: str | None) -> dict[str, Any]:
        if self.asked.chat:
            return {"delta": {} if text is None else {"content": text}}
        return {"text": text or ""}

    def _event(
        self,
        choice: dict[str, Any],
        finish: str | None = None,
        logprobs: Any = None,
        extra: dict[str, Any] | None = None,
    ) -> bytes:
        usage = {"usage": None} if self.asked.usage else {}
        return _line(self._frame(choice, finish, logprobs) | usage | (extra or {}))

    def _frame(self, choice: dict[str, Any], finish: str | None, logprobs: Any) -> dict[str, Any]:
        return {**self._head(), "choices": [{"index": 0, **choice, "logprobs": logprobs, "finish_reason": finish}]}

    def _head(self) -> dict[str, Any]:
        chunk = ".chunk" if self.asked.stream else ""
        kind, prefix = (f"chat.completion{chunk}", "chatcmpl") if self.asked.chat else ("text_completion", "cmpl")
        return {"id": f"{prefix}-{self._id}", "object": kind, "created": self.created, "model": self.model}

    def _logprobs(self, chosen: Sequence[Chosen] | None) -> dict[str, Any] | None:
        count = self.asked.logprobs
        if count is None or not chosen:
            return None
        return logprob.content(chosen, count) if self.asked.chat else self._columns.take(chosen, count)

    def _finish(self) -> str:
        return "length" if self.done and self.done.finish_reason == "length" else "stop"

    def _usage(self) -> dict[str, Any]:
        done = self.done or Done("stop", 0, 0, 0, 0.0, 0.0, 0)
        return {
            "prompt_tokens": done.prompt_tokens,
            "completion_tokens": done.completion_tokens,
            "total_tokens": done.prompt_tokens + done.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": done.cached_tokens},
        }

    def _told(self) -> dict[str, Any]:
        """Give, beyond the API, what was not honoured and the seed that was used."""
        seed = {"seed": self.done.seed} if self.done else {}
        return seed | ({"notices": self._notices} if self._notices else {})


def failed(fault: Fault) -> bytes:
    """Give the event that ends a stream which began well."""
    return _line(fault.body())


def _line(value: Any) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n\n"
