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
    "transformers": "transformers:TransformersBackend",
    "gptq": "gptq:GptqBackend",
    "remote": "remote:RemoteBackend",
    "echo": "echo:EchoBackend",
}


def backend_class(name: str) -> "type[Backend]":
    """Give the class of the backend `name`. Raises UsageError when there is none."""
    if name not in TABLE:
        raise UsageError(
            _("There is no backend {name}.").format(name=name),
            _("Choose one of: {names}.").format(names=", ".join(TABLE)),
        )
    module, _colon, attribute = TABLE[name].partition(":")
    return getattr(importlib.import_module(f".{module}", __name__), attribute)


def create(name: str, in_process: bool = False) -> "Backend":
    """Give an engine of the backend `name`, in a process of its own unless `in_process`.

    Raises UsageError when there is none, BackendError with the command to install it when it cannot run here.
    """
    kind = backend_class(name)
    if reason := kind.unavailable():
        raise BackendError(_("The {backend} backend cannot run here.").format(backend=name), reason)
    if in_process:
        return kind()
    from .engine import Engine

    return Engine(name)
