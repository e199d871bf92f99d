"""Files and folders that appear whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...core.errors import CapacityError, UsageError
from ...core.i18n import _


@contextmanager
def file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; at the end sync what is there and rename it, after a failure remove it.

    Raises CapacityError when the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(target)
        sync(target.parent)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CapacityError(
            _("The disk is full: {path} was not written.").format(path=target),
            _("Free some space, or choose another folder."),
        ) from error
    finally:
        _remove(temporary)


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target`; at the end sync and rename it, after a failure remove it.

    Raises UsageError when there is something at `target`, CapacityError when the disk is full.
    """
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UsageError(_("There is something at {path} already.").format(path=target), _("Choose another name."))
    with file(target) as temporary:
        temporary.mkdir()
        yield temporary
        for path in temporary.iterdir():
            sync(path)


def _sweep(target: Path) -> None:
    """Remove what a process that was killed left of the same file or folder."""
    for path in target.parent.iterdir():  # no glob: a name can hold its signs
        owner = path.name.removeprefix(f".{target.name}.").removesuffix(".tmp")
        if path.name == f".{target.name}.{owner}.tmp" and owner.isdecimal() and not _alive(int(owner)):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return process != os.getpid()


def sync(path: Path) -> None:
    """Have the file or folder on the disk, not only in the system's memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
