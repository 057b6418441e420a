"""A journal as a file: its tables, and how to tell it from other files."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from daemon.journal.chain import Row
from foundation.errors import InputError, Unavailable, refused_by_system

APPLICATION_ID: Final = 0x696E7370  # "insp"
VERSION: Final = 1

COLUMNS: Final = ", ".join(Row._fields)
SCHEMA: Final = {
    "about": "CREATE TABLE about (line TEXT NOT NULL)",
    "journal": (
        "CREATE TABLE journal (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, boot TEXT, seq INTEGER, "
        "camera TEXT, frame INTEGER, written_at TEXT NOT NULL, payload BLOB NOT NULL, previous BLOB NOT NULL)"
    ),
    "journal_seq": "CREATE UNIQUE INDEX journal_seq ON journal (boot, seq)",
    "journal_frame": "CREATE UNIQUE INDEX journal_frame ON journal (boot, camera, frame)",
    # Verdicts are not in it, so it costs them nothing.
    "journal_events": "CREATE INDEX journal_events ON journal (kind, id) WHERE kind <> 'verdict'",
}

_PAGE_BYTES: Final = 2048
"""A verdict changes a page of the table and one of each index. With SQLite's usual 4096 bytes, twice as much
would be written and summed for each."""
_WRITER_PATIENCE_MS: Final = 50  # only a foreign program can hold the lock; the line does not wait for it
_READER_PATIENCE_MS: Final = 2000

SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What a statement raises; the latter when SQLite's message quotes text of the file that is not UTF-8."""


class JournalFailed(Exception):
    """The journal could not be written or read; the text names the file and why."""


def create_if_missing(file: Path) -> None:
    """Make the empty file, readable by its owner and group.

    Raises:
        InputError: it cannot be made.
    """
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640)
    except FileExistsError:
        return
    except OSError as error:
        raise refused_by_system(f"{file}: the journal cannot be created: {error.strerror}", error) from error
    try:
        os.fchmod(descriptor, 0o640)  # whatever the umask; SQLite gives its other files the same mode
    finally:
        os.close(descriptor)


def open_for_writing(file: Path, line: str) -> sqlite3.Connection:
    """Open the journal of a line in WAL mode; an empty file becomes one.

    Raises:
        InputError: it is not a journal, is of another version or line, is damaged, or is not writable.
    """
    if not file.is_file():
        raise InputError(f"{file}: expected the journal's file, found none")
    connection = sqlite3.connect(file, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {_WRITER_PATIENCE_MS}")
        if not _is_empty(connection):
            check_identity(connection, file)
        _claim(connection, file, line)
        # The checkpoint thread does it, with a connection of its own.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = OFF")  # some builds overwrite what is deleted
    except SQLITE_ERRORS as error:
        connection.close()
        raise refused_by_sqlite(error, file) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(file: Path) -> tuple[sqlite3.Connection, bool]:
    """Open a journal read-only, whether its daemon runs or not.

    Returns:
        The connection, and whether it assumes that nobody writes the file. It must assume that when the
        daemon is gone and the folder is not writable: SQLite could not put its index of the WAL there.

    Raises:
        InputError: it is missing, not a journal, of another version, or unreadable.
    """
    try:
        is_file = file.is_file()
    except OSError as error:  # such as a folder on the way that may not be entered
        raise refused_by_system(f"{file}: cannot be read: {error.strerror}", error) from error
    if not is_file:
        raise InputError(f"{file}: expected a journal, found no such file")
    if not os.access(file, os.R_OK):
        raise Unavailable(f"{file}: cannot be read: Permission denied")
    try:
        return _read_only(file, "mode=ro"), False
    except SQLITE_ERRORS as error:
        no_room_for_index = _code_of(error) & 0xFF in {
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_READONLY,
        }
        if not no_room_for_index or wal_of(file).exists():
            raise refused_by_sqlite(error, file) from error
    try:
        return _read_only(file, "mode=ro&immutable=1"), True
    except SQLITE_ERRORS as error:
        raise refused_by_sqlite(error, file) from error


def check_identity(connection: sqlite3.Connection, file: Path) -> None:
    """Refuse what is not a journal of this version.

    Raises:
        InputError: another application's database, or another version's journal.
        sqlite3.Error, UnicodeDecodeError: not SQLite at all, or damaged.
    """
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise InputError(f"{file}: is another application's database; expected a journal of inspectd")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise InputError(f"{file}: is a journal of version {version}; expected version {VERSION}")


def wal_of(file: Path) -> Path:
    """Name the write-ahead log of a journal."""
    return file.with_name(file.name + "-wal")


def why(error: sqlite3.Error | UnicodeDecodeError) -> str:
    """Say in plain words what SQLite found."""
    if isinstance(error, UnicodeDecodeError):
        return "is damaged: it holds text that is not UTF-8"
    plain = _PLAIN.get(_code_of(error) & 0xFF)
    if plain is None:
        plain = f"failed ({getattr(error, 'sqlite_errorname', 'SQLite')})"
    return f"{plain}: {error}"


def refused_by_sqlite(error: BaseException, file: Path | None = None) -> InputError:
    """Make an error of ours from SQLite's: ``Unavailable`` unless only a person can mend it.

    Args:
        error: SQLite's own, or the ``JournalFailed`` that came of it.
        file: which journal; None where the error says so.
    """
    cause = error.__cause__ if isinstance(error, JournalFailed) else error
    may_pass = isinstance(cause, SQLITE_ERRORS) and _code_of(cause) & 0xFF in _MAY_PASS
    if isinstance(cause, InputError):
        return cause
    if file is None:
        text = str(error)
    else:
        text = f"{file}: {why(cause) if isinstance(cause, SQLITE_ERRORS) else f'is damaged: {cause}'}"
    return (Unavailable if may_pass else InputError)(text)


def _code_of(error: sqlite3.Error | UnicodeDecodeError) -> int:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code


_PLAIN: Final = {
    sqlite3.SQLITE_NOTADB: "is not a journal of inspectd",
    sqlite3.SQLITE_FULL: "cannot be written",
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_BUSY: "is held by another program",
    sqlite3.SQLITE_CONSTRAINT: "refuses a second entry with the same number",
}


_MAY_PASS: Final = {
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED),
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL),
}
"""The disk is full, read-only or fails, or another program holds the file: the journal may be sound."""


def _claim(connection: sqlite3.Connection, file: Path, line: str) -> None:
    """Make the tables of a new journal, or see that they are this line's."""
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file; an older one keeps its own
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise InputError(f"{file}: its file system does not support SQLite's WAL mode")
    connection.execute("BEGIN IMMEDIATE")  # fails when the file is read-only
    if _is_empty(connection):
        for statement in SCHEMA.values():
            connection.execute(statement)
        connection.execute("INSERT INTO about VALUES (?)", (line,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
    owner = connection.execute("SELECT line FROM about").fetchone()[0]
    if owner != line:
        raise InputError(f"{file}: is the journal of line {owner}; expected one of line {line}")


def _is_empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def _read_only(file: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?{mode}",
        timeout=0,
        isolation_level=None,
        uri=True,
        check_same_thread=False,
    )
    try:
        connection.execute(f"PRAGMA busy_timeout = {_READER_PATIENCE_MS}")
        check_identity(connection, file)
    except BaseException:
        connection.close()
        raise
    return connection
