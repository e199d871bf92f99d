"""Does the product answer? A question to it before anyone sees it, through the engine that will run it."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...backends.base import Backend, Done, Event, Generation, LoadOptions, Prompt, Stop, Text
from ...core.errors import BackendError
from ...core.i18n import _
from ...core.progress import Progress
from .. import open as opening
from ..record import Record

Probe = Callable[[Backend, str | None, Generation, Stop], Iterator[Event]]
"""Asks a loaded model one question in the prompt format with this id, with its record's generation values."""
_SENTENCE = "Bonjour, comment allez-vous ? Very well, thank you."


@dataclass(frozen=True, slots=True)
class Trial:
    """The answer of a product: its text, its number of tokens, whether it ended by itself, and tokens per second."""

    text: str
    tokens: int
    ended: bool
    tokens_per_s: float
    finite: bool = True

    @property
    def problem(self) -> str | None:
        """Say why no one can use such a model, or None."""
        if not self.finite:
            return _("it computes values that are no numbers (NaN).")
        return None if self.text.strip() else _("it answers nothing.")

    def values(self) -> Mapping[str, Any]:
        """Give the trial as JSON values."""
        return asdict(self)


def trial(record: Record, probe: Probe, stop: Stop, progress: Progress, threads: int | None, force: bool) -> Trial:
    """Load the product and ask it. Raises what `open` and the engine raise."""
    engine = opening.open(record, LoadOptions(threads=threads), progress=progress, force=force)
    try:
        finite = _finite(engine)
        events = list(probe(engine, record.format, Generation(**record.generation), stop))
    finally:
        engine.close()
    text = "".join(event.delta for event in events if isinstance(event, Text))
    done = next((event for event in events if isinstance(event, Done)), None)
    if done is None:
        raise BackendError(_("The engine ended the answer without a word."))
    speed = done.completion_tokens / done.decode_s if done.decode_s else 0.0
    return Trial(text, done.completion_tokens, done.finish_reason == "stop", round(speed, 1), finite)


def _finite(engine: Backend) -> bool:
    """Tell whether the probabilities of a sentence are numbers; engines that weigh nothing are believed."""
    tokens = engine.tokenize(Prompt(((_SENTENCE, True),)))
    try:
        return all(map(math.isfinite, engine.likelihood(tokens, 1))) if len(tokens) > 1 else True
    except BackendError:
        return True
