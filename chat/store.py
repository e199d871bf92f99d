"""Conversations on disk: one SQLite database that survives kill -9 and is shared by every running vigtui."""

import json
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..core import paths
from ..core.errors import CapacityError, FormatError, NotFoundError, UsageError, VigtuiError
from ..core.i18n import _
from . import schema
from .formats import System
from .record import Conversation, Entry, Hit, Stamp, generation_of

_SESSION = (
    "id, title, created, updated, model, format, system_state, system_text, persona, generation, settings,"
    " hidden, pinned, leaf"
)
_MESSAGE = "id, session, parent, role, content, state, created, pinned, stamp"


class Store:
    """The database at `path` (`data()/chat.db` when None), made when it is missing; safe to use from any thread.

    Every call raises VigtuiError when the disk cannot be read or written, CapacityError when it is full and
    FormatError when the file is damaged or from a newer version.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = paths.data() / "chat.db" if path is None else Path(path)
        self._local = threading.local()
        self._open: weakref.WeakSet[_Connection] = weakref.WeakSet()
        with _failures(self.path):
            _private(self.path, folder=path is None)
            self._sqlite()

    def _sqlite(self) -> sqlite3.Connection:
        """Give this thread's connection."""
        own = getattr(self._local, "connection", None)
        if own is None:
            own = self._local.connection = _Connection(self.path)
            self._open.add(own)
        return own.sqlite

    def close(self) -> None:
        """Close the connections of all threads; the next call opens a new one."""
        for connection in list(self._open):
            connection.close()
        self._open.clear()
        self._local = threading.local()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on the disk afterwards, or none of it."""
        with _failures(self.path):
            sqlite = self._sqlite()
            sqlite.execute("BEGIN IMMEDIATE")
            try:
                yield sqlite
                sqlite.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk may have rolled back already
                    sqlite.execute("ROLLBACK")
                raise

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with _failures(self.path):
            return self._sqlite().execute(query, values).fetchall()

    def create(self, conversation: Conversation) -> Conversation:
        """Store a new conversation and give it."""
        self.save(conversation)
        return conversation

    def save(self, conversation: Conversation, entries: Iterable[Entry] = ()) -> None:
        """Store the conversation and these messages, new or grown, at once; they are on the disk afterwards."""
        with self._writing() as sqlite:
            sqlite.execute(_upsert("sessions", _SESSION), _session_row(conversation))
            sqlite.executemany(_upsert("messages", _MESSAGE), map(_message_row, entries))

    def get(self, id: str) -> Conversation:
        """Give the conversation whose id is, or alone begins with, `id`.

        Raises NotFoundError for none and UsageError for several.
        """
        pattern = id.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        query = f"SELECT {_SESSION} FROM sessions WHERE id LIKE ? ESCAPE '\\' ORDER BY updated DESC LIMIT 20"
        found = [_session(row) for row in self._rows(query, pattern)] if id else []
        exact = [one for one in found if one.id == id.lower()] or found
        if not exact:
            raise NotFoundError(
                _("There is no conversation “{id}”.").format(id=id), _("`vigtui sessions ls` lists them.")
            )
        if len(exact) > 1:
            names = ", ".join(one.id for one in exact[:5])
            raise UsageError(
                _("“{id}” begins the names of several conversations: {names}.").format(id=id, names=names),
                _("Type more of it."),
            )
        return exact[0]

    def list(self, hidden: bool = False, limit: int | None = None) -> list[Conversation]:
        """Give the conversations, pinned ones first, then the last used; one-shots only with `hidden`."""
        query = f"SELECT {_SESSION} FROM sessions WHERE hidden <= ? ORDER BY pinned DESC, updated DESC LIMIT ?"
        return [_session(row) for row in self._rows(query, int(hidden), -1 if limit is None else limit)]

    def last(self, hidden: bool = True) -> Conversation | None:
        """Give the conversation used last, or None; `hidden` counts one-shots too."""
        query = f"SELECT {_SESSION} FROM sessions WHERE hidden <= ? ORDER BY updated DESC LIMIT 1"
        rows = self._rows(query, int(hidden))
        return _session(rows[0]) if rows else None

    def messages(self, session: str) -> "list[Entry]":
        """Give all messages of the conversation with the whole id `session`, in the order they were made."""
        query = f"SELECT {_MESSAGE} FROM messages WHERE session = ? ORDER BY seq"
        return [_message(row) for row in self._rows(query, session)]

    def search(self, words: str, hidden: bool = True, limit: int = 50) -> "list[Hit]":
        """Give messages with words that begin like all of `words`, best first; case and accents do not matter."""
        terms = [term for term in words.replace('"', " ").replace("\0", " ").split() if any(map(str.isalnum, term))]
        if not terms:
            return []
        sessions = ", ".join(f"s.{name}" for name in _SESSION.split(", "))
        messages = ", ".join(f"m.{name}" for name in _MESSAGE.split(", "))
        rows = self._rows(
            f"SELECT snippet(words, 0, '', '', '…', 16), {sessions}, {messages}"
            " FROM words JOIN messages m ON m.seq = words.rowid JOIN sessions s ON s.id = m.session"
            " WHERE words MATCH ? AND s.hidden <= ? ORDER BY rank LIMIT ?",
            " ".join(f'"{term}"*' for term in terms),
            int(hidden),
            limit,
        )
        size = 1 + len(_SESSION.split(", "))
        return [Hit(_session(row[1:size]), _message(row[size:]), row[0]) for row in rows]

    def delete(self, session: str) -> None:
        """Remove the conversation with the whole id `session` and its messages."""
        with self._writing() as sqlite:
            sqlite.execute("DELETE FROM messages WHERE session = ?", (session,))
            sqlite.execute("DELETE FROM sessions WHERE id = ?", (session,))


class _Connection:
    """A connection that is closed when its thread ends."""

    def __init__(self, path: Path) -> None:
        # Used by one thread only; close() may come from another.
        self.sqlite = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
        self.close = weakref.finalize(self, self.sqlite.close)
        try:
            schema.prepare(self.sqlite, path)
        except BaseException:
            self.close()
            raise


def _private(path: Path, folder: bool) -> None:
    """Make the database and its folder readable by their owner alone; SQLite gives its log the same mode."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder:
        with suppress(PermissionError):
            path.parent.chmod(0o700)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    with suppress(PermissionError):
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            with suppress(FileNotFoundError):
                path.with_name(name).chmod(0o600)


@contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Turn what SQLite and the disk say into our errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise _error(path, error) from error
    except OSError as error:
        raise VigtuiError(
            _("The conversations in {path} cannot be opened: {reason}.").format(
                path=path, reason=error.strerror or error
            )
        ) from error


def _error(path: Path, error: sqlite3.Error) -> VigtuiError:
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return CapacityError(
            _("The disk is full: {path} cannot grow.").format(path=path), _("Free some space on that disk.")
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return FormatError(
            _("{path} is damaged: {reason}.").format(path=path, reason=error), _("Move it away to start anew.")
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return VigtuiError(
            _("Another program has kept {path} locked for more than five seconds.").format(path=path),
            _("Close it and try again."),
        )
    return VigtuiError(
        _("The conversations in {path} cannot be read or written: {reason}.").format(path=path, reason=error),
        _("Check the permissions of the file, or use `--no-save`."),
    )


def _upsert(table: str, columns: str) -> str:
    names = columns.split(", ")
    marks = ", ".join("?" * len(names))
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name != "id")
    return f"INSERT INTO {table} ({columns}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}"


def _session_row(one: Conversation) -> tuple[Any, ...]:
    return (
        one.id, one.title, one.created, one.updated, one.model, one.format, one.system.state, one.system.text,
        one.persona, json.dumps(one.generation.given()), json.dumps(one.settings), one.hidden, one.pinned, one.leaf,
    )  # fmt: skip


def _session(row: tuple[Any, ...]) -> Conversation:
    id, title, created, updated, model, form, state, text, persona, generation, settings, hidden, pinned, leaf = row
    return Conversation(
        id, title, created, updated, model, form, System(state, text), persona,
        generation_of(json.loads(generation), strict=False), json.loads(settings), bool(hidden), bool(pinned), leaf,
    )  # fmt: skip


def _message_row(one: Entry) -> tuple[Any, ...]:
    stamp = None if one.stamp is None else json.dumps(one.stamp.table(), ensure_ascii=False)
    return (one.id, one.session, one.parent, one.role, one.content, one.state, one.created, one.pinned, stamp)


def _message(row: tuple[Any, ...]) -> Entry:
    id, session, parent, role, content, state, created, pinned, stamp = row
    read = None if stamp is None else Stamp.of(json.loads(stamp))
    return Entry(id, session, parent, role, content, state, created, bool(pinned), read)
