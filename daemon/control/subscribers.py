"""Acknowledged delivery: the journal is the queue, and each subscriber has a place in it."""

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from daemon.control.positions import Positions
from daemon.journal.stamps import iso
from verdicts.health import SubscriberHealth
from verdicts.request import ABSENT_AFTER_S, REPEATED, Acknowledge, Reply

_WINDOW: Final = 1000
"""Verdicts that are on their way to one subscriber or being dealt with there."""

_BATCH: Final = 100
_BATCH_BYTES: Final = 256 * 1024

_log = logging.getLogger("inspectd")

Send = Callable[[bytes, Reply, Sequence[bytes]], bool]
"""Sends a reply to a connection; False when it is gone or its queue is full."""


class Queue(Protocol):
    """What is delivered from: the journal."""

    def after(self, row_id: int, limit: int) -> Sequence[tuple[int, bytes]]:
        """Give the next verdicts after a row, each with its row."""

    def last_row(self) -> int:
        """Give the newest row."""

    def hash_of(self, row_id: int) -> bytes | None:
        """Give the hash of a row, None when it is not there."""

    def begun_at(self) -> str | None:
        """Tell when the first row was written, None when it has been removed."""

    def power_cut_before(self, row_id: int) -> int | None:
        """Give the row of the last power cut noted up to a row."""


@dataclass(slots=True)
class _Subscriber:
    client: str
    connection: bytes
    sent: int  # row up to which it has been sent everything
    heard_s: float
    progress_s: float
    in_flight: deque[int] = field(default_factory=deque)  # rows


class Subscribers:
    """The subscribers that acknowledge; any number of them may be slow, gone or not there yet."""

    def __init__(self, positions: Positions, send: Send) -> None:
        self.required: Collection[str] = ()
        self.resend_after_s = 1.0
        self._positions = positions
        self._send = send
        self._present: dict[str, _Subscriber] = {}
        self._last_row = 0
        self._created_at = iso(datetime.now(UTC))
        self._perhaps_sent: dict[str, int] = {}
        """By name, the row up to which verdicts may have been sent to it before."""

    def begin(self, journal: Queue) -> None:
        """Find each subscriber's place in a journal that was opened."""
        self._last_row = journal.last_row()
        for name in self._positions.names():
            row = self._positions[name]
            if row > self._last_row or not self._positions.agrees(name, journal.hash_of):
                self._positions[name] = place = self._place_in(journal, row)
                _log.warning(
                    "subscriber %s: the journal does not have row %d, which it acknowledged (a power cut, or "
                    "another file); it goes on after row %d",
                    name,
                    row,
                    place,
                )
            self._perhaps_sent[name] = self._last_row
        self._place_required()

    def _place_in(self, journal: Queue, row: int) -> int:
        """Say where a subscriber goes on when the journal does not have its last row.

        Telling it again what it knows could take hours, and it would get nothing live meanwhile. So it goes
        on after the last row that both know or, if that cannot be found, with the next verdict.
        """
        begun_at = journal.begun_at()
        if begun_at is not None and begun_at >= self._created_at:
            return 0  # the file was begun while this line ran: all of it is new
        if row > self._last_row:
            return self._last_row  # the end was cut off: what is left, it has acknowledged
        cut = journal.power_cut_before(row + 1)  # what follows the cut has taken the numbers of what was lost
        return self._last_row if cut is None else cut - 1

    def hear(self, connection: bytes, said: Acknowledge, last_row: int) -> bool:
        """Take what a subscriber says of itself.

        Returns:
            False when it acknowledges what the journal does not have, or there are too many names.
        """
        self._last_row = max(self._last_row, last_row)
        now = time.monotonic()
        known = self._present.get(said.name)
        if known is None or known.client != said.client:
            if not said.join:
                lively = known is not None and now - known.heard_s < ABSENT_AFTER_S
                self._send(connection, Reply("replaced" if lively else "rejoin", said.id), ())
                return True
            if not self._place(said.name):
                self._send(connection, Reply("refused", said.id, text="too many subscribers are known"), ())
                return False
            if known is not None:
                self._send(known.connection, Reply("replaced"), ())
            known = _Subscriber(said.client, connection, self._positions[said.name], now, now)
            self._present[said.name] = known
        if said.join or connection != known.connection:
            known.connection = connection
            self._rewind(said.name, known)
            self._send(connection, Reply("joined", said.id), ())
        known.heard_s = now
        return said.row is None or self._acknowledge(said.name, known, said.row)

    def deliver(self, journal: Queue, last_row: int) -> bool:
        """Send each subscriber its next verdicts, one batch at the most.

        Required subscribers that never came get what is journaled from here on.

        Returns:
            Whether there is more to send at once.
        """
        self._last_row = last_row
        self._place_required()
        more = False
        for name, subscriber in self._present.items():
            now = time.monotonic()
            if now - subscriber.heard_s >= ABSENT_AFTER_S:
                continue
            if subscriber.in_flight and now - subscriber.progress_s >= self.resend_after_s:
                self._rewind(name, subscriber)
            if subscriber.sent < last_row and len(subscriber.in_flight) < _WINDOW:
                more |= self._deliver_batch(name, subscriber, journal)
        return more

    def tell_health(self, payload: bytes) -> None:
        """Pass a health on to all who are there."""
        for subscriber in self._present.values():
            if time.monotonic() - subscriber.heard_s < ABSENT_AFTER_S:
                self._send(subscriber.connection, Reply("health", frames=1), (payload,))

    def are_done(self) -> bool:
        """Tell whether everybody who is there has acknowledged everything."""
        now = time.monotonic()
        return all(
            now - subscriber.heard_s >= ABSENT_AFTER_S or self._positions[name] >= self._last_row
            for name, subscriber in self._present.items()
        )

    def next_resend_s(self) -> float:
        """Give the seconds until something may have to be sent again; no more than half a second."""
        now = time.monotonic()
        due = (s.progress_s + self.resend_after_s - now for s in self._present.values() if s.in_flight)
        return min(0.5, max(0.0, min(due, default=0.5)))

    def health(self) -> dict[str, SubscriberHealth]:
        """Tell how the required subscribers fare, and those that came since the start."""
        now = time.monotonic()
        names = dict.fromkeys((*self.required, *self._present))
        return {
            name: SubscriberHealth(
                present=name in self._present and now - self._present[name].heard_s < ABSENT_AFTER_S,
                unacknowledged=max(0, self._last_row - self._positions[name]),
            )
            for name in names
            if name in self._positions
        }

    def _place_required(self) -> None:
        for name in self.required:
            self._place(name)

    def _place(self, name: str) -> bool:
        """Give a new name its place in the journal: after what is there now."""
        if name in self._positions:
            return True
        if self._positions.is_full():
            forgotten = next((name for name in self._positions.names() if self._is_dispensable(name)), None)
            if forgotten is None:
                return False
            self._positions.forget(forgotten)
            self._present.pop(forgotten, None)
        self._positions[name] = self._last_row
        return True

    def _is_dispensable(self, name: str) -> bool:
        known = self._present.get(name)
        absent = known is None or time.monotonic() - known.heard_s >= ABSENT_AFTER_S
        return absent and name not in self.required

    def _acknowledge(self, name: str, subscriber: _Subscriber, row: int) -> bool:
        if row > self._last_row:
            return False
        if row > self._positions[name]:
            self._positions[name] = row
            subscriber.progress_s = time.monotonic()
            subscriber.sent = max(subscriber.sent, row)
            while subscriber.in_flight and subscriber.in_flight[0] <= row:
                subscriber.in_flight.popleft()
            self._skip_rows_without_verdict(name, subscriber)
        return True

    def _rewind(self, name: str, subscriber: _Subscriber) -> None:
        subscriber.sent = self._positions[name]
        subscriber.in_flight.clear()
        subscriber.progress_s = time.monotonic()

    def _deliver_batch(self, name: str, subscriber: _Subscriber, journal: Queue) -> bool:
        rows: list[int] = []
        payloads, size = [], 0
        repeated_to = self._perhaps_sent.get(name, 0)
        found = journal.after(subscriber.sent, min(_BATCH, _WINDOW - len(subscriber.in_flight)))
        for row, payload in found:
            if row > self._last_row or (rows and rows[-1] <= repeated_to < row):
                break  # a reply's mark holds for all of its verdicts
            rows.append(row)
            payloads.append(payload)
            size += len(payload)
            if size >= _BATCH_BYTES:
                break
        if not rows:
            subscriber.sent = self._last_row
            self._skip_rows_without_verdict(name, subscriber)
            return False
        mark = REPEATED if rows[0] <= repeated_to else None
        reply = Reply("verdicts", 0, len(rows), rows=tuple(rows), text=mark)
        if not self._send(subscriber.connection, reply, payloads):
            return False  # it takes nothing now: after a while it is sent again
        self._perhaps_sent[name] = max(repeated_to, rows[-1])
        if not subscriber.in_flight:
            subscriber.progress_s = time.monotonic()
        subscriber.in_flight.extend(rows)
        subscriber.sent = rows[-1]
        return len(subscriber.in_flight) < _WINDOW

    def _skip_rows_without_verdict(self, name: str, subscriber: _Subscriber) -> None:
        """Count rows about the daemon itself, which are not delivered, as acknowledged."""
        if not subscriber.in_flight:
            self._positions[name] = max(self._positions[name], subscriber.sent)
