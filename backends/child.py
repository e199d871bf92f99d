"""The engine process: one backend behind JSON lines. Started as `python -P -m vigtui.backends.child NAME`.

The parent's requests come in on the first descriptor, answers go out on the second; 0 is closed and whatever
native code prints on 1 and 2 goes to the log. One thread reads, so that `tokenize` and `cancel` are answered while
an answer streams; the main thread works.
"""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core import i18n, paths
from ..core.errors import BackendError, VigtuiError
from ..core.i18n import _
from . import backend_class, placement, wire
from .base import Text

_OFTEN = 0.004
"""Seconds within which pieces of text go out together: a write wakes the reader, and small models outrun it."""
_GRACE = 10.0
"""Seconds that an engine has to stop when its parent is gone."""


class Child:
    """Serves one backend until the parent's pipe ends. `cancelled` holds the requests to be stopped."""

    def __init__(self, name: str, requests: int, answers: int) -> None:
        self._backend = backend_class(name)()
        self._requests = os.fdopen(requests, "rb")
        self._answers = answers
        self._work: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._writing = threading.Lock()
        self._cancelled: set[int] = set()
        self._ending = threading.Event()

    def serve(self) -> None:
        """Work through requests, one at a time, until there are no more."""
        threading.Thread(target=self._read, daemon=True).start()
        while (request := self._work.get()) is not None:
            self._guard(request, self._perform)
        self._backend.close()

    def _read(self) -> None:
        try:
            for line in self._requests:
                self._sort(wire.decode(line))
        finally:  # the parent is gone, or what it asks does not fit the memory: nothing more can be read
            try:
                self.end()
            finally:
                time.sleep(_GRACE)
                os._exit(1)  # the main thread does not come back: nobody else would ever end it

    def _sort(self, request: dict[str, Any]) -> None:
        if request["op"] == "cancel":
            self._cancelled.add(request["of"])
        elif request["op"] == "tokenize" and self._backend.info is not None:
            self._guard(request, self._tokenize)
        else:
            self._work.put(request)

    def end(self, *_signal: object) -> None:
        """Stop what runs and end, on SIGTERM too."""
        self._ending.set()
        self._work.put(None)

    def _send(self, request: dict[str, Any], **fields: Any) -> None:
        self._write(wire.encode({"id": request["id"], **fields}))

    def _write(self, data: bytes) -> None:
        with self._writing:
            while data:
                data = data[os.write(self._answers, data) :]

    def _guard(self, request: dict[str, Any], work: Callable[[dict[str, Any]], Any]) -> None:
        try:
            self._send(request, result=work(request))
        except VigtuiError as error:
            self._send(request, error=wire.failure(error))
        except BrokenPipeError:
            self._ending.set()
        except Exception as error:  # the edge of the process: whatever a library raises becomes a sentence
            import traceback

            traceback.print_exc()
            self._send(request, error=wire.failure(_sentence(error)))
        finally:
            self._cancelled.discard(request["id"])

    def _tokenize(self, request: dict[str, Any]) -> list[int]:
        return self._backend.tokenize(wire.prompt(request["prompt"]))

    def _perform(self, request: dict[str, Any]) -> Any:
        return getattr(self, "_do_" + request["op"])(request)

    def _do_load(self, request: dict[str, Any]) -> Any:
        def progress(stage: str, done: int, total: int) -> None:
            self._send(request, progress=[stage, done, total])

        return self._backend.load(wire.model(request["model"]), wire.options(request["options"]), progress)

    _do_tokenize = _tokenize

    def _do_stream(self, request: dict[str, Any]) -> None:
        identity = request["id"]

        def stop() -> bool:
            return identity in self._cancelled or self._ending.is_set()

        prompt, generation = wire.prompt(request["prompt"]), wire.generation(request["generation"])
        held, sent = b"", 0.0
        try:
            for event in self._backend.stream(prompt, generation, stop):
                fields = {name: getattr(event, name) for name in event.__dataclass_fields__}
                held += wire.encode({"id": identity, "event": {"type": type(event).__name__.lower(), **fields}})
                if isinstance(event, Text):
                    if (now := time.monotonic()) - sent < _OFTEN:
                        continue
                    sent = now
                held, ready = b"", held
                self._write(ready)
        finally:
            self._write(held)

    def _do_pieces(self, request: dict[str, Any]) -> list[str]:
        return self._backend.pieces(request["tokens"])

    def _do_likelihood(self, request: dict[str, Any]) -> list[float]:
        return self._backend.likelihood(request["tokens"], request["start"])

    def _do_adapt(self, request: dict[str, Any]) -> None:
        self._backend.adapt([(Path(path), scale) for path, scale in request["adapters"]])

    def _do_save_state(self, request: dict[str, Any]) -> None:
        self._backend.save_state(Path(request["path"]))

    def _do_load_state(self, request: dict[str, Any]) -> int:
        return self._backend.load_state(Path(request["path"]))


def _sentence(error: Exception) -> BackendError:
    if isinstance(error, MemoryError) or "can't start new thread" in str(error):
        return placement.out_of_memory()
    return BackendError(
        _("The engine failed: {reason}.").format(reason=f"{type(error).__name__}: {error}"),
        _("Its log tells more: {log}.").format(log=os.environ.get("VIGTUI_ENGINE_LOG", "stderr")),
    )


def detached() -> tuple[int, int]:
    """Take the pipes off descriptors 0 and 1, so that nothing a library prints can reach them, and give them."""
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("HF_HOME", str(paths.hub()))  # gptqmodel's tokenizers would take a folder under /tmp
    i18n.use()
    return requests, answers


def main() -> None:
    """Serve the backend that the first argument names."""
    requests, answers = detached()
    child = Child(sys.argv[1], requests, answers)
    signal.signal(signal.SIGTERM, child.end)
    child.serve()


if __name__ == "__main__":
    main()
