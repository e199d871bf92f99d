"""Where each generation value comes from: defaults, model, persona, the conversation before, flags, `/set`."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...backends.base import DEFAULTS, Generation
from ...core.errors import UsageError
from ...core.i18n import _

NAMES = tuple(f.name for f in fields(Generation))
SOURCES = ("default", "model", "persona", "session", "flag", "set")


@dataclass
class Layers:
    """Generation values by source, the later source over the earlier one."""

    values: dict[str, Generation] = field(
        default_factory=lambda: {**dict.fromkeys(SOURCES, Generation()), "default": DEFAULTS}
    )

    def put(self, source: str, generation: Generation) -> None:
        """Replace all values of `source`."""
        self.values[source] = generation

    def effective(self) -> Generation:
        """Give the values in force."""
        result = Generation()
        for source in SOURCES:
            result = self.values[source].over(result)
        return result

    def source(self, name: str) -> str | None:
        """Give where the value of `name` comes from, or None when nothing sets it."""
        return next((s for s in reversed(SOURCES) if getattr(self.values[s], name) is not None), None)

    def set(self, name: str, text: str) -> None:
        """Take the value of `name` from what was typed after `/set`; "default" gives it back to the others."""
        value = None if known(name) and text == "default" else parse(name, text)
        for source in ("set",) if value is not None else ("set", "session"):
            self.values[source] = replace(self.values[source], **{name: value})

    def kept(self) -> Generation:
        """Give the values that stay with the conversation."""
        return self.values["set"].over(self.values["session"])


def known(name: str) -> bool:
    """Raise UsageError unless `name` is a generation value."""
    if name not in NAMES:
        raise UsageError(
            _("There is no value {name}.").format(name=name),
            _("There are: {names}.").format(names=", ".join(NAMES)),
        )
    return True


def parse(name: str, text: str) -> Any:
    """Give the value of the field `name` as typed. Raises UsageError for one that cannot be meant."""
    try:
        return _PARSERS.get(name, int)(text)
    except ValueError as error:
        raise UsageError(_("{name} cannot be {text}.").format(name=name, text=text)) from error


def _texts(text: str) -> tuple[str, ...]:
    return tuple(part.replace("\\n", "\n").replace("\\t", "\t") for part in shlex.split(_doubled(text)))


def _doubled(text: str) -> str:
    return text.replace("\\", "\\\\")


def _ids(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.replace(",", " ").split())


_PARSERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(
        ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"), float
    ),
    **dict.fromkeys(("stop", "banned_strings"), _texts),
    **dict.fromkeys(("json_schema", "grammar"), str),
    "stop_token_ids": _ids,
}
