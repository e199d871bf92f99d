"""Fetching a model: every file whole and verified, resumed where it stopped, published as a record at the end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ..core import config
from ..core.errors import FormatError
from ..core.i18n import _
from . import hashes, hub, unfinished
from .check import refusal
from .describe import describe
from .kind import MODELS
from .order import Order
from .record import File, Record
from .refusal import Interrupted
from .sniff import sniff
from .store import Registry
from .transfer import TRIES, Stop, Target, paused, sleep, transfer
from .unfinished import Piece, Unfinished

_UNREADABLE = ("torch", "pickle", "ggml", "weights")
"""What a pull may bring although no engine reads it as it is: `convert` does."""
_T = TypeVar("_T")
_OFTEN = 0.1  # seconds between two steps that only differ in bytes


@dataclass(frozen=True, slots=True)
class Step:
    """How far a pull is: `stage` "check", "fetch", "wait" or "done" for `file`; bytes of the file and of the whole.

    `speed` in bytes per second over the pull's fetching so far, `left` in seconds; None while neither can be known.
    """

    stage: str
    file: str
    done: int
    size: int
    total_done: int
    total: int
    speed: float | None = None
    left: float | None = None


Observe = Callable[[Step], None]


def fetch(order: Order, observe: Observe = lambda _step: None, stop: Stop = lambda: False) -> Record:
    """Fetch what `order` says and publish the model. Fetching it again, also after a crash, goes on to the byte.

    Raises Paused when `stop` says so, and what `transfer` raises; nothing half-made is ever listed.
    """
    if order.reference.path:
        return Registry().add(order.reference.path, order.record.ref)
    meter, kept = _Meter(order, observe), _Journal(order)
    files = tuple(_bring(order, file, meter, kept, stop) for file in order.files)
    if order.repository:
        _remember(order)
    record = _finished(order, files)
    record = Registry().publish(replace(record, origin="pulled" if kept.ours(files) else "adopted"))
    unfinished.end(record.ref)
    return record


class _Meter:
    """Turns bytes of one file into steps of the whole pull."""

    def __init__(self, order: Order, observe: Observe) -> None:
        self.total, self.observe = order.size, observe
        self.before, self.fetched, self.since, self.told = 0, 0, 0.0, (0.0, "", "")
        self.file, self.at = hub.RemoteFile("", 0), 0

    def start(self, file: hub.RemoteFile) -> None:
        self.file, self.at = file, 0

    def tell(self, stage: str, done: int) -> None:
        now = time.monotonic()
        if stage == "fetch":
            self.fetched += max(0, done - self.at) if self.since else 0
            self.since = self.since or now
        self.at = done
        last, *what = self.told
        if what == [stage, self.file.name] and now - last < _OFTEN and stage != "done":
            return
        self.told = (now, stage, self.file.name)
        self.observe(self._step(stage, done, now))

    def end(self) -> None:
        self.tell("done", self.file.size)
        self.before += self.file.size

    def _step(self, stage: str, done: int, now: float) -> Step:
        whole = self.before + done
        speed = self.fetched / (now - self.since) if self.fetched and now > self.since else None
        left = (self.total - whole) / speed if speed else None
        return Step(stage, self.file.name, done, self.file.size, whole, self.total, speed, left)


class _Journal:
    """The note of this pull, which names each file's place once it is known."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.old = unfinished.pieces(order.record.ref)
        self.pieces = {file.name: self.old.get(file.name, Piece(file.name, file.size)) for file in order.files}
        self._write()

    def place(self, name: str, path: Path, link: Path | None) -> None:
        old = self.old.get(name)
        ours = not path.exists() or (old is not None and old.path == path and old.link is not None)
        self.pieces[name] = Piece(name, self.pieces[name].size, path, (link or path) if ours else None)
        self._write()

    def ours(self, files: tuple[File, ...]) -> bool:
        """Tell whether vigtui fetched all of these files, in this pull or an earlier one."""
        pulled = {file.path.resolve() for one in Registry().all() if one.origin == "pulled" for file in one.files}
        links = [piece.link for piece in self.pieces.values()]
        return all(link or file.path.resolve() in pulled for file, link in zip(files, links, strict=True))

    def _write(self) -> None:
        reference, ref = self.order.reference.text, self.order.record.ref
        unfinished.note(Unfinished(reference, ref, tuple(self.pieces.values())))


def _bring(order: Order, file: hub.RemoteFile, meter: _Meter, kept: _Journal, stop: Stop) -> File:
    """Give the file with its measured hash, fetched unless it is here."""
    meter.start(file)
    link = hub.folder(order.repository) / "snapshots" / order.commit / file.name if order.repository else None
    if link and link.exists():
        digest = hashes.sha256(link, _checking(meter, stop))
    else:
        first = order.location or _patiently(lambda: hub.locate(order.repository, order.commit, file.name), meter, stop)
        target = _target(order, file, first)
        kept.place(file.name, target.path, link)
        digest = transfer(target, _places(order, file, first), meter.tell, stop)
        digest = digest or hashes.sha256(target.path, _checking(meter, stop))
        link = target.path
        if order.repository:
            link = _patiently(lambda: hub.link(order.repository, order.commit, file.name), meter, stop)
        hashes.remember(link, digest)
    _refuse_another(file, digest, link)
    meter.end()
    return File(link, link.stat().st_size, digest)


def _target(order: Order, file: hub.RemoteFile, place: hub.Location) -> Target:
    """Give where the file will lie and by which hash it is known; a git name is one of 40 digits (git-hash-object)."""
    size = place.size if place.size is not None else file.size if order.repository else None
    git = place.etag if order.repository and not file.sha256 and len(place.etag) == 40 else None
    known = place.etag if not order.location or place.size is not None else ""
    return Target(order.place(known, file), size, file.sha256, git)


def _places(order: Order, file: hub.RemoteFile, first: hub.Location) -> Callable[[], hub.Location]:
    """Give the way to the bytes: the address that is known already, a new one for every attempt after it."""
    known = [first]
    return lambda: known.pop() if known else order.location or hub.locate(order.repository, order.commit, file.name)


def _patiently(ask: Callable[[], _T], meter: _Meter, stop: Stop) -> _T:
    for wait in range(TRIES - 1):
        try:
            return ask()
        except Interrupted as error:
            meter.tell("wait", meter.at)
            sleep(min(error.after if error.after is not None else 0.25 * 2**wait, 60.0), stop)
    return ask()


def _checking(meter: _Meter, stop: Stop) -> Callable[[str, int, int], None]:
    def progress(_stage: str, done: int, _size: int) -> None:
        meter.tell("check", done)
        if stop():
            raise paused()

    return progress


def _refuse_another(file: hub.RemoteFile, digest: str, path: Path) -> None:
    """Refuse a file that was in the cache already and is not what the hub holds."""
    if file.sha256 and digest != file.sha256:
        raise FormatError(
            _("{path} in the hub's cache is damaged.").format(path=path),
            _("Delete {blob}, then pull again.").format(blob=path.resolve()),
        )


def _remember(order: Order) -> None:
    """Tell the hub's cache which commit the branch stands at, so that other tools find it offline."""
    revision = str(order.record.made_with["revision"])
    if revision != order.commit and ".." not in revision and not revision.startswith("/"):
        config.write(hub.folder(order.repository) / "refs" / revision, order.commit)


def _finished(order: Order, files: tuple[File, ...]) -> Record:
    """Give the record: what the order knew, completed by what the files themselves say."""
    single = order.record.kind in ("gguf", "ggml") or len(files) == 1
    path = files[0].path if single else files[0].path.parent
    found = sniff(path)
    added = datetime.now(UTC).isoformat(timespec="seconds")
    record = replace(order.record, files=files, added=added, notices=order.notices)
    if found.kind not in MODELS:
        if found.kind not in _UNREADABLE:
            raise refusal(found)
        return replace(record, notices=(*record.notices, *found.notices, str(refusal(found))))
    seen = describe(path, record.ref)
    return replace(
        record,
        kind=seen.kind,
        context=seen.context or record.context,
        architecture=seen.architecture,
        parameters=seen.parameters,
        quantization=seen.quantization or record.quantization,
        parents=record.parents or seen.parents,
        generation={**seen.generation, **record.generation},
        notices=(*record.notices, *seen.notices),
    )
