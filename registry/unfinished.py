"""Pulls that have not ended: a small file each, so that they can be listed, resumed and given up after any crash."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import config, paths
from ..core.errors import UsageError
from ..core.i18n import _
from . import hub, transfer
from .store import Registry


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a pull: its name, its size in bytes, and once it is known where it will lie.

    `link` is the only name it will have besides; None when the file was there before, which makes it another tool's.
    """

    name: str
    size: int
    path: Path | None = None
    link: Path | None = None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A pull that was interrupted: `reference` starts it again; `ref` is the name that the model will have."""

    reference: str
    ref: str
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of the whole model; of a part without its pull, what is there."""
        return sum(piece.size for piece in self.pieces)

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(_present(piece.path) for piece in self.pieces if piece.path)


def partial() -> list[Unfinished]:
    """Give every pull that has not ended, and every part in the hub's cache that belongs to none of them."""
    pulls = [found for file in sorted(_folder().glob("*.json")) if (found := _read(file))]
    known = {_part(piece.path) for pull in pulls for piece in pull.pieces if piece.path}
    orphans = [part for part in sorted(hub.cache().glob(f"models--*/blobs/*{transfer.SUFFIX}")) if part not in known]
    return pulls + [_orphan(part) for part in orphans]


def note(pull: Unfinished) -> None:
    """Keep what a pull is about to fetch."""
    values = [
        {"name": p.name, "size": p.size, "path": p.path and str(p.path), "link": p.link and str(p.link)}
        for p in pull.pieces
    ]
    config.write(_file(pull.ref), json.dumps({"reference": pull.reference, "ref": pull.ref, "pieces": values}))


def pieces(ref: str) -> dict[str, Piece]:
    """Give the files by name of an earlier run of the pull of the model `ref`."""
    found = _read(_file(ref))
    return {piece.name: piece for piece in found.pieces} if found else {}


def end(ref: str) -> None:
    """Forget the pull of the model `ref`."""
    _file(ref).unlink(missing_ok=True)


def discard(pull: Unfinished) -> int:
    """Give up a pull; give the bytes freed. What a model or another tool uses stays.

    Raises UsageError when a process is pulling it at this moment.
    """
    freed = 0
    for piece in pull.pieces:
        if piece.path is None:
            continue
        part = _part(piece.path)
        length = _present(piece.path)
        if part.exists() and not transfer.discard(part):
            raise UsageError(
                _("{name} is being pulled at this moment.").format(name=pull.ref), _("Stop that pull first.")
            )
        freed += length if not piece.path.exists() or _drop(piece) else 0
    end(pull.ref)
    return freed


def _drop(piece: Piece) -> bool:
    """Delete a whole file that only this pull wanted, with its link; tell whether it was deleted."""
    blob = piece.path
    assert blob is not None
    links = set(_links(blob))
    used = {file.path.resolve() for record in Registry().all() for file in record.files}
    if piece.link is None or blob.resolve() in used or links - {piece.link}:
        return False
    for link in links:
        link.unlink()
        with suppress(OSError):
            link.parent.rmdir()
    blob.unlink()
    return True


def _links(blob: Path) -> Iterator[Path]:
    """Give the links to `blob` in the snapshots beside it."""
    for link in blob.parent.parent.glob("snapshots/**/*"):
        if link.is_symlink() and os.path.realpath(link) == os.path.realpath(blob):
            yield link


def _present(path: Path) -> int:
    """Give the bytes that are there of the whole file or of its part."""
    for place in (path, _part(path)):
        with suppress(OSError):
            return place.stat().st_size
    return 0


def _part(path: Path) -> Path:
    return transfer.Target(path).part


def _orphan(part: Path) -> Unfinished:
    repository = part.parent.parent.name.removeprefix("models--").replace("--", "/")
    path = part.with_name(part.name.removesuffix(transfer.SUFFIX))
    return Unfinished(repository, repository, (Piece(path.name, _present(path), path),))


def _folder() -> Path:
    return paths.models() / "pulls"


def _file(ref: str) -> Path:
    return _folder() / f"{ref.replace(':', '@').replace('/', '--')}.json"


def _read(file: Path) -> Unfinished | None:
    """Give the pull noted in `file`; None, and no file any more, when it is damaged: it only serves to tidy up."""
    try:
        values = json.loads(file.read_bytes())
        files = tuple(_piece(piece) for piece in values["pieces"])
        return Unfinished(str(values["reference"]), str(values["ref"]), files)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        file.unlink(missing_ok=True)
        return None


def _piece(values: Mapping[str, Any]) -> Piece:
    path, link = (Path(values[key]) if values[key] else None for key in ("path", "link"))
    return Piece(str(values["name"]), int(values["size"]), path, link)
