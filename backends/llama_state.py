"""The KV cache of llama.cpp in a file, with a sidecar that says what it belongs to.

The library dies of a truncated state file and silently takes one of any model of the same shape, so nothing is
loaded before the sidecar was compared and the file hashed.
"""

import ctypes
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import config
from ..core.errors import BackendError
from ..core.i18n import _


def save(native: Any, context: Any, path: Path, ids: Sequence[int], belongs: dict[str, object]) -> None:
    """Write the cache of `context`, which holds the tokens `ids`, and its sidecar. Raises BackendError."""
    temporary = path.with_name(path.name + ".tmp")
    tokens = (native.llama_token * max(1, len(ids)))(*ids)
    if not native.llama_state_save_file(context, os.fsencode(temporary), tokens, len(ids)):
        temporary.unlink(missing_ok=True)
        raise BackendError(
            _("The state of the model cannot be written to {path}.").format(path=path), _("Free some disk space.")
        )
    config.write(_sidecar(path), json.dumps(belongs | {"sha256": _sha256(temporary)}))
    os.replace(temporary, path)


def load(native: Any, context: Any, path: Path, belongs: dict[str, object]) -> list[int] | None:
    """Give the tokens that the cache holds now: None when nothing was touched, [] when loading failed midway."""
    try:
        if json.loads(_sidecar(path).read_text()) != belongs | {"sha256": _sha256(path)}:
            return None
    except (OSError, ValueError):
        return None
    capacity = native.llama_n_ctx(context)
    tokens, count = (native.llama_token * capacity)(), ctypes.c_size_t(0)
    done = native.llama_state_load_file(context, os.fsencode(path), tokens, capacity, ctypes.byref(count))
    return list(tokens[: count.value]) if done else []


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
