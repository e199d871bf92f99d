"""The bytes of one file: fetched under a lock, hashed while they are written, published whole or not at all.

A part lies beside its target as TARGET.vigtui. Whoever holds its lock (flock) writes; others wait and then find the
target. A part survives kill -9: every block is written at once, and what is there is hashed before more is fetched.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..core.errors import CapacityError, FormatError, NetworkError, VigtuiError
from ..core.i18n import _
from . import hub
from .convert.publish import sync
from .refusal import Interrupted

SUFFIX = ".vigtui"
TRIES = 6
"""Attempts in a row that bring no byte before giving up."""
_BLOCK = 4 << 20
_WINDOW = 8 << 30  # a CDN may refuse to answer more at once, and a signed address ends after an hour
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Tell = Callable[[str, int], None]
"""Called with what is done ("check", "fetch", "wait") and the bytes that are there."""
Stop = Callable[[], bool]


class Paused(VigtuiError):
    """The person stopped the pull; what was fetched is kept."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file shall lie, and what is known of it: size in bytes, sha256 or git's own sha1 in hex."""

    path: Path
    size: int | None = None
    sha256: str | None = None
    git: str | None = None

    @property
    def part(self) -> Path:
        """Where it lies while it is not whole."""
        return self.path.with_name(self.path.name + SUFFIX)


class _Digest:
    """The sha256 of all bytes so far, and git's sha1 where that was announced."""

    def __init__(self, target: Target) -> None:
        self.sha256 = hashlib.sha256()
        self.git = hashlib.sha1(b"blob %d\0" % (target.size or 0), usedforsecurity=False) if target.git else None

    def add(self, block: bytes) -> None:
        self.sha256.update(block)
        if self.git:
            self.git.update(block)


def transfer(target: Target, locate: Callable[[], hub.Location], tell: Tell, stop: Stop) -> str | None:
    """Bring the file to `target.path`; give its sha256, or None when another process has brought it.

    Raises Paused, CapacityError when the disk is full (the part is kept), FormatError when what arrived is not what
    was announced (the part is discarded), NetworkError after TRIES attempts without a byte.
    """
    target.path.parent.mkdir(parents=True, exist_ok=True)
    while not target.path.exists():
        with _held(target.part) as file:
            if file is None:
                tell("wait", _length(target.part))
                sleep(0.2, stop)
            elif not target.path.exists():
                return _complete(file, target, locate, tell, stop)
            else:
                target.part.unlink(missing_ok=True)
    return None


def discard(part: Path) -> bool:
    """Delete a part, unless a process is writing it; tell whether it is gone."""
    with _held(part) as file:
        if file is not None:
            part.unlink(missing_ok=True)
        return file is not None


def sleep(seconds: float, stop: Stop) -> None:
    """Wait, but no longer than until `stop` says so. Raises Paused then."""
    until = time.monotonic() + seconds
    while not stop():
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, 0.1))
    raise paused()


def paused() -> Paused:
    """Give the error of a pause."""
    return Paused(_("Paused; what was fetched is kept."), _("The same command goes on from there."))


@contextmanager
def _held(part: Path) -> Iterator[BinaryIO | None]:
    """Give the part open and locked, or None while another process has it."""
    with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = part.exists() and os.path.samestat(os.fstat(file.fileno()), part.stat())
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOENT):
                raise
            ours = False
        yield file if ours else None  # pyright: ignore[reportReturnType] - FileIO is one


def _complete(file: BinaryIO, target: Target, locate: Callable[[], hub.Location], tell: Tell, stop: Stop) -> str:
    digest = _Digest(target)
    try:
        _present(file, target, digest, tell, stop)
        digest = _fetch(file, target, digest, locate, tell, stop)
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CapacityError(
            _("The disk is full: {path}.").format(path=target.part.parent),
            _("Make room; what was fetched is kept, and the same command goes on from there."),
        ) from error
    _verify(target, digest)
    os.replace(target.part, target.path)
    sync(target.path.parent)  # the new name survives a power cut
    return digest.sha256.hexdigest()


def _present(file: BinaryIO, target: Target, digest: _Digest, tell: Tell, stop: Stop) -> None:
    """Hash what an earlier run left; it is nothing when it is too long or when the whole is not known."""
    if target.size is None or _length(target.part) > target.size:
        file.truncate(0)
    while block := file.read(_BLOCK):
        digest.add(block)
        tell("check", file.tell())
        if stop():
            raise paused()


def _fetch(
    file: BinaryIO, target: Target, digest: _Digest, locate: Callable[[], hub.Location], tell: Tell, stop: Stop
) -> _Digest:
    """Append until the file is whole; a connection that broke is made again from the next byte."""
    tries, size = 0, target.size
    while size is None or file.tell() < size:
        before, refusal = file.tell(), None
        try:
            end = None if size is None else min(size, before + _WINDOW)
            with hub.fetch(locate(), before, end) as (start, blocks):
                if start != before:
                    file.seek(0)
                    file.truncate(0)
                    digest, before = _Digest(target), 0
                _append(file, blocks, digest, size, tell, stop)
            if size is None:
                return digest
        except Interrupted as error:
            refusal = error
        except NetworkError as error:  # a signed address may have run out: one new one is asked for
            refusal = error
            tries = max(tries, TRIES - 2)
        tries = 0 if file.tell() > before else tries + 1
        if tries >= TRIES:
            raise refusal or NetworkError(_("The server sends nothing more."), _("Try again later."))
        if refusal:
            tell("wait", file.tell())
            sleep(_delay(refusal, tries), stop)
    return digest


def _append(file: BinaryIO, blocks: Iterator[bytes], digest: _Digest, size: int | None, tell: Tell, stop: Stop) -> None:
    for block in blocks:
        if size is not None and file.tell() + len(block) > size:
            block = block[: size - file.tell()]
        view = memoryview(block)
        while view:
            view = view[file.write(view) :]
        digest.add(block)
        tell("fetch", file.tell())
        if stop():
            raise paused()


def _delay(refusal: NetworkError, tries: int) -> float:
    """Give the seconds to wait: those the server asked for (at most a minute), else 0.25, 0.5, 1, 2, 4."""
    after = getattr(refusal, "after", None)
    return min(after, 60.0) if after is not None else 0.25 * 2 ** max(0, tries - 1)


def _verify(target: Target, digest: _Digest) -> None:
    """Compare with what the hub announced; what differs is discarded."""
    hashes = ((target.sha256, digest.sha256), (target.git, digest.git))
    for wanted, got in ((wanted, hash.hexdigest()) for wanted, hash in hashes if wanted and hash):
        if wanted != got:
            target.part.unlink(missing_ok=True)
            raise FormatError(
                _("What arrived is damaged: its hash is {got}, and {wanted} was announced.").format(
                    got=got, wanted=wanted
                ),
                _("It was discarded; pull it again, and check the disk and the network if it happens again."),
            )


def _length(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0
