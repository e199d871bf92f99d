"""All models that vigtui knows: the built-in ones and one JSON file for each other."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from ..core import paths
from ..core.errors import FormatError, NotFoundError, UsageError
from ..core.i18n import _
from ..core.progress import Progress, silent
from . import builtin, record
from .check import check
from .describe import describe
from .hashes import sha256
from .record import Record, same


class Registry:
    """The models by name. `damaged` holds a sentence for each record file that the last `all()` could not read."""

    def __init__(self) -> None:
        self.folder = paths.models() / "records"
        self.damaged: list[str] = []

    def all(self) -> list[Record]:
        """Give every model, the built-in ones first, then by name."""
        self.damaged = []
        return [*builtin.records(), *sorted(self._published(), key=lambda found: found.ref)]

    def find(self, name: str) -> Record:
        """Give the model NAME:TAG, or the only one that `name` can mean. Raises NotFoundError."""
        known = self.all()
        for match in (_exact, _named, _starting, _containing):
            found = [one for one in known if match(one, name.casefold())]
            if len(found) == 1:
                return found[0]
            if found:
                raise NotFoundError(
                    _("{name} can mean several models.").format(name=name),
                    _("Choose one: {names}.").format(names=_refs(found)),
                )
        near = get_close_matches(name.casefold(), [word for one in known for word in {one.ref, one.name}], n=3)
        raise NotFoundError(
            _("There is no model {name}.").format(name=name),
            _("Did you mean {names}?").format(names=", ".join(near)) if near else _("`vigtui list` shows the models."),
        )

    def add(self, path: Path, name: str | None = None, progress: Progress = silent) -> Record:
        """Register the model at `path` where it lies; adding it again refreshes its record.

        Raises NotFoundError or FormatError when there is no model, UsageError when the name is taken.
        """
        found = replace(describe(path, name), origin="added")
        check(path)
        self._claim(found)
        hashed = tuple(replace(file, sha256=sha256(file.path, progress)) for file in found.files)
        return self.publish(replace(found, files=hashed))

    def copy(self, old: Record, name: str) -> Record:
        """Give the model a second name, NAME or NAME:TAG; its files stay one. Raises UsageError when it is taken."""
        chosen, colon, tag = name.partition(":")
        new = replace(old, name=chosen, tag=tag if colon else "" if chosen != old.name else old.tag)
        with self.locked(new):
            if new.ref == old.ref or self._holder(new):
                raise _taken(new)
            record.write(self._file(new), new)
        return new

    def publish(self, new: Record) -> Record:
        """Store the record under its name, in place of one of an earlier commit, and give it back.

        What was here before vigtui fetched it stays marked so, and the same model keeps its date. Raises UsageError
        when another model has the name, NotFoundError when a file of it is gone.
        """
        with self.locked(new):
            self._claim(new)
            if lost := next((file.path for file in new.files if not file.path.exists()), None):
                raise NotFoundError(
                    _("{path} is not there any more.").format(path=lost), _("Add or pull the model again.")
                )
            old = self._holder(new)
            if old and not old.owned and _paths(old) == _paths(new):
                new = replace(new, origin=old.origin)
            if old and old.source == new.source:
                new = replace(new, added=old.added)
            self._set_aside(self._file(new))
            record.write(self._file(new), new)
        return new

    def remove(self, old: Record) -> None:
        """Forget the record; its files stay. Raises UsageError for a built-in model, NotFoundError when it is gone."""
        with self.locked(old):
            self.forget(old)

    def forget(self, old: Record) -> None:
        """Do the same with the locks of `exclusive` and of the name held."""
        self.refuse(old)
        try:
            self._file(old).unlink()
        except FileNotFoundError:
            raise NotFoundError(_("There is no model {name}.").format(name=old.ref)) from None
        self._mark(old).unlink(missing_ok=True)

    def refuse(self, old: Record) -> None:
        """Raise UsageError for a model that comes with vigtui."""
        if any(one.ref == old.ref for one in builtin.records()):
            raise UsageError(
                _("{name} comes with vigtui and cannot be removed.").format(name=old.ref),
                _("`vigtui default MODEL` makes another model the default."),
            )

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the registry, so that no record comes or goes while files are weighed against all records."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def use(self, one: Record) -> None:
        """Remember that the model was opened at this moment; nothing happens for one that is not registered."""
        known = self._holder(one)
        if known is None or known.path != one.path:
            return
        try:
            self._mark(one).parent.mkdir(parents=True, exist_ok=True)
            self._mark(one).touch()
        except OSError:
            return  # a full or read-only disk must not keep a model from answering

    def used(self) -> dict[str, float]:
        """Give when each model was last opened, in seconds since 1970, by its whole name."""
        try:
            with os.scandir(paths.models() / "used") as entries:
                return {one.name.replace("@", ":").removesuffix(":"): one.stat().st_mtime for one in entries}
        except OSError:
            return {}

    def texts(self) -> list[str]:
        """Give the text of every record file that cannot be read: what it names may still be in use."""
        return [path.read_text(errors="replace") for path in self._files() if isinstance(_read(path), FormatError)]

    def _claim(self, new: Record) -> None:
        old = self._holder(new)
        if old and not same(old, new) and not (old.files and _paths(old) == _paths(new)):
            raise _taken(new)

    def _holder(self, new: Record) -> Record | None:
        """Give the model that has this very name."""
        for one in builtin.records():
            if one.ref == new.ref:
                return one
        found = _read(self._file(new)) if self._file(new).is_file() else None
        return found if isinstance(found, Record) else None

    def _set_aside(self, path: Path) -> None:
        """Keep what stands in the place of a new record and cannot be read, beside it."""
        if path.exists() and isinstance(_read(path), FormatError):
            path.rename(path.with_name(f"{path.name}.damaged"))

    def _published(self) -> Iterator[Record]:
        for path in self._files():
            found = _read(path)
            if isinstance(found, Record) and path.name != _file_name(found):
                found = FormatError(_("The record {path} is damaged: {reason}.").format(path=path, reason=found.ref))
            if isinstance(found, Record):
                yield found
            else:
                self.damaged.append(found.message)

    def _files(self) -> list[Path]:
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        return [self.folder / name for name in sorted(names) if name.endswith(".json")]

    def _file(self, one: Record) -> Path:
        return self.folder / _file_name(one)

    def _mark(self, one: Record) -> Path:
        return paths.models() / "used" / f"{one.name}@{one.tag}"

    @contextmanager
    def locked(self, one: Record) -> Iterator[None]:
        """Hold the name's lock file and the registry's: of two processes one publishes and the other sees it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            lock = held.enter_context((self.folder / f".{one.name}@{one.tag}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
            held.enter_context(self.exclusive())
            yield


def _file_name(one: Record) -> str:
    return f"{one.name}@{one.tag}.json"


def _read(path: Path) -> Record | FormatError:
    try:
        return record.read(path)
    except FormatError as error:
        return error


def _paths(one: Record) -> list[Path]:
    return [file.path for file in one.files]


def _taken(new: Record) -> UsageError:
    return UsageError(_("There is already a model {name}.").format(name=new.ref), _("Give another name with --name."))


def _exact(one: Record, name: str) -> bool:
    return one.ref.casefold() == name


def _named(one: Record, name: str) -> bool:
    return one.name == name


def _starting(one: Record, name: str) -> bool:
    return one.ref.casefold().startswith(name)


def _containing(one: Record, name: str) -> bool:
    return name in one.ref.casefold()


def _refs(found: Sequence[Record]) -> str:
    return ", ".join(one.ref for one in found)
