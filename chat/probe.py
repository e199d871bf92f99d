"""One question to a model that nobody has talked to yet, as its users would ask it."""

from collections.abc import Iterator

from ..backends.base import Backend, Event, Generation, Stop
from .prepare import Source
from .session import Session

QUESTION = "Bonjour ! Qui es-tu ?"
_TOKENS = 64


def probe(engine: Backend, format: str | None, generation: Generation, stop: Stop) -> Iterator[Event]:
    """Yield the events of a short greedy answer in the prompt format `format`, None being the model's own.

    `generation` are the model's own values. Raises ContextError, FormatError and BackendError.
    """
    session = Session.new()
    session.say(QUESTION)
    source = Source(format=format, generation=generation)
    yield from session.reply(engine, Generation(temperature=0.0, max_tokens=_TOKENS), stop, source)
