"""One stage in a process of its own: a crash costs that stage, and its memory is truly given back."""

import errno
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ...backends import wire
from ...backends.base import Stop
from ...core import paths
from ...core.errors import BackendError, CapacityError
from ...core.i18n import _
from ...core.progress import Progress
from ..transfer import Paused
from .stage import Stage, folder

_GRACE = 2.0  # seconds between asking a process to end and making it


class Process(Protocol):
    """What is needed of a running stage: subprocess.Popen has it all."""

    stdin: Any
    stdout: Any

    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def spawn(log: BinaryIO, held: Sequence[int]) -> Process:
    """Start the process of a stage; it keeps the locks `held`, so that they are free only when it has ended too."""
    return subprocess.Popen(
        # -P: a stranger's numpy.py in the working folder is not imported
        [sys.executable, "-P", "-m", "vigtui.registry.workshop.job_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env=os.environ | {"GGML_NO_BACKTRACE": "1"} | _home(),
        pass_fds=tuple(held),
        start_new_session=True,  # Ctrl-C in the terminal is for us alone
    )


def _home() -> dict[str, str]:
    """Give VIGTUI_HOME as the process needs it, which works in a folder of its own."""
    home = os.environ.get("VIGTUI_HOME")
    return {"VIGTUI_HOME": str(Path(home).expanduser().absolute())} if home else {}


def log_of(stage: Stage) -> Path:
    """Give where the stage's libraries print."""
    return paths.logs() / f"workshop-{stage.key}.log"


def perform(
    stage: Stage,
    progress: Progress,
    stop: Stop,
    held: Sequence[int] = (),
    start: Callable[[BinaryIO, Sequence[int]], Process] | None = None,
) -> dict[str, Any]:
    """Do the work of `stage` and give its result.

    Raises Paused when `stop` says so, BackendError when the process dies, and what the work raises.
    """
    log = log_of(stage)
    log.parent.mkdir(parents=True, exist_ok=True)
    folder(stage.key).mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = (start or spawn)(file, held)
    try:
        _ask(process, stage, log)
        answer = _answers(process, stage, log, progress, stop)
    finally:
        _end(process)
        if not log.stat().st_size:
            log.unlink()
    if "system" in answer:
        raise _system(*answer["system"])
    if "error" in answer:
        raise wire.error(answer["error"])
    return answer["result"]


def stopped() -> Paused:
    """Give the error of a stop that a person asked for."""
    return Paused(_("Stopped; what is finished is kept."), _("The same command goes on from there."))


def _ask(process: Process, stage: Stage, log: Path) -> None:
    home = folder(stage.key)
    request = {"work": stage.work, "arguments": dict(stage.arguments), "output": stage.path or home}
    request |= {"folder": home, "log": log}
    with suppress(BrokenPipeError):  # it died at once: the reader says so
        process.stdin.write(wire.encode(request))
        process.stdin.flush()


def _answers(process: Process, stage: Stage, log: Path, progress: Progress, stop: Stop) -> dict[str, Any]:
    """Pass progress on until the last answer comes, and give it."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    while True:
        if stop():
            raise stopped()
        try:
            line = lines.get(timeout=0.1)
        except queue.Empty:
            continue
        if line is None:
            raise _death(process.wait(), stage, log)
        answer = wire.decode(line)
        if "progress" not in answer:
            return answer
        progress(*answer["progress"])


def _read(stdout: BinaryIO, lines: "queue.SimpleQueue[bytes | None]") -> None:
    with suppress(OSError, ValueError), stdout:
        for line in stdout:
            if line.endswith(b"\n"):
                lines.put(line)
    lines.put(None)


def _end(process: Process) -> None:
    """End the process, by force if it does not end soon."""
    with suppress(OSError):
        process.stdin.close()
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _death(code: int, stage: Stage, log: Path) -> BackendError:
    cause = signal.Signals(-code).name if code < 0 else _("exit code {code}").format(code=code)
    hint = _("The same command tries again; its log is {log}.").format(log=log)
    if code == -signal.SIGKILL:
        hint = _("The system may have run out of memory.") + " " + hint
    return BackendError(
        _("The process for “{stage}” ended unexpectedly ({cause}).").format(stage=stage.title, cause=cause), hint
    )


def _system(number: int | None, reason: str | None, file: str | None) -> Exception:
    if number in (errno.ENOSPC, errno.EDQUOT):
        return CapacityError(
            _("The disk is full: {path} was not written.").format(path=file or "?"),
            _("Free some space; the same command goes on."),
        )
    return OSError(number or 0, reason or "", file)
