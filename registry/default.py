"""Which model answers when nobody names one."""

import os
from collections.abc import Sequence

from ..core import config
from ..core.errors import VigtuiError
from .builtin import EMBEDDED
from .record import Record


def name() -> str:
    """Give what VIGTUI_MODEL or `vigtui default` names, else the embedded model."""
    return os.environ.get("VIGTUI_MODEL") or config.get("default_model") or EMBEDDED


def among(known: Sequence[Record]) -> str | None:
    """Give the whole name of the one of these models that answers unasked, or None when that is another."""
    wanted = name()
    if any(one.ref == wanted for one in known):
        return wanted
    from .open import resolve  # 50 ms: only for abbreviations and paths

    try:
        return resolve(None).ref
    except VigtuiError:
        return None


def forget(ref: str) -> bool:
    """Make the embedded model the default again where `ref` was; tell whether it was."""
    was = config.get("default_model") == ref
    if was:
        config.put("default_model", EMBEDDED)
    return was
