"""How cleanly a model answers under a prompt format: one answer, measured, and formats ranked by theirs."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..backends.base import Backend, Done, Generation, Message, ModelInfo, Prompt, Stop, Text
from ..core.errors import BackendError, NotFoundError, VigtuiError
from . import formats
from .doctor import Report, examine
from .finding import CONTROL, probe
from .formats import System, postprocess
from .prepare import Source

USUAL = (
    "vigogne-chat-v2", "vigogne-chat-v1", "vigogne-instruct-v3", "vicuna-v1.1", "alpaca", "llama-2", "mistral",
    "chatml", "cv-chat",
)  # fmt: skip
"""Formats worth trying on a model of which nothing is known."""

MARKER = re.compile(
    r"<\|\w+\|>|</?s>|\[/?INST\]|<</?SYS>>|^### ?\w+:|^(?:USER|ASSISTANT|User|Assistant|Human|Bot|Falcon):", re.M
)
"""What formats write between messages, and no answer should hold."""


@dataclass(frozen=True, slots=True)
class Trial:
    """An answer under the format `form`: whether it `ended` by itself, the markers that `leaked` into it, its number
    of `tokens`, and the mean natural logarithm of the probability of one of them (None where not measured)."""

    form: str
    text: str
    ended: bool
    leaked: tuple[str, ...]
    tokens: int
    likelihood: float | None

    @property
    def clean(self) -> bool:
        """Whether it ended by itself, said something, and no marker leaked."""
        return self.ended and not self.leaked and bool(self.text.strip())

    def table(self) -> dict[str, Any]:
        """Give the trial as JSON values."""
        return {**asdict(self), "clean": self.clean}


def attempt(engine: Backend, report: Report, stop: Stop, max_tokens: int = 128, measure: bool = False) -> Trial:
    """Let the model answer the prompt of `report`, at temperature 0 and with nothing but its own end to stop it.

    Raises ContextError and BackendError.
    """
    assert engine.info is not None
    ids = () if report.form.own else report.form.stop_token_ids
    wanted = Generation(max_tokens=max_tokens, temperature=0.0, repetition_penalty=1.0, stop_token_ids=ids or None)
    events = list(engine.stream(report.prompt, wanted, stop))
    raw = "".join(event.delta for event in events if isinstance(event, Text))
    done = next((event for event in events if isinstance(event, Done)), None)
    ended = bool(done and done.finish_reason == "stop")
    text = postprocess(report.form, raw)
    likelihood = _likelihood(engine, report.prompt, raw, ended) if measure else None
    return Trial(report.form.id, text, ended, _leaked(report, text), done.completion_tokens if done else 0, likelihood)


def rank(
    engine: Backend,
    source: Source,
    messages: Sequence[Message],
    ids: Sequence[str],
    stop: Stop,
    *,
    system: System | None = None,
    max_tokens: int = 64,
) -> list[Trial]:
    """Give an answer under each of the formats `ids`, the cleanest first: those that end by themselves, those without
    a leaked marker, then by likelihood. Formats that do not render are left out."""
    trials = [*_trials(engine, source, messages, ids, stop, system, max_tokens)]
    return sorted(trials, key=lambda one: (not one.clean, not one.ended, len(one.leaked), -_finite(one.likelihood)))


def _trials(
    engine: Backend,
    source: Source,
    messages: Sequence[Message],
    ids: Sequence[str],
    stop: Stop,
    system: System | None,
    max_tokens: int,
) -> Iterator[Trial]:
    for id in ids:
        if stop():
            return
        try:
            report = examine(engine, source, messages, override=id, system=system)
        except VigtuiError:
            continue
        if report.form.id == id:
            yield attempt(engine, report, stop, max_tokens, measure=True)


def plausible(source: Source, info: ModelInfo, alternatives: Sequence[str] = ()) -> list[str]:
    """Give the ids of the formats worth trying: the one in force, the model's own, `alternatives` (the catalogue's), a
    guess, and the usual ones whose control tokens the vocabulary has."""
    named = [formats.choose(source.format, info)[0].id, *([formats.OWN] if info.chat_template else [])]
    bare = replace(info, chat_template=None)
    named += [*alternatives, formats.choose(None, bare)[0].id, *USUAL]
    return [id for id in dict.fromkeys(named) if id == formats.OWN or _suits(id, bare)]


def _suits(id: str, info: ModelInfo) -> bool:
    try:
        text = probe(formats.get(id), info)
    except (NotFoundError, VigtuiError):
        return False
    return not any(marker in text for marker in CONTROL.difference(info.specials))


def _leaked(report: Report, text: str) -> tuple[str, ...]:
    """Give the markers of any format and the stops of this one that stand in an answer."""
    own = (stop.strip() for stop in report.form.stop if stop.strip() in text)
    return tuple(dict.fromkeys((*own, *(found[0] for found in MARKER.finditer(text)))))


def _likelihood(engine: Backend, prompt: Prompt, answer: str, ended: bool) -> float | None:
    """Give the mean over the answer's tokens, its end among them, as they are encoded after the prompt."""
    assert engine.info is not None
    end = ((engine.info.eos, True),) if ended and engine.info.eos else ()
    before, whole = engine.tokenize(prompt), engine.tokenize(Prompt((*prompt.pieces, (answer, False), *end)))
    pairs = zip(before, whole, strict=False)
    start = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(before), len(whole)))
    try:
        found = engine.likelihood(whole, max(start, 1))
    except BackendError:
        return None
    return math.fsum(found) / len(found) if found else None


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else -1e9
