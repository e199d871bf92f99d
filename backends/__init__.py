"""Weights to text: engines behind one streaming interface."""

import importlib
from typing import TYPE_CHECKING

from ..core.errors import BackendError, UsageError
from ..core.i18n import _

if TYPE_CHECKING:
    from .base import Backend

# Name → where the class is. A new backend is its file and a line here; nothing is imported before it is used.
TABLE: dict[str, str] = {
    "llama.cpp": "llama_cpp:LlamaCppBackend",
    "echo": "echo:EchoBackend",
}

EXTRAS: dict[str, str] = {"transformers": "transformers", "gptq": "gptq"}
"""Backends that models of some kinds need and this version does not have, with their extra."""


def backend_class(name: str) -> "type[Backend]":
    """Give the class of the backend `name`. Raises BackendError or UsageError when there is none."""
    if name in EXTRAS and name not in TABLE:
        raise BackendError(
            _("This needs the {backend} backend, which this version does not have.").format(backend=name),
            _("It will come with the extra vigtui[{extra}]; a GGUF model runs today.").format(extra=EXTRAS[name]),
        )
    if name not in TABLE:
        raise UsageError(
            _("There is no backend {name}.").format(name=name),
            _("Choose one of: {names}.").format(names=", ".join(TABLE)),
        )
    module, _colon, attribute = TABLE[name].partition(":")
    return getattr(importlib.import_module(f".{module}", __name__), attribute)


def create(name: str, in_process: bool = False) -> "Backend":
    """Give an engine of the backend `name`, in a process of its own unless `in_process`."""
    if in_process:
        return backend_class(name)()
    from .engine import Engine

    return Engine(name)
