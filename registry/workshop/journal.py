"""What the workshop has finished: a folder a stage, with a note once its output is whole.

A folder without a note is half-made. A lock file beside each folder is held by whoever works there, also by the child
process; what no living process holds is swept.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ...backends.base import Stop
from ...core import config, paths
from ..store import Registry
from . import stage as stages
from .job import stopped
from .stage import Stage

_WEEK = 7 * 24 * 3600.0
_NOTE = "done.json"
_PAUSE = 0.1
_PARTS = "work"
"""Folder of a stage that the next run of it goes on from."""


@contextmanager
def held(keys: Sequence[str], stop: Stop, waiting: Callable[[], None]) -> Iterator[list[int]]:
    """Hold the stages with these keys and give the descriptors of their locks, which a child inherits.

    While another process holds one, `waiting` is called again and again. Raises Paused when `stop` says so.
    """
    stages.home().mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        descriptors = []
        for key in sorted(set(keys)):  # one order for all: two runs never wait for each other
            while (descriptor := _lock(key)) is None:
                if stop():
                    raise stopped()
                waiting()
                time.sleep(_PAUSE)
            descriptors.append(descriptor)
            locks.callback(_unlock, key, descriptor)
        yield descriptors


def _lock(key: str) -> int | None:
    path = _lock_file(key)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except OSError:  # taken, or removed by the one that had it
        pass
    os.close(descriptor)
    return None


def _unlock(key: str, descriptor: int) -> None:
    _lock_file(key).unlink(missing_ok=True)
    os.close(descriptor)


def _lock_file(key: str) -> Path:
    return stages.home() / f"{key}.lock"


def begin(stage: Stage) -> None:
    """Delete what a dead run left of the output of `stage`, but the parts that it goes on from."""
    folder = stages.folder(stage.key)
    folder.mkdir(parents=True, exist_ok=True)
    _clean(folder)


def finish(stage: Stage, result: dict[str, Any]) -> None:
    """Note that the output of `stage` is whole."""
    _write(stage.key, {"result": result, "files": _files(stage.path), "path": stage.path and str(stage.path)})


def move(stage: Stage, target: Path) -> None:
    """Note that the output of `stage` is about to lie at `target`."""
    _write(stage.key, {**(_read(stage.key) or {}), "moved": str(target)})


def release(stage: Stage) -> None:
    """Forget an output that was moved and registered before its run died: it is a model's own by now."""
    moved = (_read(stage.key) or {}).get("moved")
    if moved and _registered(Path(moved)):
        _remove(stages.folder(stage.key))


def keep(stage: Stage) -> None:
    """Never sweep the output of `stage`."""
    _write(stage.key, {**(_read(stage.key) or {}), "kept": True})


def result(stage: Stage) -> dict[str, Any] | None:
    """Give the result of `stage` when it is finished and its output is whole, wherever it lies."""
    note = _read(stage.key)
    if note is None or (stage.path and place(stage) is None):
        return None
    return note.get("result", {})


def place(stage: Stage) -> Path | None:
    """Give where the whole output of `stage` lies, or None when there is none."""
    note = _read(stage.key) or {}
    candidates = [stage.path, Path(note["moved"]) if "moved" in note else None]
    return next((path for path in candidates if path and _files(path) == note.get("files")), None)


def kept(stage: Stage) -> bool:
    """Tell whether the output of `stage` was kept on purpose."""
    return bool((_read(stage.key) or {}).get("kept"))


def drop(stage: Stage) -> None:
    """Delete what the stage left, its note first, so that nothing half-deleted passes for whole."""
    if not kept(stage):
        _remove(stages.folder(stage.key))


def sweep() -> None:
    """Delete what dead runs left: half-made outputs at once, finished ones that nobody came back for after a week.

    Called with the own stages held.
    """
    with suppress(OSError), os.scandir(stages.home()) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False) or entry.name.endswith(".lock"):
                _tidy(entry.name.removesuffix(".lock"))
    _forget_logs()


def unfinished() -> int:
    """Give the bytes that unfinished and kept work takes."""
    return sum(path.lstat().st_size for path in stages.home().rglob("*") if path.is_file() and not path.is_symlink())


def _tidy(key: str) -> None:
    descriptor = _lock(key)
    if descriptor is None:
        return
    try:
        folder, note = stages.folder(key), _read(key)
        if not folder.exists():
            return
        old = time.time() - folder.stat().st_mtime > _WEEK
        if old and not (note or {}).get("kept"):
            _remove_moved(note or {})
            _remove(folder)
        elif note is None:
            _clean(folder)
            with suppress(OSError):
                folder.rmdir()
    finally:
        _unlock(key, descriptor)


def _clean(folder: Path) -> None:
    """Delete everything but the parts that the next run of the same stage reads."""
    for path in folder.iterdir():
        if path.name != _PARTS:
            _delete(path)


def _remove_moved(note: dict[str, Any]) -> None:
    """Delete a product that was moved to its place and never registered."""
    target = Path(note.get("moved", "/"))
    if target.is_relative_to(paths.models() / "products") and not _registered(target):
        _delete(target)
        with suppress(OSError):
            target.parent.rmdir()


def _registered(target: Path) -> bool:
    """Tell whether a record names a file of `target`, one that cannot be read included."""
    registry = Registry()
    if any(file.path.is_relative_to(target) for one in registry.all() for file in one.files):
        return True
    return any(json.dumps(str(target), ensure_ascii=False)[1:-1] in text for text in registry.texts())


def _forget_logs() -> None:
    for log in paths.logs().glob("workshop-*.log"):
        with suppress(OSError):
            if time.time() - log.stat().st_mtime > _WEEK:
                log.unlink()


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        (folder / _NOTE).unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _files(output: Path | None) -> list[list[Any]]:
    """Give the names and lengths of the output's files; nothing when there is none."""
    if output is None or not output.exists():
        return []
    if output.is_file():
        return [["", output.stat().st_size]]
    inside = sorted(path for path in output.rglob("*") if path.is_file())
    return [[str(path.relative_to(output)), path.stat().st_size] for path in inside]


def _read(key: str) -> dict[str, Any] | None:
    try:
        note = json.loads((stages.folder(key) / _NOTE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return note if isinstance(note, dict) else None


def _write(key: str, note: dict[str, Any]) -> None:
    config.write(stages.folder(key) / _NOTE, json.dumps(note, ensure_ascii=False))
