"""Any local backend in a process of its own: a crash costs one answer, and its memory is truly given back."""

import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..core import paths
from ..core.errors import BackendError
from ..core.i18n import _
from ..core.progress import Progress, silent
from . import backend_class, wire
from .base import Backend, Event, Generation, LoadOptions, ModelFiles, ModelInfo, Prompt, Stop

_GONE: dict[str, Any] = {}
"""In a queue of answers: the process ended."""


class _Death(BackendError):
    """The process ended while a request waited."""


class Engine(Backend):
    """The backend `name` in a child process, behind the same interface.

    When the process dies, the call in progress raises BackendError (what it yielded before stays valid) and the
    next call starts a new process and loads the model again.
    """

    def __init__(self, name: str) -> None:
        kind = backend_class(name)
        self.name, self.supports = kind.name, kind.supports - {"score"}  # pyright: ignore
        self.info = None
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: tuple[ModelFiles, LoadOptions] | None = None
        self._adapters: list[tuple[Path, float]] = []
        self._ids = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._starting = threading.RLock()
        self._writing = threading.Lock()
        self._log: Path | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the running engine, or None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def load(self, model: ModelFiles, options: LoadOptions, progress: Progress) -> ModelInfo:
        with self._starting:
            self.close()
            self._loaded, self._adapters = (model, options), []
            try:
                return self._start(progress)
            except BaseException:
                self.close()
                raise

    def _start(self, progress: Progress) -> ModelInfo:
        """Start the process and load what was asked for. Called with `_starting` held."""
        assert self._loaded is not None
        model, options = self._loaded
        self._spawn()
        for answer in self._exchange("load", model=model, options=options):
            if "progress" in answer:
                progress(*answer["progress"])
            else:
                self.info = wire.info(answer["result"])
        assert self.info is not None
        if self._adapters:
            list(self._exchange("adapt", adapters=self._adapters))
        return self.info

    def _spawn(self) -> None:
        self._log = _log_file()
        environment = os.environ | {"GGML_NO_BACKTRACE": "1", "VIGTUI_ENGINE_LOG": str(self._log)}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                # -P: a stranger's numpy.py in the working folder is not imported
                [sys.executable, "-P", "-m", "vigtui.backends.child", self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is for us alone
            )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Sort the answers of `process` by request until it ends, then tell every request that waits."""
        assert process.stdin is not None and process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    break  # the process ended in the middle of a write
                answer = wire.decode(line)
                if waiting := self._answers.get(answer["id"]):
                    waiting.put(answer)
        process.wait()
        with suppress(OSError):
            process.stdin.close()
        if process is self._process:
            for waiting in list(self._answers.values()):
                waiting.put(_GONE)

    def _ask(self, op: str, stop: Stop | None = None, **fields: Any) -> Iterator[dict[str, Any]]:
        """Exchange with a living process: one that died since the last call, or was dying, is started again."""
        self._alive()
        answered = False
        try:
            for answer in self._exchange(op, stop, **fields):
                answered = True
                yield answer
        except _Death:
            if answered:
                raise
            self._alive()
            yield from self._exchange(op, stop, **fields)

    def _exchange(self, op: str, stop: Stop | None = None, **fields: Any) -> Iterator[dict[str, Any]]:
        """Send a request and yield its answers up to the one with the result. Raises the error that came back."""
        process, identity = self._process, next(self._ids)
        answers = self._answers[identity] = queue.SimpleQueue()
        cancelled = False
        try:
            self._send(process, {"id": identity, "op": op, **fields})
            while True:
                if stop and not cancelled and stop():
                    cancelled = True
                    self._send(process, {"id": 0, "op": "cancel", "of": identity})
                try:
                    answer = answers.get(timeout=0.05 if stop and not cancelled else 1.0)
                except queue.Empty:
                    if process is None or process.poll() is not None:
                        raise self._death() from None
                    continue
                if answer is _GONE:
                    raise self._death()
                if "error" in answer:
                    raise wire.error(answer["error"])
                yield answer
                if "result" in answer:
                    return
        except GeneratorExit:
            self._send(process, {"id": 0, "op": "cancel", "of": identity})
            raise
        finally:
            del self._answers[identity]

    def _send(self, process: subprocess.Popen[bytes] | None, message: dict[str, Any]) -> None:
        if process is None or process.stdin is None:
            return
        try:
            with self._writing:
                process.stdin.write(wire.encode(message))
                process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # the reader sees the end of the process and says so

    def _call(self, op: str, **fields: Any) -> Any:
        return [answer for answer in self._ask(op, **fields) if "result" in answer][-1]["result"]

    def _death(self) -> "_Death":
        code = self._process.wait() if self._process else None
        cause = signal.Signals(-code).name if code is not None and code < 0 else _("exit code {code}").format(code=code)
        next_step = _("The next message starts it again; its log is {log}.").format(log=self._log)
        if code == -signal.SIGKILL:
            next_step = _("The system does so when the memory runs out.") + " " + next_step
        return _Death(_("The engine process ended unexpectedly ({cause}).").format(cause=cause), next_step)

    def _alive(self) -> None:
        """Start the process again if it died since the last call."""
        with self._starting:
            if self._loaded is None:
                raise BackendError(_("No model is loaded."))
            if self.pid is None:
                self._start(silent)

    def tokenize(self, prompt: Prompt) -> list[int]:
        return self._call("tokenize", prompt=prompt)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        return self._call("pieces", tokens=list(tokens))

    def likelihood(self, tokens: Sequence[int], start: int) -> list[float]:
        return self._call("likelihood", tokens=list(tokens), start=start)

    def stream(self, prompt: Prompt, generation: Generation, stop: Stop) -> Iterator[Event]:
        for answer in self._ask("stream", stop, prompt=prompt, generation=generation):
            if "event" in answer:
                yield wire.event(answer["event"])

    def adapt(self, adapters: Sequence[tuple[Path, float]]) -> None:
        self._call("adapt", adapters=list(adapters))
        self._adapters = list(adapters)

    def save_state(self, path: Path) -> None:
        self._call("save_state", path=path)

    def load_state(self, path: Path) -> int:
        return self._call("load_state", path=path)

    def close(self) -> None:
        """End the process, by force if it does not end within two seconds."""
        process, self._process, self.info, self._loaded = self._process, None, None, None
        if process is None or process.stdin is None:
            return
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._log and self._log.is_file() and not self._log.stat().st_size:
            self._log.unlink()


def _log_file() -> Path:
    """Give where native output goes: a file of this process, or nowhere when the folder cannot be written."""
    try:
        paths.logs().mkdir(parents=True, exist_ok=True)
        log = paths.logs() / f"engine-{os.getpid()}.log"
        log.touch()
    except OSError:
        return Path(os.devnull)
    return log
