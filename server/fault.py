"""Errors as clients of the OpenAI API read them: a status and {"error": {message, type, param, code}}."""

from typing import Any

from ..core.errors import CapacityError, ContextError, NetworkError, NotFoundError, UsageError, VigtuiError
from ..core.text import line


class Fault(Exception):
    """A request that gets no answer: an HTTP status, a sentence, the field it is about, and a code for programs.

    `retry_after` is in seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """Give it as JSON values."""
        return {"error": {"message": self.message, "type": _type(self.status), "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Give the headers that go with it."""
        found = {401: {"WWW-Authenticate": "Bearer"}}.get(self.status, {})
        return found | ({"Retry-After": str(self.retry_after)} if self.retry_after is not None else {})


def _type(status: int) -> str:
    known = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return known.get(status, "server_error" if status >= 500 else "invalid_request_error")


def of(error: VigtuiError) -> Fault:
    """Give what a client is told of one of our errors."""
    message = line(str(error))
    if isinstance(error, ContextError):
        return Fault(400, message, "messages", "context_length_exceeded")
    if isinstance(error, UsageError):
        return Fault(400, message)
    if isinstance(error, NotFoundError):
        return Fault(404, message)
    if isinstance(error, CapacityError | NetworkError):
        return Fault(503, message, retry_after=10)
    return Fault(500, message, code="engine_failed")
