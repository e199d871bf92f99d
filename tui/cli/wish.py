"""What the flags of a chat ask for, parsed and checked."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import UsageError
from ...core.i18n import _

if TYPE_CHECKING:
    from ...backends.base import Generation, LoadOptions


@dataclass(frozen=True, slots=True)
class Wish:
    """What the flags of a chat ask for, parsed."""

    model: str | None
    prompt: str | None
    system: str | None
    persona: str | None
    form: str | None
    lora: tuple[str, ...]
    backend: str | None
    max_memory: int | None
    session: str | None
    generation: "Generation"
    loading: "LoadOptions"
    no_stdin: bool = False
    no_save: bool = False
    offline: bool = False
    force: bool = False
    as_json: bool = False
    as_lines: bool = False
    stats: bool = False
    extract: bool = False
    plain: bool = False


def wish(values: dict[str, Any]) -> Wish:
    """Sort what click parsed. Raises UsageError for values and pairs of flags that cannot be meant."""
    from ...backends.base import Generation, LoadOptions

    values = dict(values)
    _exclude(values, "as_json", "as_lines")
    _exclude(values, "extract", "as_lines")
    _exclude(values, "system", "system_file")
    if path := values.pop("system_file"):
        values["system"] = read_text(path)
    for name in ("json_schema", "grammar"):
        if (values[name] or "").startswith("@"):
            values[name] = read_text(Path(values[name][1:]))
    generation = {f.name: _unset(values.pop(f.name, None)) for f in fields(Generation)}
    values["context"] = values.pop("window")  # click gives the name `context` to the command's context
    loading = {f.name: values.pop(f.name) for f in fields(LoadOptions)}
    for text in (values["prompt"], values["system"], generation["grammar"], *(generation["stop"] or ())):
        _unicode(text or "")
    return Wish(generation=Generation(**generation), loading=LoadOptions(**loading), **values)


def _unset(value: Any) -> Any:
    return None if value == () else value


def _exclude(values: dict[str, Any], one: str, other: str) -> None:
    if values[one] not in (None, False) and values[other] not in (None, False):
        raise UsageError(_("{one} and {other} exclude each other.").format(one=_FLAGS[one], other=_FLAGS[other]))


_FLAGS = {
    "as_json": "--json",
    "as_lines": "--jsonl",
    "extract": "--extract",
    "system": "--system",
    "system_file": "--system-file",
}


def read_text(path: Path) -> str:
    """Give the text of a file that a flag names. Raises UsageError when it is not there or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(_("{path} is not UTF-8.").format(path=path), _("Convert it with iconv.")) from error
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(_("{path} cannot be read: {reason}.").format(path=path, reason=reason)) from error


def _unicode(text: str) -> None:
    """Refuse what Python makes of arguments that are not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(_("The command line is not UTF-8."), _("Check the locale of this terminal.")) from error
