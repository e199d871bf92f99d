"""The database of conversations: its tables, and how an older one becomes the newest."""

import sqlite3
import time

from ..core.errors import FormatError
from ..core.i18n import _

# One tuple of statements a version; `PRAGMA user_version` says how many were applied. Never change one: add one.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE sessions (
            id TEXT PRIMARY KEY,
            title TEXT NOT NULL,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            model TEXT,
            format TEXT,
            system_state TEXT NOT NULL,
            system_text TEXT NOT NULL,
            persona TEXT,
            generation TEXT NOT NULL,
            settings TEXT NOT NULL,
            hidden INTEGER NOT NULL,
            pinned INTEGER NOT NULL,
            leaf TEXT
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE messages (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
            parent TEXT,
            role TEXT NOT NULL,
            content TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('complete', 'partial', 'error')),
            created REAL NOT NULL,
            pinned INTEGER NOT NULL,
            stamp TEXT
        )
        """,
        "CREATE INDEX messages_of_session ON messages (session, seq)",
        "CREATE INDEX sessions_by_age ON sessions (updated)",
        """
        CREATE VIRTUAL TABLE words USING fts5 (
            content, content = 'messages', content_rowid = 'seq', tokenize = 'unicode61 remove_diacritics 2'
        )
        """,
        """
        CREATE TRIGGER words_insert AFTER INSERT ON messages BEGIN
            INSERT INTO words (rowid, content) VALUES (new.seq, new.content);
        END
        """,
        """
        CREATE TRIGGER words_delete AFTER DELETE ON messages BEGIN
            INSERT INTO words (words, rowid, content) VALUES ('delete', old.seq, old.content);
        END
        """,
        """
        CREATE TRIGGER words_update AFTER UPDATE OF content ON messages WHEN old.content <> new.content BEGIN
            INSERT INTO words (words, rowid, content) VALUES ('delete', old.seq, old.content);
            INSERT INTO words (rowid, content) VALUES (new.seq, new.content);
        END
        """,
    ),
)


def prepare(connection: sqlite3.Connection, path: object) -> None:
    """Make an open database (autocommit) ready: newest schema, WAL. Raises FormatError for one from the future,
    before anything in it is touched."""
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise FormatError(
            _("{path} was written by a newer vigtui (its version is {theirs}, this one knows {ours}).").format(
                path=path, theirs=version, ours=len(MIGRATIONS)
            ),
            _("Update vigtui; the conversations were not touched."),
        )
    # synchronous=FULL syncs the log at every commit: an acknowledged message outlives kill -9 (NORMAL would do)
    # and a power cut (NORMAL would not). At two commits a second nobody feels it.
    for setting in ("synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {setting}")
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        _to_wal(connection)
    if version < len(MIGRATIONS):
        _migrate(connection)


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _to_wal(connection: sqlite3.Connection) -> None:
    """Two programs that start together may meet here, and SQLite then answers "locked" without waiting."""
    for attempt in range(50):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or attempt == 49:
                raise
            time.sleep(0.1)


def _migrate(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for version in range(_version(connection), len(MIGRATIONS)):  # another process may just have done it
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
