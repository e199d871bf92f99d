"""The one tree of errors. Each carries a sentence, the next step and the exit code of the command line."""

from typing import ClassVar


class VigtuiError(Exception):
    """Something that a person can act on: `message` says what is wrong, `hint` what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(VigtuiError):
    """A flag or value that cannot be meant."""

    exit_code = 2


class NotFoundError(VigtuiError):
    """No such model, adapter, persona, format or session."""

    exit_code = 3


class CapacityError(VigtuiError):
    """It does not fit: disk or memory."""

    exit_code = 4


class NetworkError(VigtuiError):
    """The network failed, or the other side refused."""

    exit_code = 5


class FormatError(VigtuiError):
    """A file is corrupt, unsupported or does not match."""

    exit_code = 6


class BackendError(VigtuiError):
    """The engine failed, died or cannot run here."""

    exit_code = 7


class TrustError(BackendError):
    """The model runs only with the Python code that comes with it, and nobody has allowed that."""


class ContextError(VigtuiError):
    """Even the last message alone does not fit the context window."""

    exit_code = 8


ERRORS: dict[str, type[VigtuiError]] = {
    kind.__name__: kind
    for kind in (
        VigtuiError,
        UsageError,
        NotFoundError,
        CapacityError,
        NetworkError,
        FormatError,
        BackendError,
        TrustError,
        ContextError,
    )
}
"""Name → error class: how an error crosses the pipe of the engine process."""
