"""The thread that carries a journal's write-ahead log into its database file, beside the line."""

import logging
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import Final

from daemon.host.scheduling import give_way
from daemon.journal.database import SQLITE_ERRORS, wal_of, why
from daemon.journal.sync import DatabaseSync

_INTERVAL_S: Final = 2.0
_SHORTEST_INTERVAL_S: Final = 0.03
_MANY_ROWS: Final = 150
"""A larger checkpoint holds up a line that needs all cores, because it takes one of them longer. With 2500
and with 500 rows, a fast line's verdicts came later than with this."""
_LONGEST_S: Final = 5.0
"""A disk that needs longer for a checkpoint hangs, or lets the log grow."""
_READERS_PATIENCE_MS: Final = 20  # the writer waits as long
_log = logging.getLogger("inspectd")


class Checkpoints:
    """Checkpoints every two seconds while something is written, and sooner when much is.

    A checkpoint beside a busy writer never quite catches up, and the log starts over only when it has. So
    when the log has grown past ``most_wal_bytes``, the rest, by then small, is carried while ``turn`` holds
    the writer off.

    No checkpoint begins beside the writer unless something was committed since the last one ended: SQLite
    before 3.51.3 may damage a database when a log that is carried completely starts over at the moment at
    which the next checkpoint begins (https://sqlite.org/wal.html#walresetbug).
    """

    def __init__(
        self, file: Path, turn: threading.Lock, most_wal_bytes: int, database_sync: DatabaseSync
    ) -> None:
        """Start the thread.

        Args:
            file: the journal.
            turn: held by the writer during each transaction.
            most_wal_bytes: when the log is larger, the writer is held off for a moment.
            database_sync: of the journal.
        """
        self._trouble: str | None = None
        self._began_s: float | None = None
        self._file = file
        self._turn = turn
        self._most_wal_bytes = most_wal_bytes
        self._database_sync = database_sync
        self._commits = 0
        self._commits_before_end = 0
        self._rows_waiting = 0
        self._bytes_held_by_reader = 0
        self._committed = threading.Event()
        self._due = threading.Event()
        self._stop = threading.Event()
        # Only the thread uses it. It is kept open: opening it costs as much as a small checkpoint.
        self._connection: sqlite3.Connection | None = None
        self._opened: os.stat_result | None = None
        self._thread = threading.Thread(target=self._run, name="journal-checkpoints", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """One line about why the log cannot be carried over; None when all is well."""
        began_s = self._began_s
        if began_s is not None and time.monotonic() - began_s > _LONGEST_S:
            lasts_s = time.monotonic() - began_s
            return f"{self._file}: its checkpoint has not ended for {lasts_s:.0f} s: the disk does not answer"
        return self._trouble

    def committed(self, rows: int) -> None:
        """Tell of a transaction; called by the writer while it holds ``turn``."""
        self._commits += 1
        self._rows_waiting += rows
        if not self._committed.is_set():
            self._committed.set()
        if self._rows_waiting >= _MANY_ROWS and not self._due.is_set():
            self._due.set()

    def close(self) -> None:
        """End the thread; a checkpoint that runs is finished."""
        self._stop.set()
        self._committed.set()
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        give_way()
        while self._committed.wait() and not self._stop.is_set():
            self._committed.clear()
            self._began_s = time.monotonic()
            try:
                self._carry(self._connected())
                self._tell(self._reader_in_the_way())
            except SQLITE_ERRORS as error:
                self._disconnect()
                self._tell(f"{self._file}: its checkpoint {why(error)}")
            except OSError as error:
                self._disconnect()
                self._tell(f"{self._file}: its checkpoint failed: {error.strerror}")
            self._began_s = None
            self._pause()
        self._disconnect()

    def _pause(self) -> None:
        """Wait for a while, or until many rows wait: the log may grow by 30 MB in a second."""
        self._stop.wait(_SHORTEST_INTERVAL_S)
        if not self._stop.is_set():
            self._due.wait(_INTERVAL_S - _SHORTEST_INTERVAL_S)

    def _connected(self) -> sqlite3.Connection:
        """Give a connection to the file that is there now: it may have been replaced."""
        found = self._file.stat()
        if self._opened is not None and not os.path.samestat(found, self._opened):
            self._disconnect()
            self._database_sync.close()
        if self._connection is None:
            uri = f"{self._file.absolute().as_uri()}?mode=rw"
            self._connection = sqlite3.connect(uri, timeout=0, isolation_level=None, uri=True)
            self._connection.execute("PRAGMA wal_autocheckpoint = 0")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(f"PRAGMA busy_timeout = {_READERS_PATIENCE_MS}")
        self._opened = found
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _carry(self, connection: sqlite3.Connection) -> None:
        """Bring the database file up to date, and have the log start over when it is large."""
        if self._commits == self._commits_before_end:
            # What was committed while the last checkpoint ran may or may not have been carried.
            self._checkpoint_without_writer(connection, "PASSIVE")
            return
        log_bytes = self._checkpoint_beside_writer(connection)
        if log_bytes is None:
            self._committed.set()  # the writer was just writing the log's head: try again soon
        elif log_bytes <= self._most_wal_bytes:
            self._bytes_held_by_reader = 0
        elif log_bytes > self._most_wal_bytes + self._bytes_held_by_reader:
            if self._commits != self._commits_before_end:
                self._checkpoint_beside_writer(connection)  # so that little is left while the writer waits
            held, log_bytes = self._checkpoint_without_writer(connection, "RESTART")
            self._bytes_held_by_reader = log_bytes if held else 0

    def _reader_in_the_way(self) -> str | None:
        if self._bytes_held_by_reader <= 2 * self._most_wal_bytes:
            return None  # a query of a moment
        megabytes = self._bytes_held_by_reader / 1e6
        return f"{wal_of(self._file)}: {megabytes:.0f} MB, because a query on the journal stays open"

    def _checkpoint_beside_writer(self, connection: sqlite3.Connection) -> int | None:
        """Give the size of the log; None when it could not be read."""
        busy, log_bytes = _checkpoint(connection, "PASSIVE")
        with self._turn:  # every commit that this checkpoint may have carried is counted by now
            self._note_end()
        self._database_sync.sync()  # after the count, which must be right even if the disk fails
        return None if busy else log_bytes

    def _checkpoint_without_writer(self, connection: sqlite3.Connection, how: str) -> tuple[bool, int]:
        with self._turn:
            result = _checkpoint(connection, how)
            self._note_end()
        return result

    def _note_end(self) -> None:
        """Start counting again after a checkpoint; ``turn`` is held."""
        self._commits_before_end = self._commits
        self._rows_waiting = 0
        self._due.clear()

    def _tell(self, trouble: str | None) -> None:
        if trouble is not None and self._trouble is None:
            _log.warning("journal: %s", trouble)
        elif trouble is None and self._trouble is not None:
            _log.info("journal: checkpoints go on")
        self._trouble = trouble


def _checkpoint(connection: sqlite3.Connection, how: str) -> tuple[bool, int]:
    """Say whether a reader or writer was in the way, and how many bytes the log holds."""
    page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
    busy, pages, _ = connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
    return bool(busy), pages * page_bytes
