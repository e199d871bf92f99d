"""config.toml: the few settings a person sets once. Unknown keys and comments are kept."""

import json
import os
import re
import tomllib
from pathlib import Path

from . import paths
from .errors import FormatError
from .i18n import _


def _file() -> Path:
    return paths.config() / "config.toml"


def get(key: str) -> str | None:
    """Give the text stored under the top-level `key`, or None. Raises FormatError for a damaged file."""
    try:
        value = tomllib.loads(_file().read_text(encoding="utf-8")).get(key)
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(
            _("{path} cannot be read: {reason}.").format(path=_file(), reason=error),
            _("Correct that line or remove the file."),
        ) from error
    return None if value is None else str(value)


def put(key: str, value: str) -> None:
    """Store `value` under the top-level `key`, leaving every other line of the file as it is."""
    get(key)
    path = _file()
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    setting = f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
    head, table, rest = re.match(r"(?s)(.*?)(^[ \t]*\[|\Z)(.*)", before, re.M).groups()  # pyright: ignore
    pattern = re.compile(rf"^[ \t]*{re.escape(key)}[ \t]*=.*\n?", re.M)
    head = pattern.sub(lambda _match: setting, head, count=1) if pattern.search(head) else setting + head
    write(path, head + table + rest)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Publish `text` as `path` at once: written beside it, synced, renamed, so that no reader sees half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
