"""JSON from strangers' files, read in bounded memory."""

import json
from pathlib import Path
from typing import Any

from ..core.errors import FormatError
from ..core.i18n import _

LIMIT = 4 << 20
"""Bytes of the longest text: a header of 25,000 tensors takes half of it."""
_MARKS = 400_000
"""Brackets, commas and quotes: each can cost a hundred bytes of objects, and a tensor's entry has sixteen."""


def parse(text: bytes) -> Any:
    """Give the value of a JSON text. Raises ValueError for what is no JSON, or more than a header can need."""
    if len(text) > LIMIT or sum(map(text.count, (b"{", b"[", b",", b'"'))) > _MARKS:
        raise ValueError("too large")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep") from error


def read(path: Path) -> dict[str, Any]:
    """Give the object in the JSON file `path`. Raises FormatError when it is not there, damaged or something else."""
    try:
        return _object(path)
    except (OSError, ValueError) as error:
        raise FormatError(_("{path} is damaged.").format(path=path), _("Fetch it again.")) from error


def optional(path: Path) -> dict[str, Any]:
    """Give the object in the JSON file `path`, or nothing when it is not there, damaged or something else."""
    try:
        return _object(path)
    except (OSError, ValueError):
        return {}


def _object(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        value = parse(file.read(LIMIT + 1))
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value
