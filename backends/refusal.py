"""What a server refuses, as our errors: who can do something about it, and what."""

import re
from typing import TYPE_CHECKING

from ..core.errors import BackendError, ContextError, NetworkError, NotFoundError, VigtuiError
from ..core.i18n import _
from .base import Remote

if TYPE_CHECKING:
    import openai


class Unreachable(NetworkError):
    """The server could not be reached or was cut off."""


class Busy(NetworkError):
    """The server is overloaded or failed: it may do better in a moment."""


class Rejected(BackendError):
    """The server does not accept the request as it is; `said` is why."""

    def __init__(self, message: str, hint: str = "", said: str = "") -> None:
        super().__init__(message, hint)
        self.said = said


def refusal(url: str, status: int, said: str, remote: Remote) -> VigtuiError:
    """Give the error for an HTTP status of the server at `url` and what it said."""
    told = _("{url} says {status}: {reason}.").format(url=url, status=status, reason=said)
    if status in (401, 403):
        hint = _("Check the key in {name}.").format(name=remote.key_env)
        return NetworkError(told, hint if remote.key_env else _("Name the variable that holds the key with --key-env."))
    if status == 404:
        return NotFoundError(told, _("Check the address, which usually ends in /v1, and the model's name."))
    if status == 429 or status >= 500:
        return Busy(told, _("Try again in a moment."))
    if status == 413 or re.search(r"context.{0,30}(length|size|window)|too long|exceeds.{0,40}context", said, re.I):
        return ContextError(told, _("Shorten the message, or say the server's context with `--ctx`."))
    return Rejected(told, _("Change the flag that it names."), said)


def sentence(error: "openai.OpenAIError") -> str:
    """Give the sentence of the server, else what the network said."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        found = inner.get("message") if isinstance(inner, dict) else inner
        if isinstance(found, str) and found:
            return found
        if isinstance(body.get("detail"), str):
            return body["detail"]
    cause = error.__cause__
    return str(cause) if cause and str(cause) else str(error) or type(error).__name__
