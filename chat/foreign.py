"""A model's own template, run in a child process that is killed when it loops, grows or floods."""

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from typing import Any

from ..core.i18n import _
from .template import LIMIT, failure

SECONDS = 2.0
"""How long a template may take."""
START = 20.0
"""How long the child may take to start, in seconds: Python and jinja2 on a busy machine."""


def run(template: str, variables: dict[str, Any]) -> str:
    """Give what a stranger's `template` renders from `variables` (plain JSON values), as `template.run` does.

    It has 1 GiB of memory, 2 seconds and 4 MiB of output. Raises FormatError in one sentence.
    """
    with _lock:
        answer = _child().ask({"template": template, "variables": variables})
    if "error" in answer:
        raise failure(answer["error"])
    return answer["text"]


class _Child:
    """The process; it is started by the first template, and again by the next one after it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            process = self._living()
            assert process.stdin is not None
            return self._exchange(process, json.dumps(request).encode() + b"\n", SECONDS)
        except TimeoutError:
            self.close()
            raise failure(_("it ran for more than {seconds} seconds").format(seconds=int(SECONDS))) from None
        except OverflowError:
            self.close()
            raise failure(_("its text is longer than {limit} bytes").format(limit=LIMIT)) from None
        except (EOFError, OSError) as error:
            self.close()
            raise failure(_("it used more memory than it may, or ended its process")) from error
        except BaseException:  # an answer half read would be taken for the next one
            self.close()
            raise

    def _living(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = subprocess.Popen(
                # -P: a stranger's jinja2.py in the working folder is not imported
                [sys.executable, "-P", "-m", f"{__package__}.foreign_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for us alone
            )
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
            self._exchange(self._process, b"", START)
        return self._process

    def _exchange(self, process: subprocess.Popen[bytes], request: bytes, seconds: float) -> dict[str, Any]:
        """Write a line and read one, both without ever waiting longer than until the deadline."""
        assert process.stdin is not None and process.stdout is not None
        into, out = process.stdin.fileno(), process.stdout.fileno()
        deadline, received = time.monotonic() + seconds, bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(out, selectors.EVENT_READ)
            if request:
                ready.register(into, selectors.EVENT_WRITE)
            while not received.endswith(b"\n"):
                events = ready.select(max(0.0, deadline - time.monotonic()))
                if not events:
                    raise TimeoutError
                for key, _mask in events:
                    if key.fd == into:
                        request = request[os.write(into, request) :]
                        if not request:
                            ready.unregister(into)
                    elif piece := os.read(out, 1 << 16):
                        received += piece
                    else:
                        raise EOFError
                if len(received) > 6 * LIMIT + 1024:  # JSON writes one character as six at most
                    raise OverflowError
        return json.loads(received)

    def close(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
            process.wait()


_lock = threading.Lock()
_only = _Child()


def _child() -> _Child:
    return _only


def pid() -> int | None:
    """Give the process id of the child, None while there is none."""
    process = _only._process
    return process.pid if process and process.poll() is None else None


atexit.register(_only.close)
