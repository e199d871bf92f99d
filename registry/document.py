"""JSON from strangers' files, read in bounded memory."""

import json
from pathlib import Path
from typing import Any

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


def optional(path: Path) -> dict[str, Any]:
    """Give the object in the JSON file `path`, or nothing when it is not there, damaged or something else."""
    try:
        with path.open("rb") as file:
            value = parse(file.read(LIMIT + 1))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
