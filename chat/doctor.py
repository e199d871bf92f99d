"""The template doctor: exactly what a model is sent, as text and as tokens, and what is wrong with it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..backends.base import Backend, Generation, Message, ModelInfo, Prompt
from ..core.errors import BackendError, FormatError
from ..core.i18n import _
from . import formats, window
from .finding import Finding, findings
from .formats import Format, Origin, System
from .origin import trace
from .prepare import Prepared, Source, stopping
from .render import Draft, draft

Kind = Literal["template", "system", "user", "assistant", "special"]
Mark = Literal["", "bos", "eos", "stop", "special"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the prompt and where it comes from: the template, a control token in it, or a message."""

    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the prompt: its id, its text, and whether it begins or ends texts, stops answers, or is special."""

    id: int
    text: str
    mark: Mark = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a model is sent, and why. `limit` is what a prompt must stay below, in tokens; `stops` texts and token
    names that end an answer."""

    form: Format
    origin: Origin
    reason: str
    prompt: Prompt
    pieces: tuple[Piece, ...]
    tokens: tuple[Token, ...]
    limit: int
    stops: tuple[str, ...]
    generation: Generation
    findings: tuple[Finding, ...]

    def table(self) -> dict[str, Any]:
        """Give the report as JSON values."""
        return {
            "format": self.form.id,
            "origin": self.origin,
            "reason": self.reason,
            "prompt": self.prompt.text,
            "pieces": [asdict(piece) for piece in self.pieces],
            "tokens": [asdict(token) for token in self.tokens],
            "limit": self.limit,
            "stops": list(self.stops),
            "findings": [asdict(finding) for finding in self.findings],
        }


def examine(
    engine: Backend,
    source: Source,
    messages: Sequence[Message],
    *,
    override: str | None = None,
    system: System | None = None,
    notices: Sequence[str] = (),
) -> Report:
    """Give the report on what `engine` is sent for `messages`, which end with the user.

    The format is chosen as for a chat; when the model's own template does not render, a guess takes its place and the
    report says so. `notices` is what the record tells about the files. Raises NotFoundError, FormatError for another
    format that does not render, and BackendError when no model is loaded.
    """
    info = engine.info
    if info is None:
        raise BackendError(_("No model is loaded."))
    if "chat" in engine.supports:
        raise BackendError(
            _("{name} is on a server, which is sent the messages and renders them unseen.").format(name=source.name),
            _("The doctor can look at models of this machine."),
        )
    form, reason = formats.choose(source.format, info, override)
    origin = formats.origin(source.format, info, override)
    found = [Finding("files", notice) for notice in notices]
    try:
        made = draft(form, messages, info, system=system)
    except FormatError as error:
        if not form.own:
            raise
        found.append(Finding("damaged", error.message))
        form, reason = formats.choose(None, replace(info, chat_template=None))
        made, origin = draft(form, messages, info, system=system), "guess"
    prompt = made.prompt()
    generation = stopping(source.generation, form, engine, info)
    tokens = tuple(_tokens(engine, prompt, info, generation))
    found += findings(engine, info, form, made, [token.text for token in tokens])
    stops = tuple(dict.fromkeys((*(info.ends or (info.eos,)), *(generation.stop or ()))))
    return Report(
        form,
        origin,
        reason,
        prompt,
        tuple(_pieces(made, prompt)),
        tokens,
        window.budget(info.context, generation.max_tokens),
        tuple(filter(None, stops)),
        generation,
        tuple(found),
    )


def about(engine: Backend, source: Source, prepared: Prepared, override: str | None = None) -> Report:
    """Give the report on a prompt that was prepared for a chat, cut as it was cut; `override` is the format that the
    user chose for it. Raises as `examine` does."""
    messages = prepared.prompt.messages
    system = None if messages and messages[0].role == "system" else System("none")
    report = examine(engine, source, messages, override=override, system=system)
    if report.prompt == prepared.prompt or engine.info is None:
        return replace(report, limit=prepared.limit)
    pieces = tuple(Piece(text, "template" if trusted else "user") for text, trusted in prepared.prompt.pieces)
    tokens = tuple(_tokens(engine, prepared.prompt, engine.info, report.generation))
    return replace(report, prompt=prepared.prompt, pieces=pieces, tokens=tokens, limit=prepared.limit)


def _tokens(engine: Backend, prompt: Prompt, info: ModelInfo, generation: Generation) -> Iterator[Token]:
    ids = engine.tokenize(prompt)
    ends, stops = set(info.ends), set(generation.stop_token_ids or ())
    for id, text in zip(ids, engine.pieces(ids), strict=True):
        mark: Mark = ""
        if text in info.specials:
            mark = "bos" if text == info.bos else "eos" if text == info.eos else "special"
        if id in stops or (text in ends and mark == "special"):
            mark = "stop"
        yield Token(id, text, mark)


def _pieces(made: Draft, prompt: Prompt) -> Iterator[Piece]:
    """Give the draft cut where its parts have another origin, less the BOS that the tokenizer writes."""
    pieces, at = [], 0
    for span in trace(made):
        pieces += _template(made, made.text[at : span.start])
        role = made.messages[span.message].role
        pieces.append(Piece(made.guard.plain(made.text[span.start : span.end]), role))  # pyright: ignore
        at = span.end
    pieces += _template(made, made.text[at:])
    extra = sum(len(piece.text) for piece in pieces) - len(prompt.text)
    for piece in pieces:
        cut = min(extra, len(piece.text))
        extra -= cut
        if piece.text[cut:]:
            yield replace(piece, text=piece.text[cut:])


def _template(made: Draft, text: str) -> list[Piece]:
    """Cut a text of the template at the control tokens in it; what a stand-in hides is no control token."""
    specials = "|".join(map(re.escape, sorted(filter(None, made.info.specials), key=len, reverse=True)))
    parts = re.split(f"({specials})", text) if specials else [text]
    pieces = [Piece(made.guard.plain(part), "special" if n % 2 else "template") for n, part in enumerate(parts)]
    return [piece for piece in pieces if piece.text]
