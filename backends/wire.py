"""What crosses the pipe between vigtui and an engine process: one JSON object a line."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from ..core.errors import ERRORS, VigtuiError
from .base import EVENTS, Chosen, Event, Generation, LoadOptions, Message, ModelFiles, ModelInfo, Prompt, Remote


def encode(message: dict[str, Any]) -> bytes:
    """Give one line. Dataclasses become objects, paths text; lone surrogates survive as escapes."""
    return json.dumps(message, default=_plain, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Give the object of one line."""
    return json.loads(line)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return str(value)


def event(message: dict[str, Any]) -> Event:
    """Give the event that `{"type": …, fields}` stands for."""
    kind = EVENTS[message["type"]]
    fields = {name: _frozen(value) for name, value in message.items() if name != "type"}
    if fields.get("chosen"):
        fields["chosen"] = tuple(Chosen(**{k: _frozen(value) for k, value in one.items()}) for one in fields["chosen"])
    return kind(**fields)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def prompt(value: dict[str, Any]) -> Prompt:
    """Give the Prompt of its JSON form."""
    messages = tuple(Message(**message) for message in value["messages"])
    return Prompt(tuple((text, bool(trusted)) for text, trusted in value["pieces"]), messages)


def generation(value: dict[str, Any]) -> Generation:
    """Give the Generation of its JSON form."""
    return Generation(**{name: _frozen(field) for name, field in value.items()})


def model(value: dict[str, Any]) -> ModelFiles:
    """Give the ModelFiles of its JSON form."""
    remote = Remote(**value["remote"]) if value["remote"] else None
    return ModelFiles(value["name"], value["kind"], Path(value["path"]), remote)


def options(value: dict[str, Any]) -> LoadOptions:
    """Give the LoadOptions of its JSON form."""
    return LoadOptions(**value)


def info(value: dict[str, Any]) -> ModelInfo:
    """Give the ModelInfo of its JSON form."""
    return ModelInfo(**{name: _frozen(field) for name, field in value.items()})


def failure(error: VigtuiError) -> dict[str, Any]:
    """Give the JSON form of an error."""
    kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in ERRORS)
    return {"kind": kind, "message": error.message, "hint": error.hint}


def error(value: dict[str, Any]) -> VigtuiError:
    """Give the error of its JSON form, as the nearest class of core.errors."""
    return ERRORS[value["kind"]](value["message"], value["hint"])
