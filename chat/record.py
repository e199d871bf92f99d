"""The values that a conversation is made of, as they are stored."""

import secrets
import time
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from ..backends.base import Generation
from .formats import System

State = Literal["complete", "partial", "error"]


def new_id(size: int) -> str:
    """Give a random id of `size` hexadecimal digits."""
    return secrets.token_hex(size // 2)


def generation_of(table: dict[str, Any], strict: bool = True) -> Generation:
    """Read generation values from JSON or TOML ones. Raises TypeError for unknown names, unless not `strict`."""
    known = {f.name for f in fields(Generation)}
    return Generation(**{key: _frozen(value) for key, value in table.items() if strict or key in known})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Stamp:
    """How an answer came to be. Counts in tokens, times in seconds; `dropped` are ids of messages not sent,
    `shortened` of those sent in part."""

    model: str = ""
    sha256: str = ""
    backend: str = ""
    format: str = ""
    format_reason: str = ""
    generation: dict[str, Any] = field(default_factory=dict)
    adapters: tuple[tuple[str, float], ...] = ()
    seed: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    finish_reason: str = ""
    notices: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    shortened: tuple[str, ...] = ()

    def table(self) -> dict[str, Any]:
        """Give the stamp as JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, table: dict[str, Any]) -> "Stamp":
        """Read a stamp from JSON values; what this version does not know is left out."""
        known = {f.name for f in fields(cls)}
        values: dict[str, Any] = {key: _frozen(value) for key, value in table.items() if key in known}
        if "adapters" in values:
            values["adapters"] = tuple((name, scale) for name, scale in values["adapters"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in the tree of session `session`: `parent` is the id of the one before, None for a first one.

    Role "user" or "assistant"; times in Unix seconds. An answer carries its stamp.
    """

    id: str
    session: str
    parent: str | None
    role: str
    content: str
    state: State = "complete"
    created: float = field(default_factory=time.time)
    pinned: bool = False
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is stored of a session beside its messages. `hidden` marks a one-shot, `leaf` the message it stands at.

    `format` is the one that the user chose, None for the model's; `generation` what the user set in this session.
    """

    id: str = field(default_factory=lambda: new_id(8))
    title: str = ""
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    model: str | None = None
    format: str | None = None
    system: System = field(default_factory=System)
    persona: str | None = None
    generation: Generation = field(default_factory=Generation)
    settings: dict[str, Any] = field(default_factory=dict)
    hidden: bool = False
    pinned: bool = False
    leaf: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A message that a search found, with an excerpt around the words."""

    conversation: Conversation
    entry: Entry
    excerpt: str
