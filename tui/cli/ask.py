"""One shot: the answer streams to stdout, as text, as events, or as one object at the end."""

import re
import sys
from contextlib import closing
from typing import Protocol

from ...backends.base import Event, Notice, Text
from ...chat.prepare import lost
from ...core.errors import BackendError, VigtuiError
from ...core.i18n import _
from ...core.text import SafeStream
from . import say
from .interrupt import interruptible
from .output import json_line, print_json
from .result import Result
from .talk import Talk, opened
from .wish import Wish

_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n(.*?)(?:^\1[`~]*[ \t]*$|\Z)", re.M | re.S)


class Printer(Protocol):
    """What becomes of an answer on stdout."""

    def event(self, event: Event) -> None:
        """Take an event as it happens."""

    def end(self, talk: Talk) -> None:
        """Take the end of the answer."""


def ask(wish: Wish, text: str) -> int:
    """Answer `text` on stdout and give the exit code."""
    with interruptible() as stop, opened(wish, hidden=True) as talk:
        printer = _printer(wish)
        for notice in talk.notices:
            _remark(notice)
        try:
            with stop.stream(), closing(talk.reply(text, stop)) as events:  # pyright: ignore[reportArgumentType]
                for event in events:
                    printer.event(event)
                    if isinstance(event, Notice):
                        _remark(event.text)
        except VigtuiError:
            if talk.result.begun:
                printer.end(talk)
            raise
        printer.end(talk)
        _remarks(talk, wish)
        return _code(talk)


def terminal() -> bool:
    """Whether stderr is a terminal: notices go to people only."""
    return sys.stderr is not None and sys.stderr.isatty()


def _remark(notice: str) -> None:
    if terminal():
        say(notice)


def _remarks(talk: Talk, wish: Wish) -> None:
    """Say on stderr, at the end, what programs need to know too, and what was asked for."""
    if not terminal():
        for sentence in lost(len(talk.result.stamp.dropped), len(talk.result.stamp.shortened)):
            say(f"vigtui: {sentence}")
    if wish.stats:
        say(talk.statistics())


def _code(talk: Talk) -> int:
    if talk.result.finish_reason == "cancelled":
        return 130
    if talk.result.finish_reason == "error":
        raise BackendError(_("The engine ended the answer with an error."))
    if talk.session.unsaved:
        raise talk.session.unsaved
    return 0


def _printer(wish: Wish) -> Printer:
    if wish.as_lines:
        return Lines()
    if wish.as_json:
        return Whole(wish.extract)
    return Block() if wish.extract else Stream()


class Stream:
    """The text as it comes; control characters are stripped for a terminal and left alone for a program."""

    def __init__(self) -> None:
        self.safe = SafeStream() if sys.stdout is not None and sys.stdout.isatty() else None
        self.last = "\n"

    def event(self, event: Event) -> None:
        if isinstance(event, Text):
            self.write(self.safe.feed(event.delta) if self.safe else event.delta)

    def write(self, text: str) -> None:
        if text:
            self.last = text[-1]
            _write(text)

    def end(self, talk: Talk) -> None:
        if self.last != "\n":
            _write("\n")


class Block:
    """The last fenced code block, once the answer is whole."""

    def event(self, event: Event) -> None:
        return

    def end(self, talk: Talk) -> None:
        _write(last_block(talk.result))


class Whole:
    """One JSON object at the end."""

    def __init__(self, extract: bool) -> None:
        self.extract = extract

    def event(self, event: Event) -> None:
        return

    def end(self, talk: Talk) -> None:
        found = talk.summary()
        print_json(found | {"text": last_block(talk.result)} if self.extract else found)


class Lines:
    """Every event as a line of JSON, and the whole as the last."""

    def event(self, event: Event) -> None:
        kind = type(event).__name__.lower()
        if kind != "done":
            fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
            _write(json_line({"type": kind, **fields}))

    def end(self, talk: Talk) -> None:
        _write(json_line({"type": "done", **talk.summary()}))


def last_block(result: Result) -> str:
    """Give what the last fenced code block holds. Raises VigtuiError when a whole answer has none."""
    blocks = _FENCE.findall(result.text)
    if not blocks and result.finish_reason in ("cancelled", "error"):
        return ""
    if not blocks:
        raise VigtuiError(_("The answer has no code block."), _("Without --extract it is printed whole."))
    return blocks[-1][1]


def _write(text: str) -> None:
    """Write and flush, all of it even to a pipe that takes little at a time."""
    if sys.stdout is not None:
        sys.stdout.write(text)
        sys.stdout.flush()
