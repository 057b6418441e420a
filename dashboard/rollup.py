"""The roll-up of one line: what the dashboard copied of its verdicts, in a file of its own.

One thread writes, any number read. It can be removed at any time: it is copied again from the journal.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dashboard.database import SQLITE_ERRORS, DatabaseFailed, open_database, open_for_reading, why
from dashboard.records import DECISIONS, LABELS, REJECT, Shown
from dashboard.spread import Spread

_APPLICATION_ID: Final = 0x696E7372  # "insr"
_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE about (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT UNIQUE)",
    # at: microseconds since 1970; decision, label: places in DECISIONS and LABELS; the rest names.id.
    "CREATE TABLE verdicts (row INTEGER PRIMARY KEY, boot INTEGER NOT NULL, seq INTEGER NOT NULL, "
    "camera INTEGER NOT NULL, frame INTEGER NOT NULL, part TEXT, decision INTEGER NOT NULL, reason INTEGER, "
    "score REAL, threshold REAL NOT NULL, x INTEGER, y INTEGER, at INTEGER NOT NULL, wait REAL, infer REAL, "
    "total REAL NOT NULL, product INTEGER, model INTEGER NOT NULL, archive TEXT, label INTEGER NOT NULL "
    "DEFAULT 0, kind TEXT, opinions INTEGER NOT NULL DEFAULT 0)",
    "CREATE UNIQUE INDEX verdicts_seq ON verdicts (boot, seq)",
    # A gallery looks at these alone, and finds all that it filters by in the index.
    "CREATE INDEX verdicts_out ON verdicts (decision, at, camera, product, model, reason, score, label, x, "
    "y) WHERE decision > 0",
    "CREATE INDEX verdicts_label ON verdicts (label) WHERE label > 0",
    "CREATE INDEX verdicts_kept ON verdicts (camera, row) WHERE archive IS NOT NULL",
    "CREATE TABLE minutes (minute INTEGER, camera INTEGER, product INTEGER, decision INTEGER, "
    "number INTEGER NOT NULL, first INTEGER NOT NULL, PRIMARY KEY (minute, camera, product, decision)) "
    "WITHOUT ROWID",
    "CREATE TABLE hours (hour INTEGER, camera INTEGER, product INTEGER, scores TEXT, latency TEXT, "
    "PRIMARY KEY (hour, camera, product)) WITHOUT ROWID",
    "CREATE TABLE reasons (hour INTEGER, camera INTEGER, product INTEGER, reason INTEGER, "
    "number INTEGER NOT NULL, PRIMARY KEY (hour, camera, product, reason)) WITHOUT ROWID",
    "CREATE TABLE marks (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, code TEXT NOT NULL, content TEXT)",
    "CREATE INDEX marks_at ON marks (at)",
)
NO_PRODUCT: Final = 0
"""Stored where the config names no products."""
_MINUTE_US: Final = 60_000_000
_HOUR_US: Final = 60 * _MINUTE_US
_KEEP_SUMS_DAYS: Final = 400
_MOST_READERS: Final = 4
COLUMNS: Final = (
    "row, boot, seq, camera, frame, part, decision, reason, score, threshold, x, y, at, wait, infer, total, "
    "product, model, archive, label, kind, opinions"
)


class Rollup:
    """The roll-up of one line."""

    def __init__(self, file: Path, line: str) -> None:
        """Open it, or create it.

        Raises:
            InputError: it is damaged or another line's; ``Unavailable`` when the disk is full.
        """
        from foundation.errors import InputError

        self.file = file
        self._writing = open_database(file, _APPLICATION_ID, _VERSION, _TABLES)
        self._turn = threading.Lock()
        self._readers: list[sqlite3.Connection] = []
        self._free = threading.Semaphore(_MOST_READERS)
        self._names: dict[str, int] = {}
        self._by_id: dict[int, str] = {}
        try:
            self._remember_names(self._writing)
            owner = self._about("line")
            if owner is None:
                self._set_about("line", line)
            elif owner != line:
                raise InputError(f"{file}: is the roll-up of line {owner}; expected one of line {line}")
        except SQLITE_ERRORS as error:
            self._writing.close()
            raise InputError(f"{file}: {why(error)}") from error
        except BaseException:
            self._writing.close()
            raise

    def close(self) -> None:
        """Close it."""
        with self._turn:
            self._writing.close()
        for connection in self._readers:
            connection.close()

    # What the thread that copies does

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all of a block or nothing of it.

        Raises:
            DatabaseFailed: the disk is full or fails.
        """
        with self._turn:
            known = dict(self._names)
            try:
                self._writing.execute("BEGIN IMMEDIATE")
                yield
                self._writing.execute("COMMIT")
            except BaseException as error:
                self._names = known
                if self._writing.in_transaction:
                    self._writing.execute("ROLLBACK")
                if isinstance(error, SQLITE_ERRORS):
                    raise DatabaseFailed(f"{self.file}: {why(error)}") from error
                raise

    def add(self, verdicts: Iterable[Shown]) -> list[int]:
        """Add verdicts, in a ``transaction``; those that are there already are passed over.

        Returns:
            The rows that are new.
        """
        sums: dict[tuple[int, int, int, int], list[int]] = {}
        hours: dict[tuple[int, int, int], tuple[Spread, Spread]] = {}
        reasons: dict[tuple[int, int, int, int], int] = {}
        rows = []
        for verdict in verdicts:
            camera, model = self._id(verdict.camera), self._id(verdict.model)
            product = NO_PRODUCT if verdict.product is None else self._id(verdict.product)
            decision = DECISIONS.index(verdict.decision)
            reason = None if verdict.reason is None else self._id(verdict.reason)
            x, y = verdict.peak or (None, None)
            cursor = self._writing.execute(
                _INSERT,
                (
                    *(self._id(verdict.boot), verdict.seq, camera, verdict.frame, verdict.part, decision),
                    *(reason, verdict.score, verdict.threshold, x, y, verdict.at_us, verdict.wait_ms),
                    *(verdict.infer_ms, verdict.total_ms, product, model, verdict.archive),
                ),
            )
            if not cursor.rowcount:
                continue
            row = int(cursor.lastrowid or 0)
            rows.append(row)
            minute, hour = verdict.at_us // _MINUTE_US, verdict.at_us // _HOUR_US
            sums.setdefault((minute, camera, product, decision), [0, row])[0] += 1
            scores, latency = hours.setdefault((hour, camera, product), (Spread(), Spread()))
            if decision == 0 and verdict.score is not None:
                scores.add(verdict.score)
            if verdict.infer_ms is not None:
                latency.add(verdict.total_ms)
            if reason is not None:
                place = (hour, camera, product, reason)
                reasons[place] = reasons.get(place, 0) + 1
        self._writing.executemany(_COUNT, ((*place, *value) for place, value in sums.items()))
        self._writing.executemany(_REASON, ((*place, number) for place, number in reasons.items()))
        for key, (scores, latency) in hours.items():
            found = self._writing.execute(_HOUR, key).fetchone()
            if found is not None:
                scores.merge(Spread.parse(found[0]))
                latency.merge(Spread.parse(found[1]))
            self._writing.execute(
                "INSERT OR REPLACE INTO hours VALUES (?, ?, ?, ?, ?)", (*key, str(scores), str(latency))
            )
        return rows

    def mark(self, at_us: int, code: str, content: dict[str, Any]) -> None:
        """Note an event, in a ``transaction``."""
        self._writing.execute(
            "INSERT INTO marks (at, code, content) VALUES (?, ?, ?)", (at_us, code, json.dumps(content))
        )

    def set_about(self, **values: object) -> None:
        """Note something about the whole, in a ``transaction``."""
        for key, value in values.items():
            self._set_about(key, value)

    def about(self, key: str) -> Any:
        """Read what ``set_about`` noted; None without."""
        with self._turn:
            try:
                return self._about(key)
            except SQLITE_ERRORS as error:
                raise DatabaseFailed(f"{self.file}: {why(error)}") from error

    def label(self, entries: Iterable[tuple[str, int, str, str | None, int]]) -> None:
        """Set what people say of verdicts: boot, seq, label, kind, number of opinions.

        Raises:
            DatabaseFailed: the disk is full or fails.
        """
        with self.transaction():
            self._writing.executemany(
                "UPDATE verdicts SET label = ?, kind = ?, opinions = ? WHERE boot = ? AND seq = ? "
                "AND (label, kind, opinions) IS NOT (?, ?, ?)",
                (
                    (place, kind, opinions, self._names.get(boot, -1), seq, place, kind, opinions)
                    for boot, seq, label, kind, opinions in entries
                    for place in [LABELS.index(label)]
                ),
            )

    def forget(self, *, most: int, before_us: int) -> int:
        """Remove the oldest: passes beyond a number, all without a label from before a time.

        Returns:
            How many went; a few thousand at the most, so that no reader waits for long.

        Raises:
            DatabaseFailed: the disk is full or fails.
        """
        with self.transaction():
            first, last = self._writing.execute("SELECT min(row), max(row) FROM verdicts").fetchone()
            if first is None:
                return 0
            removed = self._writing.execute(
                "DELETE FROM verdicts WHERE row IN (SELECT row FROM verdicts WHERE row <= ? "
                "AND row > ? AND decision = 0 AND label = 0 LIMIT 5000)",
                (last - most, int(self._about("passes_from") or 0)),
            ).rowcount
            if removed < 5000:
                self._set_about("passes_from", max(last - most, 0))
            removed += self._writing.execute(
                "DELETE FROM verdicts WHERE row IN (SELECT row FROM verdicts WHERE decision > 0 "
                "AND decision IN (1, 2) AND at < ? "
                "AND label = 0 LIMIT 5000)",
                (before_us,),
            ).rowcount
            old_us = before_us - _KEEP_SUMS_DAYS * 24 * _HOUR_US
            for table, unit in (("minutes", _MINUTE_US), ("hours", _HOUR_US), ("reasons", _HOUR_US)):
                column = "minute" if table == "minutes" else "hour"
                self._writing.execute(f"DELETE FROM {table} WHERE {column} < ?", (old_us // unit,))
            self._writing.execute("DELETE FROM marks WHERE at < ?", (old_us,))
            return int(removed)

    # What anybody asks

    def fetch(self, query: str, *values: object) -> list[Any]:
        """Read rows in a transaction as short as the query.

        Raises:
            DatabaseFailed: the file cannot be read.
        """
        with self.reading() as connection:
            return connection.execute(query, values).fetchall()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that only reads.

        Raises:
            DatabaseFailed: the file cannot be read.
        """
        with self._free:
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = open_for_reading(self.file)
            try:
                yield connection
            except SQLITE_ERRORS as error:
                raise DatabaseFailed(f"{self.file}: {why(error)}") from error
            finally:
                self._readers.append(connection)

    def id_of(self, name: str) -> int:
        """Give the number of a name; -1 for one that never occurred."""
        return self._names.get(name, -1)

    def name_of(self, number: int | None) -> str | None:
        """Give the name of a number; None for the product of a line that names none."""
        return None if not number else self._by_id.get(number)

    def shown(self, row: Sequence[Any]) -> Shown:
        """Make a verdict of a row of ``COLUMNS``."""
        (number, boot, seq, camera, frame, part, decision, reason, score, threshold, x, y, at, *rest) = row
        wait, infer, total, product, model, archive, label, kind, opinions = rest
        return Shown(
            row=number,
            boot=self._by_id[boot],
            seq=seq,
            camera=self._by_id[camera],
            frame=frame,
            part=part,
            decision=DECISIONS[decision],
            reason=self.name_of(reason),
            score=score,
            threshold=threshold,
            peak=None if x is None else (x, y),
            at_us=at,
            wait_ms=wait,
            infer_ms=infer,
            total_ms=total,
            product=self.name_of(product),
            model=self._by_id[model],
            archive=archive,
            label=LABELS[label],
            kind=kind,
            opinions=opinions,
        )

    def find(self, boot: str, seq: int) -> Shown | None:
        """Give one verdict; None where it is not there (any more)."""
        found = self.rows("boot = ? AND seq = ?", self.id_of(boot), seq)
        return found[0] if found else None

    def rows(self, condition: str, *values: object) -> list[Shown]:
        """Give the verdicts that meet a condition in SQL, whose values stand beside it."""
        return [
            self.shown(row)
            for row in self.fetch(f"SELECT {COLUMNS} FROM verdicts WHERE {condition}", *values)
        ]

    def last_rejects(self, number: int) -> list[Shown]:
        """Give the newest rejects."""
        return self.rows(f"decision = {REJECT} ORDER BY at DESC LIMIT ?", number)

    def first_row_since(self, at_us: int) -> int:
        """Give the first row of the minute in which a time lies, or of a later minute."""
        found = self.fetch("SELECT min(first) FROM minutes WHERE minute >= ?", at_us // _MINUTE_US)[0][0]
        return int(found if found is not None else self.last_row() + 1)

    def last_row(self) -> int:
        """Give the newest row; 0 without."""
        return int(self.fetch("SELECT max(row) FROM verdicts")[0][0] or 0)

    def counts_since(self, at_us: int) -> dict[int, int]:
        """Count the decisions since the beginning of a minute."""
        query = "SELECT decision, sum(number) FROM minutes WHERE minute >= ? GROUP BY decision"
        return dict(self.fetch(query, at_us // _MINUTE_US))

    def _id(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            number = int(self._writing.execute("INSERT INTO names (name) VALUES (?)", (name,)).lastrowid or 0)
            self._names[name] = number
            self._by_id[number] = name
        return number

    def _remember_names(self, connection: sqlite3.Connection) -> None:
        self._by_id = dict(connection.execute("SELECT id, name FROM names"))
        self._names = {name: number for number, name in self._by_id.items()}

    def _about(self, key: str) -> Any:
        found = self._writing.execute("SELECT value FROM about WHERE key = ?", (key,)).fetchone()
        return None if found is None else found[0]

    def _set_about(self, key: str, value: object) -> None:
        self._writing.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value))


_INSERT: Final = (
    "INSERT OR IGNORE INTO verdicts (boot, seq, camera, frame, part, decision, reason, score, threshold, x, "
    f"y, at, wait, infer, total, product, model, archive) VALUES ({', '.join('?' * 18)})"
)
_COUNT: Final = (
    "INSERT INTO minutes VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET number = number + excluded.number"
)
_REASON: Final = (
    "INSERT INTO reasons VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET number = number + excluded.number"
)
_HOUR: Final = "SELECT scores, latency FROM hours WHERE hour = ? AND camera = ? AND product = ?"
