"""The engines that run at this moment, of this and of other processes, with the memory that they take.

Who opens an engine leaves a small file; whoever asks verifies it against the system, so that no daemon is needed and
a file of a process that is gone, or whose number another process has, is thrown away.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..backends.base import Backend
from ..core import config, paths
from . import memory
from .record import Record

_PROC = Path("/proc")
_CHILD = "vigtui.backends.child"
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Running:
    """An engine: the model's name, the process that computes and the one that started it, with when that one began.

    `began` is when the model was opened, in seconds since 1970; `resident` and `gpu` bytes, None when not known.
    """

    model: str
    backend: str
    context: int
    pid: int
    owner: int
    owner_start: str
    start: str
    began: float
    resident: int | None = None
    gpu: int | None = None


def mark(record: Record, engine: Backend) -> None:
    """Leave the file that tells of `engine`, which has `record` loaded."""
    info = engine.info
    pid = getattr(engine, "pid", None) or os.getpid()
    context = info.context if info else 0
    own = _start(os.getpid())
    one = Running(record.ref, engine.name, context, pid, os.getpid(), own, _start(pid), time.time())
    with suppress(OSError):  # a full or read-only disk must not keep a model from answering
        _sweep()
        config.write(_folder() / f"{os.getpid()}-{next(_numbers)}.json", json.dumps(asdict(one)))


def engines() -> list[Running]:
    """Give the engines that run, the oldest first."""
    alive = _sweep()
    gpus = memory.gpu_processes() if alive else {}
    measured = (replace(one, resident=_resident(one.pid), gpu=gpus.get(one.pid)) for one in alive)
    return sorted(measured, key=lambda one: one.began)


def _sweep() -> list[Running]:
    """Give the engines that run, and throw away the files of those that do not."""
    noted = {file: _read(file) for file in sorted(_folder().glob("*.json"))}
    alive = {file: one for file, one in noted.items() if one and _start(one.pid) == one.start}
    for file, one in noted.items():
        if file in alive:
            continue
        if one and (again := _restarted(one, {other.pid for other in alive.values()})):
            alive[file] = again
        else:
            file.unlink(missing_ok=True)
    return list(alive.values())


def _folder() -> Path:
    return paths.cache() / "engines"


def _read(file: Path) -> Running | None:
    try:
        values: Any = json.loads(file.read_bytes())
        one = Running(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    shapes = {"pid": int, "owner": int, "context": int, "start": str, "owner_start": str, "model": str, "backend": str}
    return one if all(type(getattr(one, name)) is kind for name, kind in shapes.items()) and one.start else None


def _restarted(one: Running, taken: set[int]) -> Running | None:
    """Give the engine that took the place of one that crashed: another child of the same owner (Linux)."""
    if _start(one.owner) != one.owner_start or one.owner == one.pid:
        return None
    for tasks in (_PROC / str(one.owner) / "task").glob("*/children"):
        for pid in map(int, _text(tasks).split()):
            if pid not in taken and _CHILD in _text(_PROC / str(pid) / "cmdline"):
                return replace(one, pid=pid, start=_start(pid))
    return None


def _start(pid: int) -> str:
    """Give what tells this process from a later one of the same number: when it started; nothing when it is gone."""
    if sys.platform == "linux":
        fields = _text(_PROC / str(pid) / "stat").rpartition(")")[2].split()  # proc_pid_stat(5): state is field 3
        return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""
    return _ps(pid, "lstart")


def _resident(pid: int) -> int | None:
    if sys.platform == "linux":
        pages = _text(_PROC / str(pid) / "statm").split()
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else None
    kilobytes = _ps(pid, "rss")
    return int(kilobytes) * 1024 if kilobytes.isdecimal() else None


def _ps(pid: int, column: str) -> str:
    command = ["ps", "-o", f"{column}=", "-p", str(pid)]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
