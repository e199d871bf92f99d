"""The process of one stage: a request on the first descriptor, JSON lines of progress and one result on the second.

Started as `python -P -m vigtui.registry.workshop.job_child`. What libraries print on 1 and 2 goes to the log. It ends
when the parent does: a thread waits for the end of the pipe.
"""

import errno
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from ...backends import wire
from ...backends.child import detached
from ...core.errors import BackendError, CapacityError, VigtuiError
from ...core.i18n import _
from ..convert.publish import sync
from .work import WORKS

_OFTEN = 0.05  # seconds between two reports that differ in numbers only


def serve(requests: BinaryIO, answers: int) -> None:
    """Do the work of one request and say how it ended."""
    request = wire.decode(requests.readline())
    threading.Thread(target=_follow, args=(requests,), daemon=True).start()
    _send(answers, **_outcome(request, answers))


def _outcome(request: dict[str, Any], answers: int) -> dict[str, Any]:
    try:
        os.chdir(request["folder"])  # gptqmodel writes its logs where it stands
        output = Path(request["output"])
        result = WORKS[request["work"]](request["arguments"], output, _Reports(answers))
        _sync(output)
        return {"result": result}
    except VigtuiError as error:
        return {"error": wire.failure(error)}
    except OSError as error:
        return {"system": [error.errno, error.strerror, error.filename]}
    except Exception as error:  # the edge of the process: whatever a library raises becomes a sentence
        import traceback

        traceback.print_exc()
        return {"error": wire.failure(_told(error, request))}


def _told(error: Exception, request: dict[str, Any]) -> VigtuiError:
    """Give what a library raised as an error of ours."""
    if isinstance(error, MemoryError):
        return CapacityError(
            _("The memory is full."), _("Close other programs, or do this on a machine with more of it.")
        )
    if os.strerror(errno.ENOSPC) in str(error):  # from Rust, whose errors are no OSError
        return CapacityError(_("The disk is full."), _("Free some space; the same command goes on."))
    said = _("{work} failed: {reason}.").format(work=request["work"], reason=f"{type(error).__name__}: {error}")
    return BackendError(said, _("Its log tells more: {log}.").format(log=request["log"]))


class _Reports:
    """Sends progress, not more often than anyone can see."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.last, self.told = "", 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.last or now - self.told >= _OFTEN or done == total:
            self.last, self.told = stage, now
            _send(self.answers, progress=[stage, int(done), int(total)])


def _send(answers: int, **message: Any) -> None:
    data = wire.encode(message)
    while data:
        data = data[os.write(answers, data) :]


def _follow(requests: BinaryIO) -> None:
    """End with the parent, whatever native code does in the main thread."""
    while requests.read(1):
        continue
    os._exit(1)


def _sync(output: Path) -> None:
    """Bring what was written to the disk before anybody relies on it."""
    inside = [output, *output.rglob("*")] if output.is_dir() else [output]
    for path in inside:
        if path.exists():
            sync(path)


def main() -> None:
    """Do the one piece of work that is asked for."""
    requests, answers = detached()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries look: everything is on this disk
    os.environ.setdefault("GPTQMODEL_DISABLE_BANNER", "1")
    serve(os.fdopen(requests, "rb"), answers)
    sys.stdout.flush()
    os._exit(0)  # a library's threads must not keep a process that has answered


if __name__ == "__main__":
    main()
