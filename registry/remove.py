"""Removing a model: its record, and those of its files that vigtui brought and that nothing else uses."""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..core import paths
from ..core.i18n import _
from . import hub
from .record import Record
from .store import Registry


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes with a model: `deleted` files and links, `freed` bytes; `kept` files and the reason for each."""

    record: Record
    deleted: tuple[Path, ...]
    freed: int
    kept: tuple[tuple[Path, str], ...]


def plan(old: Record, gone: Collection[str] = ()) -> Removal:
    """Give what removing the model would do, once those named `gone` are removed. Raises UsageError as `remove`."""
    registry = Registry()
    registry.refuse(old)
    others = [one for one in registry.all() if one.ref not in (old.ref, *gone)]
    return _weigh(old, _used(others), registry.texts())


def remove(old: Record) -> Removal:
    """Remove the model and give what was done.

    Raises UsageError for a built-in model, NotFoundError when another process was faster.
    """
    registry = Registry()
    with registry.locked(old):
        done = plan(old)
        registry.forget(old)
        for path in done.deleted:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in done.deleted}:
            _tidy(folder)
    return done


def freeable(known: Sequence[Record]) -> tuple[dict[str, int], int]:
    """Give the bytes that removing each of all models alone would free, by name, and those that removing all would."""
    users: dict[Path, set[str]] = {}
    for one in known:
        for place in _places(one):
            users.setdefault(place, set()).add(one.ref)
    damaged, alone = Registry().texts(), dict[str, int]()
    sizes: dict[Path, int] = {}
    strange = _used([one for one in known if not one.owned])
    for one in known:
        others = {place: min(more) for place in _places(one) if (more := users[place] - {one.ref})}
        alone[one.ref] = _weigh(one, others, damaged).freed
        whole = _weigh(one, strange, damaged)
        sizes |= {path: path.stat().st_size for path in whole.deleted if path.is_file() and not path.is_symlink()}
    return alone, sum(sizes.values())


def _places(one: Record) -> Iterator[Path]:
    for file in one.files:
        yield file.path
        yield file.path.resolve()


def _used(others: list[Record]) -> dict[Path, str]:
    """Give every file that another model uses, links and what they lead to, with that model's name."""
    used: dict[Path, str] = {}
    for one in others:
        for file in one.files:
            used |= {file.path: one.ref, file.path.resolve(): one.ref}
    return used


def _weigh(old: Record, used: dict[Path, str], damaged: list[str]) -> Removal:
    deleted: list[Path] = []
    kept: list[tuple[Path, str]] = []
    freed = 0
    for file in old.files:
        path = file.path
        reason = _reason(old, path, used, damaged)
        if reason:
            kept.append((path, reason))
            continue
        deleted.append(path)
        blob = path.resolve()
        if path.is_symlink() and blob.exists():
            if links := [link for link in _links(blob) if link not in [one.path for one in old.files]]:
                kept.append((blob, _("the snapshot {path} uses it").format(path=links[0].parent)))
                continue
            if blob in deleted:
                continue
            deleted.append(blob)
        freed += blob.stat().st_size if blob.exists() and blob.stat().st_nlink == 1 else 0
    return Removal(old, tuple(deleted), freed, tuple(kept))


def _reason(old: Record, path: Path, used: dict[Path, str], damaged: list[str]) -> str:
    """Say why a file must stay, or nothing."""
    if not old.owned:
        return _("vigtui neither fetched nor made it")
    if user := used.get(path) or used.get(path.resolve()):
        return _("{name} uses it").format(name=user)
    if any(json.dumps(str(place), ensure_ascii=False) in text for place in (path, path.resolve()) for text in damaged):
        return _("a damaged record names it")
    if not any(path.is_relative_to(home) for home in (paths.models(), hub.cache())):
        return _("it lies outside vigtui's folder and the hub's cache")
    return ""


def _links(blob: Path) -> Iterator[Path]:
    """Give the links to a blob in the snapshots of its repository."""
    for folder, _folders, names in os.walk(blob.parent.parent / "snapshots"):
        for name in names:
            link = Path(folder, name)
            if link.is_symlink() and os.path.realpath(link) == os.path.realpath(blob):
                yield link


def _tidy(folder: Path) -> None:
    """Remove the folders that became empty, and of a repository in the hub's cache what then means nothing."""
    while any(folder.is_relative_to(home) and folder != home for home in (paths.models(), hub.cache())):
        with suppress(OSError):
            folder.rmdir()
        if folder.name.startswith("models--") and folder.exists():
            return _forget_refs(folder)
        folder = folder.parent


def _forget_refs(repository: Path) -> None:
    for ref in [path for path in (repository / "refs").rglob("*") if path.is_file()]:
        if not (repository / "snapshots" / ref.read_text(errors="replace").strip()).exists():
            ref.unlink()
    if not any((repository / name).exists() for name in ("snapshots", "blobs")):
        shutil.rmtree(repository, ignore_errors=True)
