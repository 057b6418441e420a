"""How the dashboard's own SQLite files are opened, and what is said when they fail."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from foundation.errors import InputError, Unavailable

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
_CACHE_KB = 4000


class DatabaseFailed(Exception):
    """One of the dashboard's own files could not be read or written; the text names it and why."""


def open_database(
    file: Path, application_id: int, version: int, statements: Sequence[str]
) -> sqlite3.Connection:
    """Open a file for writing, or create it; only one process does.

    Args:
        file: readable by its owner alone when it is created.
        application_id: by which it is known.
        version: of its tables.
        statements: that make the tables of a new one.

    Raises:
        Unavailable: the disk is full, or another process has it.
        InputError: it is damaged, or is something else.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.touch(mode=0o600)
    except OSError as error:
        raise Unavailable(f"{file}: cannot be created: {error.strerror}") from error
    connection = sqlite3.connect(file, timeout=2, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA busy_timeout = 2000")
        if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {application_id}")
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        found = tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if found[0] != application_id:
            raise InputError(f"{file}: is another application's database; expected one of inspectd-dashboard")
        if found[1] != version:
            raise InputError(f"{file}: is of version {found[1]}; expected version {version}")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    except SQLITE_ERRORS as error:
        connection.close()
        raise refused(file, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_reading(file: Path) -> sqlite3.Connection:
    """Open one of our files read-only, for one thread at a time.

    Raises:
        DatabaseFailed: it cannot be opened.
    """
    try:
        connection = sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro",
            timeout=2,
            isolation_level=None,
            uri=True,
            check_same_thread=False,
        )
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    except SQLITE_ERRORS as error:
        raise DatabaseFailed(f"{file}: {why(error)}") from error
    return connection


def why(error: sqlite3.Error | UnicodeDecodeError) -> str:
    """Say in plain words what SQLite found."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if isinstance(error, UnicodeDecodeError) or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return f"is damaged: {error}"
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY}:
        return f"cannot be written: {error}"
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return "is held by another program"
    return f"failed: {error}"


def refused(file: Path, error: sqlite3.Error | UnicodeDecodeError) -> InputError:
    """Make the error of a file that cannot be opened."""
    text = f"{file}: {why(error)}"
    return InputError(text) if "damaged" in text else Unavailable(text)
