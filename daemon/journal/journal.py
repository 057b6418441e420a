"""The journal of a line: every verdict, written before it is published, in a chain of hashes."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from daemon.journal.chain import (
    CLOCK,
    CREATED,
    NOTHING,
    RETENTION,
    UNJOURNALED,
    VERDICT,
    Row,
    compact_json,
    hash_of,
)
from daemon.journal.checkpoints import Checkpoints
from daemon.journal.database import (
    COLUMNS,
    SQLITE_ERRORS,
    JournalFailed,
    create_if_missing,
    open_for_writing,
    refused_by_sqlite,
    why,
)
from daemon.journal.retention import Retention
from daemon.journal.stamps import Stamps, iso
from daemon.journal.sync import DatabaseSync
from foundation.errors import InputError, Unavailable, refused_by_system
from verdicts.verdict import Verdict

__all__ = ["Journal", "JournalFailed"]

_MOST_ROWS_AT_ONCE: Final = 32
_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERTS: Final = tuple(
    f"INSERT INTO journal ({COLUMNS}) VALUES {', '.join([_ROW] * rows)}"
    for rows in range(_MOST_ROWS_AT_ONCE + 1)
)
"""By the number of rows."""
_WAL_SHARE: Final = 16
_MOST_WAL_BYTES: Final = 32_000_000
"""Whenever the log starts over, the line waits for the disk: the larger the log, the more rarely. But until
then every page of it is memory and disk that was not in use, and after a kill the next start reads all of
it."""


class _Entry(NamedTuple):
    """What a row is made of before it has its place in the chain."""

    kind: str
    boot: str | None
    seq: int | None
    camera: str | None
    frame: int | None
    payload: bytes


class InUse(Unavailable):
    """Another daemon writes this journal, and counts its frames beside it."""


class Journal:
    """The one writer of a journal; used by one thread.

    After ``JournalFailed`` nothing of that call is in the journal. The next call opens the file again.

    Attributes:
        entries: number of the newest row; rows are numbered from 1 and never again, so this is how many were
            ever written.
    """

    def __init__(
        self,
        file: Path,
        *,
        line: str,
        keep_days: float,
        max_mb: float,
        durable: bool = False,
        may_wait: bool = False,
    ) -> None:
        """Open the journal of a line, or create it, and keep other daemons out of it.

        Args:
            file: where it lies; SQLite puts ``-wal`` and ``-shm`` beside it, and we put ``-lock``.
            line: name of the line.
            keep_days: older rows are removed.
            max_mb: the oldest rows are removed when the file and its write-ahead log would need more.
            durable: whether each transaction waits until the disk has it, and so survives a power cut, too.
            may_wait: whether to go on when the journal cannot be opened now, as on a full disk: ``unopened``
                then says why, and each write tries to open it.

        Raises:
            Unavailable: it cannot be opened now, or another daemon uses it.
            InputError: the folder is missing, or the file is not a journal, damaged, or of another version or
                line.
        """
        self.file = file
        self._line = line
        self._keep_days = keep_days
        self._durable = durable
        most_wal_bytes = int(min(_MOST_WAL_BYTES, max_mb * 1e6 / _WAL_SHARE))
        # The log grows for up to a second beyond its limit before it is looked at.
        self._most_bytes = int(max_mb * 1e6) - 2 * most_wal_bytes
        self._most_wal_bytes = most_wal_bytes
        self._turn = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._lock: int | None = None
        self.entries, self._head = 0, NOTHING
        self.unopened: str | None = None
        """Why it could not be opened at first; None if it could."""
        try:
            self._begin()
        except Unavailable as error:
            if not may_wait or isinstance(error, InUse):
                self._unlock()
                raise
            self.unopened = str(error)
        except BaseException:
            self._unlock()
            raise
        self._database_sync = DatabaseSync(file)
        self._checkpoints = Checkpoints(file, self._turn, most_wal_bytes, self._database_sync)

    @property
    def head(self) -> str:
        """SHA-256 of the newest row, 64 hexadecimal digits."""
        return self._head.hex()

    @property
    def end(self) -> tuple[int, bytes]:
        """Number and hash of the newest row, for ``take_back``."""
        return self.entries, self._head

    @property
    def trouble(self) -> str | None:
        """One line about checkpoints that fail while rows can be written; None when all is well."""
        return self._checkpoints.trouble

    def write(self, verdicts: Sequence[tuple[Verdict, bytes]]) -> None:
        """Write verdicts in one transaction; when this returns they survive the end of the process.

        Args:
            verdicts: each with the payload that will be published. Verdicts that are in the journal already,
                because an earlier call failed after writing them, are skipped.

        Raises:
            JournalFailed: none of them is written.
            RuntimeError: one is a second verdict on the same frame; trying again does not help.
        """
        self._commit([_Entry(VERDICT, v.boot, v.seq, v.camera, v.frame, payload) for v, payload in verdicts])

    def note(self, kind: str, content: Mapping[str, Any], *, durable: bool = False) -> None:
        """Write down what happened to the daemon, such as its start.

        Args:
            kind: such as "start", "stop" or "reload".
            content: JSON; its ``boot`` is the boot to which the row belongs.
            durable: whether to wait until the disk has it, and all before it.

        Raises:
            JournalFailed: it is not written.
        """
        if kind == VERDICT:
            raise ValueError("verdicts are written with write()")
        self._commit([_event(kind, content)], durable=durable)

    def take_back(self, end: tuple[int, bytes]) -> None:
        """Remove the verdicts after a row, which nobody was told of.

        Their transaction took so long that they were published otherwise. Events after the row stay, such as
        what retention has removed; they move up.

        Args:
            end: what ``end`` was before they were written.

        Raises:
            JournalFailed: they are still there.
        """
        with self._turn:
            try:
                if self._connection is None:
                    self._open()
                self._check_in_place()
                self._take_back(*end)
            except InputError as error:
                raise JournalFailed(str(error)) from error
            except SQLITE_ERRORS as error:
                raise JournalFailed(f"{self.file}: {why(error)}") from error
            finally:
                self._drop_connection()  # opening it again finds out what the file holds
            self._checkpoints.committed(1)

    def _take_back(self, entries: int, head: bytes) -> None:
        assert self._connection is not None
        query = f"SELECT {COLUMNS} FROM journal WHERE id >= ? ORDER BY id"
        written = [Row(*row) for row in self._connection.execute(query, (entries,))]
        if entries and not (written and written[0].id == entries and hash_of(written.pop(0)) == head):
            return  # another file has taken its place
        events = [row for row in written if row.kind != VERDICT]
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("DELETE FROM journal WHERE id > ?", (entries,))
        self.entries, self._head = entries, head
        for row in events:
            entry = _Entry(row.kind, row.boot, row.seq, row.camera, row.frame, row.payload)
            self._connection.executemany(_INSERTS[1], self._chained([entry], row.written_at))
        self._connection.execute("COMMIT")

    def close(self) -> None:
        """End the checkpoints, put the log away and let other daemons in.

        Connections for reading in this process have to be closed before.
        """
        self._checkpoints.close()
        self._drop_connection()
        self._database_sync.close()
        self._unlock()

    def _begin(self) -> None:
        try:
            self._open()
            self._write([])  # the first row of a new journal, or a row about the clock
        except JournalFailed as error:
            raise refused_by_sqlite(error) from error

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _commit(self, entries: list[_Entry], *, durable: bool = False) -> None:
        with self._turn:
            try:
                if self._connection is None:
                    self._open()
                self._check_in_place()
                self._write(entries, durable=durable)
            except InputError as error:
                raise JournalFailed(str(error)) from error
            self._checkpoints.committed(len(entries))

    def _open(self) -> None:
        """Open the file and find the end of the chain."""
        if self._lock is None:
            self._lock = _locked(self.file)
        create_if_missing(self.file)  # also when someone removed it while the daemon ran
        connection = open_for_writing(self.file, self._line)
        try:
            if self._durable:
                connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {self._most_wal_bytes}")
            last = connection.execute(f"SELECT {COLUMNS} FROM journal ORDER BY id DESC LIMIT 1").fetchone()
            newest = None if last is None else Row(*last)
            self.entries = 0 if newest is None else newest.id
            self._head = NOTHING if newest is None else hash_of(newest)
            self._stamps = Stamps(None if newest is None else datetime.fromisoformat(newest.written_at))
            self._retention = Retention(connection, keep_days=self._keep_days, most_bytes=self._most_bytes)
        except (sqlite3.Error, ValueError, TypeError, KeyError) as error:
            connection.close()
            raise refused_by_sqlite(error, self.file) from error
        opened = self.file.stat()
        self._inode = (opened.st_dev, opened.st_ino)
        self._last_seqs: dict[str, int] = {}
        self._connection = connection

    def _check_in_place(self) -> None:
        """Notice that someone removed or replaced the file: SQLite would go on writing into what is gone."""
        try:
            found = self.file.stat()
        except OSError as error:
            self._drop_connection()
            raise JournalFailed(f"{self.file}: was removed while it was written: {error.strerror}") from error
        if (found.st_dev, found.st_ino) != self._inode:
            self._drop_connection()
            raise JournalFailed(f"{self.file}: was replaced by another file while it was written")

    def _write(self, entries: Sequence[_Entry], *, durable: bool = False) -> None:
        assert self._connection is not None
        committed = (self.entries, self._head)
        try:
            if durable:
                self._connection.execute("PRAGMA synchronous = FULL")
            self._insert(entries)
            if durable and not self._durable:
                self._connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException as error:
            # Opening it again finds out what the file really holds. Until then the last good end counts.
            self._drop_connection()
            self.entries, self._head = committed
            if isinstance(error, sqlite3.IntegrityError):
                raise RuntimeError(f"{self.file}: {why(error)}") from error
            if isinstance(error, SQLITE_ERRORS):
                raise JournalFailed(f"{self.file}: {why(error)}") from error
            raise

    def _insert(self, entries: Sequence[_Entry]) -> None:
        assert self._connection is not None
        now, step = self._stamps.now()
        said = [] if self.entries else [_event(CREATED, {"line": self._line})]
        if step is not None:
            said.append(_event(CLOCK, {"set_by_s": round(step.total_seconds(), 3)}))
        rows = list(self._chained((*said, *self._with_what_is_missing(entries)), iso(now)))
        self._retention.count(rows)
        if 0 < len(rows) <= _MOST_ROWS_AT_ONCE and not self._retention.is_due:
            # One statement is a transaction by itself. Between two statements the interpreter's lock may go
            # to the lanes, and this thread would have to wait for it.
            self._connection.execute(_INSERTS[len(rows)], [value for row in rows for value in row])
            return
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(_INSERTS[1], rows)
        self._retain(now)
        self._connection.execute("COMMIT")

    def _retain(self, now: datetime) -> None:
        """Remove what has been announced, or announce what may go."""
        assert self._connection is not None
        if self._retention.is_check_due:
            try:
                retained = self._retention.announce(self.entries, now)
            except (TypeError, ValueError) as error:
                raise JournalFailed(
                    f"{self.file}: is damaged: its oldest rows are invalid: {error}"
                ) from error
            if retained is not None:
                retention = self._chained([_event(RETENTION, retained)], iso(now))
                self._connection.executemany(_INSERTS[1], retention)
        self._retention.remove()

    def _chained(self, entries: Sequence[_Entry], written_at: str) -> Iterator[Row]:
        for kind, boot, seq, camera, frame, payload in entries:
            number = self.entries + 1
            row = Row(number, kind, boot, seq, camera, frame, written_at, payload, self._head)
            self.entries, self._head = number, hash_of(row)
            yield row

    def _with_what_is_missing(self, entries: Sequence[_Entry]) -> Iterator[_Entry]:
        """Put a row before a verdict when those before it were never journaled, as after a full disk."""
        for entry in entries:
            if entry.boot is not None and entry.seq is not None:
                last = self._last_seq(entry.boot)
                if entry.seq <= last and self._is_there(entry):
                    continue
                if entry.seq > last + 1:
                    yield _event(UNJOURNALED, {"boot": entry.boot, "first": last + 1, "last": entry.seq - 1})
                self._last_seqs[entry.boot] = max(last, entry.seq)
            yield entry

    def _is_there(self, entry: _Entry) -> bool:
        assert self._connection is not None
        query = "SELECT 1 FROM journal WHERE boot = ? AND seq = ? AND camera = ? AND frame = ?"
        found = self._connection.execute(query, (entry.boot, entry.seq, entry.camera, entry.frame))
        return found.fetchone() is not None

    def _last_seq(self, boot: str) -> int:
        if boot not in self._last_seqs:
            assert self._connection is not None
            found = self._connection.execute(
                "SELECT max(seq) FROM journal WHERE boot = ?", (boot,)
            ).fetchone()[0]
            self._last_seqs[boot] = found or 0
        return self._last_seqs[boot]

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()  # what was not committed is rolled back


def _event(kind: str, content: Mapping[str, Any]) -> _Entry:
    return _Entry(kind, content.get("boot"), None, None, None, compact_json(content))


def _locked(file: Path) -> int:
    """Take the journal's lock, which the system gives back however the process ends.

    It is a file of its own: closing any other descriptor of a SQLite file would drop SQLite's own locks.
    """
    lock = file.with_name(f"{file.name}-lock")
    try:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o640)
    except FileNotFoundError as error:
        raise InputError(f"{file}: the journal cannot be opened: its folder does not exist") from error
    except OSError as error:
        text = f"{file}: the journal cannot be opened for writing: {error.strerror}"
        raise refused_by_system(text, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InUse(f"{file}: another inspectd writes this journal") from error
    except OSError as error:
        os.close(descriptor)
        raise refused_by_system(f"{file}: the journal cannot be locked: {error.strerror}", error) from error
    return descriptor
