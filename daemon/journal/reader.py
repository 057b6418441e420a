"""Reading a journal while its daemon writes it, or after the daemon is gone."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from daemon.journal.chain import CLOCK, POWER_CUT, START, STOP, VERDICT, Row, hash_of
from daemon.journal.database import COLUMNS, SQLITE_ERRORS, JournalFailed, open_for_reading, wal_of, why
from daemon.journal.ranges import Ranges
from daemon.journal.retention import newest_retention
from daemon.journal.stamps import iso
from foundation.errors import InputError
from verdicts.request import LARGEST

_CHUNK_ROWS: Final = 256


class JournalReader:
    """A read-only view of a journal; used by one thread at a time.

    Every query is short, so the writer is never kept from starting its log over. What is read over several
    queries is never torn: rows are added at the end and removed at the beginning, and never change.

    Every method but the constructor raises ``JournalFailed`` when the file cannot be read any more.
    """

    def __init__(self, file: Path) -> None:
        """Open a journal.

        Raises:
            InputError: it is missing, no journal, another version's, damaged, or unreadable.
        """
        self.file = file
        self._connection, self._unwritten = open_for_reading(file)
        self._opened = _inode(file)

    def __enter__(self) -> "JournalReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def line(self) -> str:
        """Name the line whose journal it is."""
        return str(self._fetch("SELECT line FROM about")[0][0])

    def first_row(self) -> int:
        """Give the number of the oldest row that retention has left; 0 when there is none."""
        return int(self._fetch("SELECT min(id) AS id FROM journal")[0][0] or 0)

    def last_row(self) -> int:
        """Give the number of the newest row; 0 when there is none."""
        return int(self._fetch("SELECT max(id) AS id FROM journal")[0][0] or 0)

    def hash_of(self, row_id: int) -> bytes | None:
        """Give the SHA-256 of a row; None when the journal does not have it."""
        found = self.rows(row_id - 1, 1)
        if not found or found[0].id != row_id:
            return None
        try:
            return hash_of(found[0])
        except TypeError as error:
            raise JournalFailed(f"{self.file}: is damaged: row {row_id} was altered") from error

    def begun_at(self) -> str | None:
        """Tell when row 1 was written, as in ``written_at``; None when it is not there any more."""
        found = self._fetch("SELECT written_at FROM journal WHERE id = 1")
        return str(found[0][0]) if found else None

    def power_cut_before(self, row_id: int) -> int | None:
        """Give the row of the last power cut that was noted no later than in a row."""
        query = "SELECT max(id) AS id FROM journal WHERE kind = ? AND kind <> 'verdict' AND id <= ?"
        found: int | None = self._fetch(query, POWER_CUT, row_id)[0][0]
        return found

    def after(self, row_id: int, limit: int) -> list[tuple[int, bytes]]:
        """Give the next verdicts after a row, oldest first.

        Args:
            row_id: the last row that is known; 0 for the beginning.
            limit: how many verdicts at the most.

        Returns:
            Their row numbers, ascending, and payloads as published. Between two numbers others may be
            missing: those rows are not verdicts.
        """
        query = "SELECT id, payload FROM journal WHERE id > ? AND kind = ? ORDER BY id LIMIT ?"
        return self._fetch(query, row_id, VERDICT, limit)

    def verdicts(self, boot: str, first: int, last: int) -> Iterator[bytes]:
        """Give the payloads of one boot's verdicts by ``seq``, from ``first`` to ``last``, both included.

        Those that are not there, because they were removed or never written, are left out.
        """
        query = "SELECT seq, payload FROM journal WHERE boot = ? AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
        while rows := self._fetch(query, boot, first, last, _CHUNK_ROWS):
            for _, payload in rows:
                yield payload
            first = rows[-1][0] + 1

    def since(self, moment: datetime) -> Iterator[bytes]:
        """Give the payloads of all verdicts written at a moment or later, in the order of their writing.

        Args:
            moment: aware of its time zone. Where the clock was set back, the times of both sides count.
        """
        return (payload for _, payload in self.rows_since(moment))

    def rows_since(self, moment: datetime, after: int = 0) -> Iterator[tuple[int, bytes]]:
        """Give what ``since`` gives, each payload with its row, and only what comes after a row."""
        text, end = iso(moment.astimezone(UTC)), self.last_row()
        steps = [row_id for (row_id,) in self._fetch(_EVENTS.format("id"), CLOCK)]
        for first, stop in zip([self.first_row(), *steps], [*steps, end + 1], strict=True):
            if stop <= after:
                continue
            row_id = max(self._first_since(text, first, stop) - 1, after)
            while rows := self._fetch(_BETWEEN, row_id, stop, VERDICT, _CHUNK_ROWS):
                yield from rows
                row_id = rows[-1][0]

    def boots(self) -> list[str]:
        """List the boots that have rows, oldest first."""
        return [boot for boot, _ in self._fetch(_BOOTS)]

    def unfinished_start(self) -> dict[str, Any] | None:
        """Give the content of the newest ``start`` row when no ``stop`` follows it; None when one does."""
        newest = (
            "SELECT kind FROM journal WHERE kind IN (?, ?) AND kind <> 'verdict' ORDER BY id DESC LIMIT 1"
        )
        found = self._fetch(newest, START, STOP)
        return self.last_event(START) if found and found[0][0] == START else None

    def last_event(self, kind: str) -> dict[str, Any] | None:
        """Give the content of the newest event of a kind; None without one."""
        found = self._fetch(_EVENTS.format("payload") + " DESC LIMIT 1", kind)
        if not found:
            return None
        try:
            content = json.loads(found[0][0])
        except (ValueError, RecursionError) as error:
            raise JournalFailed(f"{self.file}: is damaged: a row of kind {kind} is not JSON") from error
        if not isinstance(content, dict):
            raise JournalFailed(f"{self.file}: is damaged: a row of kind {kind} holds no object")
        return content

    def last_noted(self, kind: str) -> str | None:
        """Tell when the newest event of a kind was written, as in ``written_at``; None without one."""
        found = self._fetch(_EVENTS.format("written_at") + " DESC LIMIT 1", kind)
        return str(found[0][0]) if found else None

    def last_seq(self, boot: str) -> int:
        """Give the ``seq`` of the last verdict of a boot; 0 when it has none."""
        return int(self._fetch("SELECT max(seq) AS seq FROM journal WHERE boot = ?", boot)[0][0] or 0)

    def rows(self, after: int, limit: int) -> list[Row]:
        """Give the next rows of any kind after a row, oldest first, as they are: even altered ones."""
        query = f"SELECT {COLUMNS} FROM journal WHERE id > ? ORDER BY id LIMIT ?"
        return [Row(*row) for row in self._execute(query, after, limit)[0]]

    def schema(self) -> dict[str, str]:
        """Give name and SQL of every table and index."""
        return dict(self._fetch("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))

    def retention(self) -> dict[str, Any] | None:
        """Give what the newest retention row says: ``through``, ``hash``, ``removed``; None without one."""
        try:
            return newest_retention(self._connection)
        except SQLITE_ERRORS as error:
            raise JournalFailed(f"{self.file}: {why(error)}") from error
        except ValueError as error:
            raise JournalFailed(f"{self.file}: is damaged: {error}") from error

    def removed_frames(self, boot: str, camera: str) -> tuple[int, Ranges]:
        """Give the last row that retention may remove, and which frames' verdicts were up to there."""
        said = self.retention()
        if said is None:
            return 0, Ranges()
        return said["through"], Ranges(said["removed"].get(boot, {}).get("frames", {}).get(camera, ()))

    def count_frames(self, boot: str, camera: str, first: int, last: int, after: int) -> int:
        """Count a camera's verdicts on frames ``first`` to ``last`` in the rows after one."""
        query = f"SELECT count(*) {_FRAMES}"
        return int(self._fetch(query, boot, camera, first, last, after)[0][0])

    def frames(self, boot: str, camera: str, first: int, last: int, after: int) -> list[int]:
        """List the frames from ``first`` to ``last`` with a verdict in the rows after one."""
        query = f"SELECT frame {_FRAMES} ORDER BY frame"
        return [frame for (frame,) in self._fetch(query, boot, camera, first, last, after)]

    def _first_since(self, moment: str, first: int, end: int) -> int:
        """Find the first row in ``first`` to ``end`` (not included) written at a moment or later.

        Times do not descend there.
        """
        while first < end:
            middle = (first + end) // 2
            found = self._fetch("SELECT written_at FROM journal WHERE id = ?", middle)
            if not found or found[0][0] < moment:  # not found: removed since, so it was older
                first = middle + 1
            else:
                end = middle
        return first

    def _fetch(self, query: str, *values: object) -> list[Any]:
        """Read rows and check the types of their columns: SQLite stores anything in any column."""
        rows, names = self._execute(query, *values)
        for at, name in enumerate(names):
            is_possible = _POSSIBLE.get(name)
            if is_possible is not None and not all(is_possible(row[at]) for row in rows):
                raise JournalFailed(f"{self.file}: is damaged: a row has an invalid {name}")
        return rows

    def _execute(self, query: str, *values: object) -> tuple[list[Any], list[str]]:
        try:
            if self._is_replaced():
                self._open_again()
            cursor = self._connection.execute(query, values)
            found = cursor.fetchall()
            if self._unwritten and wal_of(self.file).exists():
                # A daemon has come to life, so what was read may be torn: read it again, as a journal in use.
                self._open_again()
                cursor = self._connection.execute(query, values)
                found = cursor.fetchall()
        except SQLITE_ERRORS as error:
            raise JournalFailed(f"{self.file}: {why(error)}") from error
        return found, [column[0] for column in cursor.description]

    def _is_replaced(self) -> bool:
        """Notice that the writer has gone on to another file: the one that is open here was removed."""
        try:
            return _inode(self.file) != self._opened
        except OSError:
            return False  # what is open can still be read

    def _open_again(self) -> None:
        self._connection.close()
        try:
            self._connection, self._unwritten = open_for_reading(self.file)
            self._opened = _inode(self.file)
        except (InputError, OSError) as error:
            raise JournalFailed(str(error)) from error


def _inode(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


def _is_number(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value <= LARGEST)


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


_POSSIBLE: Final[dict[str, Callable[[object], bool]]] = {
    "id": _is_number,
    "seq": _is_number,
    "frame": _is_number,
    "boot": _is_text,
    "written_at": _is_text,
    "payload": lambda value: isinstance(value, bytes),
}
_BETWEEN: Final = "SELECT id, payload FROM journal WHERE id > ? AND id < ? AND kind = ? ORDER BY id LIMIT ?"
_EVENTS: Final = "SELECT {} FROM journal WHERE kind = ? AND kind <> 'verdict' ORDER BY id"
_FRAMES: Final = "FROM journal WHERE boot = ? AND camera = ? AND frame BETWEEN ? AND ? AND id > ?"
# From boot to boot in the index, without a look at the rows between; a boot's oldest row is one of the two
# first in it: an event, which has no seq, or the verdict with its lowest.
_BOOTS: Final = """
    WITH RECURSIVE boots (boot) AS (
        SELECT min(boot) FROM journal
        UNION ALL
        SELECT (SELECT min(boot) FROM journal WHERE boot > boots.boot) FROM boots WHERE boot IS NOT NULL
    )
    SELECT boot, (
        SELECT min(id) FROM (SELECT id FROM journal AS its WHERE its.boot = boots.boot ORDER BY seq LIMIT 2)
    ) AS oldest
    FROM boots WHERE boot IS NOT NULL ORDER BY oldest
"""
