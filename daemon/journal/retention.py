"""Which of a journal's oldest rows may go, and their removal a few at a time.

A row of kind ``retention`` first says up to which row the oldest will go, and the hash of the last of them.
So the chain itself tells removal from tampering. The rows then go with the transactions that follow.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from daemon.journal.chain import RETENTION, VERDICT, Row
from daemon.journal.ranges import Ranges
from daemon.journal.stamps import iso

_LUMP_ROWS: Final = 512
_CHECK_ROWS: Final = _LUMP_ROWS // 2  # so that removal is faster than growth
_CHECK_BYTES: Final = 1_000_000
_CHECK_S: Final = 60.0
_ROWS_KEPT: Final = 100
_FEWEST_AT_ONCE: Final = 32  # neighbours lie on the same page: removing them together writes it once
_MOST_SPANS: Final = 100

Removed = dict[str, dict[str, Any]]


class Retention:
    """Keeps a journal within its age and size."""

    def __init__(self, connection: sqlite3.Connection, *, keep_days: float, most_bytes: int) -> None:
        """Find out how far removal has come.

        Args:
            connection: the writer's.
            keep_days: rows older than this may go.
            most_bytes: the oldest rows go when the rows and indexes fill more than this.
        """
        self._connection = connection
        self._keep = timedelta(days=keep_days)
        self._most_bytes = most_bytes
        first: int | None = connection.execute("SELECT min(id) FROM journal").fetchone()[0]
        self._first = first or 1
        said = newest_retention(connection)
        self._through: int = said["through"] if said else 0
        self._removed: Removed = said["removed"] if said else {}
        self._credit = 0
        self._rows_unchecked = _CHECK_ROWS
        self._bytes_unchecked = 0
        self._next_check_s = 0.0

    def announce(self, newest: int, now: datetime) -> dict[str, Any] | None:
        """Give the content of a retention row when rows have become due, else None."""
        if self._first <= self._through:
            return None  # what was announced before is not removed yet
        self._rows_unchecked = self._bytes_unchecked = 0
        self._next_check_s = time.monotonic() + _CHECK_S
        last = min(self._first + _LUMP_ROWS - 1, newest - _ROWS_KEPT)
        through = last if self._is_too_large() else self._last_expired(last, now)
        if through < self._first:
            return None
        rows = self._connection.execute(
            "SELECT boot, seq, camera, frame FROM journal WHERE id BETWEEN ? AND ? AND kind = ?",
            (self._first, through, VERDICT),
        )
        self._removed = self._with(rows, through)
        boundary = "SELECT previous FROM journal WHERE id = ?"
        reached: bytes = self._connection.execute(boundary, (through + 1,)).fetchone()[0]
        self._through = through
        return {"through": through, "hash": reached.hex(), "removed": self._removed}

    def count(self, rows: Sequence[Row]) -> None:
        """Count rows that are written; how much is removed depends on their number."""
        self._rows_unchecked += len(rows)
        self._bytes_unchecked += sum(len(row.payload) for row in rows)
        self._credit = min(self._credit + 2 * len(rows), max(_FEWEST_AT_ONCE, 2 * len(rows)))

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask ``announce`` or to ``remove``."""
        return self.is_check_due or self._removable() > 0

    @property
    def is_check_due(self) -> bool:
        """Whether it is time to ask ``announce``."""
        return (
            self._rows_unchecked >= _CHECK_ROWS
            or self._bytes_unchecked >= _CHECK_BYTES
            or time.monotonic() >= self._next_check_s
        )

    def remove(self) -> None:
        """Remove announced rows: in the long run at most two for each row that was counted."""
        rows = self._removable()
        if rows > 0:
            last = self._first + rows - 1
            self._connection.execute("DELETE FROM journal WHERE id BETWEEN ? AND ?", (self._first, last))
            self._credit -= rows
            self._first = last + 1

    def _removable(self) -> int:
        announced = self._through - self._first + 1
        return min(announced, self._credit) if self._credit >= min(_FEWEST_AT_ONCE, announced) else 0

    def _is_too_large(self) -> bool:
        pages, free, page_bytes = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return bool((pages - free) * page_bytes > self._most_bytes)

    def _last_expired(self, last: int, now: datetime) -> int:
        """Give the last of the oldest rows, up to ``last``, that are all too old."""
        try:
            expiry = iso(now - self._keep)
        except OverflowError:
            return self._first - 1
        kept = self._connection.execute(
            "SELECT min(id) FROM journal WHERE id BETWEEN ? AND ? AND written_at >= ?",
            (self._first, last, expiry),
        ).fetchone()[0]
        return last if kept is None else int(kept) - 1

    def _with(self, rows: Iterable[tuple[str, int, str, int]], through: int) -> Removed:
        """Add verdicts to what was removed of each boot, and forget boots that have no rows left."""
        seqs = {boot: Ranges(removed["seq"]) for boot, removed in self._removed.items()}
        frames = {
            (boot, camera): Ranges(spans)
            for boot, removed in self._removed.items()
            for camera, spans in removed["frames"].items()
        }
        for boot, seq, camera, frame in rows:
            seqs.setdefault(boot, Ranges()).add(seq)
            frames.setdefault((boot, camera), Ranges()).add(frame)
        left = {boot for boot in seqs if self._newest_of(boot) > through}
        for ranges in (*seqs.values(), *frames.values()):
            ranges.close_lowest_gaps(_MOST_SPANS)
        return {
            boot: {
                "seq": list(ranges),
                "frames": {camera: list(spans) for (owner, camera), spans in frames.items() if owner == boot},
            }
            for boot, ranges in seqs.items()
            if boot in left
        }

    def _newest_of(self, boot: str) -> int:
        newest = "SELECT id FROM journal WHERE boot = ? AND seq IS NOT NULL ORDER BY seq DESC LIMIT 1"
        found = self._connection.execute(newest, (boot,)).fetchone()
        return found[0] if found else 0


def newest_retention(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """Read what the newest retention row says: ``through``, ``hash`` and ``removed``; None without one.

    Raises:
        ValueError: its content is invalid, so it was altered.
    """
    found = connection.execute(
        "SELECT payload FROM journal WHERE kind = ? AND kind <> 'verdict' ORDER BY id DESC LIMIT 1",
        (RETENTION,),
    ).fetchone()
    if found is None:
        return None
    try:
        said: dict[str, Any] = json.loads(found[0])
        through, reached, removed = said["through"], bytes.fromhex(said["hash"]), said["removed"]
        spans = [
            ranges for of_boot in removed.values() for ranges in (of_boot["seq"], *of_boot["frames"].values())
        ]
        sound = type(through) is int and len(reached) == 32 and all(map(_are_spans, spans))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"a retention row is invalid: {error}") from error
    if not sound:
        raise ValueError("a retention row contradicts itself")
    return said


def _are_spans(spans: object) -> bool:
    """Tell whether these are disjoint, ascending pairs of numbers."""
    if not isinstance(spans, list):
        return False
    end = -1
    for span in spans:
        if not (isinstance(span, list) and [type(bound) for bound in span] == [int, int]):
            return False
        first, last = span
        if not end < first <= last:
            return False
        end = last
    return True
