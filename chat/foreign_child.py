"""The process that renders strangers' templates: JSON lines on stdin and stdout, one answer a request.

Started as `python -P -m vigtui.chat.foreign_child`; it ends with its stdin.
"""

import contextlib
import json
import sys
from typing import Any

from ..core import i18n
from . import template
from .template import Failure

MEMORY = 1 << 30
"""Bytes of address space."""


def main() -> None:
    """Say `{}` when ready, then answer `{"template", "variables"}` with `{"text"}` or `{"error"}` until the end."""
    _confine()
    i18n.use()
    template.warm()
    _say({})
    for line in sys.stdin.buffer:
        _say(_answer(json.loads(line)))


def _confine() -> None:
    """Bound the memory, and leave nothing to open, where the system has such limits."""
    import resource

    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(request: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": template.render(request["template"], request["variables"])}
    except Failure as error:
        return {"error": str(error)}


def _say(answer: dict[str, str]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode("ascii") + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
