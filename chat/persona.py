"""Personas as data: one TOML file each, in `assets/personas` and in the user's `config()/personas`."""

import difflib
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import assets
from ..backends.base import Generation, Message
from ..core import paths
from ..core.errors import FormatError, NotFoundError, UsageError
from ..core.i18n import _
from .record import generation_of


@dataclass(frozen=True, slots=True)
class Persona:
    """Who answers: a system message, example turns and generation values under one name.

    `system` None leaves the format's default. `greeting` is shown when a chat begins and never sent to the
    model. `examples` are rendered between the system message and the history, as if they had been said; they
    stay when old rounds are dropped, and go only when the last message would not fit beside them.
    """

    name: str
    description: str = ""
    language: str = ""
    system: str | None = None
    greeting: str = ""
    examples: tuple[Message, ...] = ()
    model: str | None = None
    generation: Generation = field(default_factory=Generation)
    path: Path | None = None


def _files() -> dict[str, Path]:
    folders = (assets.path("personas"), paths.config() / "personas")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def get(name: str) -> Persona:
    """Give the persona `name`; the user's own win. Raises NotFoundError, FormatError for a damaged file."""
    files = _files()
    if name not in files:
        near = difflib.get_close_matches(name.lower(), files, n=3, cutoff=0.4)
        raise NotFoundError(
            _("There is no persona “{name}”.").format(name=name),
            _("Did you mean {names}?").format(names=", ".join(near or sorted(files))),
        )
    return read(files[name])


def everything() -> tuple[list[Persona], list[FormatError]]:
    """Give all personas that can be read, by name, and the errors of the files that cannot."""
    good, bad = [], []
    for _name, path in sorted(_files().items()):
        try:
            good.append(read(path))
        except FormatError as error:
            bad.append(error)
    return good, bad


def read(path: Path) -> Persona:
    """Parse the persona file `path`. Raises FormatError naming the file and the reason."""
    try:
        return Persona(name=path.stem, path=path, **_fields(tomllib.loads(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError, ValueError, UsageError) as error:
        raise FormatError(
            _("The persona file {path} cannot be read: {reason}.").format(path=path, reason=str(error).rstrip(".")),
            _("Correct it or remove it."),
        ) from error


def _fields(table: dict[str, Any]) -> dict[str, Any]:
    texts = ("description", "language", "system", "greeting", "model")
    for key, value in table.items():
        if key not in (*texts, "examples", "generation"):
            raise ValueError(_("unknown key “{key}”").format(key=key))
        if key in texts and not isinstance(value, str):
            raise ValueError(_("“{key}” has the wrong type").format(key=key))
    fields: dict[str, Any] = {key: table[key] for key in texts if key in table}
    fields["examples"] = tuple(m for example in _list(table) for m in _example(example))
    fields["generation"] = _generation(table.get("generation", {}))
    return fields


def _list(table: dict[str, Any]) -> list[Any]:
    examples = table.get("examples", [])
    if not isinstance(examples, list):
        raise ValueError(_("“{key}” has the wrong type").format(key="examples"))
    return examples


def _example(example: Any) -> tuple[Message, Message]:
    if not isinstance(example, dict) or set(example) != {"user", "assistant"}:
        raise ValueError(_("an example has two texts, “user” and “assistant”"))
    if not all(isinstance(text, str) for text in example.values()):
        raise ValueError(_("an example has two texts, “user” and “assistant”"))
    return Message("user", example["user"]), Message("assistant", example["assistant"])


def _generation(table: Any) -> Generation:
    if not isinstance(table, dict):
        raise ValueError(_("“{key}” has the wrong type").format(key="generation"))
    try:
        return generation_of(table)
    except TypeError as error:
        raise ValueError(_("unknown or wrong generation value ({reason})").format(reason=error)) from error
